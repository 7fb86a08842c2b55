"""What scoring writes: metrics.json, diagnosis.json, per_sample.jsonl and the console tables."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table as ConsoleTable

from evaluation import validity_checks
from evaluation.diagnosis import Diagnosis
from evaluation.evaluate import Evaluation, Scores, Settings
from evaluation.frame_evidence import frames_of_rows
from evaluation.join import Joined
from evaluation.metrics import Metric, metrics_of
from evaluation.metrics.registry import base_rules
from evaluation.predictions import Prediction
from evaluation.references import Reference
from evaluation.samples import Sample
from evaluation.scoring import Entries, Entry, invalid_reasons
from evaluation.statistics import ENOUGH_CLUSTERS
from medvl.box_text import ParsedBoxes
from medvl.boxes import Frame
from medvl.sharegpt import to_json, write_atomic
from medvl.tasks import Task, Value

METRICS = "metrics.json"
PER_SAMPLE = "per_sample.jsonl"
DIAGNOSIS = "diagnosis.json"
COMPARISON = "comparison.json"
FEW = "†"  # behind an interval that is too narrow
FEW_NOTE = f"{FEW} from fewer than {ENOUGH_CLUSTERS} images, so the interval is too narrow"
# Numbers depend on these.
_PACKAGES = ("medvl", "numpy", "scipy", "scikit-learn", "rouge-score", "sacrebleu")


def provenance(evaluation: Evaluation, settings: Settings, command: Sequence[str]) -> dict[str, Any]:
    """Where the numbers come from: both inputs with hashes, versions, the command and its settings. No time stamp, so
    that scoring twice gives the same bytes."""
    predictions, references = evaluation.predictions, evaluation.references
    scores = evaluation.scores[evaluation.rules]
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
        "rules": list(settings.rules),
        "frame": evaluation.frame,
        "seed": settings.resampling.seed,
        "bootstrap": settings.resampling.draws,
        "cluster": settings.resampling.cluster,
        "forced": settings.force,
        "report_metrics": list(settings.report_metrics),
        "green_transcript": None if settings.green_transcript is None else str(settings.green_transcript),
        "joined_by": evaluation.joined.how,
        "gate": validity_checks.as_json(evaluation.findings),
        "invalid_reasons": {task.value: invalid_reasons(part.samples) for task, part in scores.items()},
    }


def metrics_json(evaluation: Evaluation, settings: Settings, command: Sequence[str]) -> dict[str, Any]:
    """The content of metrics.json. The first rules asked for fill the documented schema, so that a reader of one set of
    rules need not know of others; those stand under `other_rules`, rules -> the same four parts."""
    first, *others = evaluation.scores.items()
    made = {
        "schema": 1,
        "rules": first[0],
        **only_predicted(evaluation),
        "counts": validity_checks.counts(
            evaluation.references, evaluation.predictions, evaluation.joined, evaluation.samples, evaluation.left_out
        ),
        **_parts(first[1]),
        "provenance": provenance(evaluation, settings, command),
    }
    return made | ({"other_rules": {rules: _parts(scores) for rules, scores in others}} if others else {})


def only_predicted(evaluation: Evaluation) -> dict[str, bool]:
    """The mark of outputs that leave out what was not predicted; empty where nothing was to be left out."""
    return {} if evaluation.left_out is None else {"only_predicted": True}


def _parts(scores: Scores) -> dict[str, Any]:
    datasets: dict[str, dict[str, Entries]] = {}
    for task, task_scores in scores.items():
        for name, entries in task_scores.datasets.items():
            datasets.setdefault(name, {})[task.value] = entries
    return {
        "tasks": {task.value: task_scores.pooled for task, task_scores in scores.items()},
        "datasets": dict(sorted(datasets.items())),
        "macro": {task.value: task_scores.macro for task, task_scores in scores.items()},
        "groups": {task.value: task_scores.groups for task, task_scores in scores.items() if task_scores.groups},
    }


def write_scores(out: Path, evaluation: Evaluation, metrics: dict[str, Any], diagnosis: Diagnosis) -> None:
    """Write the three files, metrics.json last: where it is, the others are whole.

    Raises:
        OSError: `out` cannot be written.
    """
    fits = frames_of_rows(diagnosis.other_frames)
    left_out = [_left_out_line(reference) for reference in evaluation.left_out or ()]
    lines = [*_sample_lines(evaluation, fits), *_left_over_lines(evaluation.joined), *left_out]
    write_atomic(out / PER_SAMPLE, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    write_json(out / DIAGNOSIS, msgspec.to_builtins(diagnosis) | only_predicted(evaluation))
    write_json(out / METRICS, metrics)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; raises OSError."""
    write_atomic(path, to_json(value))


def _sample_lines(evaluation: Evaluation, fits: Mapping[str, Frame]) -> Iterator[dict[str, Any]]:
    """A line per reference, in their order; scores are null where the reference cannot be scored.

    `score` and the counts are those of the first rules, `score_<rules>` those of others. `fits_frame` stands where the
    boxes fit another frame far better than that they were scored in.
    """
    rows = {
        rules: {id(sample): (part.table, row) for part in scores.values() for row, sample in enumerate(part.samples)}
        for rules, scores in evaluation.scores.items()
    }
    for sample in evaluation.samples:
        line = _sample_line(sample)
        for rules, places in rows.items():
            if id(sample) in places:
                table, row = places[id(sample)]
                first = base_rules(rules) == base_rules(evaluation.rules)
                key = "score" if first else f"score_{base_rules(rules)}"
                line |= {key: float(table.score[row])} | (table.counts(row) if first else {})  # NaN is written as null
        if sample.reference.id in fits:
            line["fits_frame"] = fits[sample.reference.id]
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


def _left_out_line(reference: Reference) -> dict[str, Any]:
    return {
        "id": reference.id,
        "dataset": reference.dataset,
        "task": reference.task.value,
        "status": "left_out",
        "question": reference.question,
        "images": list(reference.images),
    }


def print_scores(evaluation: Evaluation, metrics: dict[str, Any], console: Console) -> None:
    """The counts, and per set of rules every metric per task; the headline metrics per dataset, rules side by side."""
    console.print(", ".join(f"{count} {name}" for name, count in metrics["counts"].items()), highlight=False)
    if evaluation.left_out is not None:
        console.print(left_out_note(metrics["counts"]), highlight=False)
    for rules, scores in evaluation.scores.items():
        console.print(_task_table(scores, rules))
    console.print(_dataset_table(evaluation))
    if any(any_few(scores) for scores in evaluation.scores.values()):
        console.print(FEW_NOTE, highlight=False)


def left_out_note(counts: Mapping[str, int]) -> str:
    """What `--only-predicted` did, for whoever reads the scores without the command."""
    whole = counts["references"] + counts["left_out"]
    return f"only predicted references are scored (--only-predicted): {counts['references']:,} of {whole:,}"


def any_few(scores: Scores) -> bool:
    """Whether an interval of these scores is marked as too narrow."""
    parts = (entries for part in scores.values() for entries in (part.pooled, part.macro, *part.datasets.values()))
    return any(entry.get("few_images", False) for entries in parts for entry in entries.values())


def _task_table(scores: Scores, rules: str) -> ConsoleTable:
    grid = ConsoleTable("task", "metric", title=f"Scores per task, rules: {rules}")
    for heading in ("pooled [95 % interval]", "macro [95 % interval]", "n", "invalid", "missing"):
        grid.add_column(heading, justify="right")
    for task, task_scores in scores.items():
        missing = _missing(task_scores.samples)
        for metric in metrics_of(rules, task):
            if not metric.detail:
                pooled, macro = task_scores.pooled[metric.name], task_scores.macro[metric.name]
                row = (task.value, arrow(metric), shown(pooled), shown(macro), *_counts(pooled), str(missing))
                grid.add_row(*row)
        grid.add_section()
    return grid


def _dataset_table(evaluation: Evaluation) -> ConsoleTable:
    grid = ConsoleTable("dataset", "task", title="Scores per dataset")
    for rules in evaluation.scores:
        grid.add_column(f"{rules}: metric")
        grid.add_column("value [95 % interval]", justify="right")
    for heading in ("n", "invalid", "missing"):
        grid.add_column(heading, justify="right")
    found = {(name, task) for scores in evaluation.scores.values() for task in scores for name in scores[task].datasets}
    for name in sorted({name for name, _ in found}):
        for task in Task:
            if (name, task) in found:
                _dataset_rows(evaluation, name, task, grid)
        grid.add_section()
    return grid


def _dataset_rows(evaluation: Evaluation, name: str, task: Task, grid: ConsoleTable) -> None:
    """A row per headline metric; a set of rules with fewer of them leaves the rest of its columns blank."""
    sides = [
        [(arrow(metric), scores[task].datasets[name][metric.name]) for metric in metrics_of(rules, task) if
         metric.headline and task in scores and name in scores[task].datasets]
        for rules, scores in evaluation.scores.items()
    ]  # fmt: skip
    asked = [sample for sample in evaluation.samples if sample.scorable and sample.reference.task is task]
    missing = _missing([sample for sample in asked if sample.reference.dataset == name])
    for entries in zip_longest(*sides):
        cells = [cell for entry in entries for cell in ((entry[0], shown(entry[1])) if entry else ("", ""))]
        counts = next(_counts(entry[1]) for entry in entries if entry)
        grid.add_row(escape(name), task.value, *cells, *counts, str(missing))


def arrow(metric: Metric) -> str:
    """A metric's name with its direction."""
    return f"{metric.name} {'↑' if metric.higher_is_better else '↓'}"


def _missing(samples: Sequence[Sample]) -> int:
    return sum(sample.text is None for sample in samples)


def shown(entry: Entry) -> str:
    """A value with its interval, for a table; "-" where there is none."""
    if entry["value"] is None:
        return "-"
    value, ci95 = number(entry["value"]), entry["ci95"]
    mark = FEW if entry.get("few_images") else ""
    return value if ci95 is None else f"{value} [{number(ci95[0])}, {number(ci95[1])}]{mark}"


def number(value: float) -> str:
    """A number as wide as a table needs."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _counts(entry: Entry) -> tuple[str, str]:
    return str(entry["n"]), str(entry["n_invalid"])
