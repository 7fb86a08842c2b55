"""Report metrics that need a model: GREEN, RadGraph F1 and BERTScore, through `radeval`; and a recorded GREEN judge.

They belong to chest X-ray reports in English. GREEN's judge has 7 billion parameters and takes seconds per report, so
its answers can also be made elsewhere (any server) and read here from a transcript. No other word-matching score is
called GREEN in this project.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.rows import decode_rows
from evaluation.samples import Sample
from evaluation.sentence_models import MODELS, sentence_scores
from medvl.errors import DataError
from medvl.tasks import Task

# Our name -> radeval's metric and the key of its result. RadGraph's usual F1 is the "partial" one: entities with their
# types, and whether they have a relation.
METRICS = {
    "green": ("green", "green"),
    "radgraph_f1": ("radgraph", "radgraph_partial"),
    "bertscore": ("bertscore", "bertscore"),
}
_SECTION = re.compile(r"^\s*\[([A-Za-z ]{1,40})\]\s*:?[^\S\n]*", re.MULTILINE)
_MATCHED = re.compile(r"^\s*(\d{1,4})\.", re.MULTILINE)
_ERROR = re.compile(r"^\s*\(([a-f])\)[^\n:]{0,200}:\s*(\d{1,4})\b", re.MULTILINE)


# A report longer than this is a model gone wrong; what lies behind is not compared. ROUGE-L's time grows with the
# product of both lengths.
_MAX_CHARACTERS = 20_000


def report_text(sample: Sample) -> str:
    """The model's text as it is scored, empty for an invalid answer.

    The reference's own text also where only case and spaces differ, which BLEU and ROUGE would not all forgive.
    """
    if sample.exact:
        return reference_text(sample)
    said = sample.answer.value  # without thoughts and what else stands around a report
    return said[:_MAX_CHARACTERS] if isinstance(said, str) else ""


def reference_text(sample: Sample) -> str:
    """The reference as a report reads: plain also where the source holds it as data, such as {"findings": "Clear."}."""
    return sample.truth.value if isinstance(sample.truth.value, str) else sample.reference.answer


class MissingExtraError(Exception):
    """A metric needs a package that is not installed; the message says which and how to get it."""


@dataclass(frozen=True)
class GreenErrors:
    """What a GREEN judge counted in one report.

    Attributes:
        matched: Findings that both reports hold.
        significant: Clinically significant errors.
    """

    matched: int
    significant: int

    @property
    def green(self) -> float:
        """matched / (matched + significant errors); 0 if nothing matched, as GREEN defines it, also where there was
        nothing to match."""
        return self.matched / (self.matched + self.significant) if self.matched else 0.0


def parse_errors(response: str) -> GreenErrors | None:
    """The counts in a judge's response; None where a section is missing or says neither a number nor "No …".

    The sections are `[Clinically Significant Errors]`, with a line `(a) …: 1. …` per kind of error, and
    `[Matched Findings]`, whose number stands at the start of a line.

    >>> parse_errors("[Clinically Significant Errors]:\\n(b) Missing: 1. edema\\n[Matched Findings]:\\n3. a; b; c")
    GreenErrors(matched=3, significant=1)
    """
    marks = list(_SECTION.finditer(response))
    ends = [*(mark.start() for mark in marks[1:]), len(response)]
    sections = {mark[1].strip().lower(): response[mark.end() : end] for mark, end in zip(marks, ends, strict=False)}
    matched, errors = sections.get("matched findings"), sections.get("clinically significant errors")
    if matched is None or errors is None:
        return None
    found = {kind: int(count) for kind, count in _ERROR.findall(errors)}
    number = _MATCHED.search(matched)
    says_none = [section.strip().lower().startswith("no") for section in (matched, errors)]
    if (number is None and not says_none[0]) or (not found and not says_none[1]):
        return None
    return GreenErrors(int(number[1]) if number else 0, sum(found.values()))


def read_transcript(path: Path) -> dict[str, float]:
    """Reference id -> GREEN of a recorded judge: JSON lines (or a list) of `id` and `response`; NaN if unparsable.

    Raises:
        DataError: not such a file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error}; name the file of the judge's responses") from error
    scores = {}
    for number, row in enumerate(decode_rows(data, path)):
        if not (isinstance(row.get("id"), str) and isinstance(row.get("response"), str)):
            raise DataError(f"{path}, row {number}: expected the keys id and response, both text")
        errors = parse_errors(row["response"])
        scores[row["id"]] = math.nan if errors is None else errors.green
    return scores


def run_models(names: Sequence[str], samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Scores of every sample under every metric, by radeval; NaN where the judge gave none.

    Args:
        names: Keys of `METRICS`.
        samples: Reports.

    Raises:
        MissingExtraError: radeval is not installed.
    """
    try:
        from radeval import RadEval  # brings torch and models, for a metric that few runs ask for
    except ImportError as error:
        raise MissingExtraError(
            f"{', '.join(names)}: needs the package radeval ({error}); install it with "
            "pip install --editable '.[radiology]', or score a judge's responses with --green-transcript"
        ) from error
    evaluator = RadEval(metrics=[METRICS[name][0] for name in names], per_sample=True, show_progress=False)
    result = evaluator(
        refs=[reference_text(sample) for sample in samples], hyps=[report_text(sample) for sample in samples]
    )
    return {name: [math.nan if value is None else float(value) for value in result[METRICS[name][1]]] for name in names}


def _by_sentence(names: Sequence[str], samples: Sequence[Sample]) -> dict[str, list[float]]:
    try:
        texts = [sample.text or "" for sample in samples], [sample.reference.answer for sample in samples]
        return sentence_scores(names, *texts)
    except ImportError as error:
        raise MissingExtraError(
            f"{', '.join(names)}: {error}; install it with pip install --editable '.[m3llm]'"
        ) from error


def with_model_scores(samples: Sequence[Sample], names: Sequence[str], transcript: Path | None) -> list[Sample]:
    """Samples with models' scores in `Sample.model_scores`; an invalid answer is worth 0 and is shown to no model.

    Raises:
        DataError: the transcript cannot be read, or has no response for a report.
        MissingExtraError: as `run_models`.
    """
    reports = [s for s in samples if s.reference.task is Task.REPORT and not s.invalid]
    scores: dict[str, dict[str, float]] = {}
    if transcript is not None:
        recorded = read_transcript(transcript)
        without = [sample.reference.id for sample in reports if sample.reference.id not in recorded]
        if without:
            raise DataError(f"{transcript}: {len(without)} reports lack a response, first {without[0]}; judge them too")
        scores["green"] = recorded
    asked = [name for name in names if name not in scores]
    if asked and reports:
        by_radeval = [name for name in asked if name in METRICS]
        made = run_models(by_radeval, reports) if by_radeval else {}
        for name, values in (made | _by_sentence([name for name in asked if name in MODELS], reports)).items():
            scores[name] = {sample.reference.id: value for sample, value in zip(reports, values, strict=True)}
    return [
        replace(
            sample,
            model_scores={name: 0.0 if sample.invalid else of[sample.reference.id] for name, of in scores.items()},
        )
        if sample.reference.task is Task.REPORT
        else sample
        for sample in samples
    ]
