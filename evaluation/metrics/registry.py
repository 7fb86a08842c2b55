"""How metrics are declared: sets of rules, the table a task's metrics read, and the metrics themselves.

Another task's metrics are a file with one `@table` and some `@metric`; other rules are files that name other `rules`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation.samples import Sample
from medvl.tasks import Task

Function = TypeVar("Function", bound=Callable[..., Any])


class UndefinedError(Exception):
    """A metric has no value for these samples; the message is the reason that stands beside the null."""


@dataclass(frozen=True)
class Table:
    """What the metrics of a task read: arrays with one row per sample, so that any subset is a choice of rows.

    Attributes:
        invalid: Whether a sample has no answer that can be scored.
        score: The sample's own score, for per_sample.jsonl; NaN where it has none.
    """

    invalid: NDArray[np.bool_]
    score: NDArray[np.float64]

    def rows(self, index: NDArray[np.intp]) -> Self:
        """The table of the samples at `index`, which may repeat, as a bootstrap draw does."""
        return replace(self, **{column.name: getattr(self, column.name)[index] for column in fields(self)})

    def counts(self, row: int) -> dict[str, int]:
        """True positives, false positives and false negatives of one sample, where the task has them."""
        del row
        return {}


@dataclass(frozen=True)
class Metric:
    """A declared metric.

    Attributes:
        name: Key in metrics.json.
        higher_is_better: Direction.
        headline: Whether the table per dataset shows it.
        compute: Table to value; raises `UndefinedError` if there is none.
    """

    name: str
    higher_is_better: bool
    headline: bool
    compute: Callable[[Any], float]


_TABLES: dict[tuple[str, Task], Callable[[Sequence[Sample]], Table]] = {}
_METRICS: dict[tuple[str, Task], list[Metric]] = {}


def table(*tasks: Task, rules: str = "strict") -> Callable[[Function], Function]:
    """Declare the function that makes the table of `tasks` from samples."""

    def declare(function: Function) -> Function:
        _TABLES.update({(rules, task): function for task in tasks})
        return function

    return declare


def metric(
    *tasks: Task, name: str, higher_is_better: bool = True, headline: bool = False, rules: str = "strict"
) -> Callable[[Function], Function]:
    """Declare a function from a table to a number as a metric of `tasks`."""

    def declare(function: Function) -> Function:
        for task in tasks:
            _METRICS.setdefault((rules, task), []).append(Metric(name, higher_is_better, headline, function))
        return function

    return declare


def table_of(rules: str, task: Task, samples: Sequence[Sample]) -> Table:
    """The table of samples of one task."""
    return _TABLES[rules, task](samples)


def metrics_of(rules: str, task: Task) -> tuple[Metric, ...]:
    """The metrics of a task, in the order of their declaration."""
    return tuple(_METRICS[rules, task])


def known_rules() -> tuple[str, ...]:
    """Names of all sets of rules."""
    return tuple(dict.fromkeys(rules for rules, _ in _METRICS))
