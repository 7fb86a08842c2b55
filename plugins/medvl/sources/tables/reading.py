"""From a table that is understood to its samples: which task, which options, which boxes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from medvl.choices import normal
from medvl.errors import UsageError
from medvl.sources.base import Sample
from medvl.sources.tables import cells
from medvl.sources.tables.answers import Answers, all_labels, given_answer, marked
from medvl.sources.tables.asked import with_labels
from medvl.sources.tables.box_rows import read_boxes
from medvl.sources.tables.columns import format_of
from medvl.sources.tables.guess import label_separator, task_of_rows
from medvl.sources.tables.numbers import Decimal, decimal_of, is_number
from medvl.sources.tables.understanding import Understood
from medvl.tasks import Task, UnknownNameError, canonical_task

Facts = list[tuple[str, str, str]]
_MAX_OFFERED = 100  # labels in a question


def read_samples(table: Understood, decimal: Decimal | None) -> tuple[list[Sample], Facts]:
    """The samples of all rows in their order, and what was found out about them: what, value, whence.

    Raises:
        UsageError: what only the user can say: no question, a task that is open, …
        DataError: rows that say two things.
    """
    _need_columns(table)
    facts: Facts = []
    task = table.said.task
    if task:
        facts.append(("task", task, "stated"))
    elif "task" not in table.columns:
        task, why = _guessed_task(table)
        facts.append(("task", task, f"guessed: {why}"))
    with_boxes = [place for place, row in enumerate(table.rows) if _has_boxes(table, row, task)]
    others = sorted({*range(len(table.rows))} - {*with_boxes})
    samples: list[Sample] = []
    if with_boxes and "boxes" in table.columns:
        boxes = read_boxes(table, task, with_boxes, _decimal(table, decimal, "boxes", with_boxes))
        samples += (found := boxes.samples())
        if "question" not in table.columns and found:
            facts = [fact for fact in facts if fact[0] != "task"]
            facts += [("task", ", ".join(dict.fromkeys(str(sample.task) for sample in found)), "")]
            facts += [("asked", found[0].question, "" if table.said.question else "made of the classes")]
        told = f"told by {sum(len(row.shapes) for row in boxes.rows)} boxes"
        by_name = "by the names of the columns" if format_of(table.columns) else told
        facts.append(("order of boxes", boxes.order, "stated" if table.said.box_format else by_name))
        facts.append(("frame of boxes", boxes.frame, "stated" if table.said.frame else told))
    else:
        others = list(range(len(table.rows)))
    if others:
        answered, more = _answered(table, task, others, decimal)
        samples += answered
        facts += more
    samples = _numbered(table, sorted(samples, key=lambda sample: sample.index))
    counts = Counter(file.split.name for file in table.files)
    return samples, [*facts, ("rows", ", ".join(f"{count} {split}" for split, count in counts.items()), "")]


def _numbered(table: Understood, samples: list[Sample]) -> list[Sample]:
    """Samples with places of their own and the row of the file, where several are of one row."""
    if table.lines is None and len({sample.index for sample in samples}) == len(samples):
        return samples
    lines = table.lines or range(len(table.rows))
    return [
        msgspec.structs.replace(sample, index=place, line=lines[sample.index]) for place, sample in enumerate(samples)
    ]


def _need_columns(table: Understood) -> None:
    """Raise `UsageError` if nothing says what is asked, or about which image."""
    columns = ", ".join(table.rows[0]) if table.rows else ""
    if "image" not in table.columns and "image" not in table.said.columns:
        raise UsageError(
            f"no column is known to name images: {columns}; say --columns image=COLUMN, or image= for none"
        )
    if "answer" not in table.columns and "boxes" not in table.columns and "answer" not in table.said.columns:
        raise UsageError(f"no column is known to have answers: {columns}; say --columns answer=COLUMN")
    if "question" not in table.columns and not table.said.question and "boxes" not in table.columns:
        raise UsageError(
            f"no column has questions: {columns}; say --columns question=COLUMN, or --question TEXT, one sentence that "
            "asks for the classes of all rows"
        )


def _guessed_task(table: Understood) -> tuple[Task, str]:
    if len(table.columns.get("answer", ())) > 1:
        one_each = all(len(marked(table, row)) == 1 for row in table.rows)
        return (Task.CLASSIFICATION if one_each else Task.MULTI_LABEL), "a column for each label"
    lists = [value for row in table.rows if isinstance(value := cells.data(table.value(row, "answer")), list)]
    if any(len(value) != 1 for value in lists):
        return Task.MULTI_LABEL, "answers are lists"
    questions = [table.text(row, "question") for row in table.rows]
    answers = [text for row in table.rows if (text := table.label(table.text(row, "answer"))).strip()]
    return task_of_rows(table.columns, questions, answers)


def _has_boxes(table: Understood, row: object, task: Task | None) -> bool:
    """Whether a row asks for boxes; rows of tasks that nobody knows are reported with the others."""
    if "task" in table.columns and (name := table.text(row, "task").strip()):  # type: ignore[arg-type]
        try:
            return canonical_task(name).has_boxes
        except UnknownNameError:
            return False
    return task is not None and task.has_boxes


def _decimal(table: Understood, stated: Decimal | None, role: str, rows: Sequence[int]) -> Decimal:
    columns = table.columns.get(role, ())  # type: ignore[call-overload]
    if stated or (role == "boxes" and len(columns) != 4):
        return stated or "point"
    texts = [cells.text(table.rows[place].get(column)) for place in rows for column in columns]
    return decimal_of([text for text in texts if is_number(text)], f"{table.path}, {', '.join(columns)}")


def _refuse_alike(labels: Sequence[str]) -> None:
    """Raise `UsageError` for labels that are read as one: no answer could say which of them is meant."""
    first: dict[str, str] = {}
    for label in labels:
        if (other := first.setdefault(normal(label), label)) != label:
            raise UsageError(
                f"the labels {other!r} and {label!r} are read as one; make them one with --labels {label!r}={other!r}"
            )


def _answered(
    table: Understood, task: Task | None, rows: Sequence[int], decimal: Decimal | None
) -> tuple[list[Sample], Facts]:
    """The samples of rows with answers in words, and what was found out about them."""
    facts: Facts = []
    answers = [given_answer(table, table.rows[place]) for place in rows]
    separator = table.said.separator
    if task is Task.MULTI_LABEL and not separator and len(table.columns.get("answer", ())) == 1:
        separator = label_separator([answer for answer in answers if answer.strip()])
        facts += [("between labels", separator, "guessed")] if separator else []
    reader = Answers(table, task, tuple(rows), separator)
    if task is None or task.is_number:
        reader = replace(reader, decimal=_decimal(table, decimal, "answer", rows))
    if task in (Task.CLASSIFICATION, Task.MULTI_LABEL) and "options" not in table.columns and table.said.question:
        labels = all_labels(table, separator, task)
        _refuse_alike(labels)
        if 1 < len(labels) <= _MAX_OFFERED:
            asked = with_labels(table.said.question, labels, several=task is Task.MULTI_LABEL)
            facts.append(("asked", asked, ""))
            reader = replace(reader, labels=labels)
    return reader.samples(), facts
