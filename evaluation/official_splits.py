"""What of the references the challenge's public scorer scores: its tasks, and the split that it reads."""

from collections.abc import Iterator, Sequence

from evaluation.findings import Finding
from evaluation.metrics.registry import caution
from evaluation.samples import Sample
from medvl.sources.flare import FLARE
from medvl.tasks import Task

RULES = "official"
# quirk: any other spelling of TaskType gets no metric at all, without a word.
SPELLINGS = {
    Task.CLASSIFICATION: "classification",
    Task.MULTI_LABEL: "multi-label classification",
    Task.DETECTION: "detection",
    Task.INSTANCE_DETECTION: "instance_detection",
    Task.COUNTING: "counting",
    Task.REGRESSION: "regression",
    Task.REPORT: "report_generation",
}
# The split that it reads, and so the one whose numbers compare with those it prints.
_PUBLIC = FLARE.splits["val"].folder


def apart(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Samples by the rules' name they are scored under: `official` is the split that the scorer reads, and
    `official@<split folder>` any other one. A single split needs no telling apart."""
    folders = dict.fromkeys([_PUBLIC, *(split.folder for split in FLARE.splits.values())])
    parts: dict[str, list[Sample]] = {folder: [] for folder in folders}
    for sample in samples:
        parts[sample.reference.split if sample.reference.split in parts else _PUBLIC].append(sample)
    filled = {folder: part for folder, part in parts.items() if part}
    if len(filled) < 2:
        return {RULES: list(samples)}
    return {RULES if folder == _PUBLIC else f"{RULES}@{folder}": part for folder, part in filled.items()}


@caution(RULES)
def comparability(samples: Sequence[Sample]) -> list[Finding]:
    """Which numbers compare with the public scorer's: those of the tasks that it knows, on the split that it reads."""
    return [*_unknown_tasks(samples), *_other_splits(samples)]


def _unknown_tasks(samples: Sequence[Sample]) -> Iterator[Finding]:
    unknown = [sample for sample in samples if sample.reference.task not in SPELLINGS]
    if unknown:
        names = ", ".join(sorted({sample.reference.task.value for sample in unknown}))
        yield Finding("official_tasks", len(unknown), f"references of {names}, which the public scorer does not score")


def _other_splits(samples: Sequence[Sample]) -> list[Finding]:
    known = {split.folder for split in FLARE.splits.values()}
    others = [sample for sample in samples if sample.reference.split in known - {_PUBLIC}]
    if not others:
        return []
    text = f"references are not of {_PUBLIC}, all that the public scorer reads: "
    parts = list(apart(samples))
    if len(parts) == 1:
        text += f"`{RULES}` here is its rules on another split"
    elif RULES in parts:
        text += f"`{RULES}` holds {_PUBLIC} and compares with its numbers; {', '.join(parts[1:])} apart"
    else:
        text += f"none of {', '.join(parts)} compares with its numbers"
    return [Finding("official_splits", len(others), text)]
