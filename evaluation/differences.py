"""The table of differences to a baseline, for console and page alike."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.metrics.registry import metrics_of
from medvl.tasks import Task

# Below it a difference is called one; said beside the table, since a reader of twenty rows should expect one by chance.
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Difference:
    """One metric's difference to the baseline.

    Attributes:
        dataset: Dataset name, or "all" for a task as a whole.
        task: Canonical task name.
        metric: Its name.
        entry: As in metrics.json: value, baseline, difference, ci95, p_value, higher_is_better.
        samples: Samples won, lost and tied; None for a task as a whole.
    """

    dataset: str
    task: str
    metric: str
    entry: Mapping[str, Any]
    samples: tuple[int, int, int] | None

    @property
    def verdict(self) -> str:
        """ "better", "worse", "same" (not told apart) or "-" (no difference to judge)."""
        return verdict(self.entry)

    @property
    def p_value(self) -> str:
        """Of the paired test, as it is printed."""
        p = self.entry["p_value"]
        return "-" if p is None else f"{p:.3f}"


def differences(comparison: Mapping[str, Any]) -> list[Difference]:
    """The metrics to look at first, per task and then per dataset, from the `comparison` of a metrics.json."""
    rules = comparison["rules"]
    of_tasks = [row for task, entries in comparison["tasks"].items() for row in _rows(rules, "all", task, entries)]
    of_datasets = [
        row
        for dataset, tasks in comparison["datasets"].items()
        for task, entries in tasks.items()
        for row in _rows(rules, dataset, task, entries)
    ]
    return [*of_tasks, *of_datasets]


def _rows(rules: str, dataset: str, task: str, entries: Mapping[str, Any]) -> Iterator[Difference]:
    counts = entries.get("samples")
    samples = None if counts is None else (counts["wins"], counts["losses"], counts["ties"])
    for metric in metrics_of(rules, Task(task)):
        if metric.headline:
            yield Difference(dataset, task, metric.name, entries[metric.name], samples)


def verdict(entry: Mapping[str, Any]) -> str:
    """ "better", "worse", "same" (not told apart) or "-" (no difference to judge)."""
    if entry["difference"] is None or entry["p_value"] is None:
        return "-"
    if entry["p_value"] >= SIGNIFICANT:
        return "same"
    return "better" if (entry["difference"] > 0) == entry["higher_is_better"] else "worse"
