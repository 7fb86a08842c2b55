"""How many bytes the requests that are not answered yet hold, together and one by one."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from medvl.serve.limits import MIB, Limits, RefusedError

Hold = Callable[[int], None]  # told of bytes before they are kept


def unlimited(_: int) -> None:
    """Takes any number of bytes."""


class Memory:
    """The bytes of all unfinished requests; any thread may tell of more."""

    def __init__(self, limits: Limits) -> None:
        """`body_bytes` limits one request, `unfinished_bytes` all together."""
        self.limits = limits
        self.held = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def request(self) -> Iterator[Hold]:
        """What one request calls before it keeps more bytes; all of them are free again when it ends.

        Raises:
            RefusedError: the request is too large (413), or all are together (503).
        """
        mine = 0

        def hold(size: int) -> None:
            nonlocal mine
            if mine + size > self.limits.body_bytes:
                raise too_large(self.limits)
            with self._lock:
                if self.held + size > self.limits.unfinished_bytes:
                    most = f"{self.limits.unfinished_bytes / MIB:.0f} MiB"
                    raise RefusedError(503, f"the requests that wait hold {most} already; try again later")
                self.held += size
                mine += size

        try:
            yield hold
        finally:
            with self._lock:
                self.held -= mine


def too_large(limits: Limits) -> RefusedError:
    """The refusal of a request that is larger than one may be."""
    limit = f"{limits.body_bytes / MIB:.0f} MiB"
    return RefusedError(413, f"the request, images included, is larger than {limit}; send fewer or smaller images")
