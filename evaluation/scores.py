"""Scores, and how they were asked for. Plain data."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.findings import Finding
from evaluation.metrics.registry import Clustered, Table
from evaluation.samples import Joined, PredictionFile, Reference, References, Sample
from medvl.boxes import Frame
from medvl.tasks import Task

Entry = dict[str, Any]
Entries = dict[str, Entry]


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        draws: Bootstrap draws, and swaps of a paired test; 0 for none.
        seed: Seed.
        cluster: "image", "sample", or a field of the references' rows.
    """

    draws: int = 0
    seed: int = 0
    cluster: str = "image"

    def generator(self, *names: str) -> np.random.Generator:
        """A generator that depends on the seed and `names` alone, so that other data changes no interval."""
        return np.random.default_rng([self.seed, *(zlib.crc32(name.encode()) for name in names)])


# Enough for two digits of an interval's ends.
NO_RESAMPLING = Resampling()
BY_DEFAULT = Resampling(draws=1000)


@dataclass(frozen=True)
class Settings:
    """How to score.

    Attributes:
        rules: Sets of rules; the first is the one whose scores stand at the top of metrics.json.
        splits: Splits of a tree; empty for all that have answers, training only if no other has.
        frame: Frame of predicted boxes; None to tell by the file.
        resampling: How intervals and tests are made.
        force: Whether fatal findings are only noted.
        report_metrics: Metrics by models to compute for reports (`evaluation.model_based_metrics.METRICS`).
        green_transcript: Responses of a GREEN judge that ran elsewhere.
        only_predicted: Whether references without a prediction are left out instead of counted as wrong.
    """

    rules: tuple[str, ...] = ("strict",)
    splits: tuple[str, ...] = ()
    frame: Frame | None = None
    resampling: Resampling = BY_DEFAULT
    force: bool = False
    report_metrics: tuple[str, ...] = ()
    green_transcript: Path | None = None
    only_predicted: bool = False


@dataclass(frozen=True)
class TaskScores:
    """One task, scored.

    Attributes:
        samples: The task's samples.
        table: What its metrics read, one row per sample.
        parts: Dataset -> its columns added up per cluster; what a comparison of two models works on.
        pooled: Metric -> entry over all samples.
        datasets: Dataset -> metric -> entry.
        macro: Metric -> mean over datasets.
        groups: Group -> metric -> entry, over the reference boxes of all samples.
    """

    samples: list[Sample]
    table: Table
    parts: dict[str, Clustered]
    pooled: Entries = field(default_factory=dict)
    datasets: dict[str, Entries] = field(default_factory=dict)
    macro: Entries = field(default_factory=dict)
    groups: dict[str, Entries] = field(default_factory=dict)


Scores = dict[Task, TaskScores]


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
