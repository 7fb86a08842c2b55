"""Rows with boxes as samples: one row per box, whose images belong together, or all boxes of an image in a row."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from medvl.boxes import Frame, Size, as_boxes
from medvl.errors import UsageError
from medvl.question_boxes import shown_size
from medvl.sources.base import BoxAnswer, Problem, Sample
from medvl.sources.tables import cells, images
from medvl.sources.tables.base import BoxFormat
from medvl.sources.tables.box_order import Drawn, settle, xyxy
from medvl.sources.tables.columns import format_of
from medvl.sources.tables.numbers import Decimal
from medvl.sources.tables.shapes import Shape, shape_of, shapes_in
from medvl.sources.tables.understanding import Understood
from medvl.tasks import Task

# Labels beside which there is no box, as nothing was found.
_NOTHING = {"", "no finding", "no findings", "normal", "none", "negative", "background", "healthy", "0", "0.0", "false",
            "no", "nothing", "no lesion", "ohne befund", "[]"}  # fmt: skip


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
        one_each = all(len(row.shapes) <= 1 for row in self.rows)
        for row in self.rows:
            table_row = self.table.rows[row.index]
            file, question = self.table.files[row.index], self.table.question(table_row)
            alone = not one_each or not row.names
            groups[row.index if alone else (row.names, question, file)].append(row)
        return [self._sample(rows) for rows in groups.values()]

    def _sample(self, rows: Sequence[_BoxRow]) -> Sample:
        first, table = rows[0], self.table
        row = table.rows[first.index]
        task, task_problems = table.task_problem(row, self.task)
        image_problems, notes = table.image_problem(first.names)
        problems = [*task_problems, *image_problems]
        question = table.question(row)
        if not question.strip():
            problems.append(Problem("question", "QUESTION_EMPTY", f"row {first.index} has no question"))
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
        boxes = as_boxes([xyxy(shape, self.order) for shape in shapes])
        return Sample(
            file=table.files[first.index],
            index=first.index,
            row=row,
            task=task,
            question=question,
            images=first.names,
            boxes=None if problems else BoxAnswer(boxes, tuple(shape.label for shape in shapes), self.frame),
            group=table.text(row, "group") or None,
            notes=notes,
            problems=tuple(problems),
        )


def read_boxes(table: Understood, task: Task | None, places: Sequence[int], decimal: Decimal) -> Boxes:
    """The boxes of some rows of a table.

    Raises:
        UsageError: order or frame are open.
        DataError: they differ among the rows.
    """
    rows = tuple(_box_row(table, index, table.rows[index], decimal) for index in places)
    said = table.said
    order = said.box_format or format_of(table.columns)
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
    width, height = (table.text(table.rows[row.index], role) for role in ("width", "height"))
    if width.strip().isdigit() and height.strip().isdigit():
        return int(width), int(height)
    return _size_at(images.find(table.folder, row.names[0]).path)


@lru_cache(maxsize=200_000)
def _size_at(path: str) -> Size | None:
    return shown_size(Path(path))
