"""Chat files that another tool made (sharegpt, messages, alpaca), asked and scored as they are.

    [{"conversations": [{"from": "human", "value": "<image>Is it normal?"}, {"from": "gpt", "value": "no"}],
      "images": ["images/7.png"]}, …]

Ids are given, `<file>/<place>`, and nothing is written. Images are relative to the file, as LLaMA-Factory has them. A
row's key `task` says its task; where there is none the question and the answer do, and the scores say which did.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvl.box_text import parse_boxes
from medvl.choices import options
from medvl.errors import DataError
from medvl.sources.tables import cells, json_rows
from medvl.sources.tables.base import Row
from medvl.tasks import Task, UnknownNameError, canonical_task

_SUFFIXES = (".json", ".jsonl")
_OWN = {"conversations", "source"}  # keys of a record of a preprocess script
_REPORT_WORDS = 30  # longer answers are compared as reports, not word by word


@dataclass(frozen=True)
class ForeignRecord:
    """A question of a conversation, with its answer.

    Attributes:
        id: `<file>/<place>`.
        index: Place among all questions of the file.
        row: The conversation.
        task: Of the row, else by question and answer.
        stated: Whether the row says its task.
        question: Without tags.
        answer: Verbatim; empty where there is none.
        images: Its images.
        problem: Why it cannot be used; None if it can.
    """

    id: str
    index: int
    row: Row
    task: Task
    stated: bool
    question: str
    answer: str
    images: tuple[Path, ...]
    problem: str | None = None


def foreign_records(path: Path) -> list[ForeignRecord] | None:
    """The questions of a chat file; None for files in other forms, those of a preprocess script among them."""
    from medvl.sources.tables.chat import as_questions, is_chat  # of all that predict, few read such a file

    first = _first_row(path) if path.suffix.lower() in _SUFFIXES else None
    if first is None or first.keys() >= _OWN or not is_chat(first):
        return None
    table = json_rows.read(path)
    if table.refused:
        raise DataError("\n".join(table.refused))
    if others := [place for place, row in enumerate(table.rows) if not is_chat(row)]:
        raise DataError(f"{path}: row {others[0]} is no conversation, and row 0 is one; mend it")
    asked = as_questions(table)
    return [
        _record(path, index, row, asked.row_problems[index].detail if index in asked.row_problems else None)
        for index, row in enumerate(asked.rows)
    ]


def _first_row(path: Path) -> dict[str, Any] | None:
    """The first object of a list, or of lines; the rest of a file, which may be large, is not looked at."""
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace").strip()
    try:
        first, end = json.JSONDecoder().raw_decode(text.removeprefix("[").lstrip())
    except (ValueError, RecursionError):  # whoever reads it as another form says what is wrong
        return None
    alone = path.suffix.lower() == ".json" and text.startswith("{") and end == len(text)
    return first if isinstance(first, dict) and not alone else None


def said_of_tasks(path: Path, records: Sequence[ForeignRecord]) -> str | None:
    """A sentence on the tasks that rows do not say themselves; None where all do."""
    counts = Counter(record.task for record in records if not record.stated)
    if not counts:
        return None
    told = ", ".join(f"{count} {task}" for task, count in counts.items())
    return f"{path.name} says no tasks; by their questions and answers: {told}. A key `task` in each row says it"


def _record(path: Path, index: int, row: Row, problem: str | None) -> ForeignRecord:
    question, answer = cells.text(row["question"]), cells.text(row["answer"])
    stated = row.get("task") is not None
    try:
        task = canonical_task(str(row["task"])) if stated else _task_of(question, answer)
    except UnknownNameError as error:
        task, problem = Task.VQA, problem or str(error)
    names = row["images"]
    if any(not isinstance(name, str) for name in names):
        problem = problem or "images stand in the file itself; convert it with preprocess/table.py"
        names = []
    images = tuple(path.parent / name for name in names)
    name = f"{path.stem}/{index:06d}"
    return ForeignRecord(name, index, row, task, stated, question, answer, images, problem)


def _task_of(question: str, answer: str) -> Task:
    """Options, boxes and long texts tell; a number is compared as a word, since it may count or measure."""
    if options(question):
        return Task.CLASSIFICATION
    if len(parse_boxes(answer).boxes):
        return Task.DETECTION
    return Task.REPORT if len(answer.split()) > _REPORT_WORDS else Task.VQA
