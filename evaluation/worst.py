"""Which samples lost points, worst first: for the diagnosis, the page's browser of failures and its images."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TypeVar

from evaluation.samples import Sample

Item = TypeVar("Item")


def lost(sample: Sample, score: float) -> bool:
    """Whether a sample is not perfect, or has no score."""
    return score != (0.0 if sample.reference.task.is_number else 1.0)


def rank(sample: Sample, score: float, *, unreadable_first: bool = True) -> tuple[bool, float]:
    """Sorts samples of one task from the worst to the best; what has no score counts as unreadable."""
    unreadable = sample.invalid or math.isnan(score)
    badness = -score if sample.reference.task.is_number else score
    return unreadable != unreadable_first, 0.0 if unreadable else badness


def worst_rows(
    samples: Sequence[Sample], scores: Sequence[float], most: int, *, unreadable_first: bool = True
) -> dict[str, list[int]]:
    """Dataset -> rows of its samples that lost points, worst first, up to `most`."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, (sample, score) in enumerate(zip(samples, scores, strict=True)):
        if lost(sample, score):
            rows[sample.reference.dataset].append(row)
    return {
        dataset: sorted(found, key=lambda row: rank(samples[row], scores[row], unreadable_first=unreadable_first))[
            :most
        ]
        for dataset, found in rows.items()
    }


def in_turn(queues: Iterable[Sequence[Item]]) -> Iterator[Item]:
    """One of each queue after the other, so that a large dataset does not crowd out a small one."""
    missing = object()
    for turn in zip_longest(*queues, fillvalue=missing):
        yield from (item for item in turn if item is not missing)  # type: ignore[misc]


def reason(sample: Sample, score: float) -> str:
    """Why a sample lost points, in a few words."""
    if sample.text is None:
        return "no prediction"
    if sample.invalid:
        return f"invalid: {(sample.answer.reason or 'unreadable').replace('_', ' ')}"
    if sample.reference.task.is_number:
        return "off the number"
    return "partly right" if score > 0 else "wrong"
