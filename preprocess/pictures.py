"""Looking at pictures, and only at those whose files have changed since the last run."""

import hashlib
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import msgspec
import PIL
from PIL import Image

from medvl.sharegpt import write_atomic
from preprocess import decoding
from preprocess.decoding import Picture, content_hash, examine

CACHE = ".pictures.msgpack"
# Other rules, or another Pillow, may find something else.
_VERSION = f"{PIL.__version__} {hashlib.sha256(Path(decoding.__file__).read_bytes()).hexdigest()}"
_SAVED_EVERY = 20.0  # seconds: so much work a crash can cost


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A picture as it was found, and the state of its file then.

    Attributes:
        length: Size of the file, bytes; -1 if it was not there.
        changed: Its time of change, nanoseconds.
        sha256: Hash of its content, if that was asked for.
        picture: What was found.
    """

    length: int
    changed: int
    sha256: bytes | None
    picture: Picture


class _Cache(msgspec.Struct):
    version: str
    seen: dict[str, Seen]


class PictureCache:
    """All pictures seen in this run and those before, by path; kept in a file."""

    def __init__(self, folder: Path) -> None:
        """Read what earlier runs found; nothing if there is none or it is damaged, which costs time and no more."""
        self._path = folder / CACHE
        self._saved, self._fresh = time.monotonic(), False
        self.seen: dict[str, Seen] = {}
        try:
            cache = msgspec.msgpack.decode(self._path.read_bytes(), type=_Cache)
        except (FileNotFoundError, msgspec.DecodeError):
            return
        if cache.version == _VERSION:
            self.seen = cache.seen

    def add(self, found: Mapping[str, Seen]) -> None:
        """Take in what was looked at, and save it now and then."""
        self.seen.update(found)
        self._fresh |= bool(found)
        if time.monotonic() - self._saved > _SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Write the file if there is anything new."""
        if self._fresh:
            # Pictures that this run leaves out stay known. Missing ones are looked for every time.
            kept = {path: seen for path, seen in self.seen.items() if seen.length >= 0}
            write_atomic(self._path, msgspec.msgpack.encode(_Cache(_VERSION, kept)))
        self._saved, self._fresh = time.monotonic(), False


def look_at(items: Mapping[str, str], known: Mapping[str, Seen], *, hashes: bool = False) -> dict[str, Seen]:
    """Look at the pictures that are not known, or whose files have changed.

    Args:
        items: Path of a picture -> path of its mended copy if it needs one.
        known: What was found before.
        hashes: Whether a file counts as unchanged by its content, not by size and time of change.

    Returns:
        What was looked at, by path.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is the limit here
        return {
            path: _look(path, copy, hashes)
            for path, copy in items.items()
            if path not in known or not _unchanged(path, known[path], hashes)
        }


def _look(path: str, copy: str, hashes: bool) -> Seen:
    try:
        status = os.stat(path)  # noqa: PTH116  (twice as fast as Path.stat; there are 50,000)
    except OSError:
        return Seen(-1, -1, None, examine(path, copy))
    # Looked at after its state was noted: a file that changes in between is looked at again next time.
    picture = examine(path, copy)
    return Seen(status.st_size, status.st_mtime_ns, content_hash(Path(path)) if hashes else None, picture)


def _unchanged(path: str, seen: Seen, hashes: bool) -> bool:
    try:
        status = os.stat(path)  # noqa: PTH116
        if hashes:
            return seen.sha256 is not None and seen.sha256 == content_hash(Path(path)) and _copy_is_there(path, seen)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (seen.length, seen.changed) and _copy_is_there(path, seen)


def _copy_is_there(path: str, seen: Seen) -> bool:
    return seen.picture.path == path or Path(seen.picture.path).is_file()
