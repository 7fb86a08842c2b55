"""Validity checks: what is wrong with a prediction file as a whole, said before any number.

Five published runs once had equal scores because error messages had been scored as answers. A file that looks like that
is refused; `--force` scores it all the same and says so in metrics.json.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from evaluation.findings import Finding
from evaluation.matching import has_zero_area
from evaluation.reference_checks import edited_records, references_elsewhere
from evaluation.samples import Joined, PredictionFile, Reference, References, Sample

_SHOWN = 5
# A finding above this share of the references (of the predictions, for duplicates) is fatal: at a tenth a score says
# more about the file than about the model.
FATAL_SHARE = 0.1
# One answer to (nearly) everything is fatal from this many answers on; a class predicted always in one dataset is a
# poor model, the same text for every dataset and task is a broken run.
_SAME_SHARE, _SAME_LEAST = 0.95, 20
# What chat templates leave behind when the prompt is decoded with the answer.
_ROLE_MARKS = ("<|im_start|>", "<|im_end|>", "<start_of_turn>", "assistant\n", "<|vision_start|>", "<image>")
_QUESTION_LEAST = 30  # characters; a shorter question may well be repeated in an answer


def counts(
    references: References,
    predictions: PredictionFile,
    joined: Joined,
    samples: list[Sample],
    left_out: Sequence[Reference] | None = None,
) -> dict[str, int]:
    """The counts of metrics.json.

    `matched` and `missing` add up to `references`; a null answer is missing. `invalid` holds the missing ones too.
    `left_out` is there only where references without a prediction were to be left out.
    """
    made = {
        "references": len(references.items),
        "predictions": len(predictions.rows),
        "matched": len(references.items) - len(joined.missing),
        "missing": len(joined.missing),
        "extra": len(joined.extra),
        "duplicates": len(joined.duplicates),
        "invalid": sum(sample.invalid for sample in samples),
    }
    return made if left_out is None else made | {"left_out": len(left_out)}


def findings(
    references: References,
    predictions: PredictionFile,
    joined: Joined,
    samples: list[Sample],
    left_out: Sequence[Reference] = (),
) -> list[Finding]:
    """Everything that a reader of the scores should know about the two files, fatal findings first.

    Args:
        references: Those that are scored.
        predictions: The file.
        joined: Which prediction answers which reference.
        samples: The same, understood.
        left_out: References that are not scored, since nothing was predicted for them.
    """
    asked, said = len(references.items), len(predictions.rows)
    found = [
        _finding("missing", [reference.id for reference in joined.missing], asked,
                 "references have no prediction and count as wrong",
                 "predict them, name the part that was predicted (a split or dataset folder) as --references, or score "
                 "what was predicted alone with --only-predicted"),
        _finding("left_out", [reference.id for reference in left_out], len(left_out),
                 f"references have no prediction and are left out (--only-predicted): scores are of {asked} of "
                 f"{asked + len(left_out)}"),
        _finding("extra", [prediction.name for prediction in joined.extra], said,
                 "predictions answer no reference and are not scored"),
        _finding("duplicates", [prediction.name for prediction in joined.duplicates], said,
                 "predictions repeat one; the first in the file counts", "keep one prediction per question"),
        _finding("empty", _ids(samples, "empty"), asked, "answers are blank and count as wrong",
                 "look for the reason in the predictor's log and predict again"),
        _finding("errors", _ids(samples, "error"), asked, "answers are error messages and count as wrong",
                 "mend what they say and predict again"),
        _finding("prompt_leaked", [sample.reference.id for sample in samples if _leaked(sample)], asked,
                 "answers hold the question or marks of the chat template",
                 "decode the generated tokens alone"),
        *_repeated(samples),
        *_about_references(references, samples),
    ]  # fmt: skip
    return sorted((finding for finding in found if finding.count), key=lambda finding: not finding.fatal)


def _finding(code: str, items: list[str], total: int, text: str, cure: str = "") -> Finding:
    """A finding, fatal above `FATAL_SHARE` if it has a cure. Extra predictions have none: scoring a part is fine."""
    fatal = bool(cure) and len(items) > FATAL_SHARE * total
    return Finding(code, len(items), text, tuple(items[:_SHOWN]), fatal, cure)


def _ids(samples: Sequence[Sample], reason: str) -> list[str]:
    return [s.reference.id for s in samples if s.text is not None and s.answer.reason == reason and not s.exact]


def _leaked(sample: Sample) -> bool:
    """The question word for word, or a mark. A report or an answer that is the reference's own text leaks nothing."""
    if not sample.text or sample.exact:
        return False
    if any(mark in sample.text for mark in _ROLE_MARKS):
        return True
    question = sample.reference.question
    return len(question) >= _QUESTION_LEAST and question in sample.text


def _repeated(samples: Sequence[Sample]) -> list[Finding]:
    """One text for nearly everything, although the references differ; of references that hardly do, for everything."""
    texts = Counter(sample.text.strip() for sample in samples if sample.text and sample.text.strip())
    answers = Counter(sample.reference.answer for sample in samples)
    total = sum(texts.values())
    if total < _SAME_LEAST or len(answers) == 1:
        return []
    text, count = texts.most_common(1)[0]
    rare = max(answers.values()) >= _SAME_SHARE * len(samples)  # as right answers are where one in fifty is abnormal
    if count < (total if rare else _SAME_SHARE * total):
        return []
    message = f"of {total} answers are the same, {text[:60]!r}"
    return [Finding("repeated", count, message, (), fatal=True, cure="look whether the model was given the images")]


def _about_references(references: References, samples: Sequence[Sample]) -> list[Finding]:
    """Dirt on the other side; only edited records stop anything, since their scores are about another answer."""
    unclear = [sample for sample in samples if not sample.truth.parsed and sample.scorable]
    unscorable = [sample for sample in samples if not sample.scorable]
    flat = [sample.reference.id for sample in samples if has_zero_area(sample)]
    listed = (
        ("references_unclear", _quoted(unclear), "references cannot be read; only their own text is right"),
        ("references_unscorable", _quoted(unscorable), "references should be numbers and are not; not scored"),
        ("references_zero_area", flat, "references hold a box without area; only a copy of it finds it"),
    )
    found = [Finding(code, len(items), text, tuple(items[:_SHOWN])) for code, items, text in listed]
    for dataset, frame, ids in references_elsewhere(samples):
        text = (
            f"references of {dataset} have boxes that are read as pixels, but all together fit {frame}: convert the "
            f"tree with --source-frame {frame} and score against the converted file"
        )
        found.append(Finding(f"references_{frame}", len(ids), text, tuple(ids[:_SHOWN])))
    edited = list(edited_records(references, samples))
    found.append(
        Finding(
            "references_edited", len(edited), "converted records were edited: they train on one answer and are scored "
            "by another, their source.answer", tuple(edited[:_SHOWN]), fatal=bool(edited),
            cure="change the source and convert it again, or change both answers alike",
        )
    )  # fmt: skip
    blank = Finding("references_unanswered", references.unanswered, "questions have no answer to score against")
    return [*found, blank]


def _quoted(samples: list[Sample]) -> list[str]:
    return [f"{sample.reference.id} {sample.reference.answer[:60]!r}" for sample in samples]


def as_json(found: list[Finding]) -> dict[str, Any]:
    """Findings for the provenance."""
    return {
        finding.code: {"count": finding.count, "first": list(finding.examples), "fatal": finding.fatal}
        for finding in found
    }
