"""Grounding sets from their files to scores: right answers score 1 in every frame and style, and a model is asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation import Settings, evaluate
from medvl.cli import main as medvl
from medvl.sharegpt import Record, read_records
from preprocess import grounding

# Names as people have them, with what styles, prompts and pages are written in.
NAMES = ("ship", 'a "quoted" [one]', "Zürich, Hafen", "box_2d 17", "noise")


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Path]:
    """`convert(*options)`: the file of all questions about three images, the last of which shows nothing."""
    for number, name in enumerate("abc"):
        Image.new("RGB", (200, 100), (60 * number, 90, 30)).save(tmp_path / f"{name}.png")
    objects = [
        {"class": name, "bbox": [place / 10, 0.1, place / 10 + 0.1, 0.6]} for place, name in enumerate((*NAMES, "ship"))
    ]
    rows = [{"image": "a.png", "objects": objects}, {"image": "b.png", "objects": objects[:1]},
            {"image": "c.png", "objects": []}]  # fmt: skip
    (tmp_path / "test.json").write_text(json.dumps(rows))

    def run(*options: str) -> Path:
        words = [str(tmp_path / "test.json"), "--out", str(tmp_path / "out"), "--dataset-info",
                 str(tmp_path / "info.json"), "--workers", "1", "--negatives", "2", *options]  # fmt: skip
        assert grounding.main(words) == 0
        return tmp_path / "out" / "grounding_all_test.json"

    return run


@pytest.mark.parametrize("options", [
    ("--class-mode", "each"), ("--class-mode", "all", "--order", "raster"), ("--refer", "--order", "random"),
    ("--frame", "pixel", "--box-style", "flare"), ("--frame", "norm1", "--class-mode", "each"),
    ("--box-style", "qwen_vl1", "--class-mode", "each"), ("--box-style", "internvl")], ids=" ".join)  # fmt: skip
def test_right_answers_score_one(convert: Callable[..., Path], options: tuple[str, ...]) -> None:
    records = convert(*options)

    def scored(answer: Callable[[Record], str]) -> dict[str, float | None]:
        answers = {record.id: answer(record) for record in read_records(records)}
        return evaluate(answers, records, Settings(force=True))["detection"]

    assert scored(lambda record: record.target)["f1_iou50"] == 1.0
    assert scored(lambda _: "[]")["f1_iou50"] == 0.0


@pytest.mark.training
def test_a_model_is_asked_and_scored(
    convert: Callable[..., Path], tmp_path: Path, tiny_checkpoint: Callable[[str], Path]
) -> None:
    pytest.importorskip("llamafactory")
    records, out = convert("--class-mode", "each"), tmp_path / "predictions.jsonl"
    (tmp_path / "profiles.yaml").write_text("detection: {max_new_tokens: 4}\n")
    words = ["--no-router", "--profiles", str(tmp_path / "profiles.yaml"), "--template", "qwen3_vl_nothink"]
    assert medvl(["predict", "--data", str(records), "--model", str(tiny_checkpoint("qwen3vl")), "--out", str(out),
                  *words]) == 0  # fmt: skip
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == len(read_records(records)) and not any(line.get("error") for line in lines)
    counts = evaluate(out, records, Settings(force=True)).metrics["counts"]
    assert counts["references"] == counts["matched"] == len(lines)
