"""Questions in JSON Lines, as `medvl router` reads and writes them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from medvl.instructions import GENERAL
from medvl.router.route import Route
from medvl.tasks import UnknownNameError, canonical_task
from medvl.wording import listed

_TASK_KEYS = ("task", "TaskType", "task_type")
_SHOWN = 20  # bad lines in a message


class LinesError(ValueError):
    """Lines that cannot be read; names the file, every bad line and what was expected."""


@dataclass(frozen=True)
class Line:
    """One question.

    Attributes:
        question: Verbatim; may be empty.
        task: What `task`, `TaskType` or `task_type` says, if anything.
    """

    question: str
    task: str | None


def read_lines(path: Path) -> list[Line]:
    """The questions of a file, one JSON object per line with a `question`; other keys may be there.

    Raises:
        LinesError: no such file, not UTF-8, or a line that is blank, no object, or without a text under `question`.
    """
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise LinesError(f"{path}: {error}") from error
    try:
        content = data.decode().rstrip("\r\n")  # an editor's blank lines at the end are no questions
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise LinesError(f"{path}:{number}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    lines, problems = [], []
    for number, text in enumerate(content.split("\n") if content else [], 1):
        try:
            lines.append(_line(text.removesuffix("\r")))
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        raise LinesError(listed(problems, _SHOWN, "\n"))
    return lines


def _line(text: str) -> Line:
    expected = 'expected an object such as {"question": "How many cells are there?"}'
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{'a blank line' if not text.strip() else f'not JSON: {error}'}; {expected}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{text[:80]}: {expected}")
    if not isinstance(row.get("question"), str):
        said = f"question is {row['question']!r}" if "question" in row else "no question"
        raise ValueError(f"{said}; {expected}")
    task = next((row[key] for key in _TASK_KEYS if isinstance(row.get(key), str)), None)
    return Line(row["question"], task)


def read_labelled(path: Path, *, general: bool = False) -> list[tuple[str, str]]:
    """(question, task) of a file whose lines have a `task` too; `general` says that none of them is a task.

    Raises:
        LinesError: as `read_lines`, or a line without task or with an unknown one.
    """
    found, problems = [], []
    for number, line in enumerate(read_lines(path), 1):
        try:
            found.append((line.question, GENERAL if general or line.task == GENERAL else _canonical(line.task)))
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        raise LinesError("\n".join(problems[:20]))
    if not found:
        raise LinesError(f"{path}: no question")
    return found


def _canonical(task: str | None) -> str:
    if task is None:
        raise ValueError('no task; expected one, e.g. "task": "counting"')
    try:
        return str(canonical_task(task))
    except UnknownNameError as error:
        raise ValueError(str(error)) from error


def encode_routes(routes: Sequence[Route], *, explain: bool = False) -> bytes:
    """One JSON object per route: task, confidence and source, with `explain` also margin, reason and scores."""
    lines: list[dict[str, Any]] = []
    for route in routes:
        line: dict[str, Any] = {"task": route.task, "confidence": round(route.confidence, 4), "source": route.source}
        if explain:
            scores = {task: round(score, 4) for task, score in route.scores.items()}
            line |= {"margin": round(route.margin, 4), "reason": route.reason, "scores": scores}
        lines.append(line)
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
