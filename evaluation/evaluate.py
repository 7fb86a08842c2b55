"""One prediction file, evaluated: joined, understood, let through the gate, scored under all rules asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from evaluation import gate
from evaluation.frames import choose_frame
from evaluation.gate import Finding
from evaluation.join import Joined, join
from evaluation.judges import judged
from evaluation.metrics import official
from evaluation.predictions import DataError, PredictionFile, read_predictions
from evaluation.references import References
from evaluation.samples import Sample, make_samples
from evaluation.scoring import NO_RESAMPLING, TaskScores, score
from evaluation.statistics import Resampling
from medvl.boxes import Frame
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
        report_metrics: Metrics by models to compute for reports (`evaluation.judges.METRICS`).
        green_transcript: Responses of a GREEN judge that ran elsewhere.
    """

    rules: tuple[str, ...] = ("strict",)
    frame: Frame | None = None
    resampling: Resampling = NO_RESAMPLING
    force: bool = False
    report_metrics: tuple[str, ...] = ()
    green_transcript: Path | None = None


@dataclass(frozen=True)
class Evaluation:
    """A prediction file with its scores.

    Attributes:
        references: What it was scored against.
        predictions: The file.
        joined: Which prediction answers which reference.
        frame: Frame its boxes were read in.
        samples: Every reference with its answer, in the order of the references.
        findings: What the gate found.
        scores: Rules -> task -> scores; `official@<split folder>` where these rules score splits apart.
    """

    references: References
    predictions: PredictionFile
    joined: Joined
    frame: Frame | None
    samples: list[Sample]
    findings: list[Finding]
    scores: dict[str, Scores]

    @property
    def rules(self) -> str:
        """The first set of rules asked for."""
        return next(iter(self.scores))


def evaluate(path: Path, references: References, settings: Settings) -> Evaluation:
    """Evaluate one prediction file.

    Raises:
        DataError: it cannot be read, joined or scored, or the gate refuses it.
    """
    predictions = read_predictions(path)
    frame = choose_frame(settings.frame, predictions, references.frame)
    joined = join(references, predictions)
    samples = make_samples(joined, frame)
    found = gate.findings(references, predictions, joined, samples)
    if not settings.force:
        refuse(predictions.path, found, len(references.items))
    if settings.report_metrics or settings.green_transcript:
        samples = judged(samples, settings.report_metrics, settings.green_transcript)
    if official.RULES in settings.rules:
        found += official.comparability(samples)
    scores = dict(chain.from_iterable(_scored(samples, rules, settings.resampling) for rules in settings.rules))
    return Evaluation(references, predictions, joined, frame, samples, found, scores)


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
