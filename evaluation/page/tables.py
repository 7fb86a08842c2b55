"""Rows of the score tables, for the page and for Markdown, and how a number is written."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluation.metrics import Metric, metrics_of
from evaluation.outputs import FEW
from evaluation.page.runs import Run
from evaluation.scoring import Entries, Entry
from medvl.tasks import Task


@dataclass(frozen=True)
class Row:
    """One metric, for all runs.

    Attributes:
        task: Canonical task name.
        dataset: Dataset name; None for a task as a whole.
        metric: Its name.
        higher_is_better: Its direction.
        headline: Whether it is one of the metrics to look at first.
        detail: Whether it is one for a closer look alone.
        entries: One per run; None where its rules have no such metric.
        macro: The same as mean over datasets; empty in rows of a dataset.
    """

    task: str
    dataset: str | None
    metric: str
    higher_is_better: bool
    headline: bool
    detail: bool
    entries: tuple[Entry | None, ...]
    macro: tuple[Entry | None, ...] = ()

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↑" if self.higher_is_better else "↓"


def best_places(row: Row, runs: Sequence[Run]) -> frozenset[int]:
    """Places of the runs with the best value. Only runs under the same rules compete, and only where they differ."""
    best: set[int] = set()
    for rules in {run.rules for run in runs}:
        values = {
            place: entry["value"]
            for place, (run, entry) in enumerate(zip(runs, row.entries, strict=True))
            if run.rules == rules and entry and entry["value"] is not None
        }
        if len(set(values.values())) > 1:
            most = (max if row.higher_is_better else min)(values.values())
            best |= {place for place, value in values.items() if value == most}
    return frozenset(best)


def task_rows(runs: Sequence[Run]) -> Iterator[Row]:
    """A row per task and metric, in the order of the tasks."""
    for task in Task:
        parts = [run.scores.get(task) for run in runs]
        pooled = [part.pooled if part else {} for part in parts]
        macro = [part.macro if part else {} for part in parts]
        yield from _rows(runs, task, None, pooled, macro)


def dataset_rows(runs: Sequence[Run]) -> Iterator[Row]:
    """A row per dataset, task and metric to look at first."""
    scored = [part for run in runs for part in run.scores.values()]
    for dataset in sorted({dataset for part in scored for dataset in part.datasets}):
        for task in Task:
            parts = [run.scores[task].datasets.get(dataset, {}) if task in run.scores else {} for run in runs]
            yield from (row for row in _rows(runs, task, dataset, parts, ()) if row.headline)


def _rows(
    runs: Sequence[Run], task: Task, dataset: str | None, parts: Sequence[Entries], macro: Sequence[Entries]
) -> Iterator[Row]:
    """Rows of one task; a metric stands in a row of its own, however many sets of rules have it."""
    metrics = _declared(runs, task)
    for name in dict.fromkeys(name for entries in parts for name in entries):
        entries = tuple(part.get(name) for part in parts)
        better = next(bool(entry["higher_is_better"]) for entry in entries if entry)
        means = tuple(part.get(name) for part in macro)
        metric = metrics[name]
        yield Row(task.value, dataset, name, better, metric.headline, metric.detail, entries, means)


def _declared(runs: Sequence[Run], task: Task) -> Mapping[str, Metric]:
    """Metrics by name; where sets of rules share one, it is as the first declares it."""
    scored = dict.fromkeys(run.rules for run in runs if task in run.scores)
    return {metric.name: metric for rules in reversed(scored) for metric in metrics_of(rules, task)}


def number(value: float | None) -> str:
    """A value as it is read: three decimals below ten, fewer above, none for a whole number; "-" if there is none.

    >>> number(0.87349), number(271.4712), number(293.0), number(3e18), number(float("nan")), number(float("-inf"))
    ('0.873', '271.5', '293', '3e+18', '-', '-inf')
    """
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):  # an error that overflowed
        return f"{value}"
    return _written(value, abs(value), whole=value == round(value))


def _written(value: float, size: float, *, whole: bool) -> str:
    """Shares keep their decimals where they happen to be 0 or 1; larger whole numbers are counts."""
    if whole and 2 <= size < 1e15:
        return f"{value:,.0f}"
    return f"{value:.3f}" if size < 10 else f"{value:,.1f}" if size < 1e6 else f"{value:.4g}"


def interval(entry: Entry | None) -> str:
    """The 95 % interval of an entry, both ends with as many decimals; empty if it has none.

    Marked where too few images are behind it.
    """
    ci95 = entry["ci95"] if entry else None
    if not ci95:
        return ""
    largest, whole = max(abs(end) for end in ci95), all(end == round(end) for end in ci95)
    mark = FEW if entry and entry.get("few_images") else ""
    return " to ".join(_written(end, largest, whole=whole) for end in ci95) + mark


_TITLES = {"mae": "MAE", "rmse": "RMSE", "f1": "F1", "rouge_l": "ROUGE-L", "bleu4": "BLEU-4", "iou": "IoU",
           "iou30": "IoU 0.3", "iou50": "IoU 0.5", "iou75": "IoU 0.75", "green": "GREEN", "95": "to 0.95"}  # fmt: skip


def title(metric: str) -> str:
    """A metric's name as it is printed in papers.

    >>> title("f1_iou50"), title("balanced_accuracy"), title("mae_penalised")
    ('F1 IoU 0.5', 'balanced accuracy', 'MAE penalised')
    """
    return _TITLES.get(metric) or " ".join(_TITLES.get(part, part) for part in metric.split("_"))


def words(name: str) -> str:
    """A task, metric or code as words.

    >>> words("multi_label_classification")
    'multi label classification'
    """
    return name.replace("_", " ")
