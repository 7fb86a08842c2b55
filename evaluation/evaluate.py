"""One prediction file, evaluated: joined, understood, checked, scored under all rules asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from evaluation import validity_checks
from evaluation.frames import choose_frame
from evaluation.join import Joined, join
from evaluation.metrics import m3llm_v1, official
from evaluation.model_based_metrics import with_model_scores
from evaluation.predictions import PredictionFile, read_predictions
from evaluation.reading import readable
from evaluation.references import Reference, References
from evaluation.samples import Sample, make_samples
from evaluation.scoring import NO_RESAMPLING, TaskScores, score
from evaluation.statistics import Resampling
from evaluation.validity_checks import Finding
from medvl.boxes import Frame
from medvl.errors import DataError
from medvl.tasks import Task

Scores = dict[Task, TaskScores]


@dataclass(frozen=True)
class Settings:
    """How to score.

    Attributes:
        rules: Sets of rules; the first is the one whose scores stand at the top of metrics.json.
        frame: Frame of predicted boxes; None to tell by the file.
        resampling: How intervals and tests are made.
        force: Whether fatal findings are only noted.
        report_metrics: Metrics by models to compute for reports (`evaluation.model_based_metrics.METRICS`).
        green_transcript: Responses of a GREEN judge that ran elsewhere.
        only_predicted: Whether references without a prediction are left out instead of counted as wrong.
    """

    rules: tuple[str, ...] = ("strict",)
    frame: Frame | None = None
    resampling: Resampling = NO_RESAMPLING
    force: bool = False
    report_metrics: tuple[str, ...] = ()
    green_transcript: Path | None = None
    only_predicted: bool = False


@dataclass(frozen=True)
class Evaluation:
    """A prediction file with its scores.

    Attributes:
        references: What it was scored against.
        predictions: The file.
        joined: Which prediction answers which reference.
        frame: Frame its boxes were read in.
        samples: Every reference with its answer, in the order of the references.
        findings: What the validity checks found.
        scores: Rules -> task -> scores; `official@<split folder>` where these rules score splits apart.
        left_out: References left out for want of a prediction; None unless only predicted ones were to be scored.
    """

    references: References
    predictions: PredictionFile
    joined: Joined
    frame: Frame | None
    samples: list[Sample]
    findings: list[Finding]
    scores: dict[str, Scores]
    left_out: tuple[Reference, ...] | None = None

    @property
    def rules(self) -> str:
        """The first set of rules asked for."""
        return next(iter(self.scores))


@dataclass(frozen=True)
class _Read:
    """A prediction file, joined to the references."""

    predictions: PredictionFile
    frame: Frame | None
    joined: Joined


def evaluate(path: Path, references: References, settings: Settings) -> Evaluation:
    """Evaluate one prediction file.

    Raises:
        DataError: it cannot be read, joined or scored, or the validity checks refuse it.
    """
    return evaluate_all([path], references, settings)[0]


def evaluate_all(paths: Sequence[Path], references: References, settings: Settings) -> list[Evaluation]:
    """Evaluate prediction files on the same references.

    Raises:
        DataError: one cannot be read, joined or scored, the validity checks refuse it, or nothing is predicted by all
        of them
            where only that is to be scored.
    """
    read = [_read(path, references, settings) for path in paths]
    left_out: tuple[Reference, ...] | None = None
    if settings.only_predicted:
        kept = set.intersection(*(_predicted(one.joined) for one in read))
        if not kept:
            raise DataError(f"no reference has a prediction in all of {', '.join(map(str, paths))}")
        left_out = tuple(item for item in references.items if item.id not in kept)
        references = replace(references, items=tuple(item for item in references.items if item.id in kept))
        read = [replace(one, joined=_only(one.joined, kept)) for one in read]
    return [_evaluated(one, references, settings, left_out) for one in read]


def _read(path: Path, references: References, settings: Settings) -> _Read:
    with readable(path):
        predictions = read_predictions(path)
    frame = choose_frame(settings.frame, predictions, references.frame)
    return _Read(predictions, frame, join(references, predictions))


def _predicted(joined: Joined) -> set[str]:
    """References that have a row, be its answer blank or null: that is an answer, and a wrong one."""
    return {reference.id for reference, prediction in joined.pairs if prediction is not None}


def _only(joined: Joined, kept: set[str]) -> Joined:
    return replace(joined, pairs=[pair for pair in joined.pairs if pair[0].id in kept])


def _evaluated(
    read: _Read, references: References, settings: Settings, left_out: tuple[Reference, ...] | None
) -> Evaluation:
    samples = make_samples(read.joined, read.frame)
    found = validity_checks.findings(references, read.predictions, read.joined, samples, left_out or ())
    if not settings.force:
        refuse(read.predictions.path, found, len(references.items))
    if settings.report_metrics or settings.green_transcript:
        samples = with_model_scores(samples, settings.report_metrics, settings.green_transcript)
    if official.RULES in settings.rules:
        found += official.comparability(samples)
    if m3llm_v1.RULES in settings.rules:
        found += m3llm_v1.caution(samples)
    scores = dict(chain.from_iterable(_scored(samples, rules, settings.resampling) for rules in settings.rules))
    return Evaluation(references, read.predictions, read.joined, read.frame, samples, found, scores, left_out)


def _scored(samples: Sequence[Sample], rules: str, resampling: Resampling) -> Iterator[tuple[str, Scores]]:
    parts = official.apart(samples) if rules == official.RULES else {rules: samples}
    for name, part in parts.items():
        yield name, score(part, rules, resampling)


def refuse(path: Path, found: Sequence[Finding], references: int) -> None:
    """Raise DataError if any finding is fatal; the message holds them all."""
    fatal = [finding for finding in found if finding.fatal]
    if fatal:
        listed = "; ".join(
            f"{finding.count} {finding.text}{f' (first: {finding.examples[0]})' if finding.examples else ''}: "
            f"{finding.cure}"
            for finding in fatal
        )
        raise DataError(f"{path} is not scored against {references} references; {listed}. --force scores it as it is")
