"""What every output must say of its numbers: that only predicted references count, that few images are behind them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from evaluation.run import main
from evaluation.statistics import ENOUGH_CLUSTERS
from tests.support.scored_tree import Row, build_tree, entries, write_json

Printed = pytest.CaptureFixture[str]


def run(predictions: Path, tree: Path, out: Path, *more: str) -> dict[str, Any]:
    assert main([str(predictions), "--references", str(tree), "--out", str(out), *more]) == 0
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


@pytest.fixture
def limited(tmp_path: Path) -> tuple[Path, Path, list[Row]]:
    """Right answers to the first 6 of 21 questions, as `medvl predict --limit 6` leaves them; the tree; all rows."""
    rows = build_tree(tmp_path / "tree")
    return write_json(tmp_path / "predictions.json", rows[:6]), tmp_path / "tree", rows


def test_only_what_was_predicted_is_scored(limited: tuple[Path, Path, list[Row]], tmp_path: Path) -> None:
    predictions, tree, _ = limited
    metrics = run(predictions, tree, tmp_path / "out", "--only-predicted")
    assert {entry["value"] for entries in metrics["tasks"].values() for name, entry in entries.items()
            if name in ("accuracy", "f1_micro")} == {1.0}  # fmt: skip
    counts = metrics["counts"]
    assert (counts["references"], counts["missing"], counts["left_out"]) == (6, 0, 15)
    assert sum(entry["n"] for where, name, entry in entries(metrics) if "/" in where and name in (
        "accuracy", "f1_samples", "f1_iou50", "mae_penalised", "rouge_l")) == 6  # fmt: skip


def test_without_the_option_they_are_refused_and_it_is_named(
    limited: tuple[Path, Path, list[Row]], tmp_path: Path, capsys: Printed
) -> None:
    predictions, tree, _ = limited
    assert main([str(predictions), "--references", str(tree), "--out", str(tmp_path / "out")]) == 3
    assert "--only-predicted" in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["", None, "Error: timeout"])
def test_a_row_without_an_answer_was_predicted_and_is_wrong(
    answer: str | None, limited: tuple[Path, Path, list[Row]], tmp_path: Path
) -> None:
    _, tree, rows = limited
    said = [row | ({"Answer": answer} if place == 0 else {}) for place, row in enumerate(rows[:12])]
    metrics = run(write_json(tmp_path / "p.json", said), tree, tmp_path / "out", "--only-predicted")
    assert (metrics["counts"]["references"], metrics["counts"]["invalid"]) == (12, 1)


def test_every_output_says_that_only_predicted_references_are_scored(
    limited: tuple[Path, Path, list[Row]], tmp_path: Path, capsys: Printed
) -> None:
    predictions, tree, _ = limited
    said = "only predicted references are scored (--only-predicted): 6 of 21"
    metrics = run(predictions, tree, tmp_path / "out", "--only-predicted")
    printed = capsys.readouterr()
    assert said in printed.out and "15 left_out" in printed.out
    assert "note: 15 references have no prediction and are left out (--only-predicted)" in printed.err
    assert metrics["only_predicted"] is True and metrics["provenance"]["gate"]["left_out"]["count"] == 15
    assert json.loads((tmp_path / "out" / "diagnosis.json").read_text())["only_predicted"] is True
    lines = [json.loads(line) for line in (tmp_path / "out" / "per_sample.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["valid"] * 6 + ["left_out"] * 15
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert said in page.partition("<main")[0]
    run(predictions, tree, tmp_path / "out", "--only-predicted", "--markdown")
    assert capsys.readouterr().out.replace("\\", "").startswith(said)


def test_nothing_says_so_where_it_was_not_asked_for(tmp_path: Path, capsys: Printed) -> None:
    predictions = write_json(tmp_path / "predictions.json", build_tree(tmp_path / "tree"))
    metrics = run(predictions, tmp_path / "tree", tmp_path / "out")
    assert "only_predicted" not in metrics and "left_out" not in metrics["counts"]
    assert "only predicted" not in capsys.readouterr().out
    for name in ("report.html", "per_sample.jsonl", "diagnosis.json"):
        assert "left_out" not in (tmp_path / "out" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("side", ["files", "baseline"])
def test_compared_files_are_scored_on_what_all_of_them_predicted(
    side: str, limited: tuple[Path, Path, list[Row]], tmp_path: Path, capsys: Printed
) -> None:
    first, tree, rows = limited
    second = write_json(tmp_path / "second.json", rows[4:])
    out = tmp_path / "out"
    others = ["--baseline", str(second)] if side == "baseline" else [str(second)]
    command = [str(first), *others, "--references", str(tree), "--out", str(out), "--only-predicted"]
    assert main([*command, "--bootstrap", "50"]) == 0
    assert "(--only-predicted): 2 of 21" in capsys.readouterr().out
    found = [json.loads(path.read_text()) for path in out.rglob("metrics.json")]
    assert [metrics["counts"]["references"] for metrics in found] == [2] * (1 if side == "baseline" else 2)
    if side == "files":
        assert json.loads((out / "comparison.json").read_text())["only_predicted"] is True
        assert "(--only-predicted): 2 of 21" in (out / "report.html").read_text(encoding="utf-8")
    third = write_json(tmp_path / "third.json", rows[6:])
    assert main([str(first), str(third), "--references", str(tree), "--out", str(out), "--only-predicted"]) == 3
    assert "no reference has a prediction in all of" in capsys.readouterr().err


def fundus(folder: Path, count: int) -> tuple[Path, Path]:
    """`count` questions with an image each, every third answer wrong, and their tree."""
    rows = [
        {"TaskType": "Classification", "Modality": "Fundus", "ImageName": f"imagesVal/FUNDUS_{place}.png",
         "Question": "Diagnosis? A: Normal, B: Glaucoma", "Answer": "AB"[place % 2], "Split": "val"}
        for place in range(count)
    ]  # fmt: skip
    write_json(folder / "tree" / "validation-public" / "Retinography" / "fundus" / "fundus_questions_val.json", rows)
    said = [row | ({"Answer": "C"} if place % 3 == 0 else {}) for place, row in enumerate(rows)]
    return write_json(folder / "predictions.json", said), folder / "tree"


NOTE = f"† from fewer than {ENOUGH_CLUSTERS} images, so the interval is too narrow"


@pytest.mark.parametrize(("count", "few"), [(ENOUGH_CLUSTERS - 1, True), (ENOUGH_CLUSTERS, False)])
def test_intervals_on_few_images_are_marked(count: int, few: bool, tmp_path: Path, capsys: Printed) -> None:
    predictions, tree = fundus(tmp_path, count)
    out = tmp_path / "out"
    metrics = run(predictions, tree, out, "--baseline", str(predictions))
    assert {entry.get("few_images") for _, _, entry in entries(metrics)} == ({True} if few else {None})
    difference = metrics["comparison"]["tasks"]["classification"]["accuracy"]
    assert difference.get("few_images") is (True if few else None)
    printed = capsys.readouterr().out
    assert (NOTE in printed, bool(re.search(r"\d\]†", printed))) == (few, few)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert (NOTE in page, bool(re.search(r"\d to \d\.\d+†", page))) == (few, few)
    run(predictions, tree, out, "--markdown")
    markdown = capsys.readouterr().out
    assert (NOTE in markdown, bool(re.search(r"\d†\)", markdown))) == (few, few)


def test_questions_about_one_image_are_one_image(tmp_path: Path) -> None:
    """Forty questions about twenty images: an interval stands on the twenty."""
    predictions, tree = fundus(tmp_path, 40)
    for path in (predictions, next(tree.rglob("*.json"))):
        rows = json.loads(path.read_text())
        for place, row in enumerate(rows):
            row["ImageName"] = f"imagesVal/FUNDUS_{place // 2}.png"
        path.write_text(json.dumps(rows))
    entry = run(predictions, tree, tmp_path / "out")["tasks"]["classification"]["accuracy"]
    assert entry["n"] == 40 and entry["few_images"] is True
    entry = run(predictions, tree, tmp_path / "out", "--cluster", "sample")["tasks"]["classification"]["accuracy"]
    assert "few_images" not in entry


def test_a_value_without_an_interval_has_no_mark(tmp_path: Path) -> None:
    predictions, tree = fundus(tmp_path, 10)
    metrics = run(predictions, tree, tmp_path / "out", "--bootstrap", "0")
    assert all("few_images" not in entry for _, _, entry in entries(metrics))


def test_a_mean_over_datasets_and_a_group_are_marked_by_their_own_images(tmp_path: Path) -> None:
    """Forty images of one dataset and ten of another; large boxes on ten of them."""
    rows: list[Row] = []
    for dataset, prefix, count in (("iugc", "IUGC", 40), ("BUSI-det", "BUSI", 10)):
        own = [
            {"TaskType": "detection", "Modality": "Ultrasound", "ImageName": f"imagesVal/{prefix}_{place}.png",
             "Question": "Box the lesion.", "Split": "val",
             "Answer": json.dumps([{"bbox_2d": [1, 1, 9, 9], "label": "rare" if place < 5 else "common"}])}
            for place in range(count)
        ]  # fmt: skip
        path = tmp_path / "tree" / "validation-public" / "Ultrasound" / dataset
        write_json(path / f"{dataset}_questions_val.json", own)
        rows += own
    metrics = run(write_json(tmp_path / "p.json", rows), tmp_path / "tree", tmp_path / "out", "--no-page")
    found = metrics["tasks"]["detection"]["f1_iou50"], metrics["macro"]["detection"]["f1_iou50"]
    assert ["few_images" in entry for entry in found] == [False, True]
    groups = metrics["groups"]["detection"]
    assert "few_images" in groups["class=rare"]["mean_iou"] and "few_images" not in groups["class=common"]["mean_iou"]
