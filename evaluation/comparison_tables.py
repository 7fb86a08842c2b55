"""Several prediction files side by side: comparison.json, and the tables on the console."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as ConsoleTable

from evaluation.comparison import SIGNIFICANT, verdict
from evaluation.evaluate import Evaluation
from evaluation.metrics import metrics_of
from evaluation.outputs import FEW_NOTE, any_few, arrow, left_out_note, number, only_predicted, shown
from evaluation.scoring import Entry


def file_names(paths: Sequence[Path]) -> list[str]:
    """A name per file, all different: its stem, with its folder where stems repeat, with a number where both do."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else f"{path.resolve().parent.name}_{path.stem}" for path in paths]
    repeated = Counter(names)
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if repeated[name] == 1 else f"{name}_{seen[name]}")
    return unique


def comparison_json(evaluations: Sequence[Evaluation], names: Sequence[str]) -> dict[str, Any]:
    """Entries of all files next to each other, under the first rules: part -> … -> metric -> file -> entry."""
    rules = evaluations[0].rules
    made: dict[str, Any] = {"schema": 1, "rules": rules, "tasks": {}, "macro": {}, "datasets": {}}
    made |= only_predicted(evaluations[0])
    made["files"] = {
        name: {"path": str(evaluation.predictions.path), "sha256": evaluation.predictions.sha256}
        for name, evaluation in zip(names, evaluations, strict=True)
    }
    for task, scores in evaluations[0].scores[rules].items():
        each = [evaluation.scores[rules][task] for evaluation in evaluations]
        for metric in metrics_of(rules, task):
            made["tasks"].setdefault(task.value, {})[metric.name] = _side_by_side(
                names, [one.pooled[metric.name] for one in each]
            )
            made["macro"].setdefault(task.value, {})[metric.name] = _side_by_side(
                names, [one.macro[metric.name] for one in each]
            )
            for dataset in scores.datasets:
                place = made["datasets"].setdefault(dataset, {}).setdefault(task.value, {})
                place[metric.name] = _side_by_side(names, [one.datasets[dataset][metric.name] for one in each])
    return made


def _side_by_side(names: Sequence[str], entries: Sequence[Entry]) -> dict[str, Entry]:
    return dict(zip(names, entries, strict=True))


def print_files(evaluations: Sequence[Evaluation], names: Sequence[str], console: Console) -> None:
    """A column per file: headline metrics pooled per task, then per dataset; the best value is bold."""
    rules = evaluations[0].rules
    grid = ConsoleTable("dataset", "task", "metric", title=f"Prediction files, rules: {rules}")
    for name in names:
        grid.add_column(escape(name), justify="right")
    for task, scores in evaluations[0].scores[rules].items():
        headline = [metric for metric in metrics_of(rules, task) if metric.headline]
        each = [evaluation.scores[rules][task] for evaluation in evaluations]
        for metric in headline:
            pooled = [one.pooled[metric.name] for one in each]
            grid.add_row("all", task.value, arrow(metric), *_best_bold(pooled))
        for dataset in scores.datasets if len(scores.datasets) > 1 else ():
            for metric in headline:
                entries = [one.datasets[dataset][metric.name] for one in each]
                grid.add_row(escape(dataset), task.value, arrow(metric), *_best_bold(entries))
        grid.add_section()
    if (left_out := evaluations[0].left_out) is not None:
        counts = {"references": len(evaluations[0].references.items), "left_out": len(left_out)}
        console.print(left_out_note(counts), highlight=False)
    console.print(grid)
    if any(any_few(evaluation.scores[rules]) for evaluation in evaluations):
        console.print(FEW_NOTE, highlight=False)


def _best_bold(entries: Sequence[Entry]) -> list[str]:
    known = [entry["value"] for entry in entries if entry["value"] is not None]
    best = (max if entries[0]["higher_is_better"] else min)(known, default=None)
    cells = [(entry["value"] is not None and entry["value"] == best, shown(entry)) for entry in entries]
    return [f"[bold]{text}[/bold]" if is_best else text for is_best, text in cells]


def print_comparison(comparison: dict[str, Any], name: str, console: Console) -> None:
    """Wins, losses and ties per dataset, with the difference of its headline metrics."""
    rules = comparison["rules"]
    title = escape(f"{name} against {Path(comparison['baseline']['path']).name}, rules: {rules}")
    caption = f"difference: first minus second; better and worse at p < {SIGNIFICANT}, one test in twenty by chance"
    grid = ConsoleTable("dataset", "task", "metric", title=title, caption=caption)
    for heading in ("value", "baseline", "difference [95 % interval]", "p", "verdict", "win/loss/tie"):
        grid.add_column(heading, justify="right")
    for dataset, tasks in comparison["datasets"].items():
        for task, entries in tasks.items():
            samples = entries["samples"]
            for metric in metrics_of(rules, task):
                if metric.headline:
                    outcome = f"{samples['wins']}/{samples['losses']}/{samples['ties']}"
                    grid.add_row(escape(dataset), task, arrow(metric), *_cells(entries[metric.name]), outcome)
        grid.add_section()
    for task, entries in comparison["tasks"].items():
        for metric in metrics_of(rules, task):
            if metric.headline:
                grid.add_row("all", task, arrow(metric), *_cells(entries[metric.name]), "")
    console.print(grid)


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    values = tuple("-" if entry[key] is None else number(entry[key]) for key in ("value", "baseline"))
    difference = shown({"value": entry["difference"], "ci95": entry["ci95"], "few_images": entry.get("few_images")})
    p = "-" if entry["p_value"] is None else f"{entry['p_value']:.3f}"
    return *values, difference, p, verdict(entry)
