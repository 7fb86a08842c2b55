"""Two models on the same questions: differences with intervals and p-values, and who wins which samples."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.metrics.registry import Floats, Metric, Sums, metrics_of
from evaluation.scores import Evaluation, Resampling, TaskScores
from evaluation.statistics import computed, dataset_rows, draw_totals, interval, p_value, swap_totals, totals
from medvl.tasks import Task


def compare(mine: Evaluation, other: Evaluation, resampling: Resampling) -> dict[str, Any]:
    """What "comparison" holds in metrics.json: `difference` is mine minus the other's, under the first rules.

    `ci95` comes from a paired bootstrap over clusters, `p_value` from a paired randomisation test that swaps the two
    models' answers cluster by cluster. `samples` counts the samples on which mine has the better score.
    """
    rules = mine.rules
    made: dict[str, Any] = {
        "baseline": {"path": str(other.predictions.path), "sha256": other.predictions.sha256},
        "rules": rules,
        "tasks": {},
        "datasets": {},
        "macro": {},
    }
    for task, scores in mine.scores[rules].items():
        pooled, macro, datasets = _task(task, scores, other.scores[rules][task], rules, resampling)
        made["tasks"][task.value] = pooled
        made["macro"][task.value] = macro
        outcomes = _outcomes(task, scores, other.scores[rules][task])
        for name, entries in datasets.items():
            made["datasets"].setdefault(name, {})[task.value] = entries | {"samples": outcomes[name]}
    made["datasets"] = dict(sorted(made["datasets"].items()))
    return made


def _task(
    task: Task, mine: TaskScores, other: TaskScores, rules: str, resampling: Resampling
) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
    """Entries over all samples, as mean over datasets, and per dataset."""
    split = next(iter(mine.parts.values())).split
    values: dict[str, Sequence[Floats]] = {}
    drawn: dict[str, Sequence[Floats]] = {}
    swapped: dict[str, Sequence[Floats]] = {}
    for name, part in mine.parts.items():
        both = (part.matrix, other.parts[name].matrix)
        values[name] = [totals(matrix) for matrix in both]
        if not resampling.draws:
            drawn[name] = swapped[name] = [np.zeros((0, total.shape[1])) for total in values[name]]
            continue
        drawn[name] = draw_totals(both, resampling.draws, resampling.generator(task.value, name))
        swapped[name] = swap_totals(*both, resampling.draws, resampling.generator(task.value, name, "swap"))
    kinds = (values, drawn, swapped)
    pooled: dict[str, Any] = {}
    macro: dict[str, Any] = {}
    datasets: dict[str, dict[str, Any]] = {name: {} for name in mine.parts}
    for metric in metrics_of(rules, task):
        of_datasets = [
            [_difference(metric, split(kind[name][0]), split(kind[name][1])) for kind in kinds] for name in mine.parts
        ]
        for name, parts in zip(mine.parts, of_datasets, strict=True):
            datasets[name][metric.name] = _entry(metric, mine.datasets[name], other.datasets[name], *parts)
        sums = [[np.sum([pairs[name][side] for name in mine.parts], axis=0) for side in (0, 1)] for pairs in kinds]
        all_parts = [_difference(metric, split(pair[0]), split(pair[1])) for pair in sums]
        pooled[metric.name] = _entry(metric, mine.pooled, other.pooled, *all_parts)
        means = [np.mean([parts[which] for parts in of_datasets], axis=0) for which in range(3)]
        macro[metric.name] = _entry(metric, mine.macro, other.macro, *means)
    return pooled, macro, datasets


def _difference(metric: Metric, mine: Sums, other: Sums) -> Floats:
    with np.errstate(invalid="ignore"):
        difference: Floats = computed(metric, mine) - computed(metric, other)
    return difference


def _entry(
    metric: Metric,
    mine: dict[str, dict[str, Any]],
    other: dict[str, dict[str, Any]],
    value: Floats,
    drawn: Floats,
    swapped: Floats,
) -> dict[str, Any]:
    """A metric's entry; without a value on one side there is no difference."""
    sides = {"value": mine[metric.name]["value"], "baseline": other[metric.name]["value"]}
    known = None not in sides.values() and bool(np.isfinite(value[0]))
    difference = float(value[0]) if known else None
    return {
        **sides,
        "difference": difference,
        "ci95": interval(drawn, float(value[0])) if known and len(drawn) else None,
        "p_value": p_value(float(value[0]), swapped) if known and len(swapped) else None,
        "higher_is_better": metric.higher_is_better,
        **({"few_images": True} if mine[metric.name].get("few_images") else {}),
    }


def _outcomes(task: Task, mine: TaskScores, other: TaskScores) -> dict[str, dict[str, int]]:
    """Per dataset: samples on which mine does better, worse, as well. No score is worse than any."""
    sign = -1.0 if task.is_number else 1.0
    sides = [np.where(np.isnan(scores.table.score), -np.inf, sign * scores.table.score) for scores in (mine, other)]
    better, worse = sides[0] > sides[1] + 1e-9, sides[0] < sides[1] - 1e-9
    return {
        name: {
            "wins": int(better[rows].sum()),
            "losses": int(worse[rows].sum()),
            "ties": int((~better & ~worse)[rows].sum()),
        }
        for name, rows in dataset_rows(mine.samples).items()
    }
