"""Rows of the comparison with a baseline."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.comparison import verdict
from evaluation.metrics import metrics_of
from evaluation.page.runs import Run
from evaluation.page.tables import interval, number, title
from medvl.tasks import Task

_BETTER = {"better": True, "worse": False}


@dataclass(frozen=True)
class Difference:
    """One metric's difference to the baseline, as text.

    Attributes:
        dataset: Dataset name, or "all" for a task as a whole.
        task: Canonical task name.
        metric: Its name and direction.
        difference: With its sign.
        interval: Its 95 % interval.
        p_value: Of the paired test.
        better: Whether it is better than the baseline; None where the two cannot be told apart.
        samples: Samples won, lost and tied; empty for a task as a whole.
    """

    dataset: str
    task: str
    metric: str
    difference: str
    interval: str
    p_value: str
    better: bool | None
    samples: tuple[str, ...]


def rows(run: Run) -> Iterator[Difference]:
    """The metrics to look at first, per task and per dataset; nothing without a baseline."""
    if run.comparison is None:
        return
    for task, entries in run.comparison["tasks"].items():
        yield from _rows(run, "all", task, entries)
    for dataset, tasks in run.comparison["datasets"].items():
        for task, entries in tasks.items():
            yield from _rows(run, dataset, task, entries)


def _rows(run: Run, dataset: str, task: str, entries: Mapping[str, Any]) -> Iterator[Difference]:
    samples = entries.get("samples", {})
    for metric in metrics_of(run.rules, Task(task)):
        if metric.headline:
            entry, arrow = entries[metric.name], "↑" if metric.higher_is_better else "↓"
            difference, p_value = entry["difference"], entry["p_value"]
            yield Difference(
                dataset,
                task,
                f"{title(metric.name)} {arrow}",
                number(difference) if difference is None else f"{'+' if difference > 0 else ''}{number(difference)}",
                interval(entry),
                "-" if p_value is None else f"{p_value:.3f}",
                _BETTER.get(verdict(entry)),
                tuple(f"{samples[key]:,}" if samples else "" for key in ("wins", "losses", "ties")),
            )
