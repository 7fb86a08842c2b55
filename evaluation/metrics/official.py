"""The rules `official`: the challenge's public scorer, quirks included, so that numbers compare with published ones.

Source: `eval.py` of medfm-flare/FLARE25-PaliGemma (the only scorer published with the command line the organisers
documented; FLARE26-Hexapus calls the same rules official). Every quirk below is that program's, marked `quirk`, and
`benchmarks/official_scorer.py` runs both side by side. Which row it takes for a question, and what it reads of files
that are not in the challenge's form, is in `evaluation.handed_in`.

Where following it would be absurd we do not, marked `deviation`:

- a question without an answer is no reference; there, a blank is a class, and no number, which makes a mean infinite;
- `inf` or `nan` as an answer makes a mean infinite; there, the program ends without any number;
- a text beyond a million characters is not read; their parsers may not be linear in time;
- in instance detection a name whose value has no length ends its image half counted, names in order; there, in the
  order of a set, which changes from run to run;
- splits are scored apart (`evaluation.official_splits`), and of a dataset its question file is read, datasets by name;
  there, every JSON file below `validation-public` and nothing else, in the order of the file system, which decides
  between equal keys;
- converted references know the answer as text, and images by paths: they are joined as under strict rules;
- a file with NaN, Infinity or half a surrogate pair is no JSON and refused.
"""

import ast
import json
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from evaluation.handed_in import handed_in
from evaluation.metrics.registry import Floats, Sums, Table, indicator, mean_of_classes, metric, ratio, table
from evaluation.official_splits import RULES, SPELLINGS
from evaluation.samples import Sample
from medvl.box_text import MAX_CHARACTERS
from medvl.boxes import as_boxes, iou, match_greedy
from medvl.tasks import Task

NO_ENTRY = "no prediction matches, so the public scorer has no entry"


def matched(samples: Sequence[Sample]) -> NDArray[np.bool_]:
    """Which samples the scorer has a metric for: with a row it takes, their task spelled as it expects."""
    seen = [
        sample.taken is not None
        and sample.reference.fields.get("TaskType", SPELLINGS[sample.reference.task]).strip().lower()
        == SPELLINGS[sample.reference.task]
        for sample in samples
    ]
    return np.array(seen, dtype=bool)


def _answers(samples: Sequence[Sample]) -> list[tuple[Any, Any]]:
    """(reference, answer) of every sample, as the JSON values they are; None where no row is taken."""
    return [
        (
            sample.reference.answer if sample.reference.written is UNSET else sample.reference.written,
            None if sample.taken is None else handed_in(sample.reference, sample.taken, sample.frame),
        )
        for sample in samples
    ]


@table(Task.CLASSIFICATION, rules=RULES)
def classes(samples: Sequence[Sample]) -> Table:
    """Columns, one per class: `references` and `hits`.

    quirk: classes are lower-case texts, pooled over datasets, so that every dataset's letter a is one class; nothing is
    extracted, "B: Yes" is not "b", and a list is its text in Python, `['b']`.
    """
    seen = matched(samples)
    pairs = [(_class(truth), _class(said)) for truth, said in _answers(samples)]
    codes = {name: code for code, name in enumerate(sorted({truth for truth, _ in pairs}))}
    truth = np.where(seen, [codes[name] for name, _ in pairs], -1)
    hit = np.array([truth == said for truth, said in pairs], dtype=bool) & seen
    columns = {"references": indicator(truth, len(codes)), "hits": indicator(np.where(hit, truth, -1), len(codes))}
    return Table(~seen, np.where(seen, hit, np.nan), columns, counted=seen)


def _class(value: Any) -> str:
    """quirk: it compares numpy's strings, which end before NUL characters at their end."""
    return "" if value is None else str(value).strip().lower().rstrip("\0")


@metric(Task.CLASSIFICATION, name="balanced_accuracy", headline=True, rules=RULES, undefined=NO_ENTRY)
def balanced_accuracy(sums: Sums) -> Floats:
    """Mean over the references' classes of the share recognised."""
    return mean_of_classes(ratio(sums["hits"], sums["references"]))


def _pooled(rows: Sequence[Sequence[float]], seen: NDArray[np.bool_], read: NDArray[np.bool_]) -> Table:
    """A table of true positives, false positives and false negatives, for F1 over all samples."""
    found = np.array(rows, dtype=np.int64).reshape(-1, 3) * seen[:, None]
    tp, fp, fn = found.T.astype(np.float64)
    score = np.where(seen & read, ratio(2 * tp, 2 * tp + fp + fn, empty=0.0), np.nan)
    columns = {"tp": tp, "fp": fp, "fn": fn, "n": seen.astype(np.float64)}
    return Table(~(seen & read), score, columns, counted=seen, found=found)


def _f1(sums: Sums) -> Floats:
    """quirk: 0, not 1, where there is nothing on either side."""
    return np.where(sums["n"] > 0, ratio(2 * sums["tp"], 2 * sums["tp"] + sums["fp"] + sums["fn"], empty=0.0), np.nan)


@table(Task.MULTI_LABEL, rules=RULES)
def labels(samples: Sequence[Sample]) -> Table:
    """quirk: labels end at commas too; `Endodontic Treatment, Restorative Treatment, and Complications` is three."""
    rows, read = [], []
    for truth, said in _answers(samples):
        read.append(isinstance(truth, str) and isinstance(said, str))  # quirk: anything else is skipped
        expected, named = (_labels(side) if read[-1] else set() for side in (truth, said))
        rows.append((len(expected & named), len(named - expected), len(expected - named)))
    return _pooled(rows, matched(samples), np.array(read, dtype=bool))


def _labels(text: str) -> set[str]:
    return {part.strip().lower() for part in re.split("[;,]", text) if part.strip()}


@metric(Task.MULTI_LABEL, name="f1_score", headline=True, rules=RULES, undefined=NO_ENTRY)
def label_f1(sums: Sums) -> Floats:
    """Micro F1 over all labels of all samples."""
    return _f1(sums)


_FAILED = object()


def _read(value: Any, reader: Callable[[str], Any]) -> Any:
    """What the scorer has for an answer: a text by a reader of literals, `_FAILED` if that raises, on nested brackets
    too; any other value as it is."""
    if not isinstance(value, str):
        return value
    if len(value) > MAX_CHARACTERS:  # deviation
        return _FAILED
    try:
        return reader(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return _FAILED


def _overlaps(truth: Collection[Any], predicted: Collection[Any]) -> Floats:
    """IoU of every pair; quirk: 0 for anything that is not four numbers, such as the parts of a flat list."""
    sides = [[_four(box) for box in side] for side in (truth, predicted)]
    with np.errstate(invalid="ignore", over="ignore"):
        return np.nan_to_num(iou(as_boxes(sides[0]), as_boxes(sides[1])))


def _four(box: Any) -> list[float]:
    parts = tuple(box) if isinstance(box, Collection) else ()
    numbers = len(parts) == 4 and all(isinstance(part, int | float) for part in parts)
    return [float(min(max(part, -1e9), 1e9)) for part in parts] if numbers else [0.0] * 4


def _detected(truth: Collection[Any], predicted: Any) -> tuple[int, int, int]:
    """quirk: references in their order each take the best box that is left, and IoU must exceed 0.5."""
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
    for truth, answer in _answers(samples):
        target, said = _read(truth, ast.literal_eval), _read(answer, ast.literal_eval)
        usable = isinstance(target, Collection) and said is not _FAILED
        rows.append(_detected(target, said) if usable else (0, 0, 0))
        read.append(usable)
    return _pooled(rows, matched(samples), np.array(read, dtype=bool))


@metric(Task.DETECTION, name="detection_f1", headline=True, rules=RULES, undefined=NO_ENTRY)
def detection_f1(sums: Sums) -> Floats:
    """F1 over the boxes of all images that could be read."""
    return _f1(sums)


def _instances(truth: dict[str, Any], predicted: Any) -> tuple[int, int, int]:
    """Within each name the best pair first, IoU >= 0.5."""
    if not isinstance(predicted, dict):
        return 0, 0, sum(len(value) for value in truth.values() if isinstance(value, list))
    tp = fp = fn = 0
    # quirk: a value without a length ends the image half counted; deviation: in order.
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
    for truth, answer in _answers(samples):
        target, said = _read(truth, json.loads), _read(answer, json.loads)
        usable = isinstance(target, dict) and said is not _FAILED
        rows.append(_instances(target, said) if usable else (0, 0, 0))
        read.append(usable)
    return _pooled(rows, matched(samples), np.array(read, dtype=bool))


@metric(Task.INSTANCE_DETECTION, name="instance_f1", headline=True, rules=RULES, undefined=NO_ENTRY)
def instance_f1(sums: Sums) -> Floats:
    """F1 over the boxes of all names of all images that could be read."""
    return _f1(sums)


def _float(value: Any) -> float:
    """Python's own reading: 1_000, Unicode digits and true are numbers."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan


@table(Task.COUNTING, Task.REGRESSION, rules=RULES)
def numbers(samples: Sequence[Sample]) -> Table:
    """Columns: `error` over answers that are numbers, `bad` ones, `n`."""
    seen = matched(samples)
    error = np.array([abs(_float(truth) - _float(said)) for truth, said in _answers(samples)])
    good = seen & np.isfinite(error)
    columns = {
        "error": np.where(good, error, 0.0),
        "bad": (seen & ~good).astype(np.float64),
        "n": seen.astype(np.float64),
    }
    return Table(~good, np.where(good, error, np.nan), columns, counted=seen)


@metric(Task.COUNTING, Task.REGRESSION, name="mean_absolute_error", higher_is_better=False, headline=True, rules=RULES,
        undefined=NO_ENTRY,
        infinite="an answer is no number, or errors add up beyond all numbers: the mean is infinite")  # fmt: skip
def mean_absolute_error(sums: Sums) -> Floats:
    """quirk: one answer that is no number makes the whole task infinite; deviation: so does `inf` or `nan`."""
    return np.where(sums["bad"] > 0, np.inf, ratio(sums["error"], sums["n"]))


@table(Task.REPORT, rules=RULES)
def reports(samples: Sequence[Sample]) -> Table:
    """The scorer's only report metric needs a model, so there are columns only for what that said."""
    seen = matched(samples)
    scores = np.where(seen, [sample.model_scores.get("green", np.nan) for sample in samples], np.nan)
    known = ~np.isnan(scores)
    columns = {"green": np.where(known, scores, 0.0), "n": known.astype(np.float64)}
    return Table(~seen, scores, columns, counted=seen)


@metric(Task.REPORT, name="green_score", headline=True, rules=RULES,
        undefined="needs the GREEN model; ask for it with --report-metrics green")  # fmt: skip
def green_score(sums: Sums) -> Floats:
    """GREEN of the 7B model (`evaluation.model_based_metrics`), mean over reports; never the hand-made rules."""
    return ratio(sums["green"], sums["n"])
