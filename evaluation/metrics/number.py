"""Counting and regression: mean absolute and root mean squared error, over valid answers and with a penalty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from evaluation.metrics.registry import Table, UndefinedError, metric, table
from evaluation.samples import Sample
from medvl.tasks import Task


@dataclass(frozen=True)
class Numbers(Table):
    """Truths and predictions.

    Attributes:
        truth: The right number.
        predicted: The number predicted; for an invalid answer the worst one in the range of its dataset's references.
    """

    truth: NDArray[np.float64]
    predicted: NDArray[np.float64]


@table(Task.COUNTING, Task.REGRESSION)
def numbers(samples: Sequence[Sample]) -> Numbers:
    """Truths and predictions, invalid answers penalised.

    The penalty: an invalid answer counts as the end of the range of its dataset's references, 0 included, that lies
    farther from the truth. Counting it as 0, as one public scorer does, would reward silence where 0 is the truth (98
    of 702 in boneresorption); this way no answer within the range does worse than none.

    Args:
        samples: Scorable ones: their references are numbers.
    """
    truth = np.array([_number(sample.truth.value) for sample in samples])
    datasets = np.array([sample.reference.dataset for sample in samples])
    invalid = np.array([sample.invalid for sample in samples], dtype=bool)
    predicted = np.array([_number(sample.truth.value if sample.exact else sample.answer.value) for sample in samples])
    for dataset in np.unique(datasets):
        rows = datasets == dataset
        low, high = min(0.0, truth[rows].min()), max(0.0, truth[rows].max())
        worst = np.where(truth - low > high - truth, low, high)
        predicted = np.where(rows & invalid, worst, predicted)
    error = np.where(invalid, np.nan, np.abs(truth - predicted))
    return Numbers(invalid, error, truth, predicted)


def _number(value: object) -> float:
    return value if isinstance(value, float) else np.nan


def _valid(table: Numbers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if table.invalid.all():
        raise UndefinedError("no valid answer")
    return table.truth[~table.invalid], table.predicted[~table.invalid]


@metric(Task.COUNTING, Task.REGRESSION, name="mae", higher_is_better=False, headline=True)
def mae(table: Numbers) -> float:
    """Mean absolute error over valid answers. Read it beside `n_invalid` and `mae_penalised`."""
    return float(mean_absolute_error(*_valid(table)))


@metric(Task.COUNTING, Task.REGRESSION, name="rmse", higher_is_better=False)
def rmse(table: Numbers) -> float:
    """Root mean squared error over valid answers."""
    with np.errstate(over="ignore"):  # infinite is what `scoring.entry` reports
        return float(root_mean_squared_error(*_valid(table)))


@metric(Task.COUNTING, Task.REGRESSION, name="mae_penalised", higher_is_better=False, headline=True)
def mae_penalised(table: Numbers) -> float:
    """Mean absolute error over all answers, invalid ones penalised (`numbers`)."""
    return float(mean_absolute_error(table.truth, table.predicted))


@metric(Task.COUNTING, Task.REGRESSION, name="rmse_penalised", higher_is_better=False)
def rmse_penalised(table: Numbers) -> float:
    """Root mean squared error over all answers, invalid ones penalised (`numbers`)."""
    with np.errstate(over="ignore"):
        return float(root_mean_squared_error(table.truth, table.predicted))
