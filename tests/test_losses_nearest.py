"""The nearest number that a digit can still lead to, against all numbers of small frames."""

import math
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvl.boxes import Frame

pytest.importorskip("torch")

from medvl.losses.nearest import frame_step, nearest_offsets


def digits_of(text: str) -> tuple[list[int], list[float]]:
    """Digits and signed place values of a number as it is written."""
    sign, bare = (-1 if text[0] == "-" else 1), text.lstrip("-")
    exponent = len(bare.split(".")[0])
    return [int(c) for c in bare if c != "."], [
        sign * 10.0 ** (exponent - 1 - i) for i in range(len(bare) - ("." in bare))
    ]


def offsets_of(text: str, frame: Frame, top: float) -> Any:
    """Shape (digits, 10)."""
    digits, places = digits_of(text)
    table = np.array([[digits] * 4]), np.array([[places] * 4])
    step = frame_step(table[1], frame)
    found = nearest_offsets(*table, np.array([top]), np.array([step]))
    assert (found[0, 0] == found[0, 3]).all()
    return found[0, 0]


@cache
def every(decimals: int, top: int) -> list[str]:
    """All numbers to an end, as they are written with all their decimals."""
    steps = 10**decimals
    return [f"{n // steps}.{n % steps:0{decimals}d}" if decimals else str(n) for n in range(top * steps + 1)]


def by_search(text: str, numbers: list[str], decimals: int) -> list[list[Decimal | None]]:
    """The nearest of all numbers that begin so, or None; of equally near ones the largest. `text` without its sign."""
    truth, padded = Decimal(text), text
    if decimals:
        padded = f"{text}{'' if '.' in text else '.'}"
        padded += "0" * (decimals - len(padded.split(".")[1]))
    table: list[list[Decimal | None]] = []
    for place, character in enumerate(text):
        if character == ".":
            continue
        row: list[Decimal | None] = []
        for digit in range(10):
            begun = [Decimal(n) for n in numbers if n.startswith(padded[:place] + str(digit))]
            row.append(min(begun, key=lambda n: (abs(n - truth), -n), default=None))
        table.append(row)
    return table


FRAMES = {
    "norm1000": (Frame.NORM1000, 0, 1000, st.integers(0, 1000).map(str)),
    "norm1": (Frame.NORM1, 3, 1, st.integers(0, 1000).map(lambda n: f"{n / 1000:g}")),
    "pixels": (Frame.PIXEL, 0, math.inf, st.integers(0, 400).map(str)),
    "pixels with decimals": (Frame.PIXEL, 2, math.inf, st.integers(0, 1099).map(lambda n: f"{n / 100:.2f}")),
}


@pytest.mark.slow
@pytest.mark.parametrize(("frame", "decimals", "top", "numbers"), FRAMES.values(), ids=FRAMES)
@settings(max_examples=25)
@given(data=st.data(), negative=st.booleans())
def test_the_table_is_the_nearest_of_all_numbers_of_the_frame(
    frame: Frame, decimals: int, top: float, numbers: Any, data: Any, negative: bool
) -> None:
    text = data.draw(numbers)
    found = offsets_of("-" * negative + text, frame, top)
    # One digit more than the truth has is as far as the nearest can be.
    everything = every(decimals, int(min(top, 1100 if not decimals else 110)))
    searched = by_search(text, everything, decimals)
    truth = float(text) * (-1 if negative else 1)
    for place, row in enumerate(searched):
        for digit, nearest in enumerate(row):
            if nearest is not None:
                expected = float(nearest) * (-1 if negative else 1) - truth
                assert found[place, digit] == pytest.approx(expected, abs=1e-9), (text, place, digit)
    for place, digit in enumerate(digits_of(text)[0]):
        assert found[place, digit] == 0  # exactly


@pytest.mark.parametrize(
    ("text", "frame", "top", "place", "digit", "offset"),
    [
        ("1000", Frame.NORM1000, 1000, 3, 5, 5),  # there is no 1005
        ("0.345", Frame.NORM1, 1, 0, 5, 4.655),  # nor a 5
        ("1.0", Frame.NORM1, 1, 1, 5, 0.5),  # nor a 1.5
        ("007", Frame.NORM1000, 1000, 2, 9, 2),  # 009 is written by no one
        ("11", Frame.NORM1000, 1000, 0, 2, 9),  # 20, not 2, which is as near
        ("1200", Frame.NORM1000, 1200, 1, 3, -1061),  # an answer beyond its frame sets the end
        (".5", Frame.NORM1, 1, 0, 4, -0.001),
    ],
)
def test_what_no_number_of_the_frame_begins_with_counts_as_it_is_spelled(
    text: str, frame: Frame, top: float, place: int, digit: int, offset: float
) -> None:
    assert offsets_of(text, frame, top)[place, digit] == pytest.approx(offset)


def test_padding_has_no_offset() -> None:
    digits = np.array([[[1, 2, 3], [4, 0, 0], [5, 6, 0], [7, 0, 0]]])
    places = np.array([[[100.0, 10, 1], [1, 0, 0], [10, 1, 0], [1, 0, 0]]])
    found = nearest_offsets(digits, places, np.array([1000.0]), np.array([1.0]))
    assert (found[places == 0] == 0).all()
    assert (np.count_nonzero(found[places != 0], axis=-1) == 9).all()
    assert nearest_offsets(digits[:0], places[:0], np.zeros(0), np.zeros(0)).shape == (0, 4, 3, 10)
