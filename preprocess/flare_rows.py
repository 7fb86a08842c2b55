"""One row of a FLARE question file to one record, or to the coded reason why not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import msgspec

from medvl.answers import Answer, parse_answer, unoffered
from medvl.box_text import REFUSED, BoxStyle, ParsedBoxes, parse_boxes
from medvl.boxes import Frame, Size
from medvl.choices import normal
from medvl.control_tokens import BOX_MARKUP, KNOWN, control_tokens
from medvl.normalisation import normalise
from medvl.question_boxes import Rewritten, rewrite
from medvl.sharegpt import Record, RecordError, Source, make_record
from medvl.sources.flare import FlareError, OutsideError, Question, image_path
from medvl.sources.flare_datasets import label_separator
from medvl.structured import plain_number, plain_text
from medvl.tasks import Task, UnknownNameError
from medvl.unwrapping import unwrap
from preprocess import flare_boxes
from preprocess.decoding import ImageInfo
from preprocess.errors import RowRefusedError as _RefusedError
from preprocess.report import Action, Finding

Images = Mapping[str, ImageInfo]  # by their names in the question file
OnMissing = Literal["drop", "error", "keep-sample-drop-image"]


# What programs write where they have no value. `normal` has folded the case.
_PLACEHOLDERS = frozenset(("none", "null", "nil", "nan", "nat", "n/a", "#n/a", "na", "<na>", "undefined"))


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
        on_missing: What to do with a record whose image is missing or broken.
        name: First part of record ids and entry names.
        max_images: How many images a record may have, evenly spaced over all it names; None for all.
        number_images: Whether the images of a record with several are numbered in the prompt.
        control_tokens: Text that puts a record aside.
        source_frame: Frame of the boxes in the source's answers and questions.
        source_frames: Question file -> its frame, where it is not `source_frame`.
    """

    frame: Frame
    box_style: BoxStyle
    on_missing: OnMissing
    name: str
    max_images: int | None = None
    number_images: bool = False
    control_tokens: frozenset[str] = KNOWN
    source_frame: Frame = "pixel"
    source_frames: Mapping[str, Frame] = field(default_factory=dict)

    def frame_of(self, question: Question) -> Frame:
        """Frame of the boxes in a row."""
        return self.source_frames.get(str(question.file.path), self.source_frame)


def convert(question: Question, images: Images, options: Options) -> tuple[Record | None, list[Finding]]:
    """One row as a record, with what there is to know about it.

    Args:
        question: The row.
        images: What was found where its names lead.
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
            note("IMAGES_THINNED", f"{len(names)} of {len(question.images)} images: {', '.join(names)}")
        for image in _images(question, names, images, options.on_missing):
            for code, detail in image.notes:
                note(code, detail)
            if image.size:
                usable.append((image.path, image.size))
            else:
                note("IMAGE_DROPPED", image.detail)
        target, notes = _target(question, usable[0][1], options)
        for code, detail in notes:
            note(code, detail)
        asked = rewrite(question.text, [size for _, size in usable], options.frame_of(question), options.frame)
        for code, detail in flare_boxes.question_notes(asked, question.text, options.frame):
            note(code, detail)
        return _record(question, asked, target, usable, options), findings
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
    if count == 1:  # boxes refer to the first image
        return names[:1]
    return tuple(names[round(place * (len(names) - 1) / (count - 1))] for place in range(count))


def _names(question: Question) -> tuple[str, ...]:
    try:
        return question.images
    except FlareError as error:
        raise _RefusedError("IMAGE_NAME", "quarantined", str(error)) from error


def _images(question: Question, names: tuple[str, ...], images: Images, on_missing: OnMissing) -> list[ImageInfo]:
    try:
        found = [images[name] for name in names]
    except KeyError:
        raise _no_image(question, names) from None
    unusable = [image for image in found if image.size is None]
    if unusable and (on_missing != "keep-sample-drop-image" or not _can_stand_in(question, found)):
        action: Action = "dropped" if unusable[0].problem == "IMAGE_MISSING" else "quarantined"
        raise _RefusedError(unusable[0].problem or "", action, "; ".join(image.detail for image in unusable))
    return found


def _can_stand_in(question: Question, found: list[ImageInfo]) -> bool:
    """Whether the usable images do without the others. Boxes lie on the first: on another they enclose nothing."""
    try:
        has_boxes = question.task.has_boxes
    except UnknownNameError:  # `_target` reports it
        has_boxes = False
    return any(image.size for image in (found[:1] if has_boxes else found))


def _no_image(question: Question, names: tuple[str, ...]) -> _RefusedError:
    """Why a name of an image was not even looked up: it leads out of the dataset's folder."""
    for name in names:
        try:
            image_path(question.file, name)
        except OutsideError as error:
            return _RefusedError("IMAGE_OUTSIDE", "quarantined", str(error))
    raise KeyError(f"{question.id}: {names} was not looked at")


def _target(question: Question, size: Size, options: Options) -> tuple[str, list[tuple[str, str]]]:
    """The text to train on, and codes with details of what is unusual about it. Boxes refer to the first image."""
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
    given, notes = _plain(question, given, task)
    _refuse_control_tokens("", given, task, options.control_tokens)  # JSON may have spelled them with escapes
    answer = _usable_answer(question, given, task)
    _refuse_another_meaning(question, given, answer)
    if not answer.parsed:
        detail = f"{answer.reason}: {given[:200]!r}"
        return given, [*notes, (_REASONS.get(answer.reason or "", "ANSWER_UNUSUAL"), detail)]
    repaired = sorted(answer.notes.keys() - {"inverted"})
    notes += [("ANSWER_UNUSUAL", f"read as {', '.join(repaired)}: {given[:200]!r}")] if repaired else []
    if isinstance(answer.value, tuple) and (odd := unoffered(answer.value, text)):
        notes.append(("ANSWER_UNUSUAL", f"not offered by the question: {', '.join(odd)}"))
    if not isinstance(answer.value, ParsedBoxes):
        return given, notes
    # Escapes again, and what some styles write boxes with is no part of a name.
    for name in filter(None, (*answer.value.labels, *answer.value.empty_labels)):
        _refuse_control_tokens("", name, None, options.control_tokens)
    notes += flare_boxes.image_note(answer, given, question)
    target, more = flare_boxes.box_target(
        answer,
        answer.value,
        given,
        question,
        size,
        source=options.frame_of(question),
        frame=options.frame,
        style=options.box_style,
    )
    return target, notes + more


def _plain(question: Question, given: str, task: Task) -> tuple[str, list[tuple[str, str]]]:
    """The answer in the plain form of its task, and what is to be said about that. Boxes have a form of their own."""
    text = given.strip()
    if task.has_boxes:
        return text, []
    notes = []
    if not task.is_number and _is_placeholder(text, question.text):
        detail = f"{text!r} stands in the answer's place; leave it blank, or name it in the question if it is an answer"
        if task is Task.REPORT and question.file.split.name in ("train", "val"):  # elsewhere it may be a label
            raise _RefusedError("ANSWER_PLACEHOLDER", "quarantined", detail)
        notes.append(("ANSWER_PLACEHOLDER", detail))
    plain = plain_text(text, task, label_separator(question.file.dataset))
    if task in (Task.MULTI_LABEL, Task.REPORT) and not isinstance(question.row["Answer"], str | list | dict):
        plain = None  # a number, true or false
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


def _refuse_another_meaning(question: Question, plain: str, answer: Answer) -> None:
    """Put data aside whose plain form says something else: one label with a comma in it would be read as two."""
    if plain == question.answer.strip():  # nothing was rewritten
        return
    given = _parse(question.answer, answer.task, question.text, label_separator(question.file.dataset))
    if given.parsed and given.value != answer.value:
        detail = f"{question.answer[:200]!r} as {plain[:200]!r} would be read as {str(answer.value)[:200]}"
        raise _RefusedError("ANSWER_STRUCTURED", "quarantined", detail)


def _is_placeholder(answer: str, question: str) -> bool:
    """Whether an answer is what a program writes for a missing one. In some questions None is what may be answered."""
    word = normal(answer)
    return word in _PLACEHOLDERS and not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", normalise(question).casefold())


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
    flare_boxes.image_note(answer, given, question)  # an image without a box has an empty list, which is unread
    refused += flare_boxes.unread(answer.notes)
    if answer.parsed and refused:  # training on what is left would teach that the other objects are not there
        raise _RefusedError("ANSWER_UNUSABLE", "quarantined", f"{', '.join(refused)}: {given[:200]!r}")
    return answer


def _record(
    question: Question, asked: Rewritten, target: str, images: list[tuple[str, Size]], options: Options
) -> Record:
    frame = options.frame_of(question)
    # Who asks from these records starts from the question as it stands in the source.
    kept = asked.boxes and (asked.text != question.text or frame != "pixel")
    source = Source(
        split=question.file.split.folder,
        file=str(question.file.path),
        index=question.index,
        sizes=[size for _, size in images],
        answer=_source_answer(question, images[0][1], frame),
        names=list(question.images),
        question=question.text if kept else msgspec.UNSET,
        frame=frame if kept and frame != "pixel" else msgspec.UNSET,
    )
    try:
        return make_record(
            question=asked.text,
            answer=target,
            images=[path for path, _ in images],
            id=f"{options.name}/{question.id}",
            task=str(question.task),
            dataset=question.file.dataset,
            source=source,
            numbered=options.number_images,
        )
    except RecordError as error:
        raise _RefusedError("LITERAL_TAG", "quarantined", str(error)) from error


def _source_answer(question: Question, size: Size, frame: Frame) -> str:
    given = question.answer
    if not given or not question.task.has_boxes:
        return given
    answer = _parse(given, question.task, question.text, label_separator(question.file.dataset))
    return flare_boxes.source_answer(answer, given, size, frame)
