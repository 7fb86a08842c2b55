"""A table as it is understood: its rows with the meaning of their columns, and what samples have in common."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from medvl.errors import DataError
from medvl.sources.base import Problem, SourceFile, Split
from medvl.sources.given import SPLITS
from medvl.sources.tables import cells, images
from medvl.sources.tables.base import Role
from medvl.sources.tables.columns import Columns
from medvl.sources.tables.settings import Settings
from medvl.sources.tables.splits import EXPECTED, split_called
from medvl.tasks import Task, UnknownNameError, canonical_task

_SHOWN = 5


@dataclass(frozen=True)
class Understood:
    """Rows, and what their columns are.

    Attributes:
        path: Where they come from.
        rows: All of them, images as paths.
        columns: Role -> columns.
        folder: Names of images are relative to it.
        said: What was stated.
        lines: Row of the file that each row was made of; None where a row is a row.
        classes: Names that objects may have, beside those that some have.
        row_notes: Row -> codes and details of what its reader found unusual.
        row_problems: Row -> why it cannot be used.
    """

    path: Path
    rows: Sequence[Mapping[str, Any]]
    columns: Columns
    folder: str
    said: Settings
    lines: Sequence[int] | None = None
    classes: tuple[str, ...] = ()
    row_notes: Mapping[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    row_problems: Mapping[int, Problem] = field(default_factory=dict)

    def value(self, row: Mapping[str, Any], role: Role) -> Any:
        """The cell of a role with one column; None where there is none."""
        names = self.columns.get(role)
        return row.get(names[0]) if names else None

    def text(self, row: Mapping[str, Any], role: Role) -> str:
        """The cell of a role as text, verbatim."""
        return cells.text(self.value(row, role))

    def question(self, row: Mapping[str, Any]) -> str:
        """The question of a row, or the one that all are asked which have none."""
        text = self.text(row, "question")
        return text if text.strip() else self.said.question or ""

    def image_names(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of its images, from all columns that have some."""
        values = (row.get(column) for column in self.columns.get("image", ()))
        names = tuple(name for value in values for name in images.names(value, self.folder))
        return names if self.said.renames is None else tuple(map(self._renamed, names))

    def _renamed(self, name: str) -> str:
        """A name by the pattern that is stated, unless it is that of a file as it stands."""
        assert self.said.renames is not None
        is_there = Path(images.find(self.folder, name).path).is_file()
        return name if is_there else re.sub(f"^{self.said.renames[0]}$", self.said.renames[1], name)

    def label(self, text: str) -> str:
        """What a value is called."""
        return self.said.labels.get(text.strip(), text)

    @cached_property
    def name(self) -> str:
        """A name for all rows, for ids and entries: that of the file or folder."""
        return _clean(self.path.stem if self.path.suffix else self.path.name)

    @cached_property
    def files(self) -> list[SourceFile]:
        """Where every row belongs: its split and dataset.

        Raises:
            DataError: values of the split column that name no split.
        """
        splits = self._splits()
        datasets = [_clean(self.text(row, "dataset")) if "dataset" in self.columns else self.name for row in self.rows]
        return [
            SourceFile(split, self.name, dataset, self.path) for split, dataset in zip(splits, datasets, strict=True)
        ]

    def _splits(self) -> list[Split]:
        if "split" not in self.columns:
            return [SPLITS["train"]] * len(self.rows)
        names = [self.text(row, "split") for row in self.rows]
        found = {name: split_called(self.said.splits.get(name.strip(), name)) for name in set(names)}
        if odd := sorted(name for name, split in found.items() if split is None):
            counts = Counter(names)
            values = ", ".join(f"{name!r} in {counts[name]} rows" for name in odd[:_SHOWN])
            column = self.columns["split"][0]
            raise DataError(f"{self.path}: the column {column} names splits, and has {values}; expected {EXPECTED}, or "
                            "say --columns split= if it is something else")  # fmt: skip
        return [split for name in names if (split := found[name])]

    def task_problem(self, row: Mapping[str, Any], stated: Task | None) -> tuple[Task | None, tuple[Problem, ...]]:
        """The task of a row, and what is wrong with it."""
        name = self.text(row, "task")
        if not name.strip():
            lacking = Problem("task", "TASK_UNKNOWN", "the row says no task, and --task says none for all")
            return stated, () if stated else (lacking,)
        try:
            return canonical_task(name), ()
        except UnknownNameError as error:
            return None, (Problem("task", "TASK_UNKNOWN", str(error)),)

    def found(self, index: int) -> tuple[tuple[Problem, ...], tuple[tuple[str, str], ...]]:
        """What the reader found wrong with a row, and what there is to say of it."""
        problem = self.row_problems.get(index)
        return (problem,) if problem else (), self.row_notes.get(index, ())

    def image_problem(
        self, row: Mapping[str, Any], names: Sequence[str]
    ) -> tuple[tuple[Problem, ...], tuple[tuple[str, str], ...]]:
        """What is wrong with the names of images, and what there is to say of them. An empty list says: no image."""
        if not names and "image" in self.columns and self.value(row, "image") != []:
            return (Problem("images", "IMAGE_NAME", f"no name in the column {self.columns['image'][0]}"),), ()
        problems, notes = [], []
        for name in names:
            place = images.find(self.folder, name)
            if place.others:
                found = " or ".join(os.path.relpath(path, self.folder) for path in (place.path, *place.others))
                problems.append(Problem("images", "IMAGE_AMBIGUOUS", f"{name} could be {found} in {self.folder}"))
            elif place.renamed:
                notes.append(("IMAGE_RENAMED", f"{name} is {os.path.relpath(place.path, self.folder)}"))
        return tuple(problems), tuple(notes)


def _clean(name: str) -> str:
    """A name that ids and folders take, `data` where nothing of it is left that entries take."""
    clean = re.sub(r"[^\w.-]+", "_", name.strip()).strip("_.")
    return clean if re.search(r"[A-Za-z0-9]", clean) else "data"
