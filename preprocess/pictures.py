"""Looking at all pictures of a tree: in worker processes, each once, and only those that changed since the last run."""

import multiprocessing
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec
import PIL
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from medvl.sharegpt import write_atomic
from preprocess.decoding import Picture, content_hash, examine

CACHE = ".pictures.msgpack"
_VERSION = f"1/{PIL.__version__}"  # another Pillow may read what this one refuses
_CHUNK = 64  # pictures that a worker takes at a time
_SAVED_EVERY = 20.0  # seconds: so much work a crash can cost


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A picture as it was found, and the state of its file then.

    Attributes:
        length: Size of the file, bytes.
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


def inspect_all(items: Mapping[str, str], out: Path, workers: int, *, hashes: bool = False) -> dict[str, Picture]:
    """Every picture once, from the cache where its file has not changed since; a progress bar on stderr.

    Args:
        items: Path of a picture -> path of its mended copy if it needs one.
        out: Folder for the cache.
        workers: Number of processes; 1 works in this one.
        hashes: Whether a file counts as unchanged by its content, not by size and time of change.
    """
    known = read_cache(out / CACHE)
    found: dict[str, Seen] = {}
    stale = []
    for path in items:
        if (seen := known.get(path)) and _unchanged(path, seen, hashes):
            found[path] = seen
        else:
            stale.append((path, items[path], hashes))
    saved = time.monotonic()
    for (path, *_), seen in zip(stale, _look_at(stale, workers), strict=True):
        found[path] = seen
        if time.monotonic() - saved > _SAVED_EVERY:
            _write_cache(out / CACHE, known | found)
            saved = time.monotonic()
    if stale:
        _write_cache(out / CACHE, known | found)
    return {path: found[path].picture for path in items}


def _look_at(items: list[tuple[str, str, bool]], workers: int) -> Iterator[Seen]:
    console = Console(stderr=True)
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    with Progress(console=console) as progress:
        task = progress.add_task("pictures", total=len(items))
        for seen in _chunk_by_chunk(chunks, workers):
            yield from seen
            progress.advance(task, len(seen))


def _chunk_by_chunk(chunks: list[list[tuple[str, str, bool]]], workers: int) -> Iterator[list[Seen]]:
    if workers <= 1 or len(chunks) < 2:  # a pool costs more than that few pictures
        yield from map(_look_at_chunk, chunks)
        return
    # Forking is unsafe beside the progress bar's thread.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver")) as pool:
        yield from pool.map(_look_at_chunk, chunks)


def _look_at_chunk(items: list[tuple[str, str, bool]]) -> list[Seen]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is the limit here
        return [_look(item) for item in items]


def _look(item: tuple[str, str, bool]) -> Seen:
    path, copy, hashes = item
    try:
        status = os.stat(path)  # noqa: PTH116  (twice as fast as Path.stat; there are 50,000)
    except OSError:
        return Seen(-1, -1, None, examine(Path(path), Path(copy)))
    # Looked at after its state was noted: a file that changes in between is looked at again next time.
    picture = examine(Path(path), Path(copy))
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


def read_cache(path: Path) -> dict[str, Seen]:
    """What the last run found; nothing if there is none or it is damaged, which costs time and no more."""
    try:
        cache = msgspec.msgpack.decode(path.read_bytes(), type=_Cache)
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return cache.seen if cache.version == _VERSION else {}


def _write_cache(cache: Path, seen: Mapping[str, Seen]) -> None:
    # Pictures of datasets that this run leaves out stay known; those that are gone do not.
    kept = {path: entry for path, entry in seen.items() if entry.length >= 0}
    write_atomic(cache, msgspec.msgpack.encode(_Cache(_VERSION, kept)))
