"""Rows with a question and an answer in words, a letter or a number, as samples."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medvl.choices import options
from medvl.errors import DataError
from medvl.sources.base import Problem, Sample
from medvl.sources.tables import cells
from medvl.sources.tables.asked import labels_of, letter_of, offered, with_labels, with_options
from medvl.sources.tables.numbers import Decimal, is_number, with_point
from medvl.sources.tables.understanding import Understood
from medvl.tasks import Task

_YES, _NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no", "", "-1", "-1.0"}


@dataclass(frozen=True)
class Answers:
    """How the answers of a table are read.

    Attributes:
        table: Whose they are.
        task: Of rows that name none.
        rows: Which of its rows.
        separator: What stands between the labels of an answer.
        decimal: What stands before the decimals of a number.
        labels: What questions offer that are the same for all rows; empty where rows offer their own, or nothing.
    """

    table: Understood
    task: Task | None
    rows: tuple[int, ...]
    separator: str | None = None
    decimal: Decimal = "point"
    labels: tuple[str, ...] = ()

    def samples(self) -> list[Sample]:
        """A sample for every row."""
        return [self._sample(index, self.table.rows[index]) for index in self.rows]

    def _sample(self, index: int, row: Mapping[str, Any]) -> Sample:
        table = self.table
        names = table.image_names(row)
        task, task_problems = table.task_problem(row, self.task)
        image_problems, notes = table.image_problem(row, names)
        found_problems, found_notes = table.found(index)
        problems, notes = [*found_problems, *task_problems, *image_problems], (*found_notes, *notes)
        question, answer, target = table.question(row), given_answer(table, row), None
        if not question.strip():
            problems.append(Problem("question", "QUESTION_EMPTY", f"row {index} has no question"))
        elif task is not None:
            try:
                question, target = self._asked(row, question, answer, task)
            except DataError as error:
                problems.append(Problem("answer", "ANSWER_UNUSABLE", str(error)))
        return Sample(
            file=table.files[index],
            index=index,
            row=row,
            task=task,
            question=question,
            images=names,
            answer=answer if answer.strip() else "",
            target=target if target != answer else None,
            written=answer,
            group=table.text(row, "group") or None,
            notes=notes,
            problems=tuple(problems),
        )

    def _asked(self, row: Mapping[str, Any], question: str, answer: str, task: Task) -> tuple[str, str | None]:
        """The question with what it offers, and what is trained on where that is not the answer as it stands.

        Raises:
            DataError: the answer is none of the options, or these cannot be told apart.
        """
        table = self.table
        target = self._target(row, answer, task)
        if not task.has_boxes and "options" in table.columns:
            question = with_options(question, offered([row.get(column) for column in table.columns["options"]]))
        if self.labels and not table.text(row, "question").strip():
            question = with_labels(question, self.labels, several=task is Task.MULTI_LABEL)
        texts = options(question)
        if task is not Task.CLASSIFICATION or not texts or not answer.strip():
            return question, target
        letter = letter_of(target or answer, texts)
        if letter is None and not self._is_verbatim(question):
            said = ", ".join(f"{letter}: {text}" for letter, text in texts.items())
            cure = f"; --labels {answer.strip()}=LETTER says which is meant" if is_number(answer) else ""
            raise DataError(f"{(target or answer)[:200]!r} is not one of {said[:300]}{cure}")
        return question, letter or target

    def _is_verbatim(self, question: str) -> bool:
        """Whether a question stands in the table as it is asked: then its answers are, too, whatever they say."""
        return "options" not in self.table.columns and not self.labels

    def _target(self, row: Mapping[str, Any], answer: str, task: Task) -> str | None:
        table = self.table
        if len(table.columns.get("answer", ())) > 1:
            found = marked(table, row)
            return ("; ".join(found) or "none") if task is Task.MULTI_LABEL else found[0] if len(found) == 1 else None
        value = cells.data(table.value(row, "answer"))
        if task is Task.MULTI_LABEL:
            parts = labels_of(value, self.separator)
            named = [table.label(part) for part in parts]
            changed = isinstance(value, list) or named != parts or self.separator not in (None, ";")
            return ("; ".join(named) or "none") if answer.strip() and changed else None
        if isinstance(value, list) and len(value) == 1:
            return table.label(cells.text(value[0]))
        if task.is_number and is_number(answer):
            plain = with_point(answer, self.decimal)
            return plain if plain.strip() != answer.strip() else None
        return table.label(answer) if table.label(answer) != answer else None


def given_answer(table: Understood, row: Mapping[str, Any]) -> str:
    """The answer as it stands; of several columns with yes or no each, all of them."""
    columns = table.columns.get("answer", ())
    if len(columns) < 2:
        return table.text(row, "answer")
    return json.dumps({column: cells.text(row.get(column)) for column in columns}, ensure_ascii=False)


def marked(table: Understood, row: Mapping[str, Any]) -> list[str]:
    """The columns that say yes, as labels.

    Raises:
        DataError: one says neither yes nor no.
    """
    found = []
    for column in table.columns["answer"]:
        said = cells.text(row.get(column)).strip().lower()
        if said not in _YES | _NO:
            raise DataError(f"{column} is {said!r}; expected 1 or 0 in a column that stands for a label")
        if said in _YES:
            found.append(table.label(column))
    return found


def all_labels(table: Understood, separator: str | None, task: Task) -> tuple[str, ...]:
    """All labels that occur: those with names in the order of these, numbers by size, words by the alphabet."""
    columns = table.columns.get("answer", ())
    if len(columns) > 1:
        return tuple(map(table.label, columns))
    several = separator if task is Task.MULTI_LABEL else None
    found = {table.label(part) for row in table.rows for part in labels_of(table.value(row, "answer"), several)}
    named = [label for label in dict.fromkeys(table.said.labels.values()) if label in found]
    others = found - {*named}
    return (*named, *sorted(others, key=lambda label: (not is_number(label), _size(label), label.casefold(), label)))


def _size(label: str) -> float:
    return float(label) if is_number(label) and label.replace(".", "", 1).isdigit() else 0.0
