"""Scores: the metrics of every task, pooled, per dataset and as mean over datasets."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evaluation.metrics import Metric, Table, UndefinedError, metrics_of, table_of
from evaluation.samples import Sample
from medvl.tasks import Task

Entry = dict[str, Any]
Entries = dict[str, Entry]


@dataclass(frozen=True)
class TaskScores:
    """One task, scored.

    Attributes:
        samples: The task's samples.
        table: What its metrics read, one row per sample.
        pooled: Metric -> entry over all samples.
        datasets: Dataset -> metric -> entry.
        macro: Metric -> mean over datasets.
    """

    samples: list[Sample]
    table: Table
    pooled: Entries
    datasets: dict[str, Entries] = field(default_factory=dict)
    macro: Entries = field(default_factory=dict)


def score(samples: Sequence[Sample], rules: str) -> dict[Task, TaskScores]:
    """Score every task that has samples, in the order of `Task`; unscorable samples are in no table and no `n`."""
    by_task: dict[Task, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.scorable:
            by_task[sample.reference.task].append(sample)
    return {task: _score_task(task, by_task[task], rules) for task in Task if task in by_task}


def _score_task(task: Task, samples: list[Sample], rules: str) -> TaskScores:
    table = table_of(rules, task, samples)
    metrics = metrics_of(rules, task)
    names = np.array([sample.reference.dataset for sample in samples], dtype=object)
    scores = TaskScores(samples, table, {metric.name: entry(metric, table) for metric in metrics})
    for name in sorted(set(names)):
        part = table.rows(np.flatnonzero(names == name))
        scores.datasets[name] = {metric.name: entry(metric, part) for metric in metrics}
    for metric in metrics:
        scores.macro[metric.name] = _macro(metric, {name: part[metric.name] for name, part in scores.datasets.items()})
    return scores


def entry(metric: Metric, table: Table) -> Entry:
    """A metric's entry in metrics.json. `n` counts all samples, invalid ones too."""
    try:
        value, reason = metric.compute(table), None
    except UndefinedError as undefined:
        value, reason = math.nan, str(undefined)
    return _entry(metric, value, reason, n=len(table.invalid), n_invalid=int(table.invalid.sum()))


def _entry(metric: Metric, value: float, reason: str | None, **counts: int) -> Entry:
    finite = math.isfinite(value)
    made: Entry = {"value": value if finite else None, "ci95": None, **counts}
    made["higher_is_better"] = metric.higher_is_better
    if not finite:
        made["reason"] = reason or f"not a finite number: {value}"
    return made


def _macro(metric: Metric, parts: dict[str, Entry]) -> Entry:
    """The unweighted mean over datasets. One without a value leaves no mean: dropping it would reward failing it."""
    without = [name for name, part in parts.items() if part["value"] is None]
    values = [part["value"] for part in parts.values()]
    counts = {key: sum(part[key] for part in parts.values()) for key in ("n", "n_invalid")}
    if without:
        reason = f"no value for {', '.join(without)}: {parts[without[0]]['reason']}"
        return _entry(metric, math.nan, reason, **counts, n_datasets=len(parts))
    return _entry(metric, float(np.mean(values)), None, **counts, n_datasets=len(parts))


def invalid_reasons(samples: Sequence[Sample]) -> dict[str, int]:
    """Why answers are invalid, most frequent first."""
    reasons = Counter(sample.answer.reason or "" for sample in samples if sample.invalid)
    return dict(reasons.most_common())
