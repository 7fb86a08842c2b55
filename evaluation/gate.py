"""The gate: what is wrong with a prediction file as a whole, said before any number."""

from dataclasses import dataclass
from typing import Any

from evaluation.join import Joined
from evaluation.metrics.detection import has_zero_area
from evaluation.predictions import PredictionFile
from evaluation.references import References
from evaluation.samples import Sample

_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One kind of trouble.

    Attributes:
        code: Key in the provenance of metrics.json.
        count: How many.
        text: What that means, for the reader.
        examples: The first few; per_sample.jsonl has all of those that concern single samples.
    """

    code: str
    count: int
    text: str
    examples: tuple[str, ...] = ()


def counts(
    references: References, predictions: PredictionFile, joined: Joined, samples: list[Sample]
) -> dict[str, int]:
    """The counts of metrics.json.

    `matched` and `missing` add up to `references`; a null answer is missing. `invalid` holds the missing ones too.
    """
    return {
        "references": len(references.items),
        "predictions": len(predictions.rows),
        "matched": len(references.items) - len(joined.missing),
        "missing": len(joined.missing),
        "extra": len(joined.extra),
        "duplicates": len(joined.duplicates),
        "invalid": sum(sample.invalid for sample in samples),
    }


def findings(references: References, joined: Joined, samples: list[Sample]) -> list[Finding]:
    """Everything that a reader of the scores should know about the two files; none of it stops the scoring."""
    empty = [sample.reference.id for sample in samples if sample.text is not None and sample.answer.missing]
    unclear = [sample for sample in samples if not sample.truth.parsed and sample.scorable]
    unscorable = [sample for sample in samples if not sample.scorable]
    flat = [sample.reference.id for sample in samples if has_zero_area(sample)]
    missing = [reference.id for reference in joined.missing]
    extra = [prediction.name for prediction in joined.extra]
    duplicates = [prediction.name for prediction in joined.duplicates]
    found = [
        _finding("missing", missing, "references have no prediction and count as wrong"),
        _finding("extra", extra, "predictions answer no reference and are not scored"),
        _finding("duplicates", duplicates, "predictions repeat one; the first in the file counts"),
        _finding("empty", empty, "answers are blank or an error message and count as wrong"),
        _finding("references_unclear", _quoted(unclear), "references cannot be read; only their own text is right"),
        _finding("references_unscorable", _quoted(unscorable), "references should be numbers and are not; not scored"),
        _finding("references_zero_area", flat, "references hold a box without area; only a copy of it finds it"),
        Finding("references_unanswered", references.unanswered, "questions have no answer to score against"),
    ]
    return [finding for finding in found if finding.count]


def _finding(code: str, items: list[str], text: str) -> Finding:
    return Finding(code, len(items), text, tuple(items[:_SHOWN]))


def _quoted(samples: list[Sample]) -> list[str]:
    return [f"{sample.reference.id} {sample.reference.answer[:60]!r}" for sample in samples]


def as_json(found: list[Finding]) -> dict[str, Any]:
    """Findings for the provenance."""
    return {finding.code: {"count": finding.count, "first": list(finding.examples)} for finding in found}
