"""The rules `official`: the challenge's public scorer, quirks included, so that numbers compare with published ones.

Source: `eval.py` of medfm-flare/FLARE25-PaliGemma (the only scorer published with the command line the organisers
documented; FLARE26-Hexapus calls the same rules official). Every quirk below is that program's, marked `quirk`.

Its join: through a dict keyed by `ImageName||Question`, so of equal keys the last reference and the last prediction
count (quirk), and a reference without a prediction is ignored (quirk). Ours differs in two ways that published data
does not meet: blank references are left out before, and predictions are matched by dataset and folder too. Converted
boxes, in other frames than pixels, are scored as they would be handed in.
"""

import ast
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.matching import both_sides
from evaluation.metrics.registry import Floats, Sums, Table, indicator, mean_of_classes, metric, ratio, table
from evaluation.samples import Sample
from medvl.box_text import MAX_CHARACTERS, BoxStyle, format_boxes
from medvl.boxes import as_boxes, iou, match_greedy
from medvl.tasks import Task

RULES = "official"
# quirk: any other spelling of TaskType gets no metric at all, without a word.
_SPELLINGS = {
    Task.CLASSIFICATION: "classification",
    Task.MULTI_LABEL: "multi-label classification",
    Task.DETECTION: "detection",
    Task.INSTANCE_DETECTION: "instance_detection",
    Task.COUNTING: "counting",
    Task.REGRESSION: "regression",
    Task.REPORT: "report_generation",
}

# quirk: a null answer is a wrong class, a miss of all boxes, or no number, each by another path; texts that have the
# same effect. It is no label set at all.
_NULL = {
    Task.CLASSIFICATION: "",
    Task.DETECTION: "None",
    Task.INSTANCE_DETECTION: "null",
    Task.COUNTING: "None",
    Task.REGRESSION: "None",
}


def matched(samples: Sequence[Sample]) -> NDArray[np.bool_]:
    """Which samples the scorer sees: with a prediction, the last of its key, its task spelled as expected."""
    last = {_key(sample): row for row, sample in enumerate(samples)}
    seen = [
        last[_key(sample)] == row
        and handed_in(sample) is not None
        and sample.reference.fields.get("TaskType", _SPELLINGS[sample.reference.task]).strip().lower()
        == _SPELLINGS[sample.reference.task]
        for row, sample in enumerate(samples)
    ]
    return np.array(seen, dtype=bool)


def _key(sample: Sample) -> tuple[tuple[str, ...], str]:
    return sample.reference.images, sample.reference.question


def handed_in(sample: Sample) -> str | None:
    """The text the scorer would read; None where there is none."""
    text = sample.later if sample.later is not None else sample.text
    if text is None and sample.null:
        return _NULL.get(sample.reference.task)
    boxes = both_sides(sample)[1]
    if text is None or sample.in_pixels or not len(boxes.boxes):
        return text
    style: BoxStyle = "map" if sample.reference.task is Task.INSTANCE_DETECTION else "flare"
    return format_boxes(boxes.boxes.round(), [label or "" for label in boxes.labels], style, "pixel")


def _texts(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """(reference, prediction) of every sample; empty where there is no prediction, which `matched` leaves out."""
    return [(sample.reference.answer, handed_in(sample) or "") for sample in samples]


@table(Task.CLASSIFICATION, rules=RULES)
def classes(samples: Sequence[Sample]) -> Table:
    """Columns, one per class: `truths` and `hits`.

    quirk: classes are lower-case texts, pooled over datasets, so that every dataset's letter a is one class; nothing is
    extracted, "B: Yes" is not "b".
    """
    seen = matched(samples)
    pairs = [(truth.strip().lower(), text.strip().lower()) for truth, text in _texts(samples)]
    codes = {name: code for code, name in enumerate(sorted({truth for truth, _ in pairs}))}
    truth = np.where(seen, [codes[name] for name, _ in pairs], -1)
    hit = np.array([truth == text for truth, text in pairs], dtype=bool) & seen
    columns = {"truths": indicator(truth, len(codes)), "hits": indicator(np.where(hit, truth, -1), len(codes))}
    return Table(~seen, np.where(seen, hit, np.nan), columns, counted=seen)


@metric(Task.CLASSIFICATION, name="balanced_accuracy", headline=True, rules=RULES, undefined="no prediction")
def balanced_accuracy(sums: Sums) -> Floats:
    """Mean over the references' classes of the share recognised."""
    return mean_of_classes(ratio(sums["hits"], sums["truths"]))


def _pooled(rows: Sequence[Sequence[float]], seen: NDArray[np.bool_], read: NDArray[np.bool_]) -> Table:
    """A table of true positives, false positives and false negatives, for F1 over all samples."""
    found = np.array(rows, dtype=np.int64).reshape(-1, 3) * seen[:, None]
    tp, fp, fn = found.T.astype(np.float64)
    score = np.where(seen & read, ratio(2 * tp, 2 * tp + fp + fn, empty=0.0), np.nan)
    return Table(~(seen & read), score, {"tp": tp, "fp": fp, "fn": fn}, counted=seen, found=found)


def _f1(sums: Sums) -> Floats:
    """quirk: 0, not 1, where there is nothing on either side."""
    return ratio(2 * sums["tp"], 2 * sums["tp"] + sums["fp"] + sums["fn"], empty=0.0)


@table(Task.MULTI_LABEL, rules=RULES)
def labels(samples: Sequence[Sample]) -> Table:
    """quirk: labels end at commas too; `Endodontic Treatment, Restorative Treatment, and Complications` is three."""
    rows = []
    for truth, text in _texts(samples):
        asked, named = (
            {part.strip().lower() for part in re.split("[;,]", side) if part.strip()} for side in (truth, text)
        )
        rows.append((len(asked & named), len(named - asked), len(asked - named)))
    seen = matched(samples)
    return _pooled(rows, seen, np.ones(len(rows), dtype=bool))


@metric(Task.MULTI_LABEL, name="f1_score", headline=True, rules=RULES)
def label_f1(sums: Sums) -> Floats:
    """Micro F1 over all labels of all samples."""
    return _f1(sums)


def _read(text: str, reader: Callable[[str], Any]) -> Any:
    """What a reader of literals makes of a text; None if it raises, on nested brackets too.

    Ours alone: texts beyond a million characters are not read, their parsers may not be linear in time.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    try:
        return reader(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _overlaps(truth: Any, predicted: Any) -> Floats:
    """IoU of every pair; quirk: 0 for anything that is no list of four numbers, such as the parts of a flat list."""
    sides = [[_four(box) for box in side] for side in (truth, predicted)]
    with np.errstate(invalid="ignore", over="ignore"):
        return np.nan_to_num(iou(as_boxes(sides[0]), as_boxes(sides[1])))


def _four(box: Any) -> list[float]:
    numbers = isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(part, int | float) for part in box)
    return [float(min(max(part, -1e9), 1e9)) for part in box] if numbers else [0.0] * 4


def _detected(truth: Any, predicted: Any) -> tuple[int, int, int]:
    """quirk: truths in their order each take the best box that is left, and IoU must exceed 0.5."""
    if not isinstance(predicted, list):
        return 0, 0, len(truth)  # quirk: a number or a dict is a miss, while what cannot be read at all is skipped
    matrix = _overlaps(truth, predicted)  # quirk: a flat [a, b, c, d] is four boxes that match nothing
    free, hits = np.ones(len(predicted), dtype=bool), 0
    for row in matrix if len(predicted) else ():
        best = int(np.argmax(np.where(free, row, -1.0)))
        if free[best] and row[best] > 0.5:
            free[best], hits = False, hits + 1
    return hits, len(predicted) - hits, len(truth) - hits


@table(Task.DETECTION, rules=RULES)
def boxes(samples: Sequence[Sample]) -> Table:
    """quirk: a prediction that is no Python literal is skipped, so failing to answer costs nothing."""
    rows, read = [], []
    for truth, text in _texts(samples):
        target, said = _read(truth, ast.literal_eval), _read(text, ast.literal_eval)
        usable = isinstance(target, list | tuple | dict) and (said is not None or text.strip() == "None")
        rows.append(_detected(target, said) if usable else (0, 0, 0))
        read.append(usable)
    return _pooled(rows, matched(samples), np.array(read, dtype=bool))


@metric(Task.DETECTION, name="detection_f1", headline=True, rules=RULES)
def detection_f1(sums: Sums) -> Floats:
    """F1 over the boxes of all pictures that could be read."""
    return _f1(sums)


def _instances(truth: dict[str, Any], predicted: Any) -> tuple[int, int, int]:
    """Within each name the best pair first, IoU >= 0.5."""
    if not isinstance(predicted, dict):
        return 0, 0, sum(len(value) for value in truth.values() if isinstance(value, list))
    tp = fp = fn = 0
    # quirk: a value without a length ends the picture half counted; in no fixed order there, sorted here.
    for name in sorted(truth.keys() | predicted.keys()):
        sides = truth.get(name, []), predicted.get(name, [])
        if not all(isinstance(side, list | str | dict) for side in sides):
            break
        hits = len(match_greedy(_overlaps(*sides), 0.5)) if all(sides) else 0
        tp, fp, fn = tp + hits, fp + len(sides[1]) - hits, fn + len(sides[0]) - hits
    return tp, fp, fn


@table(Task.INSTANCE_DETECTION, rules=RULES)
def instances(samples: Sequence[Sample]) -> Table:
    """quirk: a prediction that is not JSON (single quotes, a fence, cut off) is skipped."""
    rows, read = [], []
    for truth, text in _texts(samples):
        target, said = _read(truth, json.loads), _read(text, json.loads)
        usable = isinstance(target, dict) and (said is not None or text.strip() == "null")
        rows.append(_instances(target, said) if usable else (0, 0, 0))
        read.append(usable)
    return _pooled(rows, matched(samples), np.array(read, dtype=bool))


@metric(Task.INSTANCE_DETECTION, name="instance_f1", headline=True, rules=RULES)
def instance_f1(sums: Sums) -> Floats:
    """F1 over the boxes of all names of all pictures that could be read."""
    return _f1(sums)


def _float(text: str) -> float:
    """Python's own reading: 1_000 and Unicode digits are numbers; `inf` and `nan` are too, and end that scorer."""
    try:
        return float(text)
    except ValueError:
        return np.nan


@table(Task.COUNTING, Task.REGRESSION, rules=RULES)
def numbers(samples: Sequence[Sample]) -> Table:
    """Columns: `error` over answers that are numbers, `bad` ones, `n`."""
    seen = matched(samples)
    error = np.array([abs(_float(truth) - _float(text)) for truth, text in _texts(samples)])
    good = seen & np.isfinite(error)
    columns = {
        "error": np.where(good, error, 0.0),
        "bad": (seen & ~good).astype(np.float64),
        "n": seen.astype(np.float64),
    }
    return Table(~good, np.where(good, error, np.nan), columns, counted=seen)


@metric(Task.COUNTING, Task.REGRESSION, name="mean_absolute_error", higher_is_better=False, headline=True, rules=RULES,
        undefined="no prediction", infinite="an answer is no number, which makes the mean infinite")  # fmt: skip
def mean_absolute_error(sums: Sums) -> Floats:
    """quirk: one answer that is no number makes the whole task infinite. (It crashes on `nan`; infinite here.)"""
    return np.where(sums["bad"] > 0, np.inf, ratio(sums["error"], sums["n"]))


@table(Task.REPORT, rules=RULES)
def reports(samples: Sequence[Sample]) -> Table:
    """The scorer's only report metric needs a model, so there are columns only for what that said."""
    seen = matched(samples)
    scores = np.where(seen, [sample.judged.get("green", np.nan) for sample in samples], np.nan)
    known = ~np.isnan(scores)
    columns = {"green": np.where(known, scores, 0.0), "n": known.astype(np.float64)}
    return Table(~seen, scores, columns, counted=seen)


@metric(Task.REPORT, name="green_score", headline=True, rules=RULES,
        undefined="needs the GREEN model; ask for it with --report-metrics green")  # fmt: skip
def green_score(sums: Sums) -> Floats:
    """GREEN of the 7B model (`evaluation.judges`), mean over reports; never the hand-made rules."""
    return ratio(sums["green"], sums["n"])
