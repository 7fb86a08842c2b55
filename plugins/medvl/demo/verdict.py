"""Did the model learn? Reads two `metrics.json` of `evaluation/run.py` and compares untrained with trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from medvl.demo.scenes import DATASETS
from medvl.tasks import TASKS, Task, canonical_task

MIN_BALANCED_ACCURACY = 0.8
DRAWN = frozenset(canonical_task(dataset.task_type) for dataset in DATASETS)  # what the demo trains


@dataclass(frozen=True)
class Comparison:
    """One task's headline metric before and after; None when there is no usable number."""

    task: Task
    metric: str
    higher_is_better: bool
    untrained: float | None
    trained: float | None

    @property
    def improved(self) -> bool:
        """Whether trained is strictly better; having no number is worse than having any."""
        if self.trained is None:
            return False
        if self.untrained is None:
            return True
        return self.trained > self.untrained if self.higher_is_better else self.trained < self.untrained


def headline(metrics: Mapping[str, Any], task: Task) -> float | None:
    """The task's headline value in a `metrics.json`, None when it is absent, null or mostly not an answer.

    A mean error over the few answers that happened to hold a number says nothing, so an error is taken as no number
    when more than half of the answers were invalid.
    """
    spec = TASKS[task]
    entry = metrics["tasks"].get(task.value, {}).get(spec.headline)
    if entry is None or entry["value"] is None:
        return None
    if not spec.higher_is_better and 2 * entry.get("n_invalid", 0) > entry["n"]:
        return None
    return float(entry["value"])


def compare(untrained: Mapping[str, Any], trained: Mapping[str, Any]) -> list[Comparison]:
    """One comparison per task that either file scores, in the order of `Task`."""
    scored = [task for task in Task if task.value in untrained["tasks"] or task.value in trained["tasks"]]
    return [
        Comparison(
            task, TASKS[task].headline, TASKS[task].higher_is_better, headline(untrained, task), headline(trained, task)
        )
        for task in scored
    ]


def failures(comparisons: list[Comparison]) -> list[str]:
    """Sentences on what the drawn demo should have learnt and did not; empty when it passes."""
    rows = {row.task: row for row in comparisons}
    found = [f"{task.value}: not scored" for task in Task if task in DRAWN - rows.keys()]
    for row in comparisons:
        if not row.improved:
            change = f"{_number(row.untrained)} before, {_number(row.trained)} after"
            found.append(f"{row.task.value}: {row.metric} is not better after training ({change})")
    accuracy = rows[Task.CLASSIFICATION].trained if Task.CLASSIFICATION in rows else None
    if accuracy is not None and accuracy < MIN_BALANCED_ACCURACY:
        found.append(f"classification: balanced accuracy {accuracy:.3f} is below {MIN_BALANCED_ACCURACY}")
    return found


def read_metrics(folder: Path) -> dict[str, Any]:
    """The `metrics.json` that `evaluation/run.py` wrote into `folder`."""
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def score_table(comparisons: list[Comparison]) -> Table:
    """Untrained beside trained, one row per task."""
    table = Table(title="Before and after training")
    table.add_column("task", no_wrap=True)  # at 80 columns the metric's name folds, not the task's
    table.add_column("metric", overflow="fold")
    for heading in ("untrained", "trained"):
        table.add_column(heading, justify="right")
    table.add_column("ok?", no_wrap=True)
    for row in comparisons:
        arrow = "↑" if row.higher_is_better else "↓"
        cells = _number(row.untrained), _number(row.trained), "yes" if row.improved else "[red]no[/red]"
        table.add_row(row.task.value, f"{row.metric} {arrow}", *cells)
    return table


def _number(value: float | None) -> str:
    return "no answers" if value is None else f"{value:.3f}"
