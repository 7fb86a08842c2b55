"""Grounding: what detection's F1 does not show. Counts, reference systems' own scores, and recall by kind of object.

TerraQuery's box loss and scorers, and the GeoNLI challenge's score, are computed on the text a model generated, so that
numbers compare with theirs. The columns are made in `box_columns`.
"""

import numpy as np

from evaluation.matching import THRESHOLDS
from evaluation.metrics.registry import Floats, Sums, metric, ratio
from medvl.tasks import Task

_COUNTED = THRESHOLDS.index(0.5)


def _hits(sums: Sums, threshold: float) -> Floats:
    return sums["hits"][:, THRESHOLDS.index(threshold)]


@metric(Task.DETECTION, name="precision_iou75", detail=True)
def precision_iou75(sums: Sums) -> Floats:
    """Precision at IoU >= 0.75; 0 if there are references and nothing was predicted, else 1."""
    nothing = np.where(sums["references"] > 0, 0.0, 1.0)
    return np.where(sums["predictions"] > 0, ratio(_hits(sums, 0.75), sums["predictions"]), nothing)


@metric(Task.DETECTION, name="recall_iou75", detail=True, undefined="no reference box")
def recall_iou75(sums: Sums) -> Floats:
    """Recall at IoU >= 0.75."""
    return ratio(_hits(sums, 0.75), sums["references"])


@metric(Task.DETECTION, name="precision_iou50_95", detail=True)
def precision_iou50_95(sums: Sums) -> Floats:
    """Precision, mean over IoU 0.5, 0.55, … 0.95; 0 if there are references and nothing was predicted, else 1."""
    nothing = np.where(sums["references"] > 0, 0.0, 1.0)
    mean = sums["hits"][:, _COUNTED:].mean(axis=1)
    return np.where(sums["predictions"] > 0, ratio(mean, sums["predictions"]), nothing)


@metric(Task.DETECTION, name="recall_iou50_95", detail=True, undefined="no reference box")
def recall_iou50_95(sums: Sums) -> Floats:
    """Recall, mean over IoU 0.5, 0.55, … 0.95."""
    return ratio(sums["hits"][:, _COUNTED:].mean(axis=1), sums["references"])


@metric(Task.DETECTION, name="f1_iou50_95")
def f1_iou50_95(sums: Sums) -> Floats:
    """F1, mean over IoU 0.5, 0.55, … 0.95; 1 if there is nothing to find and nothing was claimed."""
    return ratio(2 * sums["hits"][:, _COUNTED:].mean(axis=1), sums["references"] + sums["predictions"], empty=1.0)


@metric(Task.DETECTION, name="mean_iou_matched", detail=True, undefined="no image with boxes on both sides")
def mean_iou_matched(sums: Sums) -> Floats:
    """Mean IoU over references that got a prediction (`box_columns._in_order`). Optimistic: `mean_iou` counts all."""
    return ratio(sums["in_order_iou"], sums["in_order_pairs"])


@metric(Task.DETECTION, name="false_positives", higher_is_better=False, detail=True)
def false_positives(sums: Sums) -> Floats:
    """Number of predicted boxes that match no truth at IoU >= 0.5."""
    return sums["predictions"] - _hits(sums, 0.5)


@metric(Task.DETECTION, name="false_negatives", higher_is_better=False, detail=True)
def false_negatives(sums: Sums) -> Floats:
    """Number of references that no predicted box matches at IoU >= 0.5."""
    return sums["references"] - _hits(sums, 0.5)


@metric(Task.DETECTION, name="grounding_loss", higher_is_better=False, detail=True)
def grounding_loss(sums: Sums) -> Floats:
    """TerraQuery's box loss with its own weights, mean over images (`box_columns._loss`)."""
    return ratio(sums["loss"], sums["images"])


@metric(Task.DETECTION, name="accuracy_iou50", detail=True, undefined="no image with exactly one reference box")
def accuracy_iou50(sums: Sums) -> Floats:
    """Acc@0.5 of referring expressions: images with one truth whose first predicted box has IoU >= 0.5 with it."""
    return ratio(sums["single_hit"], sums["single"])


@metric(Task.DETECTION, name="geonli", detail=True)
def geonli_250(sums: Sums) -> Floats:
    """GeoNLI's grounding score (`box_columns.geonli`), penalty 2.5, mean over images."""
    return ratio(sums["geonli_250"], sums["images"])


@metric(Task.DETECTION, name="geonli_alpha1", detail=True)
def geonli_100(sums: Sums) -> Floats:
    """The same with penalty 1, as in TerraQuery's training script."""
    return ratio(sums["geonli_100"], sums["images"])


@metric(Task.DETECTION, name="out_of_range_rate", higher_is_better=False, detail=True,
        undefined="no predicted box on an image of known size")  # fmt: skip
def out_of_range_rate(sums: Sums) -> Floats:
    """Share of predicted boxes that leave their image by more than a pixel, where the image's size is known."""
    return ratio(sums["outside"], sums["sized"])


@metric(Task.DETECTION, name="duplicate_rate", higher_is_better=False, detail=True, undefined="no predicted box")
def duplicate_rate(sums: Sums) -> Floats:
    """Share of predicted boxes that repeat another of the same answer, to the pixel."""
    return ratio(sums["repeated"], sums["boxes"])


@metric(Task.DETECTION, name="aspect_bias", higher_is_better=False, detail=True,
        undefined="no pair of boxes at IoU >= 0.5")  # fmt: skip
def aspect_bias(sums: Sums) -> Floats:
    """How far found boxes are too wide or too high: |mean log2 of predicted over true aspect ratio|. 0.1 is 7 %."""
    return np.abs(np.where(sums["aspects"] > 0, sums["log_aspect"] / np.maximum(sums["aspects"], 1), np.nan))


@metric(Task.DETECTION, name="recall_iou50", by_group=True, undefined="no such object")
def group_recall(sums: Sums) -> Floats:
    """Recall at IoU >= 0.5 per kind of object."""
    return ratio(sums["group_hits"], sums["group_references"])


@metric(Task.DETECTION, name="mean_iou", by_group=True, undefined="no such object")
def group_iou(sums: Sums) -> Floats:
    """Mean IoU over all references per kind of object."""
    return ratio(sums["group_iou"], sums["group_references"])
