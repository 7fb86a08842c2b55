"""What becomes of a row's boxes: those of its answer in the frame and style to train in, those of its question too.

Boxes refer to the first image of a record, in training as in scoring.
"""

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from medvl.answers import target_text
from medvl.box_text import UNREAD, BoxStyle, ParsedBoxes, in_pixels, parse_boxes
from medvl.boxes import Boxes, Frame, Size, area, clip, from_frame, order_corners
from medvl.errors import RowRefusedError
from medvl.per_image import tells_images_apart
from medvl.question_boxes import Rewritten
from medvl.source_frames import better_frames
from medvl.sources.base import Sample
from medvl.tasks import Answer, Task
from medvl.tasks.base import Issue

# How much of an answer may be in no box before it is set aside: a number or two in a sentence around the boxes.
_UNREAD_LEAST = dict.fromkeys(UNREAD, 1) | {"numbers_unread": 4}


def unread(notes: Mapping[str, int]) -> list[str]:
    """Codes of what an answer holds besides its boxes, where training on the boxes alone would change what it says."""
    return [code for code, least in _UNREAD_LEAST.items() if notes.get(code, 0) >= least]


def box_target(
    answer: Answer,
    parsed: ParsedBoxes,
    given: str,
    sample: Sample,
    size: Size,
    *,
    source: Frame,
    frame: Frame,
    style: BoxStyle,
) -> tuple[str, list[Issue]]:
    """The text to train on for an answer with boxes, and codes with details of what is unusual about them.

    Args:
        answer: The source's answer.
        parsed: Its boxes.
        given: The same as text.
        sample: Its row.
        size: (width, height) of the first image, pixels.
        source: Frame of the source's boxes.
        frame: Frame to write.
        style: Style to write.

    Raises:
        RowRefusedError: an instance without an identifier, or a name that cannot be read back from that style.
    """
    label = sample.box_label
    if answer.task is Task.INSTANCE_DETECTION and not all(name or label for name in parsed.labels):
        raise RowRefusedError("ANSWER_UNUSABLE", "quarantined", f"a box without an identifier: {given[:200]!r}")
    notes = _frame_notes(parsed, given, size, source)
    if parsed.empty_labels and style in ("json", "flare") and answer.task is not Task.INSTANCE_DETECTION:
        notes.append(("ANSWER_UNUSUAL", f"{style} has no place for what has no box: {', '.join(parsed.empty_labels)}"))
    pixels, text = in_pixels(parsed, size, source, maps=answer.task is Task.INSTANCE_DETECTION)
    as_given = source == Frame.PIXEL and not parsed.frame and not answer.notes.keys() - {"inverted"}
    own_form = given if as_given else text
    target = target_text(replace(answer, value=pixels), own_form, size=size, frame=frame, style=style, label=label)
    _refuse_unreadable_names(parsed, target, style)
    return target, notes + _box_notes(pixels.boxes, size)


def _refuse_unreadable_names(parsed: ParsedBoxes, target: str, style: BoxStyle) -> None:
    """Put an answer aside whose names a style cannot hold: `<` in tags, in a map the key of something else."""
    names = {" ".join(name.split()) for name in parsed.labels if name}
    if not names:
        return
    read = {" ".join(name.split()) for name in parse_boxes(target).labels if name}
    if lost := sorted(names - read):
        detail = f"{style} cannot hold the name {', '.join(map(repr, lost))}; rename it or take another --box-style"
        raise RowRefusedError("ANSWER_UNUSABLE", "quarantined", detail)


def source_answer(answer: Answer, given: str, size: Size, source: Frame) -> str:
    """The answer as the record keeps it: as the source writes it, with boxes in pixels, which scoring compares with."""
    parsed = answer.value
    if not isinstance(parsed, ParsedBoxes) or (parsed.frame or source) == Frame.PIXEL:
        return given
    return in_pixels(parsed, size, source, maps=answer.task is Task.INSTANCE_DETECTION)[1]


def oriented(sample: Sample, size: Size | None) -> list[list[float]] | msgspec.UnsetType:
    """Corners of a row's oriented boxes in pixels, shape (n, 8), to the hundredth; unset if it has none."""
    if size is None or sample.boxes is None or sample.boxes.corners is None:
        return msgspec.UNSET
    points = from_frame(sample.boxes.corners.reshape(-1, 4), size, sample.boxes.frame)
    corners: list[list[float]] = points.reshape(-1, 8).round(2).tolist()
    return corners


def image_note(answer: Answer, given: str, sample: Sample) -> list[Issue]:
    """What boxes beside several images mean: they are taken to lie on the first.

    Raises:
        RowRefusedError: the answer tells the images apart. Scoring knows boxes on the first only, so those on others
            could be trained on, but never scored.
    """
    names, parsed = sample.images, answer.value
    if len(names) < 2 or not isinstance(parsed, ParsedBoxes) or not len(parsed.boxes):
        return []
    if tells_images_apart(parsed, given, names, answer.task):
        raise RowRefusedError("BOXES_PER_IMAGE", "quarantined", f"{len(names)} images: {given[:200]!r}")
    return [("BOXES_ON_FIRST", f"{len(names)} images, boxes taken to lie on the first: {given[:200]!r}")]


def question_notes(asked: Rewritten, question: str, frame: Frame) -> list[Issue]:
    """What there is to know about the boxes that a question gives."""
    if asked.doubt:
        return [("QUESTION_BOX_UNCLEAR", asked.doubt)]
    if asked.text == question:
        return []
    return [("QUESTION_BOX", f"{', '.join(asked.boxes)} in {frame}: {asked.text[:200]!r}")]


def _frame_notes(parsed: ParsedBoxes, given: str, size: Size, source: Frame) -> list[Issue]:
    """Boxes that fit another frame much better than the one that the command line states."""
    others = () if parsed.frame else better_frames(parsed.boxes, size, source, given)
    if not others:
        return []
    options = " or ".join(f"--source-frame {frame}" for frame in others)
    where = f"in an image of {size[0]} x {size[1]}"
    return [("COORDINATE_RANGE", f"read as {source}, but the boxes fit {options} {where}: {given[:200]!r}")]


def _box_notes(boxes: Boxes, size: Size) -> list[Issue]:
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
        (code, f"{mask.sum()} of {len(boxes)} boxes, {boxes[mask].tolist()}, in an image of {size[0]} x {size[1]}")
        for code, mask in odd.items()
        if mask.any()
    ]
