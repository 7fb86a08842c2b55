"""Comparisons as users meet them: --baseline, several files, several sets of rules."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.differences import verdict
from evaluation.results import file_names
from evaluation.run import main
from tests.support.scored_tree import Row, build_tree, score, write_json

OPTIONS = "Grade? A: None, B: Mild, C: Severe"


def rows(wrong: int, n: int = 60) -> list[Row]:
    """References are all A, B, C in turn; the first `wrong` answers are another letter."""
    return [
        {"TaskType": "Classification", "Modality": "Fundus", "ImageName": f"imagesVal/Retino_{index}.png",
         "Question": OPTIONS, "Answer": "ABC"[(index + (index < wrong)) % 3], "Split": "val"}
        for index in range(n)
    ]  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {
        name: write_json(tmp_path / f"{name}.json", rows(wrong))
        for name, wrong in (("truth", 0), ("good", 6), ("poor", 30), ("good_too", 6))
    }


def compared(files: dict[str, Path], mine: str, other: str, out: Path) -> dict[str, Any]:
    metrics = score(files[mine], files["truth"], out, "--baseline", str(files[other]))
    comparison: dict[str, Any] = metrics["comparison"]
    return comparison


def test_a_better_model_wins_with_interval_and_p_value(files: dict[str, Path], tmp_path: Path) -> None:
    comparison = compared(files, "good", "poor", tmp_path / "out")
    accuracy = comparison["tasks"]["classification"]["accuracy"]
    assert (accuracy["value"], accuracy["baseline"]) == (0.9, 0.5)
    assert accuracy["difference"] == pytest.approx(0.4)
    assert 0 < accuracy["ci95"][0] < 0.4 < accuracy["ci95"][1]
    assert accuracy["p_value"] == pytest.approx(1 / 1001) and verdict(accuracy) == "better"
    assert comparison["datasets"]["retino"]["classification"]["samples"] == {"wins": 24, "losses": 0, "ties": 36}


def test_swapping_the_sides_turns_the_sign(files: dict[str, Path], tmp_path: Path) -> None:
    one = compared(files, "good", "poor", tmp_path / "one")["tasks"]["classification"]["f1_macro"]
    two = compared(files, "poor", "good", tmp_path / "two")["tasks"]["classification"]["f1_macro"]
    assert two["difference"] == pytest.approx(-one["difference"])
    assert two["ci95"] == pytest.approx([-one["ci95"][1], -one["ci95"][0]])
    assert verdict(two) == "worse"


def test_equal_answers_are_the_same(files: dict[str, Path], tmp_path: Path) -> None:
    entry = compared(files, "good", "good_too", tmp_path / "out")["tasks"]["classification"]["accuracy"]
    assert (entry["difference"], entry["ci95"], entry["p_value"]) == (0.0, [0.0, 0.0], 1.0)
    assert verdict(entry) == "same"


def test_without_draws_there_is_a_difference_but_no_verdict(files: dict[str, Path], tmp_path: Path) -> None:
    options = ("--baseline", str(files["poor"]), "--bootstrap", "0")
    entry = score(files["good"], files["truth"], tmp_path / "out", *options)["comparison"]["macro"]["classification"]
    accuracy = entry["accuracy"]
    assert accuracy["difference"] == pytest.approx(0.4) and verdict(accuracy) == "-"
    assert accuracy["ci95"] is None and accuracy["p_value"] is None


def test_lower_errors_are_better(tmp_path: Path) -> None:
    def counting(name: str, error: int) -> Path:
        return write_json(tmp_path / name, [
            {"TaskType": "counting", "ImageName": f"imagesVal/cell_{index}.png", "Question": "How many cells?",
             "Answer": str(50 + index + error), "Split": "val"} for index in range(30)])  # fmt: skip

    truth, near, far = counting("truth.json", 0), counting("near.json", 1), counting("far.json", 9)
    comparison = score(near, truth, tmp_path / "out", "--baseline", str(far))["comparison"]
    entry = comparison["macro"]["counting"]["mae"]
    assert entry["difference"] == -8.0 and verdict(entry) == "better"
    assert comparison["datasets"]["neurips22cell"]["counting"]["samples"]["wins"] == 30


def test_every_task_can_be_compared_under_both_rules(tmp_path: Path) -> None:
    tree = build_tree(tmp_path / "tree")
    right = write_json(tmp_path / "right.json", tree)
    poor = write_json(tmp_path / "poor.json", [row | {"Answer": "[[1, 2, 3, 4]]"} for row in tree])
    for rules in ("strict", "official"):
        out = tmp_path / rules
        options = ("--rules", rules, "--baseline", str(poor), "--force")
        comparison = score(right, tmp_path / "tree", out, *options)["comparison"]
        assert comparison["rules"] == rules and len(comparison["tasks"]) == 7
        assert set(comparison["datasets"]) > {"fundus", "periapical", "iugc", "chromosome", "IU_XRay"}


def test_several_files_give_one_table_and_a_folder_each(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [str(files["good"]), str(files["poor"]), "--references", str(files["truth"]), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "good" in printed and "poor" in printed and "retino" not in printed  # one dataset has no row of its own
    made = json.loads((out / "comparison.json").read_text())
    entries = made["tasks"]["classification"]["accuracy"]
    assert {name: entry["value"] for name, entry in entries.items()} == {"good": 0.9, "poor": 0.5}
    assert set(made["files"]) == {"good", "poor"}
    assert (
        json.loads((out / "poor" / "metrics.json").read_text())["tasks"]["classification"]["accuracy"]
        == entries["poor"]
    )
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == made


@pytest.mark.parametrize(("paths", "names"), [
    (["a/x.json", "b/y.json"], ["x", "y"]),
    (["a/p.json", "b/p.json"], ["a_p", "b_p"]),  # runs/*/predictions.json
    (["a/p.json", "a/p.json"], ["a_p_1", "a_p_2"]),
])  # fmt: skip
def test_files_are_told_apart_by_name(paths: list[str], names: list[str]) -> None:
    assert file_names([Path(path) for path in paths]) == names


def test_two_sets_of_rules_side_by_side(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = score(files["good"], files["truth"], tmp_path / "both", "--rules", "strict,official")
    printed = capsys.readouterr().out
    assert "strict: metric" in printed and "official: metric" in printed
    strict = score(files["good"], files["truth"], tmp_path / "strict")
    official = score(files["good"], files["truth"], tmp_path / "official", "--rules", "official")
    for part in ("tasks", "datasets", "macro"):
        assert both[part] == strict[part] and both["other_rules"]["official"][part] == official[part]
    line = json.loads((tmp_path / "both" / "per_sample.jsonl").read_text().splitlines()[0])
    assert (line["score"], line["score_official"]) == (0.0, 0.0)


def test_unknown_rules_are_wrong_arguments(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(files["good"]), "--references", str(files["truth"]), "--rules", "strict,oficial"]) == 2
    assert "did you mean 'official'?" in capsys.readouterr().err


def test_draws_can_be_clustered_by_a_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write_json(tmp_path / "truth.json", [row | {"patient": index // 10} for index, row in enumerate(rows(0))])
    said = write_json(tmp_path / "said.json", rows(6))
    by_patient = score(said, truth, tmp_path / "out", "--cluster", "patient")["tasks"]["classification"]["accuracy"]
    by_image = score(said, truth, tmp_path / "out")["tasks"]["classification"]["accuracy"]
    assert by_patient["ci95"][0] < by_image["ci95"][0]
    assert main([str(said), "--references", str(truth), "--cluster", "study"]) == 3
    assert "no field 'study' to cluster by" in capsys.readouterr().err
