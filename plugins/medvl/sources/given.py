"""Data that a command line names piece by piece, instead of a tree whose folders say what is in them."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from medvl.sources.base import Source, Split

# Of a source that has no names of its own for them.
SPLITS: Mapping[str, Split] = {
    split.name: split
    for split in (Split("train", "train", "train"), Split("val", "val", "eval"), Split("test", "test", "eval"))
}


class GivenSource(Source):
    """Data that a command line names piece by piece: a file or folder, where its images lie, what its columns mean.

    Its script takes DATA instead of `--root`. No folder on a disk is known to be of it, so that its converted files are
    asked and scored, not the data itself.
    """

    splits: Mapping[str, Split] = SPLITS
    suffix: str = ""

    def holds(self, folder: Path) -> bool:
        """No folder is a tree of it."""
        return False

    def add_arguments(self, arguments: argparse.ArgumentParser) -> None:
        """The options of its script, beside DATA and those that all have. None are called as others are."""

    def configured(self, args: argparse.Namespace) -> "GivenSource":
        """The source for a command line: what `find`, `read` and the rest go by. Workers get a copy of it.

        Raises:
            UsageError: options that cannot be followed.
            DataError: data that cannot be.
        """
        return self

    def overview(self) -> Sequence[tuple[str, str, str]]:
        """What it takes the data for, shown before anything is converted: what, value, and whence that is known."""
        return ()
