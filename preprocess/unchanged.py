"""Nothing to do: the same tree, options and code as in the last run, and its output still stands as it was written.

Everything is compared by size and time of change, as `make` does; `--validate` compares the output by its hashes.
"""

import hashlib
import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import PIL

from medvl.flare import SPLITS
from medvl.sharegpt import write_atomic

STAMP = ".last_run.msgpack"
# What does not change the output, or is compared on its own.
_WITHOUT_EFFECT = ("workers", "download", "root", "dataset_info")
_CODE = Path(__file__).resolve().parent, Path(__file__).resolve().parent.parent / "plugins" / "medvl"

FileState = tuple[str, int, int]  # path below its folder, bytes, time of change in nanoseconds


class Stamp(msgspec.Struct, frozen=True):
    """The last complete run.

    Attributes:
        state: Hash of what went in, see `input_state`.
        outputs: State of every file in the output folder.
        entries: Its entries in the registry.
        summary: What it said at its end.
    """

    state: str
    outputs: list[FileState]
    entries: dict[str, Any]
    summary: str


def input_state(args: Namespace, root: Path) -> str | None:
    """Hash of options, code and every file of the tree; None if the run depends on more than can be listed here."""
    if args.hash_pictures or args.recipe or args.processor:  # asked to look; or a checkpoint of many files
        return None
    options = {name: value for name, value in sorted(vars(args).items()) if name not in _WITHOUT_EFFECT}
    files = [value for value in options.values() if isinstance(value, Path) and value.is_file()]
    digest = hashlib.sha256(repr((str(root), options, PIL.__version__, np.__version__)).encode())
    for path in files:
        digest.update(path.read_bytes())
    folders = [*_CODE, *(root / split.folder for split in SPLITS.values())]
    for folder in folders:
        states = sorted(state for state in _states(folder) if "__pycache__" not in state[0])
        digest.update(repr((str(folder), states)).encode())
    return digest.hexdigest()


def _states(folder: Path) -> Iterator[FileState]:
    """All files below a folder. Links are followed: a tree may be made of them."""
    open_folders = [str(folder)] if folder.is_dir() else []
    while open_folders:
        with os.scandir(open_folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    open_folders.append(entry.path)
                elif entry.is_file():
                    status = entry.stat()
                    yield entry.path[len(str(folder)) :], status.st_size, status.st_mtime_ns
                else:  # a link to nothing
                    yield entry.path[len(str(folder)) :], -1, -1


def _output_states(out: Path) -> list[FileState]:
    """Files that a reader sees: not the caches, locks and stamps, whose names begin with a dot."""
    return sorted(state for state in _states(out) if not Path(state[0]).name.startswith("."))


def _registry(dataset_info: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(dataset_info.read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def summary_if_unchanged(out: Path, state: str | None, dataset_info: Path) -> str | None:
    """What the last run said, if a new one would write the same; else None."""
    try:
        stamp = msgspec.msgpack.decode((out / STAMP).read_bytes(), type=Stamp)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    registry = _registry(dataset_info)
    unchanged = (
        stamp.state == state
        and stamp.outputs == _output_states(out)
        and all(registry.get(name) == entry for name, entry in stamp.entries.items())
    )
    return stamp.summary if unchanged else None


def write_stamp(out: Path, state: str | None, dataset_info: Path, entries: Sequence[str], summary: str) -> None:
    """Note a complete run; `state` is that of before it read anything."""
    if state is None:
        (out / STAMP).unlink(missing_ok=True)
        return
    registry = _registry(dataset_info)
    stamp = Stamp(state, _output_states(out), {name: registry.get(name) for name in entries}, summary)
    write_atomic(out / STAMP, msgspec.msgpack.encode(stamp))
