"""The tables on the console."""

from collections.abc import Mapping, Sequence
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from evaluation.differences import SIGNIFICANT, Difference, differences
from evaluation.numbers import interval, number
from evaluation.samples import Sample
from evaluation.scores import Entry
from evaluation.tables import ResultTable, Row, Run, arrow

_DECIMALS = 4


def print_scores(table: ResultTable, console: Console) -> None:
    """One file: the counts, and per set of rules every metric per task; the headline metrics per dataset, rules side by
    side."""
    counts = table.runs[0].counts
    console.print(", ".join(f"{count} {name}" for name, count in counts.items()), highlight=False)
    _print_notes(table.notes, console)
    for rules in table.headings:
        console.print(_tasks(table.under(rules)))
    console.print(_datasets(table))
    _print_notes([table.few], console)


def print_files(table: ResultTable, console: Console) -> None:
    """Several files under one set of rules, a column each: headline metrics pooled per task, then per dataset; the best
    value is bold."""
    _print_notes(table.notes, console)
    console.print(_files(table))
    _print_notes([table.few], console)


def print_differences(comparison: Mapping[str, Any], name: str, console: Console) -> None:
    """Wins, losses and ties per dataset, with the difference of its headline metrics."""
    rows = differences(comparison)
    title = escape(f"{name} against {Path(comparison['baseline']['path']).name}, rules: {comparison['rules']}")
    caption = f"difference: first minus second; better and worse at p < {SIGNIFICANT}, one test in twenty by chance"
    headings = ("value", "baseline", "difference [95 % interval]", "p", "verdict", "win/loss/tie")
    grid = _grid(title, ("dataset", "task", "metric"), headings, caption=caption)
    for _, of_dataset in groupby((row for row in rows if row.samples), key=lambda row: row.dataset):
        for row in of_dataset:
            grid.add_row(*_difference_cells(row))
        grid.add_section()
    for row in (row for row in rows if not row.samples):
        grid.add_row(*_difference_cells(row))
    console.print(grid)


def _print_notes(notes: Sequence[str], console: Console) -> None:
    for note in notes:
        if note:
            console.print(note, highlight=False)


def _grid(title: str, texts: Sequence[str], numbers: Sequence[str], *, caption: str | None = None) -> Grid:
    grid = Grid(*texts, title=title, caption=caption)
    for heading in numbers:
        grid.add_column(heading, justify="right")
    return grid


def _tasks(table: ResultTable) -> Grid:
    (run,) = table.runs
    headings = ("pooled [95 % interval]", "macro [95 % interval]", "n", "invalid", "missing")
    grid = _grid(f"Scores per task, rules: {run.rules}", ("task", "metric"), headings)
    for task, scores in run.scores.items():
        missing = _missing(scores.samples)
        for row in table.task_rows:
            if row.task == task.value and not row.detail:
                entry, macro = row.entries[0], row.macro[0]
                grid.add_row(row.task, row.name, shown(entry), shown(macro), *_counts(entry), str(missing))
        grid.add_section()
    return grid


def _datasets(table: ResultTable) -> Grid:
    grid = Grid("dataset", "task", title="Scores per dataset")
    for run in table.runs:
        grid.add_column(f"{run.rules}: metric")
        grid.add_column("value [95 % interval]", justify="right")
    for heading in ("n", "invalid", "missing"):
        grid.add_column(heading, justify="right")
    for dataset, of_dataset in groupby(table.dataset_rows, key=lambda row: row.dataset or ""):
        for task, rows in groupby(of_dataset, key=lambda row: row.task):
            missing = str(_missing_in(table.runs, dataset, task))
            for cells in _side_by_side(list(rows), len(table.runs)):
                grid.add_row(escape(dataset), task, *cells, missing)
        grid.add_section()
    return grid


def _side_by_side(rows: Sequence[Row], runs: int) -> list[list[str]]:
    """Lines of metrics and values; a set of rules with fewer metrics than another leaves its cells blank."""
    sides = [[(row.name, entry) for row in rows if (entry := row.entries[place])] for place in range(runs)]
    lines = []
    for pairs in zip_longest(*sides):
        cells = [cell for pair in pairs for cell in ((pair[0], shown(pair[1])) if pair else ("", ""))]
        lines.append([*cells, *_counts(next(pair[1] for pair in pairs if pair))])
    return lines


def _files(table: ResultTable) -> Grid:
    names = [escape(name) for name in table.headings]
    grid = _grid(f"Prediction files, rules: {table.runs[0].rules}", ("dataset", "task", "metric"), names)
    for task, pooled in groupby((row for row in table.task_rows if row.headline), key=lambda row: row.task):
        of_datasets = [row for row in table.dataset_rows if row.task == task]
        several = len({row.dataset for row in of_datasets}) > 1
        for row in [*pooled, *(of_datasets if several else ())]:
            cells = [shown(entry, best=place in row.best) for place, entry in enumerate(row.entries)]
            grid.add_row(escape(row.dataset or "all"), task, row.name, *cells)
        grid.add_section()
    return grid


def _difference_cells(row: Difference) -> tuple[str, ...]:
    entry = row.entry
    values = (number(entry["value"], _DECIMALS), number(entry["baseline"], _DECIMALS))
    outcome = "" if row.samples is None else "/".join(map(str, row.samples))
    metric = f"{row.metric} {arrow(entry['higher_is_better'])}"
    difference = shown({**entry, "value": entry["difference"]})
    return escape(row.dataset), row.task, metric, *values, difference, row.p_value, row.verdict, outcome


def _missing(samples: Sequence[Sample]) -> int:
    return sum(sample.text is None for sample in samples)


def _missing_in(runs: Sequence[Run], dataset: str, task: str) -> int:
    """Questions of a dataset without an answer that any set of rules scores."""
    scored = [scores.samples for run in runs for of, scores in run.scores.items() if of.value == task]
    asked = {id(sample): sample for samples in scored for sample in samples if sample.reference.dataset == dataset}
    return _missing([sample for sample in asked.values() if sample.scorable])


def shown(entry: Entry | None, *, best: bool = False) -> str:
    """A value with its interval; "-" where there is none."""
    value, ends = number(entry["value"] if entry else None, _DECIMALS), interval(entry, _DECIMALS, ", ")
    mark = "†" if ends.endswith("†") else ""
    text = f"{value} [{ends.removesuffix(mark)}]{mark}" if ends else value
    return f"[bold]{text}[/bold]" if best else text


def _counts(entry: Entry | None) -> tuple[str, str]:
    return ("", "") if entry is None else (str(entry["n"]), str(entry["n_invalid"]))
