"""Files that the system refuses to read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medvl.errors import DataError


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What is read within comes from `path`.

    Raises:
        DataError: the system refuses; names the file, which some of its errors do not.
    """
    try:
        yield
    except OSError as error:
        name, why = error.filename or path, error.strerror or error
        raise DataError(f"{name} cannot be read ({why}); see that it is a whole file that you may read") from error
