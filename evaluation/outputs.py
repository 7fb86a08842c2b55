"""What scoring writes: metrics.json, per_sample.jsonl and the console tables."""

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table as ConsoleTable

from evaluation.join import Joined
from evaluation.metrics import metrics_of
from evaluation.predictions import Prediction, PredictionFile
from evaluation.references import References
from evaluation.samples import Sample
from evaluation.scoring import Entries, Entry, TaskScores
from medvl.answers import Value
from medvl.box_text import ParsedBoxes
from medvl.sharegpt import to_json, write_atomic
from medvl.tasks import Task

METRICS = "metrics.json"
PER_SAMPLE = "per_sample.jsonl"
# Numbers depend on these.
_PACKAGES = ("medvl", "numpy", "scipy", "scikit-learn", "rouge-score", "sacrebleu")


def provenance(
    predictions: PredictionFile, references: References, *, command: Sequence[str], **settings: Any
) -> dict[str, Any]:
    """Where the numbers come from: both inputs with hashes, versions, the command and its settings. No time stamp, so
    that scoring twice gives the same bytes."""
    return {
        "predictions": {
            "path": str(predictions.path),
            "sha256": predictions.sha256,
            "shape": predictions.shape.name,
        },
        "references": {
            "path": str(references.path),
            "kind": references.kind,
            "splits": list(references.splits),
            "sha256": {str(path): digest for path, digest in references.files.items()},
        },
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "command": list(command),
        **settings,
    }


def metrics_json(
    scores: dict[Task, TaskScores], *, rules: str, counts: dict[str, int], provenance: dict[str, Any]
) -> dict[str, Any]:
    """The content of metrics.json."""
    datasets: dict[str, dict[str, Entries]] = {}
    for task, task_scores in scores.items():
        for name, entries in task_scores.datasets.items():
            datasets.setdefault(name, {})[task.value] = entries
    return {
        "schema": 1,
        "rules": rules,
        "counts": counts,
        "tasks": {task.value: task_scores.pooled for task, task_scores in scores.items()},
        "datasets": dict(sorted(datasets.items())),
        "macro": {task.value: task_scores.macro for task, task_scores in scores.items()},
        "provenance": provenance,
    }


def write_scores(
    out: Path, metrics: dict[str, Any], samples: Sequence[Sample], scores: dict[Task, TaskScores], joined: Joined
) -> None:
    """Write both files, metrics.json last: where it is, the other one is whole.

    Raises:
        OSError: `out` cannot be written.
    """
    lines = [*_sample_lines(samples, scores), *_left_over_lines(joined)]
    write_atomic(out / PER_SAMPLE, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    write_atomic(out / METRICS, to_json(metrics))


def _sample_lines(samples: Sequence[Sample], scores: dict[Task, TaskScores]) -> Iterator[dict[str, Any]]:
    """A line per reference, in their order; scores are null where the reference cannot be scored."""
    scored = {task: iter(range(len(task_scores.samples))) for task, task_scores in scores.items()}
    for sample in samples:
        line = _sample_line(sample)
        if sample.scorable:
            table, row = scores[sample.reference.task].table, next(scored[sample.reference.task])
            line |= {"score": float(table.score[row]), **table.counts(row)}  # NaN is written as null
        yield line


def _sample_line(sample: Sample) -> dict[str, Any]:
    reference, answer = sample.reference, sample.answer
    return {
        "id": reference.id,
        "dataset": reference.dataset,
        "task": reference.task.value,
        "status": "missing" if sample.text is None else "invalid" if sample.invalid else "valid",
        "question": reference.question,
        "images": list(reference.images),
        "prediction": sample.text,
        "value": _plain(answer.value),
        "reason": answer.reason,
        "notes": answer.notes,
        "reference": reference.answer,
        "reference_value": _plain(sample.truth.value),
        "exact": sample.exact,
        "score": None,
    }


def _plain(value: Value | None) -> Any:
    """A parsed value as JSON; boxes in pixels."""
    if isinstance(value, ParsedBoxes):
        return [
            {"box": [round(number, 2) for number in box], "label": label}
            for box, label in zip(value.boxes.tolist(), value.labels, strict=True)
        ]
    return value


def _left_over_lines(joined: Joined) -> Iterator[dict[str, Any]]:
    for status, predictions in (("extra", joined.extra), ("duplicate", joined.duplicates)):
        for prediction in predictions:
            yield _left_over_line(status, prediction)


def _left_over_line(status: str, prediction: Prediction) -> dict[str, Any]:
    return {
        "id": prediction.id,
        "status": status,
        "row": prediction.row,
        "question": prediction.question,
        "images": list(prediction.images),
        "prediction": prediction.text,
    }


def print_scores(metrics: dict[str, Any], scores: dict[Task, TaskScores], console: Console) -> None:
    """The counts, every metric per task, and the headline metrics per dataset."""
    rules = metrics["rules"]
    console.print(", ".join(f"{count} {name}" for name, count in metrics["counts"].items()), highlight=False)
    console.print(_task_table(scores, rules))
    console.print(_dataset_table(scores, rules))


def _task_table(scores: dict[Task, TaskScores], rules: str) -> ConsoleTable:
    grid = ConsoleTable("task", "metric", title=f"Scores per task, rules: {rules}")
    for heading in ("pooled", "macro", "n", "invalid", "missing"):
        grid.add_column(heading, justify="right")
    for task, task_scores in scores.items():
        missing = _missing(task_scores.samples)
        for metric in metrics_of(rules, task):
            pooled, macro = task_scores.pooled[metric.name], task_scores.macro[metric.name]
            name = f"{metric.name} {'↑' if metric.higher_is_better else '↓'}"
            grid.add_row(task.value, name, _shown(pooled), _shown(macro), *_counts(pooled), str(missing))
        grid.add_section()
    return grid


def _dataset_table(scores: dict[Task, TaskScores], rules: str) -> ConsoleTable:
    grid = ConsoleTable("dataset", "task", "metric", title=f"Scores per dataset, rules: {rules}")
    for heading in ("value", "n", "invalid", "missing"):
        grid.add_column(heading, justify="right")
    for name in sorted({name for task_scores in scores.values() for name in task_scores.datasets}):
        for task, task_scores in scores.items():
            missing = _missing([sample for sample in task_scores.samples if sample.reference.dataset == name])
            for metric in metrics_of(rules, task) if name in task_scores.datasets else ():
                entry = task_scores.datasets[name][metric.name]
                if metric.headline:
                    direction = "↑" if metric.higher_is_better else "↓"
                    row = (name, task.value, f"{metric.name} {direction}", _shown(entry), *_counts(entry))
                    grid.add_row(*row, str(missing))
        grid.add_section()
    return grid


def _missing(samples: Sequence[Sample]) -> int:
    return sum(sample.text is None for sample in samples)


def _shown(entry: Entry) -> str:
    value = entry["value"]
    return "-" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _counts(entry: Entry) -> tuple[str, str]:
    return str(entry["n"]), str(entry["n_invalid"])
