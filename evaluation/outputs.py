"""What scoring writes: metrics.json, diagnosis.json, per_sample.jsonl, and comparison.json of several files."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from evaluation import validity_checks
from evaluation.findings import Diagnosis
from evaluation.frame_diagnosis import frames_of_rows
from evaluation.metrics.registry import base_rules, metrics_of
from evaluation.samples import Joined, Prediction, Reference, Sample
from evaluation.scores import Entries, Entry, Evaluation, Scores, Settings
from evaluation.scoring import invalid_reasons
from medvl.box_text import ParsedBoxes
from medvl.boxes import Frame
from medvl.sharegpt import to_json, write_atomic
from medvl.tasks import Value

METRICS = "metrics.json"
PER_SAMPLE = "per_sample.jsonl"
DIAGNOSIS = "diagnosis.json"
COMPARISON = "comparison.json"
REPORT = "report.html"
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


class PageError(Exception):
    """The page could not be drawn. It shows what other files hold, so that costs none of them."""


def write_scores(
    out: Path, evaluation: Evaluation, metrics: dict[str, Any], diagnosis: Diagnosis, lines: Iterable[dict[str, Any]]
) -> None:
    """Write the three files, metrics.json last: where it is, the others are whole.

    Raises:
        OSError: `out` cannot be written.
    """
    write_atomic(out / PER_SAMPLE, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    write_json(out / DIAGNOSIS, msgspec.to_builtins(diagnosis) | only_predicted(evaluation))
    write_json(out / METRICS, metrics)


def write_page(path: Path, render: Callable[[], bytes]) -> None:
    """Write a page.

    Raises:
        PageError: whatever a chart, an image or the disk raised.
    """
    try:
        write_atomic(path, render())
    except Exception as error:
        path.unlink(missing_ok=True)  # an earlier run's page would be taken for this one's
        why = f"{path} is not there, it could not be drawn ({type(error).__name__}: {error})"
        raise PageError(f"{why}; the scores are whole. Please report it; --no-page leaves the page out") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; raises OSError."""
    write_atomic(path, to_json(value))


def sample_lines(evaluation: Evaluation, diagnosis: Diagnosis) -> Iterator[dict[str, Any]]:
    """The lines of per_sample.jsonl: a line per reference, then predictions that answer none, then what was left out.

    `score` and the counts are those of the first rules, `score_<rules>` those of others; null where the reference
    cannot be scored. `fits_frame` stands where the boxes fit another frame far better than that they were scored in.
    """
    yield from _scored_lines(evaluation, frames_of_rows(diagnosis.other_frames))
    yield from _left_over_lines(evaluation.joined)
    yield from map(_left_out_line, evaluation.left_out or ())


def _scored_lines(evaluation: Evaluation, fits: Mapping[str, Frame]) -> Iterator[dict[str, Any]]:
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
