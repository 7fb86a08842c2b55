"""Scores: the metrics of every task with intervals: pooled, per dataset, as mean over datasets, by kind of object."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.registry import Clustered, Floats, Metric, Sums, Table, metrics_of, scored_by, table_of
from evaluation.official_splits import RULES
from evaluation.samples import Sample
from evaluation.scores import NO_RESAMPLING, Entries, Entry, Resampling, TaskScores
from evaluation.statistics import (
    ENOUGH_CLUSTERS,
    cluster_codes,
    clustered,
    computed,
    dataset_rows,
    draw_totals,
    interval,
    totals,
)
from medvl.tasks import Task


@dataclass(frozen=True)
class _Drawn:
    """Sums of some samples: as they are (one draw), and drawn again (no draws without resampling)."""

    value: Sums
    draws: Sums | None
    clusters: int


def score(samples: Sequence[Sample], rules: str, resampling: Resampling = NO_RESAMPLING) -> dict[Task, TaskScores]:
    """Score every task that has samples and that the rules know, in the order of `Task`.

    Samples whose reference is no number are in no table and no `n`, but for the official rules, which have a rule of
    their own for them.
    """
    by_task: dict[Task, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.scorable or rules == RULES:
            by_task[sample.reference.task].append(sample)
    scored = [task for task in Task if task in by_task and scored_by(rules, task)]
    return {task: _score_task(task, by_task[task], rules, resampling) for task in scored}


def _score_task(task: Task, samples: list[Sample], rules: str, resampling: Resampling) -> TaskScores:
    """Clusters lie within a dataset and are drawn within it: how large a dataset is was decided, not observed. So the
    draws of all samples are the sums of the datasets' draws."""
    table = table_of(rules, task, samples)
    metrics = metrics_of(rules, task)
    rows_of = dataset_rows(samples)
    scores = TaskScores(samples, table, cluster_datasets(table, samples, resampling.cluster))
    value: Floats = np.zeros((1, 1))
    drawn: Floats | None = None
    per_metric: dict[str, dict[str, Floats | None]] = defaultdict(dict)
    for name, part in scores.parts.items():
        own = totals(part.matrix)
        draws = None
        if resampling.draws:
            draws = draw_totals([part.matrix], resampling.draws, resampling.generator(task.value, name))[0]
            drawn = draws if drawn is None else drawn + draws
        value = own + value
        sums = _Drawn(part.split(own), None if draws is None else part.split(draws), part.matrix.shape[0])
        counts = _counts(table, rows_of[name])
        scores.datasets[name] = {}
        for metric in metrics:
            scores.datasets[name][metric.name], per_metric[metric.name][name] = _measured(metric, sums, counts)
    split = next(iter(scores.parts.values())).split
    clusters = sum(part.matrix.shape[0] for part in scores.parts.values())
    pooled = _Drawn(split(value), None if drawn is None else split(drawn), clusters)
    counts = _counts(table, np.arange(len(samples)))
    for metric in metrics:
        scores.pooled[metric.name] = _measured(metric, pooled, counts)[0]
        parts = {name: part[metric.name] for name, part in scores.datasets.items()}
        scores.macro[metric.name] = _macro(metric, parts, per_metric[metric.name])
    for metric in metrics_of(rules, task, by_group=True):
        _by_group(metric, pooled, _group_clusters(scores.parts.values()), table.groups, scores.groups)
    return scores


def cluster_datasets(table: Table, samples: Sequence[Sample], by: str) -> dict[str, Clustered]:
    """The table's columns per dataset, added up over its clusters."""
    codes = cluster_codes(samples, by)
    whole = clustered(table, codes)
    rows = dataset_rows(samples)
    return {name: Clustered(whole.matrix[np.unique(codes[index])], whole.layout) for name, index in rows.items()}


def _counts(table: Table, rows: NDArray[np.intp]) -> dict[str, int]:
    """`n` counts all samples, invalid ones too, unless the rules leave some out."""
    counted = np.ones(len(rows), dtype=bool) if table.counted is None else table.counted[rows]
    return {"n": int(counted.sum()), "n_invalid": int((table.invalid[rows] & counted).sum())}


def _measured(metric: Metric, sums: _Drawn, counts: Mapping[str, int]) -> tuple[Entry, Floats | None]:
    """A metric's entry in metrics.json, and its values over the draws."""
    value = float(computed(metric, sums.value)[0])
    draws = None if sums.draws is None else computed(metric, sums.draws)
    reason = metric.undefined if math.isnan(value) else metric.infinite
    # Of a single cluster every draw is the same one; an interval without width would be a lie.
    known = draws is not None and sums.clusters > 1 and math.isfinite(value)
    ci95 = interval(draws, value) if known and draws is not None else None
    return _entry(metric, value, ci95, reason, few=sums.clusters < ENOUGH_CLUSTERS, **counts), draws


def _entry(
    metric: Metric, value: float, ci95: list[float] | None, reason: str | None, *, few: bool = False, **counts: int
) -> Entry:
    """`few`: whether fewer images than an interval needs are behind it; then it is marked, since it is too narrow."""
    finite = math.isfinite(value)
    made: Entry = {"value": value if finite else None, "ci95": ci95, **counts}
    made["higher_is_better"] = metric.higher_is_better
    if metric.note:
        made["note"] = metric.note
    if few and ci95 is not None:
        made["few_images"] = True
    if not finite:
        made["reason"] = reason
    return made


def _macro(metric: Metric, parts: dict[str, Entry], draws: Mapping[str, Floats | None]) -> Entry:
    """The unweighted mean over datasets. One without a value leaves no mean: dropping it would reward failing it."""
    without = [name for name, part in parts.items() if part["value"] is None]
    counts = {key: sum(part[key] for part in parts.values()) for key in ("n", "n_invalid")}
    if without:
        reason = f"no value for {', '.join(without)}: {parts[without[0]]['reason']}"
        return _entry(metric, math.nan, None, reason, **counts, n_datasets=len(parts))
    drawn = [values for values in draws.values() if values is not None]
    value = float(np.mean([part["value"] for part in parts.values()]))
    ci95 = interval(np.mean(drawn, axis=0), value) if drawn and any(part["ci95"] for part in parts.values()) else None
    few = any(part["ci95"] is None or part.get("few_images") for part in parts.values())
    return _entry(metric, value, ci95, None, few=few, **counts, n_datasets=len(parts))


def _group_clusters(parts: Iterable[Clustered]) -> NDArray[np.intp]:
    """In how many clusters each group has reference boxes, shape (k,)."""
    occupied = [np.asarray((part.matrix > 0).sum(axis=0)).ravel()[part.layout["group_references"]] for part in parts]
    total: NDArray[np.intp] = np.sum(occupied, axis=0)
    return total


def _by_group(
    metric: Metric, sums: _Drawn, clusters: NDArray[np.intp], names: Sequence[str], groups: dict[str, Entries]
) -> None:
    """Add a metric's entry to every group; `n` counts reference boxes."""
    values = computed(metric, sums.value)[0]
    draws = None if sums.draws is None else computed(metric, sums.draws)
    for place, name in enumerate(names):
        n = int(sums.value["group_references"][0, place])
        ci95 = None if draws is None or sums.clusters < 2 else interval(draws[:, place], float(values[place]))
        few = bool(clusters[place] < ENOUGH_CLUSTERS)
        entry = _entry(metric, float(values[place]), ci95, metric.undefined, few=few, n=n)
        groups.setdefault(name, {})[metric.name] = entry


def invalid_reasons(samples: Sequence[Sample]) -> dict[str, int]:
    """Why answers are invalid, most frequent first."""
    reasons = Counter(sample.answer.reason or "" for sample in samples if sample.invalid)
    return dict(reasons.most_common())
