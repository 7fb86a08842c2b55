"""The scorer of FLARE26-MedGemma, which has rules of its own: what both read alike must count alike.

Every row is given to it twice: as `official` reads it, spelled so that there is but one way to read it, where its
numbers must be equal; and as it stands, where they may differ if the two read it in different ways. Besides, two rules
for boxes differ: there the best pair comes first and an IoU of one half is enough, here references choose in their
order
and need more (checked by pairing the same boxes by that rule), and what cannot be read is a miss there, skipped here.
"""

import ast
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from evaluation.handed_in import handed_in
from evaluation.metrics import official
from evaluation.samples import Sample
from evaluation.scores import Evaluation
from medvl.boxes import as_boxes, iou, match_greedy
from medvl.tasks import Task

Counts = tuple[float, ...]
Boxes = list[tuple[tuple[float, ...], str | None]]


def compare(module: ModuleType, ours: Evaluation, explained: Counter[str]) -> list[str]:
    """Every difference that has no explanation, a line each."""
    differences = []
    for task, scores in ours.scores["official"].items():
        if task is Task.REPORT:
            continue  # needs a model
        seen = official.matched(scores.samples)
        for row, sample in enumerate(scores.samples):
            if not seen[row]:
                continue
            assert sample.taken is not None
            truth, said = _truth(sample), handed_in(sample.reference, sample.taken, sample.frame)
            mine = tuple(scores.table.counts(row).values()) or (float(scores.table.score[row]),)
            why, theirs = _row(module, task, truth, said, mine)
            explained["compared"] += 1
            if why is None:
                differences.append(f"{task}: {truth!r} answered {said!r}: theirs {theirs}, ours {mine}"[:600])
            elif why:
                explained[f"{task}: {why}"] += 1
    return differences


def _truth(sample: Sample) -> Any:
    reference = sample.reference
    return reference.answer if reference.written is official.UNSET else reference.written


def _row(module: ModuleType, task: Task, truth: Any, said: Any, mine: Counts) -> tuple[str | None, Counts]:
    """Why the row differs: "" if it does not, None if nothing explains it."""
    ours, theirs = (_both(partial(read, module) if index else read, truth, said)
                    for index, read in enumerate(_READERS[task]))  # fmt: skip
    if None in ours:
        return "not read by `official`", ()
    counted = _counts(module, task, *_respelled(task, ours))
    if not np.allclose(counted, mine, rtol=1e-9) and not (task.has_boxes and counted[0] == _pairs(*ours)):
        return None, counted
    try:
        as_it_stands = _counts(module, task, truth, said)
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError, KeyError) as error:
        return f"their program ends ({type(error).__name__})", ()
    if np.allclose(as_it_stands, mine, rtol=1e-9):
        return "", as_it_stands
    if ours != theirs:
        return "read in another way", as_it_stands
    return ("boxes paired by another rule" if task.has_boxes else None), as_it_stands


def _both(read: Callable[[Any], Any], truth: Any, said: Any) -> tuple[Any, Any]:
    return _try(read, truth), _try(read, said)


def _respelled(task: Task, sides: tuple[Any, Any]) -> list[Any]:
    """Both sides as values that can be read in one way only: words become `w0`, `w1`, …"""
    if task.is_number:
        return list(sides)
    words: dict[Any, str] = defaultdict(lambda: f"w{len(words)}")
    if task is Task.CLASSIFICATION:
        return [words[side] for side in sides]
    if task is Task.MULTI_LABEL:
        return [[words[label] for label in sorted(side)] for side in sides]
    return [[{"bbox": list(box), "label": None if label is None else words[label]} for box, label in side]
            for side in sides]  # fmt: skip


def _try(reader: Callable[[Any], Any], value: Any) -> Any:
    try:
        return reader(value)
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError, KeyError):
        return None


def _counts(module: ModuleType, task: Task, truth: Any, said: Any) -> Counts:
    """Their numbers of one row: tp, fp, fn, or whether it is right, or how far it is off."""
    spelled = {Task.INSTANCE_DETECTION: "detection"}.get(task, task.value)
    made = module.evaluate_rows(
        [{"uid": "1", "task_type": spelled, "raw_answer": truth}], {"1": {"prediction": said}},
        allow_missing_predictions=False, iou_threshold=0.5, green_model_name="", green_output_dir=None,
        green_batch_size=1, green_max_length=1, skip_green_score=True, skip_crimson_score=True,
    )  # fmt: skip
    (entry,) = made["by_task"].values()
    if task.has_boxes:
        return tuple(entry["matching"][key] for key in ("tp", "fp", "fn"))
    if task is Task.MULTI_LABEL:
        asked, named = module.parse_multilabel(truth), module.parse_multilabel(said)
        return len(asked & named), len(named - asked), len(asked - named)
    return (float(entry["value"]),)


def _pairs(truth: Boxes, said: Boxes) -> int:
    matrix = iou(as_boxes([box for box, _ in truth]), as_boxes([box for box, _ in said]))
    names = [[label for _, label in side] for side in (truth, said)]
    return len(match_greedy(matrix * np.equal.outer(*(np.array(side, dtype=object) for side in names)), 0.5))


def _list(value: Any) -> Boxes | None:
    value = official._read(value, ast.literal_eval)
    if not isinstance(value, list) or not all(_is_box(box) for box in value):
        return None
    return [(tuple(map(float, box)), None) for box in value]


def _map(value: Any) -> Boxes | None:
    value = official._read(value, json.loads)
    lists = isinstance(value, dict) and all(isinstance(boxes, list) for boxes in value.values())
    if not lists or not all(_is_box(box) for boxes in value.values() for box in boxes):
        return None
    return [(tuple(map(float, box)), name) for name, boxes in value.items() for box in boxes]


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(part, int | float) for part in box)


def _finite(value: Any) -> float | None:
    number = official._float(value)
    return number if math.isfinite(number) else None


def _their_boxes(module: ModuleType, value: Any) -> Boxes:
    return [((box.x1, box.y1, box.x2, box.y2), box.label) for box in module.parse_boxes(value)]


# How `official` reads a value, and how they do.
_READERS: dict[Task, tuple[Callable[[Any], Any], Callable[[ModuleType, Any], Any]]] = {
    Task.CLASSIFICATION: (official._class, lambda module, value: module.normalize_text(value)),
    Task.MULTI_LABEL: (lambda value: official._labels(value) if isinstance(value, str) else None,
                       lambda module, value: module.parse_multilabel(value)),
    Task.DETECTION: (_list, _their_boxes),
    Task.INSTANCE_DETECTION: (_map, _their_boxes),
    Task.COUNTING: (_finite, lambda module, value: module.parse_numeric(value)),
    Task.REGRESSION: (_finite, lambda module, value: module.parse_numeric(value)),
}  # fmt: skip
