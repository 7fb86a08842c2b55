"""What a page shows: one or several scored runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.diagnosis import Diagnosis
from evaluation.evaluate import Evaluation
from evaluation.references import Reference
from evaluation.scoring import TaskScores
from evaluation.validity_checks import Finding
from medvl.tasks import Task


def _nowhere(reference: Reference) -> None:
    del reference


@dataclass(frozen=True)
class Run:
    """One prediction file under one set of rules.

    Attributes:
        file: How the page calls the prediction file, e.g. "predictions".
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


def headings(runs: Sequence[Run]) -> list[str]:
    """What tells the runs apart: their files, their rules, or both."""
    if len({run.file for run in runs}) == 1:
        return [run.rules for run in runs]
    one = len({run.rules for run in runs}) == 1
    return [run.file if one else f"{run.file}, {run.rules}" for run in runs]


def runs_of(
    evaluation: Evaluation, name: str, metrics: Mapping[str, Any], diagnosis: Diagnosis | None = None
) -> list[Run]:
    """An evaluation as runs, one per set of rules; only the first holds what does not depend on rules.

    Args:
        evaluation: The scored file.
        name: How the page calls its file.
        metrics: The content of its metrics.json.
        diagnosis: What is behind its numbers.
    """
    runs: list[Run] = []
    for rules, scores in evaluation.scores.items():
        first = not runs
        run = Run(
            file=name,
            rules=rules,
            scores=scores,
            counts=metrics["counts"],
            provenance=metrics["provenance"],
            comparison=metrics.get("comparison") if first else None,
            findings=evaluation.findings if first else (),
            diagnosis=diagnosis if first else None,
            image=lambda reference: reference.image(),
        )
        runs.append(run)
    return runs
