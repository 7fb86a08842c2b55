"""Nothing to do: the same command on the same tree with the same code, and its output still stands as it was written.

Everything is compared by size and time of change, as `make` does; `--validate` compares the output by its hashes.
Hardly more than the standard library is imported: importing what a conversion needs takes longer than looking at
50,000 files.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import PIL

REPOSITORY = Path(__file__).resolve().parent.parent
OUT = REPOSITORY / "data" / "flare"
DATASET_INFO = REPOSITORY / "dataset_info" / "dataset_info.json"
STAMP = ".last_run"
_CODE = (str(REPOSITORY / "preprocess"), str(REPOSITORY / "plugins" / "medvl"))


class Command(NamedTuple):
    """A command line: where it reads and writes, and all else it says but `--workers`, which changes no output."""

    root: str
    out: str
    dataset_info: str
    options: list[str]


class Stamp(NamedTuple):
    """The last complete run.

    Attributes:
        folders: Where the tree lies.
        before: Hash of what went in, see `input_state`.
        after: Hash of what came out, see `output_state`.
        entries: Its entries in the registry.
        summary: What it said at its end.
    """

    folders: list[str]
    before: str
    after: str
    entries: list[str]
    summary: str


def read_command(words: Sequence[str]) -> Command | None:
    """What the words of a command line say; None if they are not understood here."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option, default in (("--root", None), ("--out", OUT), ("--dataset-info", DATASET_INFO), ("--workers", None)):
        parser.add_argument(option, default=default)
    try:
        known, options = parser.parse_known_args(words)
    except argparse.ArgumentError:
        return None
    if known.root is None:
        return None
    root, out, dataset_info = map(os.path.realpath, (known.root, known.out, known.dataset_info))
    return Command(root, out, dataset_info, options)


def input_state(command: Command, folders: Sequence[str]) -> str:
    """Hash of the command, the files that it names, the code, and every file in the `folders` of the tree."""
    packages = Path(PIL.__file__).parent.parent
    versions = [sys.version, *sorted(path.name for path in packages.glob("*-info"))]
    digest = hashlib.sha256(repr((command, versions)).encode())
    for word in command.options:
        path = word.partition("=")[2] if word.startswith("--") else word
        if os.path.isfile(path):  # noqa: PTH113
            digest.update(Path(path).read_bytes())
    for folder in (*_CODE, *folders):
        digest.update(_listing(folder))
    return digest.hexdigest()


def output_state(command: Command, entries: Sequence[str]) -> str:
    """Hash of all that a reader sees in the output folder, and of its entries in the registry."""
    try:
        registry = json.loads(Path(command.dataset_info).read_bytes())
    except (FileNotFoundError, ValueError):
        registry = {}
    listed = json.dumps([registry.get(name) for name in entries], sort_keys=True)
    # Names of caches, locks and stamps begin with a dot.
    return hashlib.sha256(_listing(command.out, hidden=False) + listed.encode()).hexdigest()


def _listing(folder: str, *, hidden: bool = True) -> bytes:
    """Path, size and time of all files below a folder. Links are followed: a tree may be made of them."""
    lines = []
    open_folders = [folder] if os.path.isdir(folder) else []  # noqa: PTH112
    while open_folders:
        with os.scandir(open_folders.pop()) as entries:
            for entry in entries:
                if entry.name == "__pycache__" or (entry.name[0] == "." and not hidden):
                    continue
                if entry.is_dir():
                    open_folders.append(entry.path)
                elif entry.is_file():
                    status = entry.stat()
                    lines.append(f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\0")
                else:
                    lines.append(f"{entry.path}\0\0\0")  # a link to nothing
    return os.fsencode("".join(sorted(lines)))


def summary_if_unchanged(words: Sequence[str]) -> str | None:
    """What the last run of the same command said, if it would write the same now; else None."""
    command = read_command(words)
    try:
        stamp = Stamp(*json.loads(Path(command.out, STAMP).read_bytes())) if command else None
    except (FileNotFoundError, ValueError, TypeError):  # none, or a damaged one
        return None
    if command is None or stamp is None or stamp.after != output_state(command, stamp.entries):
        return None
    return stamp.summary if stamp.before == input_state(command, stamp.folders) else None


def write_stamp(command: Command, stamp: Stamp) -> None:
    """Note a complete run."""
    from medvl.sharegpt import write_atomic

    write_atomic(Path(command.out, STAMP), json.dumps(stamp).encode())
