"""The one table of a sweep: what every run changed, what it cost, what it scored. Console, CSV, Markdown and HTML."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from rich.table import Table

import medvl
from medvl.sharegpt import to_json, write_atomic
from medvl.sweep.plan import Score
from medvl.sweep.running import RunFolder

_PAGE = Path(__file__).with_name("table.html.jinja")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as far as it came.

    Attributes:
        name: Of the run.
        changed: Keys in which the runs differ, with its values.
        state: "finished", or what keeps it from being so.
        trainable: Number of trained weights.
        final_loss: The last logged one.
        hours: Of training, of the process that ended it.
        gpu_gib: Most GPU memory in use at a time; None without a GPU.
        metric: What it was judged by.
        value: Its value on val.
        ci95: Interval of that.
        difference: To the first run on val, paired.
        p_value: Of a paired randomisation test of that.
        chosen: Whether it is the best on val.
        test: Its value on test; the chosen run alone has one.
        test_ci95: Interval of that.
    """

    name: str
    changed: dict[str, Any]
    state: str
    trainable: int | None = None
    final_loss: float | None = None
    hours: float | None = None
    gpu_gib: float | None = None
    metric: str | None = None
    value: float | None = None
    ci95: tuple[float, float] | None = None
    difference: float | None = None
    p_value: float | None = None
    chosen: bool = False
    test: float | None = None
    test_ci95: tuple[float, float] | None = None


def result(folder: RunFolder, keys: Sequence[str], score: Score | None, state: str) -> Result:
    """What the files of a run say."""
    card = folder.card()
    entry = entry_of(folder.metrics("val"), score)
    compared = entry_of((folder.metrics("val") or {}).get("comparison"), score)
    return Result(
        name=folder.run.name,
        changed={key: folder.settings.get(key) for key in keys},
        state=state,
        trainable=card.finetuning.trainable_parameters if card else None,
        final_loss=card.run.final_loss if card else None,
        hours=card.run.seconds / 3600 if card else None,
        gpu_gib=card.run.peak_gpu_gib if card else None,
        metric=score.metric if score else None,
        value=entry.get("value"),
        ci95=entry.get("ci95"),
        difference=compared.get("difference"),
        p_value=compared.get("p_value"),
    )


def entry_of(metrics: dict[str, Any] | None, score: Score | None) -> dict[str, Any]:
    """The entry of a metrics.json, or of the comparison in one, that runs are judged by; empty if it has none."""
    if metrics is None or score is None:
        return {}
    task, metric = score.metric.split(".")
    entry: dict[str, Any] = metrics.get("tasks", {}).get(task, {}).get(metric, {})
    return entry


def changed_keys(folders: Sequence[RunFolder]) -> list[str]:
    """Keys whose values are not the same in all runs, in the order of their first mention."""
    mentioned = dict.fromkeys(key for folder in folders for key in folder.run.overrides)
    return [key for key in mentioned if any(f.settings.get(key) != folders[0].settings.get(key) for f in folders)]


def cells(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Head and rows as text. Columns that no run has a value for are left out."""
    keys = list(results[0].changed) if results else []
    columns: list[tuple[str, list[str]]] = [("run", [f"{r.name} *" if r.chosen else r.name for r in results])]
    columns += [(key, [_plain(r.changed[key]) for r in results]) for key in keys]
    metric = next((r.metric for r in results if r.metric), "score")
    columns += [
        ("trained weights", [f"{r.trainable:,}" if r.trainable is not None else "" for r in results]),
        ("final loss", [_number(r.final_loss) for r in results]),
        ("hours", [_number(r.hours) for r in results]),
        ("GPU GiB", [_number(r.gpu_gib) for r in results]),
        (f"val {metric}", [_with_interval(r.value, r.ci95) for r in results]),
        (f"- {results[0].name if results else ''}", [_signed(r.difference) for r in results]),
        ("p", [_number(r.p_value) for r in results]),
        (f"test {metric}", [_with_interval(r.test, r.test_ci95) for r in results]),
        ("state", ["" if r.state == "finished" else r.state for r in results]),
    ]
    shown = [(head, values) for head, values in columns if any(values)]
    return [head for head, _ in shown], [list(row) for row in zip(*(values for _, values in shown), strict=True)]


def console_table(results: Sequence[Result], title: str) -> Table:
    """For the console; the chosen run has a star."""
    head, rows = cells(results)
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*row)
    return table


def write_table(results: Sequence[Result], out: Path, title: str, notes: Sequence[str]) -> None:
    """table.json, table.csv, table.md and table.html."""
    head, rows = cells(results)
    write_atomic(out / "table.json", to_json(results))
    text = io.StringIO(newline="")
    csv.writer(text).writerows([head, *rows])
    write_atomic(out / "table.csv", text.getvalue().encode())
    lines = [head, ["---"] * len(head), *rows]
    markdown = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    write_atomic(out / "table.md", (markdown + "".join(f"\n{note}\n" for note in notes)).encode())
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    style = Path(medvl.__file__).with_name("page.css").read_text(encoding="utf-8")
    page = environment.from_string(_PAGE.read_text(encoding="utf-8"))
    write_atomic(out / "table.html", page.render(title=title, style=style, head=head, rows=rows, notes=notes).encode())


def _plain(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _with_interval(value: float | None, ci95: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" [{ci95[0]:.3f}, {ci95[1]:.3f}]" if ci95 else "")
