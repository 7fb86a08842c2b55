"""Types of command line options, for argparse: what is no such value is refused with what was expected."""

import argparse
from pathlib import Path


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


def registry_file(text: str) -> Path:
    """A registry, by its file or by its folder, as the recipe key `dataset_dir` names it.

    >>> registry_file("data/mine").name
    'dataset_info.json'
    """
    path = Path(text)
    return path if path.suffix == ".json" and not path.is_dir() else path / "dataset_info.json"
