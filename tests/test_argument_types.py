"""Types of command line options: what they read, and what they refuse in which words."""

import argparse
from pathlib import Path

import pytest

from medvl.argument_types import natural, positive, registry_file


def test_whole_numbers() -> None:
    assert (natural("0"), natural("12"), positive("1")) == (0, 12, 1)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "one", "\u00b2"])
def test_what_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number of at least 1"):
        positive(text)


def test_the_least_is_named() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"'-1': expected a number of at least 0"):
        natural("-1")


def test_a_registry_is_a_file_or_its_folder(tmp_path: Path) -> None:
    (tmp_path / "odd.json").mkdir()
    for given, expected in (
        (tmp_path, tmp_path / "dataset_info.json"),
        (tmp_path / "new" / "folder", tmp_path / "new" / "folder" / "dataset_info.json"),
        (tmp_path / "odd.json", tmp_path / "odd.json" / "dataset_info.json"),
        (tmp_path / "dataset_info.json", tmp_path / "dataset_info.json"),
        (tmp_path / "mine.json", tmp_path / "mine.json"),
    ):
        assert registry_file(str(given)) == expected
