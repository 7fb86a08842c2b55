"""Detection and instance detection: F1, precision and recall at an IoU, and the mean IoU."""

from collections.abc import Sequence

import numpy as np

from evaluation.matching import THRESHOLDS, iou_matrix, match
from evaluation.metrics.average_precision import class_columns
from evaluation.metrics.box_columns import box_columns, group_columns
from evaluation.metrics.label_sets import found_of
from evaluation.metrics.registry import Column, Floats, Sums, Table, metric, ratio, table
from evaluation.samples import Sample
from medvl.tasks import Task

_BOTH = (Task.DETECTION, Task.INSTANCE_DETECTION)
NO_BOX = "no reference box"


@table(*_BOTH)
def matches(samples: Sequence[Sample]) -> Table:
    """Columns: reference boxes (`references`), predicted ones (`predictions`), `hits` at every threshold, sum of IoU
    (`iou`). Those per class are described in `average_precision`.

    An invalid answer counts as one box, which is wrong.

    Detection has those of `grounding` too.
    """
    matrices = [iou_matrix(sample) for sample in samples]
    matched = [match(matrix) for matrix in matrices]
    hits = np.array([part.hits for part in matched], dtype=np.float64).reshape(len(samples), -1)
    references = np.array([len(matrix) for matrix in matrices], dtype=np.float64)
    predicted = np.array([matrix.shape[1] for matrix in matrices], dtype=np.float64)
    columns: dict[str, Column] = {
        "references": references,
        "predictions": predicted,
        "hits": hits,
        "iou": np.array([part.iou_of_truth.sum() for part in matched]),
        **class_columns(samples, matched),
    }
    groups: tuple[str, ...] = ()
    if all(sample.reference.task is Task.DETECTION for sample in samples):
        columns |= box_columns(samples, matrices)
        grouped, groups = group_columns(samples, matched)
        columns |= grouped
    return Table(
        invalid=np.array([sample.invalid for sample in samples], dtype=bool),
        score=ratio(2 * hits[:, 1], references + predicted, empty=1.0),
        columns=columns,
        found=found_of(hits[:, 1], references, predicted),
        groups=groups,
    )


def f1_at(sums: Sums, threshold: float) -> Floats:
    """F1 over the boxes of all images; 1 if there is nothing to find and nothing was claimed."""
    hits = sums["hits"][:, THRESHOLDS.index(threshold)]
    return ratio(2 * hits, sums["references"] + sums["predictions"], empty=1.0)


def precision_at(sums: Sums, threshold: float) -> Floats:
    """Share of predicted boxes that match a truth; 0 if there are references and nothing was predicted, else 1."""
    precision = ratio(sums["hits"][:, THRESHOLDS.index(threshold)], sums["predictions"])
    return np.where(sums["predictions"] > 0, precision, np.where(sums["references"] > 0, 0.0, 1.0))


def recall_at(sums: Sums, threshold: float) -> Floats:
    """Share of references that a predicted box matches; NaN without references."""
    return ratio(sums["hits"][:, THRESHOLDS.index(threshold)], sums["references"])


@metric(*_BOTH, name="f1_iou50", headline=True)
def f1_iou50(sums: Sums) -> Floats:
    """F1 at IoU >= 0.5."""
    return f1_at(sums, 0.5)


@metric(Task.DETECTION, name="precision_iou50")
def precision_iou50(sums: Sums) -> Floats:
    """Precision at IoU >= 0.5."""
    return precision_at(sums, 0.5)


@metric(Task.DETECTION, name="recall_iou50", undefined=NO_BOX)
def recall_iou50(sums: Sums) -> Floats:
    """Recall at IoU >= 0.5."""
    return recall_at(sums, 0.5)


@metric(Task.DETECTION, name="f1_iou75")
def f1_iou75(sums: Sums) -> Floats:
    """F1 at IoU >= 0.75."""
    return f1_at(sums, 0.75)


@metric(Task.DETECTION, name="mean_iou", undefined=NO_BOX)
def mean_iou(sums: Sums) -> Floats:
    """Mean over all references of the IoU with the box assigned to each, 0 for one without.

    The assignment is one to one within an image and makes the sum as large as can be, without a threshold. Superfluous
    boxes do not lower it.
    """
    return ratio(sums["iou"], sums["references"])


@metric(Task.INSTANCE_DETECTION, name="f1_iou30")
def f1_iou30(sums: Sums) -> Floats:
    """F1 at IoU >= 0.3."""
    return f1_at(sums, 0.3)
