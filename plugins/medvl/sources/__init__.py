"""Data sources, one file each: the table of them, and which of them a path belongs to."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from medvl.errors import UsageError
from medvl.sources.base import Source, SourceFile, Split
from medvl.sources.flare import FLARE
from medvl.sources.folders import is_litter

# Trees: what a path holds says whose it is. A file outside a tree whose name says nothing is read by the first.
SOURCES: dict[str, Source] = {source.name: source for source in (FLARE,)}


def source_named(name: str) -> Source:
    """The source that a preprocess script is of: a tree's, or the `SOURCE` of the module of that name.

    The others are imported for their scripts alone: they read with libraries that take long to load.

    Raises:
        UsageError: the module has no `SOURCE`, and its source is not in `SOURCES`.
    """
    if name in SOURCES:
        return SOURCES[name]
    module = import_module(f"{__name__}.{name}")
    if not hasattr(module, "SOURCE"):
        raise UsageError(f"{module.__file__}: its source is not known yet; add it to SOURCES of {__file__}")
    source: Source = module.SOURCE
    return source


@dataclass(frozen=True)
class Tree:
    """A tree of a source, or the part of one that a path names.

    Attributes:
        source: Whose tree it is.
        root: Its root.
        part: What is meant: the root, or a folder or file in one split.
        split: That split; None for the whole tree.
    """

    source: Source
    root: Path
    part: Path
    split: Split | None = None

    def files(self, splits: Sequence[str] = ()) -> list[SourceFile]:
        """The files of these splits (names or folders), of all if empty; those of a part whatever is asked for.

        Raises:
            DataError: anything in it is refused; a line for each.
            UnknownNameError: a split that is not there.
        """
        if self.split is None:
            return list(self.source.find(self.root, splits).all())
        found = self.source.find(self.root, [self.split.folder]).all()
        return [file for file in found if file.path.is_relative_to(self.part)]


def tree_at(path: Path) -> Tree | None:
    """The tree whose root a folder is, or in one of whose splits a folder or file lies; None where that is no tree."""
    inside = path.resolve()
    for source in SOURCES.values():
        if source.holds(inside):
            return Tree(source, inside, inside)
    for folder in (inside, *inside.parents):
        for source in SOURCES.values():
            for split in source.splits.values():
                if folder.name == split.folder and source.holds(folder.parent):
                    return Tree(source, folder.parent, inside, split)
    return None


def trees_below(folder: Path) -> Iterator[Tree]:
    """The trees somewhere below a folder that is none itself. What tools leave behind is passed over."""
    for place, names, _ in os.walk(folder):
        root = Path(place)
        for source in SOURCES.values():
            if root != folder and Source.holds(source, root):  # a source may take less for a tree that is named
                yield Tree(source, root, root)
                names.clear()  # nothing is looked for inside a tree
                break
        names[:] = sorted(name for name in names if not is_litter(name))


def file_at(path: Path) -> tuple[Source, SourceFile]:
    """A file with rows, in a tree or not, and whose it is."""
    if tree := tree_at(path):
        found = tree.source.find(tree.root, [tree.split.folder] if tree.split else ()).files
        named = next((file for file in found if file.path == tree.part), tree.source.file_at(path))
        return tree.source, replace(named, path=path)
    by_suffix = (source for source in SOURCES.values() if path.name.endswith(source.suffix))
    source = next(by_suffix, next(iter(SOURCES.values())))
    return source, source.file_at(path)


def held_out_splits() -> frozenset[str]:
    """Names of the splits that are not trained on, of all sources."""
    splits = (split for source in SOURCES.values() for split in source.splits.values())
    return frozenset(split.name for split in splits if split.role != "train")


def label_separator(dataset: str) -> str | None:
    """The label separator of a dataset, None where it is not known (the answer then decides for itself)."""
    known = (source.label_separator(dataset) for source in SOURCES.values())
    return next((separator for separator in known if separator), None)
