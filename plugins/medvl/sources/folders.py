"""Trees whose folders say what is in them: `<root>/<split folder>/<category>/<dataset>/`, a file with rows in each."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from medvl.errors import DataError
from medvl.sources.base import Found, Source, SourceFile, Split
from medvl.tasks import unknown_name


def find_files(
    source: Source, root: Path, splits: Sequence[str], datasets: Sequence[str], file_in: Callable[[Path, Split], Path]
) -> Found:
    """The files of a tree, one per split and dataset, in the order of the splits, category and dataset.

    Args:
        source: Its splits have the folders.
        root: The tree.
        splits: Names or folders of splits; all if empty.
        datasets: Names of datasets; all that are there if empty.
        file_in: The file with rows in a dataset's folder; raises `DataError` where there is none to choose.

    Raises:
        UnknownNameError: a split or dataset that is asked for is not there.
    """
    present = [split for split in source.splits.values() if (root / split.folder).is_dir()]
    if not present:
        folders = ", ".join(split.folder for split in source.splits.values())
        return Found((), (f"{root}: no {source.title} tree; expected one of the folders {folders} in it",))
    named = [split_named(source, name) for name in splits]
    for name, split in zip(splits, named, strict=True):
        if split not in present:
            return Found((), (f"{root}: no folder {split.folder}, so there is no split {name}",))
    chosen = [split for split in present if not splits or split in named]
    folders_of = [(split, folder) for split in chosen for folder in sorted((root / split.folder).glob("*/*"))
                  if folder.is_dir() and not (is_litter(folder.parent.name) or is_litter(folder.name))]  # fmt: skip
    known = sorted({folder.name for _, folder in folders_of})
    for name in datasets:
        if name not in known:
            raise unknown_name("dataset", name, known)
    if not folders_of:
        expected = f"{chosen[0].folder}/<Category>/<dataset>/"
        names = ", ".join(split.folder for split in chosen)
        return Found((), (f"{root}: no dataset in {names}; expected {expected} there",))
    return _choose(
        [(split, folder) for split, folder in folders_of if not datasets or folder.name in datasets], file_in
    )


def _choose(folders: Sequence[tuple[Split, Path]], file_in: Callable[[Path, Split], Path]) -> Found:
    files, refused = [], []
    for split, folder in folders:
        try:
            str(folder).encode()
            files.append(SourceFile(split, folder.parent.name, folder.name, file_in(folder, split)))
        except UnicodeEncodeError:  # records could not be written
            refused.append(f"{os.fsencode(folder)!r}: its name is not UTF-8; rename the folder")
        except DataError as error:
            refused.append(str(error))
    return Found(tuple(files), tuple(refused))


def file_named(name: str) -> Callable[[Path, Split], Path]:
    """For `find_files`: the file of that name, which every dataset's folder must have."""

    def file_in(folder: Path, _: Split) -> Path:
        if not (folder / name).is_file():
            raise DataError(f"{folder}: no {name} in it")
        return folder / name

    return file_in


def split_named(source: Source, name: str) -> Split:
    """The split of a name or folder; raises `UnknownNameError`."""
    by_name = {known: split for split in source.splits.values() for known in (split.name, split.folder)}
    if name not in by_name:
        raise unknown_name("split", name, by_name)
    return by_name[name]


def is_litter(name: str) -> bool:
    """Whether tools leave behind folders of that name: `.ipynb_checkpoints`, a Mac zip's `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"
