"""What was made of a table is trained on, predicted and scored like FLARE."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.run import main as score
from medvl.cli import main as medvl
from medvl.tasks import Task
from preprocess.table import main

pytestmark = pytest.mark.training

ROWS = [
    ("Is it normal? A: yes, B: no", "B", "", "classification"),
    ("Where are the cysts?", "", "[[10, 12, 40, 44]]", "detection"),
    ("How many cysts?", "1", "", "counting"),
    ("What is it?", "a cyst", "", "vqa"),
]


def test_a_table_is_converted_trained_on_predicted_and_scored(
    tmp_path: Path, tiny_recipe: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafactory.train.tuner import run_exp

    monkeypatch.chdir(tmp_path)
    rows = []
    for place in range(6):
        Image.new("RGB", (96, 64), (30 * place, 90, 60)).save(f"p{place}.png")
        for question, answer, boxes, task in ROWS:
            split = "test" if place > 3 else "train"
            rows.append({"image": f"p{place}.png", "question": question, "answer": answer, "boxes": boxes, "task": task,
                         "split": split, "patient": f"P{place}"})  # fmt: skip
    Path("mine.json").write_text(json.dumps(rows))
    convert = ["mine.json", "--name", "mine", "--out", "out", "--dataset-info", "out/dataset_info.json", "--workers",
               "1", "--box-format", "xyxy", "--source-frame", "pixel"]  # fmt: skip
    assert main(convert) == 0
    assert {json.loads(Path("out/report.json").read_text())["counts"][count] for count in ("in", "kept")} == {24}

    recipe = tiny_recipe("qwen3vl", dataset="mine_all_train", dataset_dir=str(tmp_path / "out"), medvl_run_card=True)
    run_exp(recipe)
    profiles = {str(name): {"max_new_tokens": 4} for name in (*Task, "general")}
    Path("profiles.yaml").write_text(json.dumps(profiles))
    asked = ["predict", "--data", "out/mine_all_test.json", "--adapter", recipe["output_dir"], "--no-router",
             "--profiles", "profiles.yaml", "--out", "predictions.jsonl"]  # fmt: skip
    assert medvl(asked) == 0
    assert score(["predictions.jsonl", "--references", "out/mine_all_test.json", "--out", "scores", "--force"]) == 0
    metrics = json.loads(Path("scores/metrics.json").read_text())
    assert metrics["counts"]["matched"] == metrics["counts"]["references"] == 8
    assert set(metrics["tasks"]) == {task for *_, task in ROWS}
    assert metrics["tasks"]["detection"]["f1_iou50"]["n"] == 2
