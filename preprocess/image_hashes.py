"""images.sha256: the hash of every image that records show, as `sha256sum --check` reads it.

An image that is replaced by another of the same size would else be trained on with the answers of the first.
"""

from collections.abc import Mapping

IMAGES = "images.sha256"


def encode_hashes(digests: Mapping[str, bytes]) -> bytes:
    """A line per image, sorted by path; a path with line breaks or backslashes is escaped as sha256sum does."""
    return "".join(_line(path, digests[path].hex()) for path in sorted(digests)).encode()


def decode_hashes(data: bytes) -> dict[str, bytes]:
    """Image -> hash, of what `encode_hashes` wrote.

    Raises:
        ValueError: it is something else.
    """
    hashes = {}
    for line in data.decode().removesuffix("\n").split("\n") if data else ():
        escaped = line.startswith("\\")
        digest, _, path = line[escaped:].partition("  ")
        hashes[_restored(path) if escaped else path] = bytes.fromhex(digest)
    return hashes


def _line(path: str, digest: str) -> str:
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{digest}  {escaped}\n"


def _restored(path: str) -> str:
    return "\\".join(part.replace("\\n", "\n").replace("\\r", "\r") for part in path.split("\\\\"))
