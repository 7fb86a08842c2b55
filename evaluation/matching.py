"""Which predicted box stands for which reference box of an image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.samples import Sample
from medvl.box_text import ParsedBoxes
from medvl.boxes import Boxes, area, as_boxes, iou, match_optimal
from medvl.choices import normal
from medvl.tasks import Task

# IoU thresholds of `Matched.hits`: 0.3 for instances, then 0.5 to 0.95 as COCO averages over.
THRESHOLDS = (0.3, *(round(0.5 + 0.05 * step, 2) for step in range(10)))
# A zero-area truth is found by a box whose every side lies this close, pixels. See `overlaps`.
_ZERO_AREA_TOLERANCE = 1.0


def overlaps(truth: Boxes, predicted: Boxes) -> NDArray[np.float64]:
    """IoU of every pair, and 1 where a box repeats a truth without area to within a pixel.

    FLARE has such references (19 in BUSI-det). IoU cannot match them, so even a perfect copy would miss. They stay in
    the count of references. Boxes of numbers so large that their areas overflow overlap nothing.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = np.nan_to_num(iou(truth, predicted))
    flat = area(truth) == 0
    if flat.any() and len(predicted):
        distance = np.abs(truth[flat][:, None] - predicted[None]).max(axis=2)
        matrix[flat] = distance <= _ZERO_AREA_TOLERANCE
    return matrix


def has_zero_area(sample: Sample) -> bool:
    """Whether the reference holds a box without area."""
    return isinstance(sample.truth.value, ParsedBoxes) and bool((area(sample.truth.value.boxes) == 0).any())


@dataclass(frozen=True)
class Matched:
    """What matching the boxes of one image gives.

    Attributes:
        hits: Pairs at each of `THRESHOLDS`, one to one, as many as can be, shape (11,).
        iou_of_truth: IoU with the box assigned to each truth, 0 for one without; the assignment is one to one and makes
            the sum as large as can be.
        hit_of_truth: Whether a truth is among the pairs at IoU 0.5.
    """

    hits: NDArray[np.int64]
    iou_of_truth: NDArray[np.float64]
    hit_of_truth: NDArray[np.bool_]


def match(matrix: NDArray[np.float64]) -> Matched:
    """Match by an IoU matrix of shape (references, predictions).

    Matching is optimal, not greedy: the order of boxes in a text changes nothing.
    """
    assigned, found = np.zeros(len(matrix)), np.zeros(len(matrix), dtype=bool)
    if _no_choice(matrix > 0):
        hits = (matrix[:, :, None] >= np.array(THRESHOLDS)).sum(axis=(0, 1))
        return Matched(hits, matrix.max(axis=1, initial=0.0), matrix.max(axis=1, initial=0.0) >= 0.5)
    best = _pairs(matrix, 0.0)
    assigned[best[:, 0]] = matrix[best[:, 0], best[:, 1]]
    found[_pairs(matrix, 0.5)[:, 0]] = True
    return Matched(np.array([len(_pairs(matrix, limit)) for limit in THRESHOLDS]), assigned, found)


def _pairs(matrix: NDArray[np.float64], threshold: float) -> NDArray[np.intp]:
    """`match_optimal` without the boxes that touch nothing, and without its work where no box has a choice."""
    allowed = matrix >= threshold if threshold > 0 else matrix > 0
    rows, columns = np.flatnonzero(allowed.any(axis=1)), np.flatnonzero(allowed.any(axis=0))
    inner = allowed[np.ix_(rows, columns)]
    if _no_choice(inner):
        return np.argwhere(allowed)
    pairs = match_optimal(matrix[np.ix_(rows, columns)], threshold)
    return np.stack([rows[pairs[:, 0]], columns[pairs[:, 1]]], axis=1)


def _no_choice(allowed: NDArray[np.bool_]) -> bool:
    return bool((allowed.sum(axis=0) <= 1).all() and (allowed.sum(axis=1) <= 1).all())


def _labels(parsed: ParsedBoxes) -> NDArray[np.object_]:
    return np.array([normal(label or "") for label in parsed.labels], dtype=object)


_NONE = ParsedBoxes(as_boxes([]), ())
# What stands in for a reference that holds no readable boxes: one object, which only its own text finds.
_UNREADABLE = ParsedBoxes(as_boxes([0, 0, 0, 0]), (None,))


def both_sides(sample: Sample) -> tuple[ParsedBoxes, ParsedBoxes]:
    """Reference and predicted boxes of a sample, pixels. An invalid answer has none; see `iou_matrix`."""
    truth = sample.truth.value if isinstance(sample.truth.value, ParsedBoxes) else _UNREADABLE
    predicted = sample.answer.value if isinstance(sample.answer.value, ParsedBoxes) else _NONE
    return truth, truth if sample.exact else predicted


def iou_matrix(sample: Sample) -> NDArray[np.float64]:
    """IoU of every pair, shape (references, predicted boxes); 0 between different labels in instance detection.

    Labels matter for instance detection alone: a detection question names what to look for. An invalid answer claims
    one box that touches nothing, so that failing to answer is never better than a wrong box.
    """
    truth, predicted = both_sides(sample)
    if sample.invalid:
        return np.zeros((len(truth.boxes), 1))
    matrix = overlaps(truth.boxes, predicted.boxes)
    if sample.reference.task is Task.INSTANCE_DETECTION:
        matrix = matrix * np.equal.outer(_labels(truth), _labels(predicted)).astype(np.float64)
    return matrix
