"""What a reader of people's own data gives: rows as they are, and what the form itself says about their columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from medvl.boxes import Frame
from medvl.sources.base import Problem
from medvl.tasks import Task

Row = Mapping[str, Any]
# What a column may hold. image: a name or a list of names. boxes: those of one object or of all of an image; label:
# what they enclose. options: what may be answered. group: patient or case. reader: whose boxes these are, where several
# looked at an image alone. width, height: pixels of the image.
Role = Literal["image", "question", "answer", "boxes", "label", "options", "task", "dataset", "split", "group",
               "reader", "width", "height"]  # fmt: skip
BoxFormat = Literal["xyxy", "xywh", "cxcywh"]


@dataclass(frozen=True)
class Table:
    """The rows of a data set, as a reader found them.

    Attributes:
        path: The file or folder that they were read from.
        rows: As they stand there; a form whose file is no table (COCO, VOC, …) gives a row per image, with the boxes of
            all its objects as a list and their names in another.
        columns: Role -> column, where the form says it (COCO's boxes are boxes). What is missing is guessed by name.
        folder: Names of images are relative to it.
        task: Task of all rows, where the form says it.
        question: Question of all rows, where the form says it.
        box_format: Order of a box's numbers, where the form says it.
        frame: Frame of its numbers, where the form says it.
        classes: Names that objects may have, where the form lists them, be there any or not.
        notes: Codes of `preprocess.report.CODES` and details: what is unusual about the file.
        lines: Row of the file that each row was made of, from 0, where several may be made of one.
        row_notes: Row -> codes and details of what is unusual about it; it is used.
        row_problems: Row -> why it cannot be used.
        refused: A line for every part of the data that cannot be read; none of it is passed over in silence.
    """

    path: Path
    rows: Sequence[Row]
    columns: Mapping[Role, str] = field(default_factory=dict)
    folder: Path = field(default_factory=Path)
    task: Task | None = None
    box_format: BoxFormat | None = None
    frame: Frame | None = None
    notes: tuple[tuple[str, str], ...] = ()
    lines: Sequence[int] | None = None
    question: str | None = None
    classes: tuple[str, ...] = ()
    row_notes: Mapping[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    row_problems: Mapping[int, Problem] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


def columns_called(rows: Sequence[Row], *roles: Role) -> dict[Role, str]:
    """Columns that are called like their roles, of a reader that makes the rows itself; a split where one has one.

    All other roles have none, so that nothing is guessed from what else stands in the rows.
    """
    split: tuple[Role, ...] = ("split",) if any(row.get("split") for row in rows) else ()
    return {role: role if role in (*roles, *split) else "" for role in get_args(Role)}


def without_answer(rows: Sequence[Row], why: str) -> dict[int, Problem]:
    """Problems of images that no annotation tells of: nothing says that they are negatives."""
    return {place: Problem("answer", "ANSWER_EMPTY", why) for place, row in enumerate(rows) if row["boxes"] is None}
