"""Types of command line options, for argparse: what is no such value is refused with what was expected."""

import argparse


def natural(text: str, least: int = 0) -> int:
    """A whole number of at least `least`.

    Raises:
        ArgumentTypeError: it is something else; exit code 2.
    """
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of at least {least}")
    return int(text)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return natural(text, 1)
