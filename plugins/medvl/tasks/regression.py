"""Regression: a measured or estimated number.

"What is the percentage of bone resorption?"   ->  "34.7"
"""

from collections.abc import Iterator, Sequence

import numpy as np

from medvl.numbers import pick_number
from medvl.structured import plain_words
from medvl.tasks.base import Answer, Context, Issue, Row, Task, TaskSpec
from medvl.tasks.counting import audit_number, hand_in, number_of, tidy

_NUMBERS_FROM = 8  # rows: for quartiles


def parse(text: str, _: Context) -> Answer:
    """The one number that a text states, be it a percentage."""
    return Answer(Task.REGRESSION, *pick_number(plain_words(text, Task.REGRESSION)))


def audit(row: Row) -> Iterator[Issue]:
    """A negative number, boxes."""
    return audit_number(row, _number(row))


def outliers(rows: Sequence[Row]) -> Iterator[tuple[int, Issue]]:
    """Values above Q3 + 3 IQR and above ten times the median. Counts are exempt: their long tail is real."""
    known = [(place, number) for place, row in enumerate(rows) if (number := _number(row)) is not None]
    if len(known) < _NUMBERS_FROM:
        return
    low, median, high = np.percentile([number for _, number in known], [25, 50, 75])
    limit = max(high + 3 * (high - low), 10 * median)
    for place, number in known:
        if number > limit:
            yield place, ("NUMBER_OUTLIER", f"{number:g}, but the median is {median:g} and Q3 + 3 IQR, 10 x median "
                          f"are below {limit:g}")  # fmt: skip


def _number(row: Row) -> float | None:
    return number_of(TASK.read(row.said, Context(row.question)))


TASK = TaskSpec(
    task=Task.REGRESSION,
    spellings=("regression",),
    label="measure or estimate a value, percentage, size, age or angle",
    max_new_tokens=32,
    postprocess="number",
    headline="mae",
    higher_is_better=False,
    quantity="absolute_error",
    parse=parse,
    tidy=tidy,
    hand_in=hand_in,
    audit=audit,
    audit_dataset=outliers,
)
