"""The fingerprints of many images, kept between runs beside the output, so that an image is read once.

They are keyed by path, size and time of change.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import msgspec

from medvl.sharegpt import write_atomic
from preprocess import worker_pool
from preprocess.fingerprints import Fingerprint, fingerprint

CACHE = ".fingerprints.msgpack"
_VERSION = 1
_CHUNK = 100  # images that a worker takes at a time


class _Cache(msgspec.Struct):
    version: int
    images: dict[str, Fingerprint]


def fingerprints(paths: Iterable[str], folder: Path, workers: int, *, look: bool) -> dict[str, Fingerprint]:
    """The fingerprint of every image, from the cache in `folder` where the file has not changed.

    Args:
        paths: Image files.
        folder: Where the cache lies.
        workers: Number of processes; 1 works in this one.
        look: Whether images are decoded for a perceptual hash, not only hashed as files.
    """
    wanted = sorted(set(paths))
    known = _read_cache(folder / CACHE)
    stale = [path for path in wanted if not _fresh(path, known.get(path), look)]
    if stale:
        chunks = [stale[start : start + _CHUNK] for start in range(0, len(stale), _CHUNK)]
        found = worker_pool.work(partial(_look_at_all, look=look), chunks, workers, "fingerprints")
        known |= zip(stale, chain.from_iterable(found), strict=True)
        write_atomic(folder / CACHE, msgspec.msgpack.encode(_Cache(_VERSION, {path: known[path] for path in wanted})))
    return {path: known[path] for path in wanted}


def _look_at_all(paths: Sequence[str], *, look: bool) -> list[Fingerprint]:
    return [fingerprint(Path(path), look=look) for path in paths]


def _read_cache(path: Path) -> dict[str, Fingerprint]:
    try:
        cache = msgspec.msgpack.decode(path.read_bytes(), type=_Cache)
    except (FileNotFoundError, msgspec.DecodeError):  # a damaged cache is no loss but time
        return {}
    return cache.images if cache.version == _VERSION else {}


def _fresh(path: str, known: Fingerprint | None, look: bool) -> bool:
    if known is None or (look and known.dhash is None):
        return False
    status = Path(path).stat()
    return (status.st_size, status.st_mtime_ns) == (known.length, known.changed)
