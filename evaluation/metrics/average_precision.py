"""COCO's mean average precision without confidences: average precision at one operating point, mean over classes.

A model that writes its boxes as text gives them no scores, so that there is no ranking and no curve of precision over
recall. All boxes are one operating point, with a precision P and a recall R, and the curve is P up to R and 0 beyond.
COCO reads it at recall 0, 0.01, …, 1: AP = P * (how many of these 101 are at most R) / 101. It is lower than that of a
detector whose boxes are ranked, and is not to be compared with one.

Boxes are matched within a class, as COCO does; one to one, as many as can be, whatever their order. The classes are the
names in a dataset's references. Where a detection question has references of one name, it asks for that: all boxes of
the answer are of that class. A box without a known name, and an answer that cannot be read, is a false positive of the
class that this costs most, as in every macro F1 here, so that it is never better than a wrong name. A class without
references has no average precision. COCO's crowds, areas and most of 100 boxes per image are not here.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from evaluation.matching import THRESHOLDS, Matched, both_sides, match, overlaps
from evaluation.metrics.registry import Column, Floats, Sums, mean_of_classes, metric, ratio
from evaluation.samples import Sample
from medvl.box_text import ParsedBoxes
from medvl.boxes import Boxes, as_boxes
from medvl.choices import normal
from medvl.tasks import Task

_BOTH = (Task.DETECTION, Task.INSTANCE_DETECTION)
_FIRST = THRESHOLDS.index(0.5)
_LIMITS = len(THRESHOLDS) - _FIRST  # 0.5, 0.55, …, 0.95
_STEPS = 100  # of recall
_NO_BOX = "no reference box"
_NOTE = "no confidences, so average precision at one operating point; not comparable with ranked boxes"
_AT_75 = THRESHOLDS.index(0.75) - _FIRST
Names = NDArray[np.object_]
# Hits (draws, k, limits), references and predictions (draws, k) -> score (draws, k).
Score = Callable[[Floats, Floats, Floats], Floats]


@dataclass(frozen=True)
class _Said:
    """The boxes of one sample with their names in one spelling; an answer that cannot be read has none."""

    truth: Boxes
    names: Names
    predicted: Boxes
    said: Names


def class_columns(samples: Sequence[Sample], matched: Sequence[Matched]) -> dict[str, Column]:
    """Columns `class_references`, `class_predictions`, each (n, k), `class_hits`, (n, 10 k), `class_unknown`, (n,).

    Args:
        samples: Of one task.
        matched: What matching without regard to names gives, for detection, where many questions are about one class.
    """
    said = [_named(sample) for sample in samples]
    names_of: dict[str, set[str]] = defaultdict(set)
    for sample, boxes in zip(samples, said, strict=True):
        names_of[sample.reference.dataset] |= set(boxes.names)
    pairs = [(dataset, name) for dataset in sorted(names_of) for name in sorted(names_of[dataset])]
    places = {pair: place for place, pair in enumerate(pairs)}
    cells: dict[str, list[tuple[int, int, float]]] = {"references": [], "predictions": [], "hits": []}
    unknown = np.zeros(len(samples))
    for row, (sample, boxes) in enumerate(zip(samples, said, strict=True)):
        known = names_of[sample.reference.dataset]
        unknown[row] = 1 if sample.invalid else sum(name not in known for name in boxes.said)
        for name, references, predictions, hits in _counts(sample, boxes, known, matched[row]):
            place = places[sample.reference.dataset, name]
            cells["references"].append((row, place, references))
            cells["predictions"].append((row, place, predictions))
            cells["hits"] += [(row, place * _LIMITS + limit, count) for limit, count in enumerate(hits) if count]
    widths = {"references": 1, "predictions": 1, "hits": _LIMITS}
    columns: dict[str, Column] = {
        f"class_{kind}": _matrix(found, (len(samples), max(1, len(places)) * widths[kind]))
        for kind, found in cells.items()
    }
    return columns | {"class_unknown": unknown}


def _matrix(cells: Sequence[tuple[int, int, float]], shape: tuple[int, int]) -> csr_matrix:
    rows, columns, values = zip(*cells, strict=True) if cells else ((), (), ())
    return csr_matrix((np.array(values, dtype=np.float64), (rows, columns)), shape=shape)


def _named(sample: Sample) -> _Said:
    truth, predicted = both_sides(sample)
    names, said = _names(truth), _names(predicted)
    if sample.invalid:
        return _Said(truth.boxes, names, as_boxes([]), said[:0])
    if sample.reference.task is Task.DETECTION and len(set(names)) == 1:
        said = np.full(len(said), names[0], dtype=object)
    return _Said(truth.boxes, names, predicted.boxes, said)


def _names(parsed: ParsedBoxes) -> Names:
    return np.array([normal(label or "") for label in parsed.labels], dtype=object)


def _counts(sample: Sample, boxes: _Said, known: set[str], matched: Matched) -> list[tuple[str, int, int, list[int]]]:
    """Class, references, predictions and hits at every limit, for each class that has any in an image."""
    here = sorted(set(boxes.names) | (set(boxes.said) & known))
    if sample.reference.task is Task.DETECTION and len(here) == 1 and set(boxes.said) <= set(here):
        return [(here[0], len(boxes.names), len(boxes.said), matched.hits[_FIRST:].tolist())]
    found = []
    for name in here:
        rows, columns = boxes.names == name, boxes.said == name
        hits = [0] * _LIMITS
        if rows.any() and columns.any():
            hits = match(overlaps(boxes.truth[rows], boxes.predicted[columns])).hits[_FIRST:].tolist()
        found.append((name, int(rows.sum()), int(columns.sum()), hits))
    return found


def _mean_over_classes(sums: Sums, score: Score) -> Floats:
    """A score per class, mean over those that have references, less what boxes of no class cost at most."""
    references, predictions = sums["class_references"], sums["class_predictions"]
    hits = sums["class_hits"].reshape(*references.shape, _LIMITS)
    values = score(hits, references, predictions)
    charged = score(hits, references, predictions + sums["class_unknown"][:, None])
    cost = np.nan_to_num(values - charged).max(axis=1)
    known = (~np.isnan(values)).sum(axis=1).astype(np.float64)
    return mean_of_classes(values) - ratio(cost, known, empty=0.0)


def _average_precision(hits: Floats, references: Floats, predictions: Floats) -> Floats:
    """Average precision per draw and class, mean over the limits of `hits`; NaN without references."""
    recall = ratio(hits, np.broadcast_to(references[..., None], hits.shape))
    precision = ratio(hits, np.broadcast_to(predictions[..., None], hits.shape), empty=0.0)
    reached = np.floor(recall * _STEPS + 1e-9) + 1  # how many of 0, 0.01, …, 1 are at most the recall
    values: Floats = (precision * reached / (_STEPS + 1)).mean(axis=2)
    return values


def _f1(hits: Floats, references: Floats, predictions: Floats) -> Floats:
    """F1 at IoU 0.5 per draw and class; NaN without references."""
    return np.where(references > 0, ratio(2 * hits[:, :, 0], references + predictions), np.nan)


@metric(*_BOTH, name="map_iou50_95", note=_NOTE, undefined=_NO_BOX)
def map_iou50_95(sums: Sums) -> Floats:
    """COCO's mAP at one operating point: mean over classes and IoU 0.5, 0.55, … 0.95. No confidences, so no ranking."""
    return _mean_over_classes(sums, _average_precision)


@metric(*_BOTH, name="map_iou50", note=_NOTE, undefined=_NO_BOX)
def map_iou50(sums: Sums) -> Floats:
    """The same at IoU 0.5, as Pascal VOC and COCO's AP50."""
    return _mean_over_classes(sums, lambda hits, *counts: _average_precision(hits[..., :1], *counts))


@metric(*_BOTH, name="map_iou75", note=_NOTE, detail=True, undefined=_NO_BOX)
def map_iou75(sums: Sums) -> Floats:
    """The same at IoU 0.75."""
    return _mean_over_classes(sums, lambda hits, *counts: _average_precision(hits[..., _AT_75 : _AT_75 + 1], *counts))


@metric(*_BOTH, name="f1_iou50_macro", undefined=_NO_BOX)
def f1_iou50_macro(sums: Sums) -> Floats:
    """F1 at IoU >= 0.5 within a class, mean over the classes that have references."""
    return _mean_over_classes(sums, _f1)
