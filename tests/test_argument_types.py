"""Types of command line options: what they read, and what they refuse in which words."""

import argparse

import pytest

from medvl.argument_types import natural, positive


def test_whole_numbers() -> None:
    assert (natural("0"), natural("12"), positive("1")) == (0, 12, 1)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "one", "\u00b2"])
def test_what_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number of at least 1"):
        positive(text)


def test_the_least_is_named() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"'-1': expected a number of at least 0"):
        natural("-1")
