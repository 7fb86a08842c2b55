"""Geometry of the small charts; the template draws them as SVG, so that everything in them is escaped like the rest."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.findings import Confusion, Histogram
from evaluation.numbers import number
from evaluation.scores import Entry

WIDTH, HEIGHT = 320, 120
_MOST_TICKS = 8


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, in the units of a drawing of `WIDTH` times `HEIGHT`."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Bars:
    """A histogram.

    Attributes:
        bars: In the order of the edges.
        ticks: Labels of the axis: all edges where there are few, else both ends.
        most: Count of the highest bar.
        total: Number of values.
        summary: What a reader who does not see it is told.
    """

    bars: tuple[Bar, ...]
    ticks: tuple[str, ...]
    most: int
    total: int
    summary: str


def bars(histogram: Histogram) -> Bars:
    """Bars of equal width, whatever the bins' own: error bins grow with the error."""
    edges, counts = histogram.edges, histogram.counts
    most, step = max(counts, default=0), WIDTH / max(1, len(counts))
    labels = [
        f"{_edge(low)} to {_edge(high)}: {count:,}"
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    drawn = tuple(
        _bar(place * step, step, count / most if most else 0.0, label)
        for place, (count, label) in enumerate(zip(counts, labels, strict=True))
    )
    ticks = edges if len(edges) <= _MOST_TICKS else (edges[0], edges[-1])
    return Bars(drawn, tuple(_edge(edge) for edge in ticks), most, sum(counts), "; ".join(labels))


def _bar(x: float, width: float, share: float, label: str) -> Bar:
    height = max(share * HEIGHT, 1.5) if share else 0.0  # one sample among thousands is still seen
    return Bar(round(x + 1.5, 2), round(HEIGHT - height, 2), round(width - 3, 2), round(height, 2), label)


def _edge(value: float) -> str:
    return f"{value:.4g}"


@dataclass(frozen=True)
class Whisker:
    """A value and its interval on a line from 0 to 1, in hundredths of its width."""

    value: float
    low: float
    width: float


def whisker(entry: Entry | None, *, bounded: bool) -> Whisker | None:
    """Where a value lies between 0 and 1; None for an error, which has no upper end."""
    if not bounded or entry is None or entry["value"] is None:
        return None
    value = min(max(100.0 * entry["value"], 0.0), 100.0)
    low, high = ((100.0 * min(max(end, 0.0), 1.0)) for end in entry["ci95"] or (entry["value"], entry["value"]))
    return Whisker(round(value, 2), round(low, 2), round(high - low, 2))


@dataclass(frozen=True)
class MatrixRow:
    """A class of a confusion matrix: name, number of references, and (count, shade 0 to 10, right) per column."""

    name: str
    total: int
    cells: tuple[tuple[int, int, bool], ...]

    @property
    def recall(self) -> str:
        """Share of the class that was recognised."""
        right = sum(count for count, _, hit in self.cells if hit)
        return number(right / self.total) if self.total else "-"


def matrix_rows(confusion: Confusion) -> list[MatrixRow]:
    """Rows shaded by the share of their class, so that a rare class shows its errors as well as a common one."""
    return [
        _matrix_row(name, counts, [name == other for other in confusion.predicted])
        for name, counts in zip(confusion.truth, confusion.counts, strict=True)
    ]


def _matrix_row(name: str, counts: Sequence[int], hits: Sequence[bool]) -> MatrixRow:
    total = sum(counts)
    shades = [-(-10 * count // total) if total else 0 for count in counts]
    return MatrixRow(name, total, tuple(zip(counts, shades, hits, strict=True)))
