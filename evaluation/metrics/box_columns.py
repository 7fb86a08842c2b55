"""Columns of the grounding metrics: what matching boxes gives beyond hits, and what kind of object each truth is.

TerraQuery and GeoNLI are the systems whose own scores these make comparable.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from evaluation.matching import Matched, both_sides
from evaluation.metrics.registry import Column, Floats
from evaluation.samples import Sample
from medvl.boxes import Boxes, Size, area, iou, match_greedy
from medvl.choices import normal

# TerraQuery's weights of 1 - mean IoU, false positives and false negatives.
ALPHA, BETA, GAMMA = 1.0, 0.5, 1.0
# Penalty per box too many or too few: 2.5 in GeoNLI's scorer, 1 in TerraQuery's training script.
GEONLI_PENALTIES = (2.5, 1.0)
_OUTSIDE = 1.0  # pixels a box may leave its image by rounding


def box_columns(samples: Sequence[Sample], matrices: Sequence[NDArray[np.float64]]) -> dict[str, Column]:
    """Columns of `grounding`; `matrices` holds the IoU of every pair per sample (`matching.iou_matrix`).

    An invalid answer is one wrong box wherever boxes are counted or paired; shares of boxes that were written leave it
    out.
    """
    rows = [_row(sample, matrix) for sample, matrix in zip(samples, matrices, strict=True)]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}


def _row(sample: Sample, matrix: NDArray[np.float64]) -> dict[str, float]:
    truth, predicted = (side.boxes for side in both_sides(sample))
    n_truth, n_predictions = matrix.shape
    pairs = match_greedy(matrix, 0.5)
    overlap = matrix[pairs[:, 0], pairs[:, 1]]
    in_order = _in_order(matrix)
    size = sample.reference.image_size()
    return {
        "images": 1.0,
        "loss": _loss(overlap, n_truth, n_predictions),
        "in_order_iou": sum(in_order),
        "in_order_pairs": len(in_order),
        "single": float(n_truth == 1),
        "single_hit": float(n_truth == 1 and n_predictions > 0 and matrix.size > 0 and matrix[0, 0] >= 0.5),
        "geonli_250": geonli(matrix, n_truth, n_predictions, GEONLI_PENALTIES[0]),
        "geonli_100": geonli(matrix, n_truth, n_predictions, GEONLI_PENALTIES[1]),
        "sized": len(predicted) if size else 0.0,
        "outside": _outside(predicted, size) if size else 0.0,
        "repeated": len(predicted) - len(np.unique(np.round(predicted), axis=0)),
        "boxes": len(predicted),
        **_aspect(truth[pairs[:, 0]], predicted[pairs[:, 1]]),
    }


def _loss(overlap: Floats, n_truth: int, n_predictions: int) -> float:
    """TerraQuery's README: alpha (1 - mean IoU) + beta #FP + gamma #FN over pairs matched greedily at IoU >= 0.5.

    Without a pair the mean IoU is 0; with nothing to find and nothing claimed there is no loss.
    """
    if not n_truth and not n_predictions:
        return 0.0
    mean = float(overlap.mean()) if len(overlap) else 0.0
    return ALPHA * (1 - mean) + BETA * (n_predictions - len(overlap)) + GAMMA * (n_truth - len(overlap))


def _in_order(matrix: NDArray[np.float64]) -> list[float]:
    """IoU of each truth, in order, with the best prediction that is left, without a threshold (TerraQuery's
    evaluate_iou.py). A truth for which none is left is not counted, which makes it the optimistic mean."""
    free = np.ones(matrix.shape[1], dtype=bool)
    found = []
    for row in matrix[: matrix.shape[1]]:
        column = int(np.argmax(np.where(free, row, -1.0)))
        free[column] = False
        found.append(float(row[column]))
    return found


def geonli(matrix: NDArray[np.float64], n_truth: int, n_predictions: int, penalty: float) -> float:
    """exp(-penalty |N predicted - N references|) * sum of IoU of an optimal assignment / N references (GeoNLI's
    scorer).

    1 where both sides are empty, 0 where only the truth is.
    """
    if not n_truth:
        return float(not n_predictions)
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    return float(np.exp(-penalty * abs(n_predictions - n_truth)) * matrix[rows, columns].sum() / n_truth)


def _outside(boxes: Boxes, size: Size) -> float:
    limit = np.array([*size, *size], dtype=np.float64) + _OUTSIDE
    return float(((boxes < -_OUTSIDE) | (boxes > limit)).any(axis=1).sum())


def _aspect(truth: Boxes, predicted: Boxes) -> dict[str, float]:
    """Sum and number of log2 of the predicted aspect ratio over the true one, for pairs that both have an area."""
    solid = (area(truth) > 0) & (area(predicted) > 0)
    sides = [boxes[solid, 2:] - boxes[solid, :2] for boxes in (predicted, truth)]
    logs = [np.log2(side[:, 0] / side[:, 1]) for side in sides]
    return {"log_aspect": float((logs[0] - logs[1]).sum()), "aspects": float(solid.sum())}


def group_columns(samples: Sequence[Sample], matched: Sequence[Matched]) -> tuple[dict[str, Column], tuple[str, ...]]:
    """Truths, hits at IoU 0.5 and IoU per kind of object, each of shape (n, groups); and the groups' names."""
    of_references = [groups_of_references(sample) for sample in samples]
    names = sorted({name for groups in of_references for truth in groups for name in truth})
    places = {name: place for place, name in enumerate(names)}
    columns = {name: np.zeros((len(samples), len(names))) for name in ("group_references", "group_hits", "group_iou")}
    for row, (groups, part) in enumerate(zip(of_references, matched, strict=True)):
        for index, truth in enumerate(groups):
            where = [places[name] for name in truth]
            columns["group_references"][row, where] += 1
            columns["group_hits"][row, where] += part.hit_of_truth[index]
            columns["group_iou"][row, where] += part.iou_of_truth[index]
    made: dict[str, Column] = dict(columns)
    return made, tuple(names)


def groups_of_references(sample: Sample) -> list[list[str]]:
    """The groups each reference box belongs to: size and position (if the image's size is known), class, uniqueness.

    Limits are TerraQuery's: an area below 1 % of the image is small, below 5 % medium; positions are thirds of the
    image by the box's centre; an object is unique if no other of its image overlaps it by more than 0.2.
    """
    parsed = both_sides(sample)[0]
    crowd = iou(parsed.boxes, parsed.boxes)
    np.fill_diagonal(crowd, 0.0)
    alone = crowd.max(axis=1, initial=0.0) <= 0.2
    groups = [[f"uniqueness={'unique' if unique else 'overlapped'}"] for unique in alone.tolist()]
    size = sample.reference.image_size()
    for index, label in enumerate(parsed.labels):
        if label:
            groups[index].append(f"class={normal(label)}")
        if size:
            groups[index] += _place(parsed.boxes[index : index + 1], size)
    return groups


def _place(box: Boxes, size: Size) -> list[str]:
    share = float(area(box)[0]) / (size[0] * size[1])
    x, y = ((box[0, :2] + box[0, 2:]) / 2 / np.array(size)).tolist()
    across = "left" if x < 0.33 else "right" if x > 0.66 else ""
    down = "top" if y < 0.33 else "bottom" if y > 0.66 else ""
    position = "-".join(part for part in (down, across) if part) or "centre"
    return [f"size={'small' if share < 0.01 else 'medium' if share < 0.05 else 'large'}", f"position={position}"]
