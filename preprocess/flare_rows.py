"""One row of a FLARE question file to one record, or to the coded reason why not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from medvl.answers import Answer, parse_answer, target_text, unoffered
from medvl.box_text import REFUSED, BoxStyle, ParsedBoxes
from medvl.boxes import Boxes, Frame, Size, area, clip, order_corners
from medvl.control_tokens import BOX_MARKUP, KNOWN, control_tokens
from medvl.flare import FlareError, OutsideError, Question, picture_path
from medvl.sharegpt import Record, RecordError, Source, make_record
from medvl.tasks import Task, UnknownNameError, label_separator
from preprocess.decoding import Picture
from preprocess.report import Action, Finding

Pictures = Mapping[str, Picture]  # by their names in the question file
OnMissing = Literal["drop", "error", "keep-sample-drop-image"]

# FLARE's box answers do not name what they enclose; its questions do, in these words. Others stay without a name.
_STRUCTURE = re.compile(r"fetal head|pubic symphysis|lesion", re.IGNORECASE)


@lru_cache(maxsize=4096)  # questions are templates and most answers letters: a third of FLARE's rows come again
def _parse(answer: str, task: Task, question: str, separator: str | None) -> Answer:
    return parse_answer(answer, task, question=question, separator=separator)


# Reasons of `medvl.answers` that have a code of their own.
_REASONS = {"letter_not_an_option": "LETTER_NOT_OPTION", "several_letters": "SEVERAL_LETTERS"}


@dataclass(frozen=True)
class Options:
    """What decides how a row is converted.

    Attributes:
        frame: Frame of the boxes in the answers.
        box_style: Style of the boxes in the answers.
        on_missing: What to do with a record whose picture is missing or broken.
        name: First part of record ids and entry names.
        max_images: How many pictures a record may have, evenly spaced over all it names; None for all.
        number_images: Whether the pictures of a record with several are numbered in the prompt.
        control_tokens: Text that puts a record aside.
    """

    frame: Frame
    box_style: BoxStyle
    on_missing: OnMissing
    name: str
    max_images: int | None = None
    number_images: bool = False
    control_tokens: frozenset[str] = KNOWN


class _RefusedError(Exception):
    """A row that does not become a record."""

    def __init__(self, code: str, action: Action, detail: str) -> None:
        super().__init__(detail)
        self.code, self.action, self.detail = code, action, detail


def convert(question: Question, pictures: Pictures, options: Options) -> tuple[Record | None, list[Finding]]:
    """One row as a record, with what there is to know about it.

    Args:
        question: The row.
        pictures: What was found where its names lead.
        options: Frame, style and policy.

    Returns:
        The record, or None if it was dropped or quarantined, and its findings.
    """
    findings: list[Finding] = []

    def note(code: str, detail: str, action: Action = "kept") -> None:
        where = f"{options.name}/{question.id}"
        detail = detail.removeprefix(f"{where}: ").removeprefix(f"{question.id}: ")  # some errors begin with it
        findings.append(
            Finding(
                id=where,
                code=code,
                action=action,
                detail=f"{where}: {detail}",
                file=str(question.file.path),
                index=question.index,
            )
        )

    try:
        usable = []
        names = spread(_names(question), options.max_images)
        if len(names) < len(question.images):
            note("IMAGES_THINNED", f"{len(names)} of {len(question.images)} pictures: {', '.join(names)}")
        for picture in _pictures(question, names, pictures, options.on_missing):
            for code, detail in picture.notes:
                note(code, detail)
            if picture.size:
                usable.append((picture.path, picture.size))
            else:
                note("IMAGE_DROPPED", picture.detail)
        target, notes = _target(question, usable[0][1], options)
        for code, detail in notes:
            note(code, detail)
        return _record(question, target, usable, options), findings
    except _RefusedError as refused:
        note(refused.code, refused.detail, refused.action)
        return None, findings


def spread(names: tuple[str, ...], count: int | None) -> tuple[str, ...]:
    """At most `count` of the names, evenly spaced from the first to the last.

    >>> spread(("a", "b", "c", "d", "e"), 3)
    ('a', 'c', 'e')
    """
    if count is None or count >= len(names):
        return names
    if count == 1:  # boxes refer to the first picture
        return names[:1]
    return tuple(names[round(place * (len(names) - 1) / (count - 1))] for place in range(count))


def _names(question: Question) -> tuple[str, ...]:
    try:
        return question.images
    except FlareError as error:
        raise _RefusedError("IMAGE_NAME", "quarantined", str(error)) from error


def _pictures(question: Question, names: tuple[str, ...], pictures: Pictures, on_missing: OnMissing) -> list[Picture]:
    try:
        found = [pictures[name] for name in names]
    except KeyError:
        raise _no_picture(question, names) from None
    unusable = [picture for picture in found if picture.size is None]
    if unusable and (on_missing != "keep-sample-drop-image" or not _can_stand_in(question, found)):
        action: Action = "dropped" if unusable[0].problem == "IMAGE_MISSING" else "quarantined"
        raise _RefusedError(unusable[0].problem or "", action, "; ".join(picture.detail for picture in unusable))
    return found


def _can_stand_in(question: Question, found: list[Picture]) -> bool:
    """Whether the usable pictures do without the others. Boxes lie on the first: on another they enclose nothing."""
    try:
        has_boxes = question.task.has_boxes
    except UnknownNameError:  # `_target` reports it
        has_boxes = False
    return any(picture.size for picture in (found[:1] if has_boxes else found))


def _no_picture(question: Question, names: tuple[str, ...]) -> _RefusedError:
    """Why a name of a picture was not even looked up: it leads out of the dataset's folder."""
    for name in names:
        try:
            picture_path(question.file, name)
        except OutsideError as error:
            return _RefusedError("IMAGE_OUTSIDE", "quarantined", str(error))
    raise KeyError(f"{question.id}: {names} was not looked at")


def _target(question: Question, size: Size, options: Options) -> tuple[str, list[tuple[str, str]]]:
    """The text to train on, and codes with details of what is unusual about it. Boxes refer to the first picture."""
    try:
        task, text = question.task, question.text
    except UnknownNameError as error:
        raise _RefusedError("TASK_UNKNOWN", "quarantined", str(error)) from error
    except FlareError as error:
        raise _RefusedError("QUESTION_EMPTY", "dropped", str(error)) from error
    given = question.answer
    _refuse_control_tokens(text, given, task, options.control_tokens)
    if not given:
        if question.file.split.name in ("train", "val"):
            raise _RefusedError("ANSWER_EMPTY", "dropped", "no answer")
        return "", []
    answer = _usable_answer(question, given, task)
    if not answer.parsed:
        detail = f"{answer.reason}: {given[:200]!r}"
        return given, [(_REASONS.get(answer.reason or "", "ANSWER_UNUSUAL"), detail)]
    repaired = sorted(answer.notes.keys() - {"inverted"})
    notes = [("ANSWER_UNUSUAL", f"read as {', '.join(repaired)}: {given[:200]!r}")] if repaired else []
    if isinstance(answer.value, tuple) and (odd := unoffered(answer.value, text)):
        notes.append(("ANSWER_UNUSUAL", f"not offered by the question: {', '.join(odd)}"))
    if not isinstance(answer.value, ParsedBoxes):
        return given, notes
    notes += _box_notes(answer.value.boxes, size)
    label = _structure(text)
    for name in filter(None, answer.value.labels):  # JSON may spell them with escapes, and some styles are markup
        _refuse_control_tokens("", name, None, options.control_tokens)
    if task is Task.INSTANCE_DETECTION and not all(name or label for name in answer.value.labels):
        raise _RefusedError("ANSWER_UNUSABLE", "quarantined", f"a box without an identifier: {given[:200]!r}")
    style = options.box_style
    return target_text(answer, given, size=size, frame=options.frame, style=style, label=label), notes


def _refuse_control_tokens(question: str, answer: str, task: Task | None, known: frozenset[str]) -> None:
    """Put a row aside whose texts hold control tokens; what boxes are written with is none in a box answer."""
    allowed = BOX_MARKUP if task and task.has_boxes else frozenset()
    for part, found in (("question", control_tokens(question, known)), ("answer", control_tokens(answer, known))):
        tokens = [token for token in found if part == "question" or token not in allowed]
        if tokens:
            detail = f"the {part} holds the control token {', '.join(tokens)}; remove it from the source"
            raise _RefusedError("CONTROL_TOKEN", "quarantined", detail)


def _usable_answer(question: Question, given: str, task: Task) -> Answer:
    """The answer as parsed, unless boxes or numbers are asked for and it has none, or not all."""
    answer = _parse(given, task, question.text, label_separator(question.file.dataset))
    refused = [code for code in REFUSED if code in answer.notes]
    if not answer.parsed and (task.has_boxes or task.is_number):
        raise _RefusedError("ANSWER_UNUSABLE", "quarantined", f"{answer.reason}: {given[:200]!r}")
    if answer.parsed and refused:  # training on what is left would teach that the other objects are not there
        raise _RefusedError("ANSWER_UNUSABLE", "quarantined", f"{', '.join(refused)}: {given[:200]!r}")
    return answer


def _structure(question: str) -> str | None:
    """The name of what a question asks for; None for two in one question: whose box is which?"""
    structures = {name.lower() for name in _STRUCTURE.findall(question)}
    return structures.pop() if len(structures) == 1 else None


def _box_notes(boxes: Boxes, size: Size) -> list[tuple[str, str]]:
    low, high = boxes[:, :2], boxes[:, 2:]
    if (low >= 0).all() and (low < high).all() and (high <= size).all():
        return []
    ordered = order_corners(boxes)
    odd = {
        "INVERTED_BOX": (boxes != ordered).any(axis=1),
        "ZERO_AREA_BOX": area(ordered) == 0,
        "BOX_OUTSIDE": (clip(boxes, size) != boxes).any(axis=1),
    }
    return [
        (code, f"{mask.sum()} of {len(boxes)} boxes, {boxes[mask].tolist()}, in a picture of {size[0]} x {size[1]}")
        for code, mask in odd.items()
        if mask.any()
    ]


def _record(question: Question, target: str, pictures: list[tuple[str, Size]], options: Options) -> Record:
    source = Source(
        split=question.file.split.folder,
        file=str(question.file.path),
        index=question.index,
        sizes=[size for _, size in pictures],
        answer=question.answer,
        names=list(question.images),
    )
    try:
        return make_record(
            question=question.text,
            answer=target,
            images=[path for path, _ in pictures],
            id=f"{options.name}/{question.id}",
            task=str(question.task),
            dataset=question.file.dataset,
            source=source,
            numbered=options.number_images,
        )
    except RecordError as error:
        raise _RefusedError("LITERAL_TAG", "quarantined", str(error)) from error
