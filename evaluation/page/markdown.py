"""The score tables as GitHub Markdown, for a README or an issue."""

import re
from collections.abc import Iterable, Sequence

from evaluation.outputs import FEW_NOTE, any_few, left_out_note
from evaluation.page.runs import Run, headings
from evaluation.page.tables import Row, best_places, dataset_rows, interval, number, task_rows
from evaluation.page.text import visible
from evaluation.scoring import Entry

# Names of datasets and files come from data: none of their characters may start a link, a tag or another column.
_MARKS = re.compile(r"([\\`*{}\[\]<>()#|!~@]|(?<!\w)_|_(?!\w))")


def tables(runs: Sequence[Run]) -> str:
    """Scores per task and per dataset; several runs stand side by side."""
    names = headings(runs)
    single = len(runs) == 1
    per_task = []
    for row in (row for row in task_rows(runs) if not row.detail):
        macro = [_value(row.macro[0])] if single else []
        per_task.append([row.task, f"{row.metric} {row.arrow}", *_values(row, runs), *macro, *_counts(row)])
    per_dataset = [
        [row.dataset or "", row.task, f"{row.metric} {row.arrow}", *_values(row, runs), *_counts(row)]
        for row in dataset_rows(runs)
    ]
    tail = ["n", "invalid"]
    values = ["pooled", "macro"] if single else names
    rules = ", ".join(dict.fromkeys(run.rules for run in runs))
    counts = runs[0].counts
    left_out = f"{_escaped(left_out_note(counts))}\n\n" if "left_out" in counts else ""
    few = f"\n{_escaped(FEW_NOTE)}\n" if any(any_few(run.scores) for run in runs) else ""
    return (
        left_out
        + f"### Scores per task, rules: {_escaped(rules)}\n\n"
        + _table(["task", "metric", *values, *tail], per_task, texts=2)
        + f"\n### Scores per dataset, rules: {_escaped(rules)}\n\n"
        + _table(["dataset", "task", "metric", *(["value"] if single else names), *tail], per_dataset, texts=3)
        + few
    )


def _values(row: Row, runs: Sequence[Run]) -> list[str]:
    best = best_places(row, runs)
    return [_value(entry, best=place in best) for place, entry in enumerate(row.entries)]


def _value(entry: Entry | None, *, best: bool = False) -> str:
    if entry is None or entry["value"] is None:
        return "-"
    shown = f"**{number(entry['value'])}**" if best else number(entry["value"])
    return f"{shown} ({interval(entry)})" if interval(entry) else shown


def _counts(row: Row) -> list[str]:
    """`n` and invalid answers; of several runs only where they agree, since rules may leave samples out."""
    return ["/".join(dict.fromkeys(str(entry[key]) for entry in row.entries if entry)) for key in ("n", "n_invalid")]


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int) -> str:
    """A table whose first `texts` columns are text and the others numbers."""
    lines = [[_escaped(cell) for cell in heading], ["---"] * texts + ["---:"] * (len(heading) - texts)]
    lines += [[*(_escaped(cell) for cell in row[:texts]), *row[texts:]] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _escaped(text: str) -> str:
    return _MARKS.sub(r"\\\1", " ".join(visible(text, 120).split()))
