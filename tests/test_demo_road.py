"""What `medvl demo` refuses, and what it leaves alone."""

import argparse
from pathlib import Path

import pytest

from medvl.demo.road import _start_over, add_arguments, run
from medvl.demo.steps import Road


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "/nowhere"], "no folder training/"),  # no such tree
        (["--data", str(Path(__file__).parent)], "no folder training/"),  # a folder that is no tree
        (["--max-steps", "0"], "at least 1"),  # nothing to train
    ],
)
def test_options_that_cannot_be_followed(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse(*words)) == 2
    assert expected in capsys.readouterr().out.replace("\n", " ")


def test_starting_over_removes_this_familys_run_and_the_drawn_tree(tmp_path: Path) -> None:
    for folder in ("tree/training", "records", "qwen3vl/trained", "internvl3/trained", "mine"):
        (tmp_path / folder).mkdir(parents=True)
    _start_over(Road("qwen3vl", tmp_path), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["internvl3", "mine"]


def test_starting_over_keeps_the_users_pictures(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "training").mkdir(parents=True)
    _start_over(Road("qwen3vl", tmp_path, data=tree), tmp_path)
    assert (tree / "training").is_dir()
