"""The score tables as GitHub Markdown, for a README or an issue."""

import re
from collections.abc import Iterable, Sequence

from evaluation.numbers import interval, number
from evaluation.page.text import visible
from evaluation.scores import Entry
from evaluation.tables import ResultTable, Row

# Names of datasets and files come from data: none of their characters may start a link, a tag or another column.
_MARKS = re.compile(r"([\\`*{}\[\]<>()#|!~@]|(?<!\w)_|_(?!\w))")


def markdown_tables(table: ResultTable) -> str:
    """Scores per task and per dataset; several runs stand side by side."""
    single = len(table.runs) == 1
    per_task = []
    for row in (row for row in table.task_rows if not row.detail):
        macro = [_value(row.macro[0])] if single else []
        per_task.append([row.task, row.name, *_values(row), *macro, *_counts(row)])
    per_dataset = [[row.dataset or "", row.task, row.name, *_values(row), *_counts(row)] for row in table.dataset_rows]
    tail = ["n", "invalid"]
    values, value = (["pooled", "macro"], ["value"]) if single else (table.headings, table.headings)
    rules = ", ".join(dict.fromkeys(run.rules for run in table.runs))
    return (
        "".join(f"{_escaped(note)}\n\n" for note in table.notes)
        + f"### Scores per task, rules: {_escaped(rules)}\n\n"
        + _table(["task", "metric", *values, *tail], per_task, texts=2)
        + f"\n### Scores per dataset, rules: {_escaped(rules)}\n\n"
        + _table(["dataset", "task", "metric", *value, *tail], per_dataset, texts=3)
        + (f"\n{_escaped(table.few)}\n" if table.few else "")
    )


def _values(row: Row) -> list[str]:
    return [_value(entry, best=place in row.best) for place, entry in enumerate(row.entries)]


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
