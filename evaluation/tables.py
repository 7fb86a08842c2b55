"""The table of scores: a row per metric, a column per prediction file and set of rules.

Console, Markdown and page show this one table; what differs is the markup around its cells.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from evaluation.findings import Diagnosis, Finding
from evaluation.metrics.registry import Metric, metrics_of
from evaluation.numbers import FEW, interval, number, title, words
from evaluation.page.text import visible
from evaluation.samples import Reference
from evaluation.scores import Entries, Entry, TaskScores
from evaluation.statistics import ENOUGH_CLUSTERS
from medvl.tasks import Task

FEW_NOTE = f"{FEW} from fewer than {ENOUGH_CLUSTERS} images, so the interval is too narrow"


def _nowhere(reference: Reference) -> None:
    del reference


@dataclass(frozen=True)
class Run:
    """A column: one prediction file under one set of rules.

    Attributes:
        file: How tables call the prediction file, e.g. "predictions".
        rules: Name of the set of rules.
        scores: The tasks' scores.
        counts: References, predictions, matched, missing and so on, as in metrics.json.
        provenance: Where the numbers come from, as in metrics.json.
        comparison: What metrics.json holds of a baseline; None without one.
        findings: What the validity checks found.
        diagnosis: What is behind the numbers; None if it was not made.
        image: Where a reference's first image lies; None where nothing tells.
    """

    file: str
    rules: str
    scores: dict[Task, TaskScores]
    counts: Mapping[str, int]
    provenance: Mapping[str, Any]
    comparison: Mapping[str, Any] | None = None
    findings: Sequence[Finding] = ()
    diagnosis: Diagnosis | None = None
    image: Callable[[Reference], Path | None] = _nowhere


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
        entries: One per run, as in metrics.json; None where its rules have no such metric.
        macro: The same as mean over datasets; empty in rows of a dataset.
        best: Places of the runs with the best value. Only runs under the same rules compete, and only where they
            differ.
    """

    task: str
    dataset: str | None
    metric: str
    higher_is_better: bool
    headline: bool
    detail: bool
    entries: tuple[Entry | None, ...]
    macro: tuple[Entry | None, ...] = ()
    best: frozenset[int] = frozenset()

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return arrow(self.higher_is_better)

    @property
    def name(self) -> str:
        """The metric with its direction."""
        return f"{self.metric} {self.arrow}"

    @property
    def n(self) -> int:
        """How many samples are behind it, in the first run that has it."""
        return next(int(entry["n"]) for entry in self.entries if entry)


@dataclass(frozen=True, repr=False)
class ResultTable:
    """Scores of one or several runs side by side. A notebook shows it, `print` prints it, `records` is for pandas.

    Attributes:
        runs: The columns, at least one.
    """

    runs: tuple[Run, ...]

    def under(self, rules: str) -> "ResultTable":
        """The columns of one set of rules."""
        return ResultTable(tuple(run for run in self.runs if run.rules == rules))

    @cached_property
    def headings(self) -> tuple[str, ...]:
        """What tells the columns apart: their files, their rules, or both."""
        if len({run.file for run in self.runs}) == 1:
            return tuple(run.rules for run in self.runs)
        one = len({run.rules for run in self.runs}) == 1
        return tuple(run.file if one else f"{run.file}, {run.rules}" for run in self.runs)

    @cached_property
    def task_rows(self) -> tuple[Row, ...]:
        """A row per task and metric, in the order of the tasks."""
        return tuple(row for task in Task for row in self._rows_of_task(task))

    def _rows_of_task(self, task: Task) -> Iterator[Row]:
        parts = [run.scores.get(task) for run in self.runs]
        pooled = [part.pooled if part else {} for part in parts]
        macro = [part.macro if part else {} for part in parts]
        return _rows(self.runs, task, None, pooled, macro)

    @cached_property
    def dataset_rows(self) -> tuple[Row, ...]:
        """A row per dataset, task and metric to look at first, datasets by name."""
        scored = [part for run in self.runs for part in run.scores.values()]
        datasets = sorted({dataset for part in scored for dataset in part.datasets})
        return tuple(row for dataset in datasets for task in Task for row in self._rows_of_dataset(dataset, task))

    def _rows_of_dataset(self, dataset: str, task: Task) -> Iterator[Row]:
        parts = [run.scores[task].datasets.get(dataset, {}) if task in run.scores else {} for run in self.runs]
        return (row for row in _rows(self.runs, task, dataset, parts, ()) if row.headline)

    @property
    def notes(self) -> list[str]:
        """What a reader of the table must know: references left out."""
        counts = self.runs[0].counts
        return [left_out_note(counts)] if "left_out" in counts else []

    @property
    def few(self) -> str:
        """What the mark behind an interval means; empty where none is marked."""
        return FEW_NOTE if any(_marked(run.scores) for run in self.runs) else ""

    def records(self) -> list[dict[str, Any]]:
        """A dict per row and column that has a value or a reason for none: `pandas.DataFrame(table.records())`."""
        return [
            {"dataset": row.dataset, "task": row.task, "metric": row.metric, "file": run.file, "rules": run.rules,
             "best": place in row.best, **entry}
            for row in (*self.dataset_rows, *self.task_rows)
            for place, (run, entry) in enumerate(zip(self.runs, row.entries, strict=True))
            if entry
        ]  # fmt: skip

    @cached_property
    def lines(self) -> list[list[str]]:
        """Heading and cells as text: the headline metrics per dataset, then every task as a whole."""
        rows = [*self.dataset_rows, *(row for row in self.task_rows if not row.detail)]
        return [["dataset", "task", "metric", *self.headings, "n"], *map(_cells, rows)]

    def __repr__(self) -> str:
        """For a terminal."""
        lines = [[visible(cell, 60) for cell in line] for line in self.lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        made = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join(part for part in (*self.notes, *made, self.few) if part)

    def _repr_html_(self) -> str:
        heading, *body = ([escape(visible(cell, 200)) for cell in line] for line in self.lines)
        rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in body)
        notes = "".join(f"<p>{escape(note)}</p>" for note in (*self.notes, self.few) if note)
        names = "".join(f"<th>{name}</th>" for name in heading)
        return f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>{notes}"


def _cells(row: Row) -> list[str]:
    """A row as text; a star behind the best of several."""
    values = [_value(entry) + "*" * (place in row.best) for place, entry in enumerate(row.entries)]
    return [row.dataset or "all", words(row.task), f"{title(row.metric)} {row.arrow}", *values, f"{row.n:,}"]


def _value(entry: Entry | None) -> str:
    value, ends = number(entry["value"] if entry else None), interval(entry)
    return f"{value} ({ends})" if ends else value


def _rows(
    runs: Sequence[Run], task: Task, dataset: str | None, parts: Sequence[Entries], macro: Sequence[Entries]
) -> Iterator[Row]:
    """Rows of one task; a metric stands in a row of its own, however many sets of rules have it."""
    metrics = _declared(runs, task)
    for name in dict.fromkeys(name for entries in parts for name in entries):
        entries = tuple(part.get(name) for part in parts)
        better = next(bool(entry["higher_is_better"]) for entry in entries if entry)
        means = tuple(part.get(name) for part in macro)
        best = _best(runs, entries, higher_is_better=better)
        yield Row(task.value, dataset, name, better, metrics[name].headline, metrics[name].detail, entries, means, best)


def _declared(runs: Sequence[Run], task: Task) -> Mapping[str, Metric]:
    """Metrics by name; where sets of rules share one, it is as the first declares it."""
    scored = dict.fromkeys(run.rules for run in runs if task in run.scores)
    return {metric.name: metric for rules in reversed(scored) for metric in metrics_of(rules, task)}


def _best(runs: Sequence[Run], entries: Sequence[Entry | None], *, higher_is_better: bool) -> frozenset[int]:
    best: set[int] = set()
    for rules in {run.rules for run in runs}:
        values = {
            place: entry["value"]
            for place, (run, entry) in enumerate(zip(runs, entries, strict=True))
            if run.rules == rules and entry and entry["value"] is not None
        }
        if len(set(values.values())) > 1:
            most = (max if higher_is_better else min)(values.values())
            best |= {place for place, value in values.items() if value == most}
    return frozenset(best)


def arrow(higher_is_better: bool) -> str:
    """Which way is better."""
    return "↑" if higher_is_better else "↓"


def left_out_note(counts: Mapping[str, int]) -> str:
    """What `--only-predicted` did, for whoever reads the scores without the command."""
    whole = counts["references"] + counts["left_out"]
    return f"only predicted references are scored (--only-predicted): {counts['references']:,} of {whole:,}"


def _marked(scores: Mapping[Task, TaskScores]) -> bool:
    """Whether an interval of these scores is marked as too narrow."""
    parts = (entries for part in scores.values() for entries in (part.pooled, part.macro, *part.datasets.values()))
    return any(entry.get("few_images", False) for entries in parts for entry in entries.values())
