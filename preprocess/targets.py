"""The answer of a row as it is trained on, or the coded reason why it cannot be; and as its record keeps it."""

import re
from functools import lru_cache

from medvl.answers import parse_answer, unoffered
from medvl.box_text import REFUSED, ParsedBoxes, in_pixels, parse_boxes
from medvl.boxes import Size
from medvl.choices import normal
from medvl.control_tokens import BOX_MARKUP, control_tokens
from medvl.errors import Refused
from medvl.errors import RowRefusedError as _RefusedError
from medvl.normalisation import normalise
from medvl.placeholders import is_placeholder
from medvl.sources.base import Part, Sample
from medvl.structured import plain_number, plain_text
from medvl.tasks import Answer, Task
from medvl.tasks.base import Issue
from medvl.unwrapping import unwrap
from preprocess import boxes
from preprocess.options import Options


@lru_cache(maxsize=4096)  # questions are templates and most answers letters: a third of the rows come again
def _parse(answer: str, task: Task, question: str, separator: str | None) -> Answer:
    return parse_answer(answer, task, question=question, separator=separator)


# Problems of a source that leave nothing to train on; with all others there is something to mend.
_NOTHING_THERE = ("QUESTION_EMPTY", "ANSWER_EMPTY")
# Reasons of `medvl.answers` that have a code of their own.
_REASONS = {"letter_not_an_option": "LETTER_NOT_OPTION", "several_letters": "SEVERAL_LETTERS"}


def refuse(sample: Sample, *parts: Part) -> None:
    """Raise what the source says is wrong with these parts of a row."""
    if problem := sample.problem(*parts):
        action: Refused = "dropped" if problem.code in _NOTHING_THERE else "quarantined"
        raise _RefusedError(problem.code, action, problem.detail)


def target(sample: Sample, size: Size | None, options: Options) -> tuple[str, list[Issue]]:
    """The text to train on, and codes with details of what is unusual about it. Boxes refer to the first image."""
    refuse(sample, "task", "question", "answer")
    task, text = task_of(sample), sample.question
    given = _given(sample, size)
    _refuse_control_tokens(text, given, task, options.control_tokens)
    if not given:
        if sample.file.split.role != "hidden":
            raise _RefusedError("ANSWER_EMPTY", "dropped", "no answer")
        return "", []
    separator = options.source.label_separator(sample.dataset)
    source_text = given
    given, notes = _plain(sample, given, task, separator)
    _refuse_control_tokens("", given, task, options.control_tokens)  # JSON may have spelled them with escapes
    answer = _usable_answer(sample, given, task, separator)
    _refuse_another_meaning(source_text, given, answer, text, separator)
    if not answer.parsed:
        detail = f"{answer.reason}: {given[:200]!r}"
        return given, [*notes, (_REASONS.get(answer.reason or "", "ANSWER_UNUSUAL"), detail)]
    repaired = sorted(answer.notes.keys() - {"inverted"})
    notes += [("ANSWER_UNUSUAL", f"read as {', '.join(repaired)}: {given[:200]!r}")] if repaired else []
    if isinstance(answer.value, tuple) and (odd := unoffered(answer.value, text)):
        notes.append(("ANSWER_UNUSUAL", f"not offered by the question: {', '.join(odd)}"))
    if not isinstance(answer.value, ParsedBoxes):
        return given, notes
    if size is None:
        raise _RefusedError("ANSWER_UNUSABLE", "quarantined", f"boxes without an image: {given[:200]!r}")
    # Escapes again, and what some styles write boxes with is no part of a name.
    for name in filter(None, (*answer.value.labels, *answer.value.empty_labels)):
        _refuse_control_tokens("", name, None, options.control_tokens)
    notes += boxes.image_note(answer, given, sample)
    target, more = boxes.box_target(
        answer,
        answer.value,
        given,
        sample,
        size,
        source=options.frame_of(sample),
        frame=options.frame,
        style=options.box_style,
    )
    return target, notes + more


def _plain(sample: Sample, given: str, task: Task, separator: str | None) -> tuple[str, list[Issue]]:
    """The answer in the plain form of its task, and what is to be said about that. Boxes have a form of their own."""
    text = given.strip()
    if task.has_boxes:
        return text, []
    notes = []
    if not task.is_number and _is_placeholder(text, sample.question):
        detail = f"{text!r} stands in the answer's place; leave it blank, or name it in the question if it is an answer"
        if task is Task.REPORT and sample.file.split.role != "hidden":  # elsewhere it may be a label
            raise _RefusedError("ANSWER_PLACEHOLDER", "quarantined", detail)
        notes.append(("ANSWER_PLACEHOLDER", detail))
    plain = plain_text(text, task, separator)
    if task in (Task.MULTI_LABEL, Task.REPORT) and isinstance(sample.written, int | float):  # true and false are int
        plain = None
    if not plain and len(parse_boxes(text).boxes):
        plain = text  # the audit reports boxes that nobody asked for
    if not plain:
        detail = f"data that has no form as an answer of {task}: {given[:200]!r}"
        raise _RefusedError("ANSWER_STRUCTURED", "quarantined", detail)
    plain = plain_number(plain) if task.is_number else plain
    if plain != given:
        notes.append(("ANSWER_REWRITTEN", f"{given[:200]!r} is trained on as {plain[:200]!r}"))
    if unwrap(plain) != plain:
        detail = f"thoughts, tags or remnants of a chat template around {unwrap(plain)[:80]!r}: {plain[:200]!r}"
        notes.append(("ANSWER_UNUSUAL", detail))
    return plain, notes


def _refuse_another_meaning(given: str, plain: str, answer: Answer, question: str, separator: str | None) -> None:
    """Put data aside whose plain form says something else: one label with a comma in it would be read as two."""
    if plain == given.strip():  # nothing was rewritten
        return
    read = _parse(given, answer.task, question, separator)
    if read.parsed and read.value != answer.value:
        detail = f"{given[:200]!r} as {plain[:200]!r} would be read as {str(answer.value)[:200]}"
        raise _RefusedError("ANSWER_STRUCTURED", "quarantined", detail)


def _is_placeholder(answer: str, question: str) -> bool:
    """Whether an answer is what a program writes for a missing one. In some questions None is what may be answered."""
    word = normal(answer)
    return is_placeholder(answer) and not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", normalise(question).casefold())


def _refuse_control_tokens(question: str, answer: str, task: Task | None, known: frozenset[str]) -> None:
    """Put a row aside whose texts hold control tokens; what boxes are written with is none in a box answer."""
    allowed = BOX_MARKUP if task and task.has_boxes else frozenset()
    for part, found in (("question", control_tokens(question, known)), ("answer", control_tokens(answer, known))):
        tokens = [token for token in found if part == "question" or token not in allowed]
        if tokens:
            detail = f"the {part} holds the control token {', '.join(tokens)}; remove it from the source"
            raise _RefusedError("CONTROL_TOKEN", "quarantined", detail)


def _usable_answer(sample: Sample, given: str, task: Task, separator: str | None) -> Answer:
    """The answer as parsed, unless boxes or numbers are asked for and it has none, or not all."""
    if sample.boxes:
        return Answer(task, sample.boxes.parsed)
    answer = _parse(given, task, sample.question, separator)
    refused = [code for code in REFUSED if code in answer.notes]
    if not answer.parsed and (task.has_boxes or task.is_number):
        raise _RefusedError("ANSWER_UNUSABLE", "quarantined", f"{answer.reason}: {given[:200]!r}")
    boxes.image_note(answer, given, sample)  # an image without a box has an empty list, which is unread
    refused += boxes.unread(answer.notes)
    if answer.parsed and refused:  # training on what is left would teach that the other objects are not there
        raise _RefusedError("ANSWER_UNUSABLE", "quarantined", f"{', '.join(refused)}: {given[:200]!r}")
    return answer


def source_answer(sample: Sample, size: Size | None, options: Options) -> str:
    """The answer as its record keeps it: as the source writes it, with boxes in pixels."""
    given, task = _given(sample, size), task_of(sample)
    if sample.target is not None:
        return sample.answer
    if sample.boxes or not given or size is None or not task.has_boxes:
        return given
    answer = _parse(given, task, sample.question, options.source.label_separator(sample.dataset))
    return boxes.source_answer(answer, given, size, options.frame_of(sample))


def _given(sample: Sample, size: Size | None) -> str:
    """The answer as text, by its label if it has one; boxes as data in pixels."""
    if sample.boxes is None:
        return sample.answer if sample.target is None else sample.target
    if size is None:
        raise _RefusedError("ANSWER_UNUSABLE", "quarantined", "boxes without an image")
    maps = sample.task is Task.INSTANCE_DETECTION
    return in_pixels(sample.boxes.parsed, size, sample.boxes.frame, maps=maps)[1]


def task_of(sample: Sample) -> Task:
    """The task of a sample that was not refused for it."""
    assert sample.task is not None, f"{sample.id}: no task, and no problem that says why"
    return sample.task
