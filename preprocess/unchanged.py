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

from medvl.argument_types import registry_file

REPOSITORY = Path(__file__).resolve().parent.parent
DATASET_INFO = REPOSITORY / "dataset_info" / "dataset_info.json"
STAMP = ".last_run"
_CODE = (str(REPOSITORY / "preprocess"), str(REPOSITORY / "plugins" / "medvl"))


def default_out(name: str) -> Path:
    """The output folder of what is called so (`--name`), where the command line says none."""
    return REPOSITORY / "data" / name


class Command(NamedTuple):
    """A command line: where it reads and writes, and all else it says but `--workers`, which changes no output."""

    root: str
    out: str
    dataset_info: str
    options: list[str]


class Stamp(NamedTuple):
    """The last complete run.

    Attributes:
        before: Hash of what went in, see `input_state`.
        after: Hash of what came out, see `output_state`.
        entries: Its entries in the registry.
        summary: What it said at its end.
    """

    before: str
    after: str
    entries: list[str]
    summary: str


def read_command(source: str, words: Sequence[str]) -> Command | None:
    """What the words of a command line for a source say; None if they are not understood here."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option, default in (("--root", None), ("--out", None), ("--name", source), ("--workers", None)):
        parser.add_argument(option, default=default)
    parser.add_argument("--dataset-info", type=registry_file, default=DATASET_INFO)
    try:
        known, options = parser.parse_known_args(words)
    except argparse.ArgumentError:
        return None
    if known.root is None:
        return None
    out = known.out or default_out(known.name)
    root, out, dataset_info = map(os.path.realpath, (known.root, out, known.dataset_info))
    return Command(root, out, dataset_info, [*options, f"--name={known.name}"])


def input_state(command: Command) -> str:
    """Hash of the command, the files that it names, the code, and all that lies below the root but the output."""
    packages = Path(PIL.__file__).parent.parent
    versions = [sys.version, *sorted(path.name for path in packages.glob("*-info"))]
    digest = hashlib.sha256(repr((command, versions)).encode())
    for word in command.options:
        path = word.partition("=")[2] if word.startswith("--") else word
        if os.path.isfile(path):  # noqa: PTH113
            digest.update(Path(path).read_bytes())
    for folder in (*_CODE, command.root):
        digest.update(_listing(folder, command.out))
    return digest.hexdigest()


class Inputs:
    """What goes into a run, listed by a child process while this one goes on importing."""

    def __init__(self, command: Command) -> None:
        """Begin."""
        self.command = command
        self._pipe, end = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            try:
                os.write(end, input_state(command).encode())
            finally:
                os._exit(0)
        os.close(end)

    def state(self) -> str:
        """The `input_state` of when this was made; empty if the child failed. To be asked for once."""
        with open(self._pipe) as pipe:  # noqa: PTH123
            state = pipe.read()
        os.waitpid(self._child, 0)
        return state


def output_state(command: Command, entries: Sequence[str]) -> str:
    """Hash of all that a reader sees in the output folder, and of its entries in the registry."""
    try:
        registry = json.loads(Path(command.dataset_info).read_bytes())
    except (FileNotFoundError, ValueError):
        registry = {}
    listed = json.dumps([registry.get(name) for name in entries], sort_keys=True)
    return hashlib.sha256(_listing(command.out, command.out) + listed.encode()).hexdigest()


def _listing(folder: str, out: str) -> bytes:
    """Path, size and time of all files below a folder: of `out` those that a reader sees, of others all not in `out`.

    Links are followed: a tree may be made of them.
    """

    def counts(path: str, name: str) -> bool:  # names of caches, locks and stamps begin with a dot
        return name != "__pycache__" and (name[0] != "." if folder == out else f"{path}/{name}" != out)

    lines = []
    for path, folders, names, descriptor in os.fwalk(folder, follow_symlinks=True):
        lines.append(path)
        folders[:] = sorted(name for name in folders if counts(path, name))
        for name in sorted(names):
            if counts(path, name):
                try:
                    status = os.stat(name, dir_fd=descriptor)
                except FileNotFoundError:  # a link to nothing
                    lines.append(name)
                else:
                    lines.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
    return os.fsencode("\0".join(lines))


def summary_if_unchanged(command: Command) -> str | None:
    """What the last run of the same command said, if it would write the same now; else None."""
    try:
        stamp = Stamp(*json.loads(Path(command.out, STAMP).read_bytes()))
        if stamp.after != output_state(command, stamp.entries) or stamp.before != input_state(command):
            return None
    except (FileNotFoundError, ValueError, TypeError, AttributeError):  # no stamp, damaged files, or no tree
        return None
    return stamp.summary


def write_stamp(command: Command, before: str, entries: Sequence[str], summary: str) -> None:
    """Note a complete run; `before` is the `input_state` of before it read anything."""
    from medvl.sharegpt import write_atomic

    stamp = Stamp(before, output_state(command, entries), list(entries), summary)
    write_atomic(Path(command.out, STAMP), json.dumps(stamp).encode())
