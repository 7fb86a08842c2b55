"""Detection and instance detection: F1, precision and recall at an IoU, and the mean IoU."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.registry import Table, UndefinedError, metric, table
from evaluation.samples import Sample
from medvl.box_text import ParsedBoxes
from medvl.boxes import Boxes, area, as_boxes, iou, match_optimal
from medvl.choices import normal
from medvl.tasks import Task

_BOTH = (Task.DETECTION, Task.INSTANCE_DETECTION)
# A zero-area truth is found by a box whose every side lies this close, pixels. See `overlaps`.
_ZERO_AREA_TOLERANCE = 1.0


@dataclass(frozen=True)
class Matches(Table):
    """Matched boxes per picture.

    Attributes:
        truths: Number of reference boxes.
        predictions: Number of predicted boxes; an invalid answer to a picture without truths counts as one.
        hits30: Pairs of an optimal matching at IoU >= 0.3, one to one.
        hits50: The same at 0.5.
        hits75: The same at 0.75.
        iou_sum: Largest sum of IoU that a one-to-one assignment can reach.
    """

    truths: NDArray[np.int64]
    predictions: NDArray[np.int64]
    hits30: NDArray[np.int64]
    hits50: NDArray[np.int64]
    hits75: NDArray[np.int64]
    iou_sum: NDArray[np.float64]

    def counts(self, row: int) -> dict[str, int]:
        """Boxes found, invented and missed at IoU 0.5."""
        hits = int(self.hits50[row])
        return {"tp": hits, "fp": int(self.predictions[row]) - hits, "fn": int(self.truths[row]) - hits}


def overlaps(truth: Boxes, predicted: Boxes) -> NDArray[np.float64]:
    """IoU of every pair, and 1 where a box repeats a truth without area to within a pixel.

    FLARE has such truths (19 in BUSI-det). IoU cannot match them, so even a perfect copy would miss. They stay in the
    count of truths.
    """
    matrix = iou(truth, predicted)
    flat = area(truth) == 0
    if flat.any() and len(predicted):
        distance = np.abs(truth[flat][:, None] - predicted[None]).max(axis=2)
        matrix[flat] = distance <= _ZERO_AREA_TOLERANCE
    return matrix


def has_zero_area(sample: Sample) -> bool:
    """Whether the reference holds a box without area."""
    return isinstance(sample.truth.value, ParsedBoxes) and bool((area(sample.truth.value.boxes) == 0).any())


def match_counts(truth: ParsedBoxes, predicted: ParsedBoxes, *, by_label: bool) -> tuple[int, int, int, float]:
    """Matched pairs at IoU >= 0.3, 0.5 and 0.75, and the largest sum of IoU; within equal labels if `by_label`.

    Matching is optimal, as many pairs as can be: the order of boxes in a text changes nothing.
    """
    if not len(truth.boxes) or not len(predicted.boxes):
        return 0, 0, 0, 0.0
    matrix = overlaps(truth.boxes, predicted.boxes)
    if by_label:
        matrix = matrix * np.equal.outer(_labels(truth), _labels(predicted))
    if matrix.size == 1:
        only = float(matrix[0, 0])
        return int(only >= 0.3), int(only >= 0.5), int(only >= 0.75), only
    best = match_optimal(matrix, 0.0)  # everything may pair, so only the sum decides
    at30, at50, at75 = (len(match_optimal(matrix, threshold)) for threshold in (0.3, 0.5, 0.75))
    return at30, at50, at75, float(matrix[best[:, 0], best[:, 1]].sum())


def _labels(parsed: ParsedBoxes) -> NDArray[np.object_]:
    return np.array([normal(label or "") for label in parsed.labels], dtype=object)


_NONE = ParsedBoxes(as_boxes([]), ())
# What stands in for a reference that holds no readable boxes: one object, which only its own text finds.
_UNREADABLE = ParsedBoxes(as_boxes([0, 0, 0, 0]), (None,))


@table(*_BOTH)
def matches(samples: Sequence[Sample]) -> Matches:
    """Matched boxes of every sample. An invalid answer has no boxes.

    Where there is nothing to find, no boxes would be right, so an invalid answer counts as one false box there.
    Labels matter for instance detection alone.
    """
    rows = []
    for sample in samples:
        truth = sample.truth.value if isinstance(sample.truth.value, ParsedBoxes) else _UNREADABLE
        predicted = sample.answer.value if isinstance(sample.answer.value, ParsedBoxes) else _NONE
        if sample.exact:
            predicted = truth
        by_label = sample.reference.task is Task.INSTANCE_DETECTION
        claimed = 1 if sample.invalid and not len(truth.boxes) else len(predicted.boxes)
        rows.append((len(truth.boxes), claimed, *match_counts(truth, predicted, by_label=by_label)))
    values = np.array(rows, dtype=np.float64).reshape(-1, 6)
    truths, predictions, hits30, hits50, hits75 = values[:, :5].astype(np.int64).T
    invalid = np.array([sample.invalid for sample in samples], dtype=bool)
    sides = truths + predictions
    score = np.divide(2.0 * hits50, sides, out=np.ones(len(sides)), where=sides > 0)
    return Matches(invalid, score, truths, predictions, hits30, hits50, hits75, values[:, 5])


def _f1(table: Matches, hits: NDArray[np.int64]) -> float:
    """F1 over the boxes of all pictures; 1 if there is nothing to find and nothing was claimed."""
    sides = int(table.truths.sum() + table.predictions.sum())
    return 2.0 * float(hits.sum()) / sides if sides else 1.0


@metric(*_BOTH, name="f1_iou50", headline=True)
def f1_iou50(table: Matches) -> float:
    """F1 at IoU >= 0.5."""
    return _f1(table, table.hits50)


@metric(Task.DETECTION, name="precision_iou50")
def precision_iou50(table: Matches) -> float:
    """Share of predicted boxes that match a truth at IoU >= 0.5; 0 if there are truths and nothing was predicted."""
    claimed = int(table.predictions.sum())
    if not claimed:
        return 0.0 if table.truths.any() else 1.0
    return float(table.hits50.sum()) / claimed


@metric(Task.DETECTION, name="recall_iou50")
def recall_iou50(table: Matches) -> float:
    """Share of truths that a predicted box matches at IoU >= 0.5."""
    return float(table.hits50.sum()) / _truths(table)


@metric(Task.DETECTION, name="f1_iou75")
def f1_iou75(table: Matches) -> float:
    """F1 at IoU >= 0.75."""
    return _f1(table, table.hits75)


@metric(Task.DETECTION, name="mean_iou")
def mean_iou(table: Matches) -> float:
    """Mean over all truths of the IoU with the box assigned to each, 0 for one without.

    The assignment is one to one within a picture and makes the sum as large as can be, without a threshold. Superfluous
    boxes do not lower it.
    """
    return float(table.iou_sum.sum()) / _truths(table)


@metric(Task.INSTANCE_DETECTION, name="f1_iou30")
def f1_iou30(table: Matches) -> float:
    """F1 at IoU >= 0.3."""
    return _f1(table, table.hits30)


def _truths(table: Matches) -> int:
    total = int(table.truths.sum())
    if not total:
        raise UndefinedError("no reference box")
    return total
