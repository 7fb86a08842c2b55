"""Bodies of requests on their way: never more of one than allowed, never for longer than allowed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, Request

from medvl.serve.limits import Limits, RefusedError
from medvl.serve.memory import Hold, too_large


@dataclass(eq=False)
class Arrival:
    """One body on its way.

    Attributes:
        client: Address of who sends it.
        timeout: Ends the wait for it.
        heard: When its last piece came, monotonic seconds.
    """

    client: str
    timeout: asyncio.Timeout
    heard: float = field(default_factory=time.monotonic)


class Arrivals:
    """All bodies on their way. They take no places of requests that wait for their answer."""

    def __init__(self, limits: Limits) -> None:
        """As many bodies may be on their way as requests may be unfinished."""
        self.limits = limits
        self._coming: set[Arrival] = set()

    async def read(self, request: Request, hold: Hold) -> bytes:
        """The body of a request.

        Raises:
            RefusedError: it is too large (413), takes too long (408), its client is gone (499), or it is not declared
                as JSON (415), which web pages cannot send to other servers unasked.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "send JSON, as `Content-Type: application/json`")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.limits.body_bytes:
            raise too_large(self.limits)
        try:
            return await self._arrived(request, hold)
        except TimeoutError:
            limits = self.limits
            raise RefusedError(
                408,
                f"the request did not arrive within {limits.body_seconds:.0f} seconds, of which at most "
                f"{limits.silence_seconds:.0f} without a byte, fewer where many clients are slow; send it again",
            ) from None
        except ClientDisconnect as error:
            raise RefusedError(499, "the client is gone") from error

    async def _arrived(self, request: Request, hold: Hold) -> bytes:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.limits.body_seconds
        body = bytearray()
        async with asyncio.timeout_at(min(deadline, loop.time() + self.limits.silence_seconds)) as timeout:
            arrival = Arrival(request.client.host if request.client else "", timeout)
            self._admit(arrival)
            try:
                async for part in request.stream():
                    hold(len(part))
                    body += part
                    arrival.heard = time.monotonic()
                    if not timeout.expired() and arrival in self._coming:
                        timeout.reschedule(min(deadline, loop.time() + self.limits.silence_seconds))
            finally:
                self._coming.discard(arrival)
        return bytes(body)

    def _admit(self, arrival: Arrival) -> None:
        """A new body. Where too many are on their way, the one gives way that was silent longest.

        Of the clients, the one with most of them loses one: a client that opens many connections crowds out its own.
        """
        self._coming.add(arrival)
        if len(self._coming) > self.limits.unfinished:
            per_client = Counter(other.client for other in self._coming)
            last = max(self._coming - {arrival}, key=lambda other: (per_client[other.client], -other.heard))
            self._coming.discard(last)
            last.timeout.reschedule(asyncio.get_running_loop().time())
