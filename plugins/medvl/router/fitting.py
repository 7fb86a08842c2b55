"""From questions to a router: train without a share of the wordings, calibrate on these, then train on everything."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medvl.instructions import GENERAL
from medvl.router.augmentation import augmented, varied
from medvl.router.calibration import Calibration, calibrate, expected_calibration_error
from medvl.router.chain import ClassifierStage, Router
from medvl.router.data import (
    LabelledQuestion,
    QuestionSet,
    counts_by_task,
    split_for_calibration,
    with_templates,
    with_written,
)
from medvl.router.folder import RouterCard, TrainingData, save_router
from medvl.router.labels import LABELS
from medvl.router.options import TrainingOptions, stated
from medvl.router.request import brief
from medvl.router.route import normalise
from medvl.router.similarity import nearest
from medvl.router.training import build, train
from medvl.router.wording import WordingClassifier, fit_wording

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VARIATIONS = 3  # of a question, that words and letters are learnt from
_UNCALIBRATED = Calibration(1.0, dict.fromkeys(LABELS, 1.0), 0.0)

# Called with (what is done, steps taken, steps planned).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Fitted:
    """A trained stage and how it was made.

    Attributes:
        stage: Ready to decide.
        questions: All that it was trained on, synthetic ones included.
        metrics: On held-out wordings, before the last training: accuracy, share routed, accuracy of the routed,
            calibration error; steps and seconds of training, by the clock and of the processor.
    """

    stage: ClassifierStage
    questions: list[LabelledQuestion]
    metrics: dict[str, Any]

    @property
    def router(self) -> Router:
        """The chain with this stage."""
        return Router(self.stage)


def fit(questions: Sequence[LabelledQuestion], options: TrainingOptions, *, device: str = "cpu",
        progress: Progress | None = None) -> Fitted:  # fmt: skip
    """Train and calibrate a classifier.

    Raises:
        medvl.router.training.TrainingError: a step could not be taken.
    """
    start, start_cpu = time.perf_counter(), time.process_time()
    rows = with_templates(questions, options.templates, seed=options.seed)
    rows = with_written(rows) if options.written else rows
    known, held = split_for_calibration(rows, options.holdout, seed=options.seed)
    trial, _ = _trained(known, options, device, progress, "training without held-out wordings")
    calibration, metrics = calibrated(trial, held)
    stage, steps = _trained(rows, options, device, progress, "training on all wordings")
    metrics |= {
        "steps": steps,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - start_cpu, 1),
    }
    return Fitted(replace(stage, calibration=calibration), rows, metrics)


def _trained(
    rows: Sequence[LabelledQuestion], options: TrainingOptions, device: str, progress: Progress | None, what: str
) -> tuple[ClassifierStage, int]:
    wording = _wording(rows, options)
    rows = [replace(row, text=brief(row.text)) for row in rows]
    classifier = build(options, [row.text for row in rows], device=device)
    result = train(
        classifier, rows, options, on_step=progress and (lambda step, planned, _: progress(what, step, planned))
    )
    _, index = classifier.score([row.text for row in rows if row.task != GENERAL])
    return ClassifierStage(classifier, index, _UNCALIBRATED, wording), result.steps


def _wording(rows: Sequence[LabelledQuestion], options: TrainingOptions) -> WordingClassifier:
    """Trained on the questions, and `_VARIATIONS` times more on each about something else."""
    texts, tasks = [row.text for row in rows], [row.task for row in rows]
    rng = random.Random(options.seed)
    for _ in range(_VARIATIONS if options.augment else 0):
        texts += [normalise(augmented(varied(row.text, row.task, rng), rng)) or row.text for row in rows]
    return fit_wording(texts, tasks * (len(texts) // len(rows)), list(LABELS), seed=options.seed)


def calibrated(stage: ClassifierStage, questions: Sequence[LabelledQuestion]) -> tuple[Calibration, dict[str, Any]]:
    """The calibration that questions ask for which the classifier was not trained on, and what is then measured."""
    labels = list(stage.classifier.labels)
    texts, tasks = [row.text for row in questions], [row.task for row in questions]
    logits, features = stage.classifier.score([brief(text) for text in texts])
    wording = stage.wording.score(texts) if stage.wording else None
    calibration = calibrate(logits, nearest(features, stage.index), tasks, labels, wording=wording)
    routes = replace(stage, calibration=calibration).decide(texts)
    best = np.array([max(route.scores.values()) for route in routes], np.float32)
    guesses = [max(route.scores, key=route.scores.__getitem__) for route in routes]
    right = np.array([guess == task for guess, task in zip(guesses, tasks, strict=True)])
    routed = np.array([not route.abstained for route in routes])
    known = np.array([task != GENERAL for task in tasks])
    real = known & np.array([not row.is_synthetic for row in questions])
    return calibration, {
        "held_out": len(questions),
        "accuracy": _mean(right[known]),
        "accuracy_of_files": _mean(right[real]),
        "routed": _mean(routed[known]),
        "accuracy_of_routed": _mean(right[routed]),
        "general_routed": _mean(routed[~known]),
        "calibration_error": expected_calibration_error(best, right),
    }


def _mean(values: NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if len(values) else None


def save(folder: Path, fitted: Fitted, questions: QuestionSet, options: TrainingOptions) -> RouterCard:
    """Write the router folder."""
    texts = sorted(f"{row.task}\t{row.text}" for row in fitted.questions)
    data = TrainingData(
        files=questions.files,
        sha256=hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        tasks=counts_by_task(fitted.questions),
    )
    stage = fitted.stage
    assert stage.wording is not None, "every training makes one"
    return save_router(
        folder,
        stage.classifier,
        stage.index,
        stage.calibration,
        stage.wording,
        options=stated(options),
        data=data,
        metrics=fitted.metrics,
    )
