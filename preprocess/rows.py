"""One sample of a source to one record, or to the coded reason why not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import msgspec

from medvl.answers import Answer, parse_answer, unoffered
from medvl.box_text import REFUSED, BoxStyle, ParsedBoxes, in_pixels, parse_boxes
from medvl.boxes import Frame, Size
from medvl.choices import normal
from medvl.control_tokens import BOX_MARKUP, KNOWN, control_tokens
from medvl.normalisation import normalise
from medvl.question_boxes import Rewritten, rewrite
from medvl.sharegpt import Record, RecordError, make_record
from medvl.sharegpt import Source as RecordSource
from medvl.sources.base import OutsideError, Part, Sample, Source, image_path
from medvl.structured import plain_number, plain_text
from medvl.tasks import Task
from medvl.unwrapping import unwrap
from preprocess import boxes
from preprocess.decoding import ImageInfo
from preprocess.errors import RowRefusedError as _RefusedError
from preprocess.report import Action, Finding

Images = Mapping[str, ImageInfo]  # by their names in the row
OnMissing = Literal["drop", "error", "keep-sample-drop-image"]


# What programs write where they have no value. `normal` has folded the case.
_PLACEHOLDERS = frozenset(("none", "null", "nil", "nan", "nat", "n/a", "#n/a", "na", "<na>", "undefined"))


@lru_cache(maxsize=4096)  # questions are templates and most answers letters: a third of the rows come again
def _parse(answer: str, task: Task, question: str, separator: str | None) -> Answer:
    return parse_answer(answer, task, question=question, separator=separator)


# Problems of a source that leave nothing to train on; with all others there is something to mend.
_NOTHING_THERE = ("QUESTION_EMPTY", "ANSWER_EMPTY")
# Reasons of `medvl.answers` that have a code of their own.
_REASONS = {"letter_not_an_option": "LETTER_NOT_OPTION", "several_letters": "SEVERAL_LETTERS"}


@dataclass(frozen=True)
class Options:
    """What decides how a row is converted.

    Attributes:
        source: Where the rows come from.
        frame: Frame of the boxes in the answers.
        box_style: Style of the boxes in the answers.
        on_missing: What to do with a record whose image is missing or broken.
        name: First part of record ids and entry names.
        max_images: How many images a record may have, evenly spaced over all it names; None for all.
        number_images: Whether the images of a record with several are numbered in the prompt.
        control_tokens: Text that puts a record aside.
        source_frame: Frame of the boxes in the source's texts; boxes as data have their own.
        source_frames: Question file -> its frame, where it is not `source_frame`.
    """

    source: Source
    frame: Frame
    box_style: BoxStyle
    on_missing: OnMissing
    name: str
    max_images: int | None = None
    number_images: bool = False
    control_tokens: frozenset[str] = KNOWN
    source_frame: Frame = "pixel"
    source_frames: Mapping[str, Frame] = field(default_factory=dict)

    def frame_of(self, sample: Sample) -> Frame:
        """Frame of the boxes in a row."""
        return sample.boxes.frame if sample.boxes else self.source_frames.get(str(sample.file.path), self.source_frame)


def convert(sample: Sample, images: Images, options: Options) -> tuple[Record | None, list[Finding]]:
    """One row as a record, with what there is to know about it.

    Args:
        sample: The row.
        images: What was found where its names lead.
        options: Frame, style and policy.

    Returns:
        The record, or None if it was dropped or quarantined, and its findings.
    """
    findings: list[Finding] = []

    def note(code: str, detail: str, action: Action = "kept") -> None:
        where = f"{options.name}/{sample.id}"
        detail = detail.removeprefix(f"{where}: ").removeprefix(f"{sample.id}: ")  # some errors begin with it
        findings.append(
            Finding(
                id=where,
                code=code,
                action=action,
                detail=f"{where}: {detail}",
                file=str(sample.file.path),
                index=sample.index,
            )
        )

    try:
        usable = []
        _refuse(sample, "images")
        names = spread(sample.images, options.max_images)
        if len(names) < len(sample.images):
            note("IMAGES_THINNED", f"{len(names)} of {len(sample.images)} images: {', '.join(names)}")
        for image in _images(sample, names, images, options):
            for code, detail in image.notes:
                note(code, detail)
            if image.size:
                usable.append((image.path, image.size))
            else:
                note("IMAGE_DROPPED", image.detail)
        target, notes = _target(sample, usable[0][1] if usable else None, options)
        for code, detail in notes:
            note(code, detail)
        asked = rewrite(sample.question, [size for _, size in usable], options.frame_of(sample), options.frame)
        for code, detail in boxes.question_notes(asked, sample.question, options.frame):
            note(code, detail)
        return _record(sample, asked, target, usable, options), findings
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


def _images(sample: Sample, names: tuple[str, ...], images: Images, options: Options) -> list[ImageInfo]:
    try:
        found = [images[name] for name in names]
    except KeyError:
        raise _no_image(sample, names, options.source) from None
    unusable = [image for image in found if image.size is None]
    if unusable and (options.on_missing != "keep-sample-drop-image" or not _can_stand_in(sample, found)):
        action: Action = "dropped" if unusable[0].problem == "IMAGE_MISSING" else "quarantined"
        raise _RefusedError(unusable[0].problem or "", action, "; ".join(image.detail for image in unusable))
    return found


def _can_stand_in(sample: Sample, found: list[ImageInfo]) -> bool:
    """Whether the usable images do without the others. Boxes lie on the first: on another they enclose nothing."""
    has_boxes = sample.task is not None and sample.task.has_boxes
    return any(image.size for image in (found[:1] if has_boxes else found))


def _no_image(sample: Sample, names: tuple[str, ...], source: Source) -> _RefusedError:
    """Why a name of an image was not even looked up: it leads out of the dataset's folder."""
    for name in names:
        try:
            image_path(source, sample.file, name)
        except OutsideError as error:
            return _RefusedError("IMAGE_OUTSIDE", "quarantined", str(error))
    raise KeyError(f"{sample.id}: {names} was not looked at")


def _refuse(sample: Sample, *parts: Part) -> None:
    """Raise what the source says is wrong with these parts of a row."""
    if problem := sample.problem(*parts):
        action: Action = "dropped" if problem.code in _NOTHING_THERE else "quarantined"
        raise _RefusedError(problem.code, action, problem.detail)


def _target(sample: Sample, size: Size | None, options: Options) -> tuple[str, list[tuple[str, str]]]:
    """The text to train on, and codes with details of what is unusual about it. Boxes refer to the first image."""
    _refuse(sample, "task", "question", "answer")
    task, text = _task(sample), sample.question
    given = _given(sample, size)
    _refuse_control_tokens(text, given, task, options.control_tokens)
    if not given:
        if sample.file.split.role != "hidden":
            raise _RefusedError("ANSWER_EMPTY", "dropped", "no answer")
        return "", []
    separator = options.source.label_separator(sample.dataset)
    given, notes = _plain(sample, given, task, separator)
    answer = _usable_answer(sample, given, task, separator)
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
    for name in filter(None, answer.value.labels):  # JSON may spell them with escapes, and some styles are markup
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


def _plain(sample: Sample, given: str, task: Task, separator: str | None) -> tuple[str, list[tuple[str, str]]]:
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


def _record(sample: Sample, asked: Rewritten, target: str, images: list[tuple[str, Size]], options: Options) -> Record:
    frame, size = options.frame_of(sample), images[0][1] if images else None
    # Who asks from these records starts from the question as it stands in the source.
    kept = asked.boxes and (asked.text != sample.question or frame != "pixel")
    source = RecordSource(
        split=sample.file.split.folder,
        file=str(sample.file.path),
        index=sample.index,
        sizes=[size for _, size in images],
        answer=_source_answer(sample, size, options),
        names=list(sample.images),
        question=sample.question if kept else msgspec.UNSET,
        frame=frame if kept and frame != "pixel" else msgspec.UNSET,
    )
    try:
        return make_record(
            question=asked.text,
            answer=target,
            images=[path for path, _ in images],
            id=f"{options.name}/{sample.id}",
            task=str(_task(sample)),
            dataset=sample.dataset,
            source=source,
            numbered=options.number_images,
        )
    except RecordError as error:
        raise _RefusedError("LITERAL_TAG", "quarantined", str(error)) from error


def _source_answer(sample: Sample, size: Size | None, options: Options) -> str:
    given, task = _given(sample, size), _task(sample)
    if sample.boxes or not given or size is None or not task.has_boxes:
        return given
    answer = _parse(given, task, sample.question, options.source.label_separator(sample.dataset))
    return boxes.source_answer(answer, given, size, options.frame_of(sample))


def _given(sample: Sample, size: Size | None) -> str:
    """The answer as text; boxes as data in pixels."""
    if sample.boxes is None:
        return sample.answer
    if size is None:
        raise _RefusedError("ANSWER_UNUSABLE", "quarantined", "boxes without an image")
    maps = sample.task is Task.INSTANCE_DETECTION
    return in_pixels(sample.boxes.parsed, size, sample.boxes.frame, maps=maps)[1]


def _task(sample: Sample) -> Task:
    assert sample.task is not None, f"{sample.id}: no task, and no problem that says why"
    return sample.task
