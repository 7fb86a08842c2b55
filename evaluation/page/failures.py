"""The samples that lost points, for the page's browser: the worst of every dataset first, up to a cap."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.page.text import visible
from evaluation.samples import Sample
from evaluation.scores import TaskScores
from evaluation.worst import in_turn, lost, reason, worst_rows
from medvl.tasks import Task

# The page stays a few MB however much was scored; per_sample.jsonl has every sample.
MOST_SAMPLES = 2_000
_MOST_CHARACTERS = 2_000_000
_QUESTION, _ANSWER = 400, 800

_Lost = tuple[Sample, float, bool]  # with its score and whether the rules count it


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
    """Every dataset's worst samples, taken in turn."""
    queues = [queue for part in scores.values() for queue in _queues(part, most)]
    total = sum(
        lost(sample, score)
        for part in scores.values()
        for sample, score in zip(part.samples, part.table.score.tolist(), strict=True)
    )
    return Failures(tuple(_within_caps(queues, most)), total)


def _queues(part: TaskScores, most: int) -> Iterator[list[_Lost]]:
    samples, scores, counted = part.samples, part.table.score.tolist(), part.table.counted
    for rows in worst_rows(samples, scores, most).values():
        yield [(samples[row], scores[row], counted is None or bool(counted[row])) for row in rows]


def _within_caps(queues: Iterable[Sequence[_Lost]], most: int) -> Iterator[dict[str, Any]]:
    characters = 0
    for taken, one in enumerate(in_turn(queues)):
        record = _record(*one)
        characters += sum(len(str(value)) for value in record.values())
        if taken >= most or characters > _MOST_CHARACTERS:
            return
        yield record


def _why(sample: Sample, score: float, *, counted: bool) -> str:
    # Strict rules score all but unreadable numbers; official ones skip what they cannot read.
    skipped = not counted or (math.isnan(score) and not sample.reference.task.is_number)
    return "left out by the rules" if skipped else reason(sample, score)


def _record(sample: Sample, score: float, counted: bool) -> dict[str, Any]:
    reference = sample.reference
    return {
        "id": visible(reference.id, 200),
        "task": reference.task.value,
        "dataset": visible(reference.dataset, 80),
        "reason": _why(sample, score, counted=counted),
        "score": round(score, 4) if math.isfinite(score) else None,
        "question": visible(reference.question, _QUESTION),
        "images": visible(", ".join(_names(reference.images)), 200),
        "reference": visible(reference.answer, _ANSWER),
        "prediction": None if sample.text is None else visible(sample.text, _ANSWER),
    }


def _names(images: Sequence[str]) -> list[str]:
    return [image.replace("\\", "/").rsplit("/", 1)[-1] for image in images]
