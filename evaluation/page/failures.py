"""The samples that lost points, for the page's browser: the worst of every dataset first, up to a cap."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from evaluation.page.text import visible
from evaluation.samples import Sample
from evaluation.scoring import TaskScores
from medvl.tasks import Task

# The page stays a few MB however much was scored; per_sample.jsonl has every sample.
MOST_SAMPLES = 2_000
_MOST_CHARACTERS = 2_000_000
_QUESTION, _ANSWER = 400, 800

_Lost = tuple[float, str, Sample]


@dataclass(frozen=True)
class Failures:
    """What the browser is given.

    Attributes:
        shown: Records for the page.
        total: How many samples lost points.
    """

    shown: tuple[dict[str, Any], ...]
    total: int

    def count(self, key: str) -> dict[str, int]:
        """How many of those shown have each value of `key`, sorted by the value."""
        counts: dict[str, int] = defaultdict(int)
        for record in self.shown:
            counts[str(record[key])] += 1
        return dict(sorted(counts.items()))


def collect(scores: Mapping[Task, TaskScores], most: int = MOST_SAMPLES) -> Failures:
    """Every dataset's worst samples, taken in turn, so that a large dataset does not crowd out a small one."""
    groups: dict[tuple[Task, str], list[_Lost]] = defaultdict(list)
    total = 0
    for task, part in scores.items():
        counted = np.ones(len(part.samples), dtype=bool) if part.table.counted is None else part.table.counted
        for sample, score, counts in zip(part.samples, part.table.score.tolist(), counted.tolist(), strict=True):
            if lost(sample, score):
                # Strict rules score all but unreadable numbers; official ones skip what they cannot read.
                skipped = not counts or (math.isnan(score) and not task.is_number)
                why = "left out by the rules" if skipped else reason(sample, score)
                groups[task, sample.reference.dataset].append((score, why, sample))
                total += 1
    return Failures(tuple(_within_caps(groups, most)), total)


def lost(sample: Sample, score: float) -> bool:
    """Whether a sample is not perfect: unreadable, an error above 0, or a score below 1."""
    return sample.invalid or (score > 0 if sample.reference.task.is_number else not score >= 1)


def worst_first(sample: Sample, score: float) -> float:
    """Sorts samples of one task from the worst to the best."""
    if sample.invalid or math.isnan(score):
        return -math.inf
    return -score if sample.reference.task.is_number else score


def _within_caps(groups: Mapping[Any, list[_Lost]], most: int) -> Iterator[dict[str, Any]]:
    queues = [sorted(group, key=lambda one: worst_first(one[2], one[0]))[:most] for group in groups.values()]
    characters = taken = 0
    for turn in zip_longest(*queues):
        for score, why, sample in (one for one in turn if one is not None):
            record = _record(sample, score, why)
            characters += sum(len(str(value)) for value in record.values())
            if taken >= most or characters > _MOST_CHARACTERS:
                return
            taken += 1
            yield record


def reason(sample: Sample, score: float) -> str:
    """Why a sample lost points, in a few words."""
    if sample.text is None:
        return "no prediction"
    if sample.invalid:
        return f"invalid: {(sample.answer.reason or 'unreadable').replace('_', ' ')}"
    if sample.reference.task.is_number:
        return "off the number"
    return "partly right" if score > 0 else "wrong"


def _record(sample: Sample, score: float, why: str) -> dict[str, Any]:
    reference = sample.reference
    return {
        "id": visible(reference.id, 200),
        "task": reference.task.value,
        "dataset": visible(reference.dataset, 80),
        "reason": why,
        "score": round(score, 4) if math.isfinite(score) else None,
        "question": visible(reference.question, _QUESTION),
        "images": visible(", ".join(_names(reference.images)), 200),
        "reference": visible(reference.answer, _ANSWER),
        "prediction": None if sample.text is None else visible(sample.text, _ANSWER),
    }


def _names(images: Sequence[str]) -> list[str]:
    return [image.replace("\\", "/").rsplit("/", 1)[-1] for image in images]
