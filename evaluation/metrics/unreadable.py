"""What an unreadable answer names in a macro F1: one wrong class, the one that costs most.

A wrong answer lowers the F1 of the class it names besides that of the class it misses. An answer that nobody can read
names none, so it would be the better one to give. It is charged to the class of its dataset whose F1 falls most, which
no single wrong answer can undercut.
"""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.registry import Floats

NO_CLASS = -1


def charged_classes(
    counts: Floats,
    dataset_of_class: Sequence[str],
    dataset_of_row: Sequence[str],
    invalid: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """The class that each invalid answer is charged to, shape (n,); `NO_CLASS` for a valid one, and where no F1 can
    fall any more.

    Args:
        counts: Per class the right answers, the references and the valid answers that name it, shape (3, k).
        dataset_of_class: Dataset of each class, length k; a class belongs to one.
        dataset_of_row: Dataset of each answer, length n.
        invalid: Which answers are invalid, shape (n,).
    """
    charged = np.full(len(invalid), NO_CLASS, dtype=np.int64)
    hits, sizes = counts[0], counts[1] + counts[2]
    classes, rows = np.array(dataset_of_class, dtype=object), np.array(dataset_of_row, dtype=object)
    for dataset in dict.fromkeys(rows[invalid].tolist()):
        own, answers = np.flatnonzero(classes == dataset), np.flatnonzero(invalid & (rows == dataset))
        dearest = own[_dearest(hits[own], sizes[own], len(answers))]
        charged[answers[: len(dearest)]] = dearest
    return charged


def _dearest(hits: Floats, sizes: Floats, count: int) -> NDArray[np.intp]:
    """Places of up to `count` classes, one after the other, whose F1 of 2 * hits / sizes one claim more lowers most.

    A further claim of one class costs less than the one before it, so taking the dearest each time is the dearest in
    all.
    """
    heap = [(-_cost(hit, size), place, hit, size) for place, (hit, size) in enumerate(zip(hits, sizes, strict=True))]
    heap = [entry for entry in heap if entry[0] < 0]
    heapq.heapify(heap)
    found: list[int] = []
    while heap and len(found) < count:
        _, place, hit, size = heap[0]
        found.append(place)
        heapq.heapreplace(heap, (-_cost(hit, size + 1), place, hit, size + 1))
    return np.array(found, dtype=np.intp)


def _cost(hits: float, size: float) -> float:
    return 2 * hits / size - 2 * hits / (size + 1) if hits else 0.0
