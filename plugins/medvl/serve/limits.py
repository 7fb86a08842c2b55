"""What the server takes from a client, and how it refuses the rest."""

from dataclasses import dataclass
from pathlib import Path

MIB = 2**20


class RefusedError(Exception):
    """A request that is not served; `status` is the HTTP status, the message is for the client."""

    def __init__(self, status: int, message: str) -> None:
        """status: 400 for what cannot be understood, 403 not allowed, 404 no such model, 413 too large, 503 busy, …"""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """How much one request may hold, and from where its images may come.

    Attributes:
        body_bytes: Size of a request with the images that it names; those in it are a third larger than their files
            (base64).
        body_seconds: How long it may take to arrive.
        silence_seconds: How long it may take from one piece to the next.
        fetch_seconds: How long all images that are fetched for one request may take together.
        unfinished_bytes: All unfinished requests together, as they were sent.
        messages: Turns of one conversation.
        characters: Text of one conversation.
        images: Images of one conversation.
        image_pixels: Largest image, width times height, before any resizing.
        pixels: All images of one conversation together. Decoded, a pixel takes 4 bytes, in the one request that is
            being answered.
        new_tokens: Longest answer that a client may ask for.
        unfinished: Requests that wait or are being answered; more are told to come back. As many may arrive meanwhile.
        folder: Folder whose images may be named by path; None: no file of this machine is read.
        hosts: Hosts (`name` or `name:port`) from which images are fetched; empty: nothing is fetched.
    """

    body_bytes: int = 64 * MIB
    body_seconds: float = 120
    silence_seconds: float = 10
    fetch_seconds: float = 20
    unfinished_bytes: int = 512 * MIB
    messages: int = 1000
    characters: int = 200_000
    images: int = 16
    image_pixels: int = 64_000_000
    pixels: int = 64_000_000
    new_tokens: int = 8192
    unfinished: int = 64
    folder: Path | None = None
    hosts: frozenset[str] = frozenset()
