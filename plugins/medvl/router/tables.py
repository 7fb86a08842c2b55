"""What `medvl router` prints."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from medvl.router.evaluation import Evaluation, LeftOut


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def print_training(report: dict[str, Any], files: int) -> None:
    """What a router was trained on, and how it did on wordings held out."""
    console = Console()
    table = Table(
        "task", "questions", "wordings", "synthetic", "threshold", title=f"{report['rows']} rows of {files} files"
    )
    for task, counts in report["tasks"].items():
        table.add_row(
            task,
            *(str(counts[key]) for key in ("questions", "wordings", "synthetic")),
            _number(report["thresholds"].get(task, "")),
        )
    console.print(table)
    synthetic = sum(counts["synthetic"] for counts in report["tasks"].values())
    console.print(f"{synthetic} questions are synthetic (the project's own templates)", markup=False, highlight=False)
    if report["contradictions"]:
        several = report["contradictions"]
        said = f"{len(several)} questions have several tasks in the files, the most frequent one was taken; the first: "
        console.print(said + several[0], markup=False)
    print_pairs("On wordings held out", {"metrics": report["metrics"]})


def print_pairs(title: str, report: dict[str, Any]) -> None:
    """Names and numbers; of a mapping, its own."""
    table = Table(title=title, show_header=False)
    for key, value in report.items():
        for name, number in value.items() if isinstance(value, dict) else [(key, value)]:
            table.add_row(str(name).replace("_", " "), _number(number))
    Console().print(table)


def print_evaluation(name: str, found: Evaluation) -> None:
    """Confusion matrix, coverage curve, the first mistakes."""
    console = Console()
    columns = sorted({routed for row in found.confusion.values() for routed in row})
    table = Table("asked for", *columns, title=f"{name}: {found.questions} questions, accuracy {found.accuracy:.3f}")
    for task, row in found.confusion.items():
        table.add_row(task, *(str(row.get(column, "")) for column in columns))
    console.print(table)
    sources = ", ".join(f"{source} {number}" for source, number in sorted(found.sources.items()))
    console.print(f"abstained {found.abstained:.3f}, wrong {found.wrong:.3f}; decided by {sources}", markup=False)
    if found.kept_out is not None and found.tasks_right is not None:
        console.print(
            f"of tasks {_number(found.tasks_right)} right, {_number(found.tasks_wrong)} to another task; "
            f"of prompts that are none {_number(found.kept_out)} kept out",
            markup=False,
        )
    if found.curve:
        curve = Table("confidence at least", "coverage", "accuracy", title="Coverage and accuracy")
        for point in found.curve:
            curve.add_row(f"{point.confidence:.2f}", f"{point.coverage:.3f}", _number(point.accuracy))
        console.print(curve)
    for text, task, routed in found.mistakes[:10]:
        console.print(f"{task} -> {routed}: {text[:150]}", markup=False, highlight=False)


def print_left_out(folds: Sequence[LeftOut]) -> None:
    """One row per dataset left out."""
    table = Table("left out", "questions", "rules", "GLiClass", "chain", title="Accuracy on datasets not trained on")
    for fold in folds:
        table.add_row(
            fold.dataset, str(fold.questions), *(f"{value:.3f}" for value in (fold.rules, fold.gliclass, fold.chain))
        )
    Console().print(table)
