"""--dry-run of any script: records as they would be, and nothing that a recipe reads."""

from pathlib import Path

import pytest

from preprocess.flare import main
from tests.support.flare_tree import ROWS, row, write_tree

pytestmark = pytest.mark.subprocess


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", {dataset: [row(dataset)] for dataset in ROWS})
    return tmp_path / "tree"


def dry_run(tree: Path, *more: str) -> int:
    out, info = tree.parent / "out", tree.parent / "info.json"
    return main(
        ["--root", str(tree), "--out", str(out), "--dataset-info", str(info), "--workers", "1", "--dry-run", *more]
    )


def test_ten_rows_of_a_tree_are_shown(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(tree) == 0
    shown = capsys.readouterr().out
    assert shown.count("  answer: ") == 10
    assert f"10 of {len(ROWS)} rows" in shown
    assert (tree.parent / "out/dry_run.html").read_text().count("as the model will see them") == 1
    assert not (tree.parent / "info.json").exists()
    assert not list((tree.parent / "out").glob("*.json"))


def test_they_are_as_they_would_be(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree.parent / "profiles.yaml").write_text("classification: {instruction: Answer with a letter.}\n")
    assert dry_run(tree, "--datasets", "endo", "--profiles", str(tree.parent / "profiles.yaml")) == 0
    shown = capsys.readouterr().out
    assert "\n    Answer with a letter.\n  answer: T\n" in shown
    assert "LETTER_NOT_OPTION: kept flare/training/Endoscopy/endo/000000: " in shown


def test_an_earlier_run_stays_as_it_is(tree: Path) -> None:
    words = ["--root", str(tree), "--out", str(tree.parent / "out"), "--dataset-info", str(tree.parent / "info.json")]
    assert main([*words, "--workers", "1"]) == 0
    before = {path: path.read_bytes() for path in (tree.parent / "out").glob("*.json")}
    assert dry_run(tree, "--frame", "pixel") == 0
    assert {path: path.read_bytes() for path in (tree.parent / "out").glob("*.json")} == before
    assert main([*words, "--validate", str(tree.parent / "out")]) == 0
