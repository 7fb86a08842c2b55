"""Detection: where the things asked for are, one box each.

"Where is the tumour? Give [x_min, y_min, x_max, y_max]."   ->  "[[120, 80, 260, 190]]"
"""

from collections.abc import Iterator

from medvl import boxes as box_arrays
from medvl.box_text import REFUSED, ParsedBoxes, format_boxes, parse_boxes
from medvl.boxes import Boxes, Frame, Size
from medvl.conclusions import is_refusal
from medvl.normalisation import normalise
from medvl.tasks.base import Answer, Context, Issue, Row, Task, TaskSpec, Writing


def parse_for(task: Task, text: str) -> Answer:
    """The boxes of a text, in its own frame."""
    parsed = parse_boxes(text)
    if not parsed.parsed and not text.isascii():  # full-width digits and brackets; labels keep their width otherwise
        parsed = parse_boxes(normalise(text))
    if (final := text.lower().rfind("final answer")) > 0 and (stated := parse_boxes(text[final:])).parsed:
        parsed = stated  # the boxes before it are the way there
    if parsed.parsed:
        return Answer(task, parsed, notes=parsed.notes)
    refused = [code for code in REFUSED if code in parsed.notes]
    return Answer(task, None, refused[0] if refused else "refusal" if is_refusal(text) else "no_boxes", parsed.notes)


def parse(text: str, _: Context) -> Answer:
    """The boxes of a text, in its own frame."""
    return parse_for(Task.DETECTION, text)


def checked_only(text: str, answer: Answer, context: Context) -> str:  # noqa: ARG001 (one signature for all tasks)
    """The model's own text: in which frame it is, a text does not tell."""
    return text


def target(answer: Answer, text: str, writing: Writing) -> str:
    """The boxes in the frame and style to train in; pixels in FLARE's style are what its datasets hold."""
    if not isinstance(answer.value, ParsedBoxes) or (writing.frame, writing.style) == (Frame.PIXEL, "flare"):
        return text
    parsed = answer.value
    names = [name or writing.label for name in parsed.labels]
    boxes = box_arrays.to_frame(parsed.boxes, size_of(writing), writing.frame)
    return format_boxes(boxes, names, writing.style, writing.frame, empty_labels=parsed.empty_labels)


def size_of(writing: Writing) -> Size:
    """The size of the image the boxes lie on; raises ValueError where none is given."""
    if writing.size is None:
        raise ValueError("boxes can be handed in only with the size of their picture")
    return writing.size


def whole_pixels(parsed: ParsedBoxes, writing: Writing) -> Boxes:
    """The boxes in whole pixels, inside their image."""
    size = size_of(writing)
    return box_arrays.clip(box_arrays.order_corners(parsed.pixels(size, writing.frame)), size).round()


def hand_in(answer: Answer, writing: Writing) -> str:
    """Nested lists of whole pixels; raises ValueError without a size."""
    assert isinstance(answer.value, ParsedBoxes)
    return format_boxes(whole_pixels(answer.value, writing), answer.value.labels, "flare", Frame.PIXEL)


def audit(_: Row) -> Iterator[Issue]:
    """Nothing: a row whose boxes cannot be read is not trained on at all."""
    yield from ()


TASK = TaskSpec(
    task=Task.DETECTION,
    spellings=("detection", "object detection", "lesion detection"),
    label="locate an object, give its bounding box coordinates",
    max_new_tokens=1024,
    postprocess="boxes",
    headline="f1_iou50",
    quantity="f1",
    parse=parse,
    tidy=checked_only,
    hand_in=hand_in,
    audit=audit,
    target=target,
)
