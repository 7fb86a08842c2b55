"""How metrics are declared: sets of rules, the table a task's metrics read, and the metrics themselves.

Every metric is a function of sums over samples. So a table holds what is added up, one row per sample, and a value, a
bootstrap draw and a swap of two models' answers are all the same function of other sums.
Another task's metrics are a file with one `@table` and some `@metric`; other rules are files that name other `rules`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from medvl.tasks import Task

Function = TypeVar("Function", bound=Callable[..., Any])
Floats = NDArray[np.float64]
# One number per sample, shape (n,), or several, (n, k).
Column = NDArray[Any] | csr_matrix
# Columns added up with one weight per sample, per draw: shape (draws,) or (draws, k).
Sums = Mapping[str, Floats]


@dataclass(frozen=True)
class Table:
    """What the metrics of a task read, one row per sample.

    Attributes:
        invalid: Whether a sample has no answer that can be scored.
        score: The sample's own score, for per_sample.jsonl; NaN where it has none.
        columns: What metrics add up.
        counted: Whether a sample is among the `n` of the metrics; all are if None.
        found: True positives, false positives and false negatives, shape (n, 3), where the task has them.
        groups: Names of the k columns of those whose name starts with `group_`.
    """

    invalid: NDArray[np.bool_]
    score: Floats
    columns: Mapping[str, Column]
    counted: NDArray[np.bool_] | None = None
    found: NDArray[np.int64] | None = None
    groups: tuple[str, ...] = ()

    def counts(self, row: int) -> dict[str, int]:
        """True positives, false positives and false negatives of one sample, where the task has them."""
        return {} if self.found is None else dict(zip(("tp", "fp", "fn"), self.found[row].tolist(), strict=True))


@dataclass(frozen=True)
class Clustered:
    """A table added up per cluster.

    Attributes:
        matrix: Shape (clusters, all columns side by side).
        layout: Column name -> its columns of the matrix; a single index where it is one number.
    """

    matrix: csr_matrix
    layout: dict[str, slice | int]

    def split(self, totals: Floats) -> Sums:
        """Totals of shape (draws, all columns) by name."""
        return {name: totals[:, where] for name, where in self.layout.items()}


@dataclass(frozen=True)
class Metric:
    """A declared metric.

    Attributes:
        name: Key in metrics.json.
        higher_is_better: Direction.
        headline: Whether the table per dataset shows it.
        detail: Whether the console leaves it to metrics.json.
        undefined: Reason that stands beside the null where there is no value.
        infinite: Reason beside the null where the value is infinite, which JSON cannot hold.
        by_group: Whether `compute` returns a value for each of the table's groups, shape (draws, k).
        note: What must be known to compare the number with others; stands beside it in metrics.json.
        compute: Sums to values of shape (draws,), NaN where there is none.
    """

    name: str
    higher_is_better: bool
    headline: bool
    detail: bool
    undefined: str
    infinite: str
    by_group: bool
    note: str
    compute: Callable[[Sums], Floats]


_TABLES: dict[tuple[str, Task], Callable[[Sequence[Any]], Table]] = {}
_METRICS: dict[tuple[str, Task], list[Metric]] = {}
_CAUTIONS: dict[str, Callable[[Sequence[Any]], Sequence[Any]]] = {}


def table(*tasks: Task, rules: str = "strict") -> Callable[[Function], Function]:
    """Declare the function that makes the table of `tasks` from samples."""

    def declare(function: Function) -> Function:
        _TABLES.update({(rules, task): function for task in tasks})
        return function

    return declare


def metric(
    *tasks: Task,
    name: str,
    higher_is_better: bool = True,
    headline: bool = False,
    detail: bool = False,
    undefined: str = "no sample",
    infinite: str = "not a finite number: inf",
    by_group: bool = False,
    note: str = "",
    rules: str = "strict",
) -> Callable[[Function], Function]:
    """Declare a function from sums to values as a metric of `tasks`."""

    def declare(function: Function) -> Function:
        made = Metric(name, higher_is_better, headline, detail, undefined, infinite, by_group, note, function)
        for task in tasks:
            _METRICS.setdefault((rules, task), []).append(made)
        return function

    return declare


def caution(rules: str) -> Callable[[Function], Function]:
    """Declare the function that finds in samples what must be said beside the numbers of these rules."""

    def declare(function: Function) -> Function:
        _CAUTIONS[rules] = function
        return function

    return declare


def cautions(rules: str, samples: Sequence[Any]) -> Sequence[Any]:
    """What must be said beside the numbers of these rules, as findings; seldom anything."""
    return _CAUTIONS[rules](samples) if rules in _CAUTIONS else ()


def table_of(rules: str, task: Task, samples: Sequence[Any]) -> Table:
    """The table of samples of one task."""
    return _TABLES[base_rules(rules), task](samples)


def scored_by(rules: str, task: Task) -> bool:
    """Whether these rules score a task at all; the public scorer knows no task that came after it."""
    return (base_rules(rules), task) in _TABLES


def metrics_of(rules: str, task: Task, *, by_group: bool = False) -> tuple[Metric, ...]:
    """The metrics of a task, in the order of their declaration."""
    return tuple(metric for metric in _METRICS.get((base_rules(rules), task), ()) if metric.by_group == by_group)


def base_rules(rules: str) -> str:
    """The set of rules that `official@validation-hidden` names, which are the rules of a part of the references."""
    return rules.partition("@")[0]


def known_rules() -> tuple[str, ...]:
    """Names of all sets of rules."""
    return tuple(dict.fromkeys(rules for rules, _ in _METRICS))


def ratio(numerator: Floats, denominator: Floats, *, empty: float = np.nan) -> Floats:
    """Element-wise quotient, `empty` where the denominator is 0."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    quotient: Floats = np.divide(numerator, denominator, out=np.full(shape, empty), where=denominator > 0)
    return quotient


def mean_of_classes(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def indicator(codes: NDArray[np.int64], classes: int) -> csr_matrix:
    """Matrix of shape (n, classes) with a one per row in the column of its code; an empty row for a negative code."""
    rows = np.flatnonzero(codes >= 0)
    return csr_matrix((np.ones(len(rows)), (rows, codes[rows])), shape=(len(codes), classes))
