"""Images with the boxes of reference and prediction, small enough to stand in the page."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.page.text import visible
from evaluation.samples import Reference, Sample
from evaluation.scores import TaskScores
from evaluation.worst import rank, reason
from medvl.box_text import ParsedBoxes
from medvl.boxes import Boxes, Size, as_boxes, clip
from medvl.images import thumbnail
from medvl.tasks import Task

_SIDE = 512  # pixels; enough to judge a box on a phone and on a desk
_MOST_ABSENT = 6
_MOST_BOXES = 300  # per side and image; an answer may hold thousands


@dataclass(frozen=True)
class Rectangle:
    """A box as the page draws it, pixels of the original image."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Overlay:
    """An image and its boxes.

    Attributes:
        id: The reference's id.
        task: Canonical task name.
        dataset: Dataset name.
        score: The sample's score.
        reason: Why it lost points, None if it is perfect.
        size: (width, height) of the drawing, pixels of the original image.
        data: JPEG as a data URI; None if the image could not be read.
        absent: Why not.
        truth: Boxes of the reference.
        predicted: Boxes of the prediction, as far as they lie in the image.
        outside: Number of predicted boxes that leave the image.
        undrawn: Number of boxes beyond those that are drawn.
    """

    id: str
    task: str
    dataset: str
    score: float
    reason: str | None
    size: Size
    data: str | None
    absent: str | None
    truth: tuple[Rectangle, ...]
    predicted: tuple[Rectangle, ...]
    outside: int
    undrawn: int


def collect(scores: Mapping[Task, TaskScores], most: int, place: Callable[[Reference], Path | None]) -> list[Overlay]:
    """Up to `most` images over all tasks with boxes: in each the worst, then others spread evenly up to the best.

    Args:
        scores: All tasks'.
        most: Largest number.
        place: Where a reference's first image lies.
    """
    tasks = [part for task, part in scores.items() if task.has_boxes]
    images: list[Overlay] = []
    for left, part in zip(range(len(tasks), 0, -1), tasks, strict=True):
        images += [_image(sample, score, place) for sample, score in _chosen(part, (most - len(images)) // left)]
    # Boxes on an empty ground tell little; where no image is there at all, a few are enough.
    return images if any(image.data for image in images) else images[:_MOST_ABSENT]


def _chosen(part: TaskScores, most: int) -> Iterator[tuple[Sample, float]]:
    """The worst half that has boxes on both sides to look at, and as many spread over the rest."""
    pairs = zip(part.samples, part.table.score.tolist(), strict=True)
    ranked = sorted(pairs, key=lambda pair: (rank(*pair), not len(_boxes(pair[0].answer.value))))
    # An answer without boxes shows nothing that its text does not say.
    ranked = [pair for pair in ranked if len(_boxes(pair[0].answer.value))] or ranked
    worst = ranked[: math.ceil(most / 2)]
    rest = ranked[len(worst) :]
    places = np.linspace(0, len(rest) - 1, min(most - len(worst), len(rest))) if rest else ()
    return iter([*worst, *(rest[round(place)] for place in places)])


def _boxes(value: object) -> Boxes:
    return value.boxes if isinstance(value, ParsedBoxes) else as_boxes([])


def _image(sample: Sample, score: float, place: Callable[[Reference], Path | None]) -> Overlay:
    reference = sample.reference
    truth, predicted = _boxes(sample.truth.value), _boxes(sample.answer.value)
    data, size, absent = _jpeg(place(reference))
    known = size or reference.image_size()
    size = known or _bounds(truth, predicted)
    outside = (clip(predicted, size) != predicted).any(axis=1) if known else np.zeros(0)
    return Overlay(
        id=visible(reference.id, 200),
        task=reference.task.value,
        dataset=visible(reference.dataset, 80),
        score=score,
        reason=reason(sample, score) if score < 1 else None,
        size=size,
        data=data,
        absent=absent,
        truth=_rectangles(sample.truth.value, truth, size),
        predicted=_rectangles(sample.answer.value, predicted, size),
        outside=int(outside.sum()),
        undrawn=max(0, len(truth) - _MOST_BOXES) + max(0, len(predicted) - _MOST_BOXES),
    )


def _rectangles(value: object, boxes: Boxes, size: Size) -> tuple[Rectangle, ...]:
    labels: Sequence[str | None] = value.labels if isinstance(value, ParsedBoxes) else ()
    drawn = [[round(number, 1) for number in box] for box in clip(boxes[:_MOST_BOXES], size).tolist()]
    return tuple(
        Rectangle(x1, y1, round(x2 - x1, 1), round(y2 - y1, 1), visible(label or "", 60))
        for (x1, y1, x2, y2), label in zip(drawn, labels, strict=False)
    )


def _bounds(truth: Boxes, predicted: Boxes) -> Size:
    """Where neither the image nor its size is known: a field that holds the reference's boxes, and the predicted ones
    unless they lie so far out that nothing could be seen."""
    width, height = truth[:, 2:].max(axis=0) if len(truth) else (100.0, 100.0)
    if len(predicted):
        right, bottom = predicted[:, 2:].max(axis=0)
        width, height = max(width, min(right, 3 * width)), max(height, min(bottom, 3 * height))
    return max(1, math.ceil(1.05 * width)), max(1, math.ceil(1.05 * height))


def _jpeg(path: Path | None) -> tuple[str | None, Size | None, str | None]:
    """An image as a model is shown it (`medvl.images`) as a small JPEG data URI, its own size, why there is none."""
    if path is None:
        return None, None, "the references do not say where it lies"
    try:
        return *thumbnail(path, _SIDE), None
    except FileNotFoundError:
        return None, None, "it is not there"
    except (OSError, ValueError) as error:
        return None, None, f"it cannot be read ({visible(str(error), 200)})"
