"""The sets that DATA names: those of a meta file, one file, or the files of a folder; and where their images lie."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medvl.errors import DataError
from medvl.sources.base import SourceFile
from medvl.sources.folders import is_litter
from medvl.sources.given import SPLITS
from medvl.sources.pmc_files import Form, Note, first_row, form_of, is_meta

# What a question is about: the text alone, the whole figure, a panel, several, or where two of them lie.
Kind = Literal["text", "compound", "single", "multiple", "choice", "position"]
# What a kind's set is called in PMC-data.json, and what names of files and sets are known by.
_NAMES: Mapping[Kind, tuple[str, str]] = {
    "choice": ("qa-subimage-option", "option|choice"),
    "position": ("qa-bbox", "bbox|boundingbox|spatial|position"),
    "text": ("qa-puretext", "puretext|textonly"),
    "single": ("qa-single_subimage", "singlesub"),
    "multiple": ("qa-multiple_subimage", r"mult\w*sub"),
    "compound": ("qa-compound-image", "compound"),
}
_HOMES: Mapping[Form, tuple[str, str]] = {  # split and category
    "training": ("train", "M3LLM"),
    "stage": ("train", "M3LLM"),
    "benchmark": ("test", "PMC-MI-Bench"),
}
_SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class PmcSet:
    """A file with rows of one kind.

    Attributes:
        file: The file, and its place in ids.
        form: Form of its rows.
        roots: Folders in which images lie, the likeliest first.
        share: How much of it is read, from its start.
        repeat: How often each row is seen per epoch.
        length: How many rows it should have, as its meta file says.
        notes: What else that says.
    """

    file: SourceFile
    form: Form
    roots: tuple[Path, ...]
    share: float = 1.0
    repeat: int = 1
    length: int | None = None
    notes: tuple[Note, ...] = ()

    @property
    def kind(self) -> Kind | None:
        """What its questions are about, by the names of the set and the file."""
        return kind_named(self.file.dataset) or kind_named(self.file.path.stem)


def kind_named(name: str) -> Kind | None:
    """The kind that a file or set is named after.

    >>> kind_named("stage5_subimage_option"), kind_named("multiplesubimageVQA"), kind_named("mine")
    ('choice', 'multiple', None)
    """
    plain = re.sub(r"[\W_]+", "", name).lower()
    return next((kind for kind, (_, words) in _NAMES.items() if re.search(words, plain)), None)


def file_set(path: Path, name: str | None = None, roots: Sequence[Path] = ()) -> PmcSet:
    """A file as a set.

    Args:
        path: The file.
        name: Name of the set; by default that of the kind that the file is named after, else the file's.
        roots: Where its images lie; by default beside it and in `images` there.

    Raises:
        DataError: it has no rows, or none in a form that is known.
    """
    row = first_row(path)
    form = form_of(row)
    if is_meta(row):
        raise DataError(f"{path}: a meta file, which names files of its own; give it as DATA")
    if form is None:
        raise DataError(
            f"{path}: its first row has the keys {', '.join(sorted(row)) or 'none'}; expected conversations or messages"
            " (training), qa_pairs (stages 4 and 5), or question and gt (PMC-MI-Bench). Other files are read by"
            " preprocess/table.py"
        )
    split, category = _HOMES[form]
    kind = kind_named(path.stem)
    name = name or (_NAMES[kind][0] if kind else path.stem)
    return PmcSet(
        SourceFile(SPLITS[split], category, name, path), form, tuple(roots) or (path.parent, path.parent / "images")
    )


def folder_sets(folder: Path) -> tuple[list[PmcSet], list[str]]:
    """The files of a folder as sets, and a line for everything that was refused."""
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES and path.is_file()]
    sets, refused = [], []
    for path in paths:
        if not is_litter(path.name):
            try:
                sets.append(file_set(path))
            except DataError as error:
                refused.append(str(error))
    if not sets and not refused:
        refused.append(f"{folder}: no {' or '.join(_SUFFIXES)} file in it")
    return _told_apart(sets), refused


def _told_apart(sets: Sequence[PmcSet]) -> list[PmcSet]:
    """Files of one kind are sets of their own, called like the files: ids are made of the name and the row."""
    homes = Counter(each.file.home for each in sets)
    return [
        replace(each, file=replace(each.file, dataset=each.file.path.stem)) if homes[each.file.home] > 1 else each
        for each in sets
    ]
