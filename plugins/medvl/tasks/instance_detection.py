"""Instance detection: every single object, named, with its boxes.

"Identify all chromosomes. Return a JSON map of identifiers to boxes."   ->  {"1": [[12, 40, 90, 130]], "2": …}
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from medvl.box_text import ParsedBoxes, format_boxes
from medvl.boxes import Frame
from medvl.tasks import detection
from medvl.tasks.base import Answer, Context, Issue, Row, Task, TaskSpec, Writing


def parse(text: str, _: Context) -> Answer:
    """The boxes of a text with their names, in its own frame."""
    return detection.parse_for(Task.INSTANCE_DETECTION, text)


def target(answer: Answer, text: str, writing: Writing) -> str:
    """As in detection; since these answers name their objects, `json` and `flare` become `map`."""
    if writing.style in ("json", "flare") and (writing.frame, writing.style) != (Frame.PIXEL, "flare"):
        writing = replace(writing, style="map")
    return detection.target(answer, text, writing)


def hand_in(answer: Answer, writing: Writing) -> str:
    """A map of names to whole pixels; raises ValueError without a size."""
    assert isinstance(answer.value, ParsedBoxes)
    parsed, whole = answer.value, detection.whole_pixels(answer.value, writing)
    labels = [name or "" for name in parsed.labels]
    return format_boxes(whole, labels, "map", Frame.PIXEL, empty_labels=parsed.empty_labels)


def audit(row: Row) -> Iterator[Issue]:
    """Answers that are no JSON map."""
    try:
        msgspec.json.decode(row.said, type=dict[str, list[tuple[Any, Any, Any, Any]]])
    except (msgspec.DecodeError, RecursionError):
        yield "MAP_MALFORMED", f"not a JSON map of identifiers to boxes: {row.said[:200]!r}"


TASK = TaskSpec(
    task=Task.INSTANCE_DETECTION,
    spellings=("instance detection", "instance segmentation"),
    label="json mapping of every instance to its bounding box",
    max_new_tokens=2048,
    postprocess="instance_boxes",
    headline="f1_iou50",
    quantity="f1",
    parse=parse,
    tidy=detection.checked_only,
    hand_in=hand_in,
    audit=audit,
    target=target,
)
