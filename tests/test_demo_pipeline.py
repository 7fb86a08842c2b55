"""What `medvl demo` refuses, and what it leaves alone."""

import argparse
from pathlib import Path

import pytest

from medvl.demo.pipeline import _start_over, add_arguments, run
from medvl.demo.steps import Pipeline


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "/nowhere"], "no folder training/"),  # no such tree
        (["--data", str(Path(__file__).parent)], "no folder training/"),  # a folder that is no tree
    ],
)
def test_options_that_cannot_be_followed(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse(*words)) == 2
    assert expected in capsys.readouterr().out.replace("\n", " ")


def test_no_steps_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse("--max-steps", "0")
    assert stopped.value.code == 2
    assert "--max-steps: '0': expected a number of at least 1" in capsys.readouterr().err


def test_starting_over_removes_this_familys_run_and_the_drawn_tree(tmp_path: Path) -> None:
    for folder in ("tree/training", "records", "qwen3vl/trained", "internvl3/trained", "mine"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".medvl_demo").touch()
    _start_over(Pipeline("qwen3vl", tmp_path), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".medvl_demo", "internvl3", "mine"]


def test_starting_over_removes_nothing_that_no_demo_made(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    with pytest.raises(FileExistsError, match="no demo made it"):
        _start_over(Pipeline("qwen3vl", tmp_path), tmp_path)
    assert (tmp_path / "records").is_dir()


@pytest.mark.parametrize("out", [".", "tree", "tree/out"])
def test_images_and_output_stay_apart(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tree" / "training").mkdir(parents=True)
    assert run(parse("--data", str(tmp_path / "tree"), "--out", str(tmp_path / out))) == 2
    assert "lie in one another" in " ".join(capsys.readouterr().out.split())
