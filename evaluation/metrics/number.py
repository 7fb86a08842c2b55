"""Counting and regression: mean absolute and root mean squared error, over valid answers and with a penalty."""

from collections.abc import Sequence

import numpy as np

from evaluation.metrics.registry import Floats, Sums, Table, metric, ratio, table
from evaluation.samples import Sample
from medvl.tasks import Task

_BOTH = (Task.COUNTING, Task.REGRESSION)


@table(*_BOTH)
def numbers(samples: Sequence[Sample]) -> Table:
    """Columns: `error` and `square` of valid answers, both again with a penalty for invalid ones; `valid`, `n`.

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
    error = np.abs(truth - predicted)
    with np.errstate(over="ignore"):  # infinite is what `scoring.entry` reports
        square = error**2
    return Table(
        invalid=invalid,
        score=np.where(invalid, np.nan, error),
        columns={
            "error": np.where(invalid, 0.0, error),
            "square": np.where(invalid, 0.0, square),
            "error_penalised": error,
            "square_penalised": square,
            "valid": (~invalid).astype(np.float64),
            "n": np.ones(len(samples)),
        },
    )


def _number(value: object) -> float:
    return value if isinstance(value, float) else np.nan


@metric(*_BOTH, name="mae", higher_is_better=False, headline=True, undefined="no valid answer")
def mae(sums: Sums) -> Floats:
    """Mean absolute error over valid answers. Read it beside `n_invalid` and `mae_penalised`."""
    return ratio(sums["error"], sums["valid"])


@metric(*_BOTH, name="rmse", higher_is_better=False, undefined="no valid answer")
def rmse(sums: Sums) -> Floats:
    """Root mean squared error over valid answers."""
    return np.sqrt(ratio(sums["square"], sums["valid"]))


@metric(*_BOTH, name="mae_penalised", higher_is_better=False, headline=True)
def mae_penalised(sums: Sums) -> Floats:
    """Mean absolute error over all answers, invalid ones penalised (`numbers`)."""
    return ratio(sums["error_penalised"], sums["n"])


@metric(*_BOTH, name="rmse_penalised", higher_is_better=False)
def rmse_penalised(sums: Sums) -> Floats:
    """Root mean squared error over all answers, invalid ones penalised (`numbers`)."""
    return np.sqrt(ratio(sums["square_penalised"], sums["n"]))
