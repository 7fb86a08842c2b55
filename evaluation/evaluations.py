"""Prediction files, evaluated: joined, understood, checked, scored under all rules asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from evaluation import validity_checks
from evaluation.findings import Finding
from evaluation.join import join
from evaluation.metrics.registry import cautions, known_rules
from evaluation.model_based_metrics import with_model_scores
from evaluation.official_splits import RULES, apart
from evaluation.parsing import make_samples
from evaluation.predictions import choose_frame
from evaluation.samples import Joined, PredictionFile, Reference, References, Sample
from evaluation.scores import Evaluation, Resampling, Scores, Settings
from evaluation.scoring import score
from medvl.boxes import Frame
from medvl.errors import DataError
from medvl.tasks import unknown_name


@dataclass(frozen=True)
class _Read:
    """A prediction file, joined to the references."""

    predictions: PredictionFile
    frame: Frame | None
    joined: Joined


def evaluations(files: Sequence[PredictionFile], references: References, settings: Settings) -> list[Evaluation]:
    """Evaluate prediction files on the same references.

    Raises:
        DataError: one cannot be joined or scored, the validity checks refuse it, or nothing is predicted by all of
            them where only that is to be scored.
        UnknownNameError: there are no such rules.
    """
    for name in settings.rules:
        if name not in known_rules():
            raise unknown_name("set of rules", name, known_rules())
    read = [_Read(file, choose_frame(settings.frame, file, references.frame), join(references, file)) for file in files]
    left_out: tuple[Reference, ...] | None = None
    if settings.only_predicted:
        kept = set.intersection(*(_predicted(one.joined) for one in read))
        if not kept:
            raise DataError(f"no reference has a prediction in all of {', '.join(str(file.path) for file in files)}")
        left_out = tuple(item for item in references.items if item.id not in kept)
        references = replace(references, items=tuple(item for item in references.items if item.id in kept))
        read = [replace(one, joined=_only(one.joined, kept)) for one in read]
    return [_evaluated(one, references, settings, left_out) for one in read]


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
    for rules in settings.rules:
        found += cautions(rules, samples)
    scores = dict(chain.from_iterable(_scored(samples, rules, settings.resampling) for rules in settings.rules))
    return Evaluation(references, read.predictions, read.joined, read.frame, samples, found, scores, left_out)


def _scored(samples: Sequence[Sample], rules: str, resampling: Resampling) -> Iterator[tuple[str, Scores]]:
    parts = apart(samples) if rules == RULES else {rules: samples}
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
