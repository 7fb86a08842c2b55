"""Rows with boxes as samples: one row per box, whose images belong together, or all boxes of an image in a row."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medvl.boxes import Frame, Size, as_boxes
from medvl.errors import UsageError
from medvl.images import shown_size_of
from medvl.sources.base import BoxAnswer, Problem, Sample
from medvl.sources.tables import cells, images
from medvl.sources.tables.base import BoxFormat
from medvl.sources.tables.box_order import Drawn, settle, xyxy
from medvl.sources.tables.box_questions import BoxQuestion, questions_for
from medvl.sources.tables.columns import format_of, is_mask
from medvl.sources.tables.masks import shapes_in_mask
from medvl.sources.tables.numbers import Decimal
from medvl.sources.tables.shapes import Shape, shape_of, shapes_in
from medvl.sources.tables.understanding import Understood
from medvl.tasks import Task

# Labels beside which there is no box, as nothing was found.
_NOTHING = {"", "no finding", "no findings", "normal", "none", "negative", "background", "healthy", "0", "0.0", "false",
            "no", "nothing", "no lesion", "ohne befund", "[]"}  # fmt: skip


_ROUNDING = 1e-5
Note = tuple[str, str]


@dataclass(frozen=True)
class _BoxRow:
    index: int
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    problem: str | None = None


@dataclass(frozen=True)
class Boxes:
    """How the boxes of a table are read.

    Attributes:
        table: Whose they are.
        task: Of rows that name none.
        rows: Its rows with their objects.
        order: Order of a box's numbers.
        frame: Their frame.
    """

    table: Understood
    task: Task | None
    rows: tuple[_BoxRow, ...]
    order: BoxFormat
    frame: Frame

    def samples(self) -> list[Sample]:
        """A sample for every image and question, in the order of their first rows."""
        groups: dict[Any, list[_BoxRow]] = defaultdict(list)
        table = self.table
        one_each = all(len(row.shapes) <= 1 for row in self.rows)
        for row in self.rows:
            question, reader = (table.text(table.rows[row.index], role) for role in ("question", "reader"))
            alone = not one_each or not row.names
            groups[row.index if alone else (row.names, question, reader, table.files[row.index])].append(row)
        return [sample for rows in groups.values() for sample in self._samples(rows)]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """All names of objects, sorted: those that the data lists too, so that every part of it is asked alike."""
        listed = map(self.table.label, self.table.classes)
        return tuple(sorted({*listed, *(shape.label for row in self.rows for shape in row.shapes if shape.label)}))

    def _samples(self, rows: Sequence[_BoxRow]) -> Iterator[Sample]:
        """The samples of one image: one, or one per class."""
        first, table = rows[0], self.table
        row = table.rows[first.index]
        task, task_problems = table.task_problem(row, self.task)
        image_problems, notes = table.image_problem(row, first.names)
        found_problems, found_notes = table.found(first.index)
        problems, notes = [*found_problems, *task_problems, *image_problems], (*found_notes, *notes)
        size_problems, size_notes = self._size_differs(row, first)
        problems, notes = [*problems, *size_problems], (*notes, *size_notes)
        problems += [
            Problem("answer", "ANSWER_UNUSABLE", f"row {row.index}: {row.problem}") for row in rows if row.problem
        ]
        if len(rows) > 1 and any(row.shapes for row in rows) and (empty := [row for row in rows if not row.shapes]):
            detail = f"row {empty[0].index} says that there is nothing, and other rows of the image have boxes"
            problems.append(Problem("answer", "ANSWER_UNUSABLE", detail))
        shapes = list(dict.fromkeys(shape for row in rows for shape in row.shapes))
        if repeated := sum(len(row.shapes) for row in rows) - len(shapes):
            notes = (*notes, ("BOX_REPEATED", f"{repeated} of {repeated + len(shapes)} boxes"))
        if outlines := sum(shape.outline for shape in shapes):
            notes = (*notes, ("ANSWER_UNUSUAL", f"{outlines} outlines, each read as the box around it"))
        for asked in self._asked(row, first, shapes, task):
            these = [shapes[place] for place in asked.places]
            boxes = as_boxes([xyxy(shape, self.order) for shape in these])
            if self.frame == "norm1":  # six decimals of centre and width put an edge a millionth outside
                boxes = np.where((boxes < 0) & (boxes > -_ROUNDING), 0, boxes)
                boxes = np.where((boxes > 1) & (boxes < 1 + _ROUNDING), 1, boxes)
            yield Sample(
                file=table.files[first.index],
                index=first.index,
                row=row,
                task=asked.task if task else None,
                question=asked.text,
                images=first.names,
                boxes=None if problems else BoxAnswer(boxes, tuple(shape.label for shape in these), self.frame),
                box_label=asked.label,
                group=table.text(row, "group") or None,
                notes=notes,
                problems=tuple(problems),
            )

    def _asked(
        self, row: Mapping[str, Any], first: _BoxRow, shapes: Sequence[Shape], task: Task | None
    ) -> Iterator[BoxQuestion]:
        """What is asked about an image: its own question; else what is stated for all, or made of the classes."""
        table, said = self.table, self.table.said
        if text := table.text(row, "question").strip():
            yield BoxQuestion(text, task or Task.DETECTION, tuple(range(len(shapes))), None)
            return
        stated = task if said.task or table.text(row, "task").strip() or said.question else None
        labels, name = [shape.label for shape in shapes], " ".join(first.names)
        yield from questions_for(said.ask, self.classes, labels, name, said.question, stated)

    def _size_differs(self, row: Mapping[str, Any], first: _BoxRow) -> tuple[tuple[Problem, ...], tuple[Note, ...]]:
        """Whether an image has another size than the table says; then its boxes in pixels lie elsewhere."""
        stated = _stated_size(self.table, row)
        found = _size_of(self.table, first.names) if stated else None
        if stated is None or found is None or stated == found:
            return (), ()
        detail = f"{first.names[0]} is {found[0]} x {found[1]}, and was {stated[0]} x {stated[1]} when boxes were drawn"
        if self.frame == "pixel":
            return (Problem("answer", "SIZE_DIFFERS", detail),), ()
        return (), (("SIZE_DIFFERS", detail),)


def read_boxes(table: Understood, task: Task | None, places: Sequence[int], decimal: Decimal) -> Boxes:
    """The boxes of some rows of a table.

    Raises:
        UsageError: order or frame are open.
        DataError: they differ among the rows.
    """
    rows = tuple(_box_row(table, index, table.rows[index], decimal) for index in places)
    said = table.said
    order = said.box_format or format_of(table.columns)
    if is_mask(table.columns):
        return Boxes(table, task, rows, "xyxy", Frame.PIXEL)
    known = bool(order and said.frame)
    drawn = [
        Drawn(row.index, row.shapes, None if known else _size(table, row)) for row in rows if row.shapes and row.names
    ]
    if rows and not drawn and all(row.problem for row in rows):
        raise UsageError(f"no box can be read: {rows[0].problem}; say --columns boxes=COLUMN")
    return Boxes(table, task, rows, *settle(drawn, order, said.frame))


def _box_row(table: Understood, index: int, row: Mapping[str, Any], decimal: Decimal) -> _BoxRow:
    names, columns = table.image_names(row), table.columns["boxes"]
    try:
        values = [row.get(column) for column in columns]
        if is_mask(table.columns):
            shapes = shapes_in_mask(values[0], _size_of(table, names), table.folder)
        else:
            shapes = shapes_in(values[0], decimal) if len(values) == 1 else shape_of(values, decimal)
        return _BoxRow(index, names, _labelled(table, row, shapes))
    except (ValueError, UsageError) as error:
        return _BoxRow(index, names, (), str(error))


def _labelled(table: Understood, row: Mapping[str, Any], shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """The objects of a row with the names of its label column.

    Raises:
        ValueError: there are more or fewer names than objects, or a name that stands for something and no box.
    """
    value = cells.data(table.value(row, "label"))
    text = cells.text(value).strip()
    if not shapes:
        if "label" in table.columns and not isinstance(value, list) and text.casefold() not in _NOTHING:
            raise ValueError(f"the label {text!r} without a box")
        return ()
    if "label" not in table.columns:
        return tuple(replace(shape, label=table.label(shape.label)) if shape.label else shape for shape in shapes)
    names = [cells.text(item).strip() for item in value] if isinstance(value, list | tuple) else [text]
    if len(names) == 1 and len(shapes) > 1:
        split = next(([part.strip() for part in text.split(mark)] for mark in ";|," if mark in text), names)
        names = split if len(split) == len(shapes) else names * len(shapes)
    if len(names) != len(shapes):
        raise ValueError(f"{len(shapes)} boxes and {len(names)} labels")
    return tuple(replace(shape, label=table.label(name) or None) for shape, name in zip(shapes, names, strict=True))


def _size(table: Understood, row: _BoxRow) -> Size | None:
    """Size of the first image of a row: as the table says it, else as the file does."""
    return _stated_size(table, table.rows[row.index]) or _size_of(table, row.names)


def _stated_size(table: Understood, row: Mapping[str, Any]) -> Size | None:
    """The size of its first image by its own columns; None where they do not say it."""
    width, height = (table.text(row, role).strip() for role in ("width", "height"))
    return (int(width), int(height)) if width.isdigit() and height.isdigit() and int(width) and int(height) else None


def _size_of(table: Understood, names: Sequence[str]) -> Size | None:
    """The size of the first image as it is; None where there is none, or it cannot be read."""
    return _size_at(images.find(table.folder, names[0]).path) if names else None


@lru_cache(maxsize=200_000)
def _size_at(path: str) -> Size | None:
    return shown_size_of(Path(path))
