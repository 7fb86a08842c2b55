"""From pairs to samples: references and what was predicted for them are parsed, boxes put into pixels."""

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from evaluation.frames import to_pixels
from evaluation.handed_in import rows_taken
from evaluation.samples import Joined, Reference, Sample
from medvl.answers import parse_answer
from medvl.box_text import ParsedBoxes
from medvl.boxes import Frame, Size
from medvl.choices import normal, offered_labels, options
from medvl.conclusions import is_refusal
from medvl.errors import DataError
from medvl.normalisation import normalise
from medvl.per_image import tells_images_apart
from medvl.sources import label_separator
from medvl.tasks import Answer, Task


def make_samples(joined: Joined, frame: Frame | None) -> list[Sample]:
    """Parse both sides of every pair.

    Args:
        joined: References with predictions.
        frame: Frame of predicted boxes; None if nothing tells.

    Raises:
        DataError: boxes were predicted and their frame, or a size it needs, is not known.
    """
    labels = _free_labels(reference for reference, _ in joined.pairs)
    samples = []
    for (reference, prediction), taken in zip(joined.pairs, rows_taken(joined), strict=True):
        truth = _known_image(_parse(reference.answer, reference, labels), reference)
        truth = to_pixels(truth, Frame.PIXEL, _size_if_needed(truth, reference), reference.id)
        text = prediction.text if prediction else None
        answer = _predicted(_open_answer(_parse(text, reference, labels), text or "", reference), reference, frame)
        exact = text is not None and _squeezed(text) == _squeezed(reference.answer)
        if reference.task.has_boxes and truth.parsed and frame != Frame.PIXEL:
            exact = False  # the reference is in pixels: the same numbers in another frame are other boxes
        if exact and not answer.parsed and truth.parsed:
            answer = truth
        samples.append(Sample(reference, truth, text, answer, exact, taken, frame))
    return samples


def _known_image(truth: Answer, reference: Reference) -> Answer:
    """The right answer, unless it has boxes on several images: as those of the first they would be other boxes."""
    boxes = truth.value
    if isinstance(boxes, ParsedBoxes) and tells_images_apart(boxes, reference.answer, reference.images, reference.task):
        return Answer(truth.task, None, "boxes_per_image")
    return truth


def _size_if_needed(truth: Answer, reference: Reference) -> Size | None:
    """The size of the image where a reference is in other numbers than pixels; it may mean to open a file."""
    stated = isinstance(truth.value, ParsedBoxes) and truth.value.frame is not None
    return reference.image_size() if stated else None


def _predicted(answer: Answer, reference: Reference, frame: Frame | None) -> Answer:
    if isinstance(answer.value, float) and not math.isfinite(answer.value):
        return Answer(answer.task, None, "not_finite")
    if not (reference.task.has_boxes and answer.parsed):
        return answer
    stated = answer.value.frame if isinstance(answer.value, ParsedBoxes) else None
    if frame is None and stated is None:
        raise DataError(
            f"{reference.id}: the frame of its predicted boxes is not known, there is no manifest.json beside the "
            "references; name it with --frame norm1000, --frame norm1 or --frame pixel"
        )
    with np.errstate(over="ignore"):  # a number that no image has may not fit in pixels
        pixels = to_pixels(answer, frame or Frame.PIXEL, reference.image_size(), reference.id)
    if isinstance(pixels.value, ParsedBoxes) and not np.isfinite(pixels.value.boxes).all():
        return Answer(answer.task, None, "not_finite", answer.notes)
    return pixels


def _open_answer(answer: Answer, text: str, reference: Reference) -> Answer:
    """Where a question offers no labels any words are one, but neither a refusal nor a text without words such as
    `???`, which are unreadable where labels are offered."""
    if reference.task is not Task.MULTI_LABEL or not answer.value or offered_labels(reference.question):
        return answer
    if is_refusal(text):
        return Answer(answer.task, None, "refusal")
    return answer if any(map(str.isalnum, text)) else Answer(answer.task, None, "no_words")


def _parse(text: str | None, reference: Reference, labels: dict[str, tuple[str, ...]]) -> Answer:
    return parse_answer(
        text,
        reference.task,
        question=reference.question,
        labels=labels.get(reference.dataset, ()),
        separator=label_separator(reference.dataset),
    )


def _free_labels(references: Iterable[Reference]) -> dict[str, tuple[str, ...]]:
    """Labels of classifications without lettered options (FLARE's CMMD), by dataset, as its references have them."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for reference in references:
        if reference.task is Task.CLASSIFICATION and not options(reference.question):
            label = parse_answer(reference.answer, reference.task).value
            found[reference.dataset][label if isinstance(label, str) else normal(reference.answer)] = None
    return {dataset: tuple(sorted(labels)) for dataset, labels in found.items()}


def _squeezed(text: str) -> str:
    return " ".join(normalise(text).split()).casefold()
