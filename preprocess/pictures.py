"""Looking at all pictures of a tree: in worker processes, each once, and only those that changed since the last run."""

import hashlib
import inspect
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec
import PIL
from PIL import Image
from rich.console import Console
from rich.progress import Progress

import medvl.pictures
from medvl.sharegpt import write_atomic
from preprocess import decoding
from preprocess.decoding import Picture, content_hash, examine

CACHE = ".pictures.msgpack"
# Other rules, or another Pillow, may find something else.
_RULES = inspect.getsource(decoding) + inspect.getsource(medvl.pictures)
_VERSION = f"{PIL.__version__} {hashlib.sha256(_RULES.encode()).hexdigest()}"
_CHUNK = 64  # pictures that a worker takes at a time
_SAVED_EVERY = 20.0  # seconds: so much work a crash can cost

_Item = tuple[str, str, bool]  # path, path of the copy, whether to hash


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


def inspect_each(
    groups: Iterable[Mapping[str, str]], out: Path, workers: int, *, hashes: bool = False
) -> Iterator[dict[str, Picture]]:
    """Look at groups of pictures; each group is yielded when it is done, while workers go on with the next ones.

    A picture whose file has not changed since the last run comes from the cache. A progress bar runs on stderr.

    Args:
        groups: Path of a picture -> path of its mended copy if it needs one.
        out: Folder for the cache.
        workers: Number of processes; 1 works in this one.
        hashes: Whether a file counts as unchanged by its content, not by size and time of change.
    """
    cache = out / CACHE
    known = read_cache(cache)
    seen = dict(known)
    fresh, saved = 0, time.monotonic()
    with ExitStack() as stack:
        crew = _Crew(workers, stack)
        waiting = [(group, [*crew.start(_stale(group, known, hashes))]) for group in groups]
        progress = stack.enter_context(Progress(console=Console(stderr=True)))
        task = progress.add_task("pictures", total=sum(len(group) for group, _ in waiting))
        for group, chunks in waiting:
            for chunk in chunks:
                found = chunk()
                seen.update(found)
                fresh += len(found)
                if time.monotonic() - saved > _SAVED_EVERY:
                    _write_cache(cache, seen)
                    saved = time.monotonic()
            progress.advance(task, len(group))
            yield {path: seen[path].picture for path in group}
    if fresh:
        _write_cache(cache, seen)


def inspect_all(items: Mapping[str, str], out: Path, workers: int, *, hashes: bool = False) -> dict[str, Picture]:
    """One group of `inspect_each`."""
    (found,) = inspect_each([items], out, workers, hashes=hashes)
    return found


def _stale(group: Mapping[str, str], known: Mapping[str, Seen], hashes: bool) -> list[_Item]:
    return [
        (path, copy, hashes)
        for path, copy in group.items()
        if path not in known or not _unchanged(path, known[path], hashes)
    ]


class _Crew:
    """Worker processes, hired when there is enough to do: a pool costs more than a few pictures."""

    def __init__(self, workers: int, stack: ExitStack) -> None:
        self.workers, self.stack = workers, stack
        self.given = 0
        self.pool: ProcessPoolExecutor | None = None

    def start(self, items: list[_Item]) -> Iterator[Callable[[], dict[str, Seen]]]:
        """Begin with some pictures; each call that is returned waits for a part of them."""
        for first in range(0, len(items), _CHUNK):
            chunk = items[first : first + _CHUNK]
            self.given += len(chunk)
            if self.workers > 1 and self.given > _CHUNK and self.pool is None:
                # Forking is unsafe beside the progress bar's thread.
                context = multiprocessing.get_context("forkserver")
                self.pool = self.stack.enter_context(ProcessPoolExecutor(self.workers, context))
                # What has not begun is not waited for after an error or Ctrl-C.
                self.stack.callback(self.pool.shutdown, wait=False, cancel_futures=True)
            yield self.pool.submit(_look_at_chunk, chunk).result if self.pool else partial(_look_at_chunk, chunk)


def _look_at_chunk(items: list[_Item]) -> dict[str, Seen]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is the limit here
        return {item[0]: _look(item) for item in items}


def _look(item: _Item) -> Seen:
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
    # Pictures that this run leaves out stay known. Missing ones are looked for every time.
    kept = {path: entry for path, entry in seen.items() if entry.length >= 0}
    write_atomic(cache, msgspec.msgpack.encode(_Cache(_VERSION, kept)))
