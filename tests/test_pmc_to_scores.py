"""M3LLM from its files to scores on tiny checkpoints: records with no, one and several images in one batch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llamafactory")
from llamafactory.train.tuner import run_exp
from PIL import Image

from evaluation.run import main as score
from medvl.cli import main as medvl
from medvl.factory.run_card import read_run_card
from medvl.sharegpt import read_records
from preprocess import pmc
from tests.support.templates import pristine_templates  # noqa: F401  (used by every test)

pytestmark = pytest.mark.training


def convert(data: Path, folder: Path, name: str, *more: str) -> None:
    words = [
        "--images",
        str(folder / "images"),
        "--out",
        str(folder / name),
        "--workers",
        "1",
        "--contamination",
        "off",
    ]
    info = str(folder / "dataset_info.json")
    assert pmc.main([str(data), "--name", name, "--dataset-info", info, *words, *more]) == 0


def predict(folder: Path, records: Path, *words: str) -> None:
    """Ask everything, with short answers."""
    (folder / "profiles.yaml").write_text("general: {max_new_tokens: 4}\n")
    profiles = ["--profiles", str(folder / "profiles.yaml")]
    assert medvl(["predict", "--data", str(records), "--no-router", *profiles, *words]) == 0


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A training file of four rows: no image, one, two, three."""
    (tmp_path / "images").mkdir()
    names = [f"PMC1_f{place}.jpg" for place in range(3)]
    for place, name in enumerate(names):
        Image.new("RGB", (64 + 32 * place, 64), (70 * place, 90, 30)).save(tmp_path / "images" / name)
    rows = []
    for count in range(4):
        head = "".join(f"Fig-{place}: <image>\n" for place in range(count))
        turns = [{"from": "human", "value": f"{head}What is it?"}, {"from": "gpt", "value": f"It is a lung, {count}."}]
        rows.append({"id": str(count), "conversations": turns} | ({"image": names[:count]} if count else {}))
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])
@pytest.mark.parametrize("count", [4, 1], ids=["mixed batch", "text alone"])
def test_records_without_images_train_beside_others_and_are_asked(
    family: str, count: int, training: Path, tiny_recipe: Callable[..., dict[str, Any]]
) -> None:
    convert(training / "mine.jsonl", training, "pmc", "--limit", str(count), "--seed", "2")
    assert [len(record.images) for record in read_records(training / "pmc" / "pmc_all_train.json")] == [0, 1, 2, 3][
        :count
    ]
    positions = {"medvl_image_positions": True} if family == "qwen3vl" else {"crop_to_patches": False}
    data = {"dataset": "pmc_all_train", "dataset_dir": str(training), "output_dir": str(training / "adapter")}
    run_exp(tiny_recipe(family, medvl_run_card=True, per_device_train_batch_size=count, **data, **positions))
    card = read_run_card(training / "adapter")
    assert card.run.steps == 2 and card.run.final_loss is not None and 0 < card.run.final_loss < 20
    if count == 1:
        return
    out, records = training / "predictions.jsonl", training / "pmc" / "pmc_all_train.json"
    predict(training, records, "--adapter", str(training / "adapter"), "--out", str(out))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 4 and not any(line.get("error") for line in lines)
    words = ["--references", str(records), "--force", "--out", str(training / "scores"), "--no-page"]
    assert score([str(out), *words]) == 0
    metrics = json.loads((training / "scores" / "metrics.json").read_text())
    assert metrics["counts"]["references"] == metrics["counts"]["matched"] == 4
    assert metrics["tasks"]["report_generation"]["rouge_l"]["n"] == 4


def test_all_files_of_the_benchmark_are_predicted_and_scored(
    shared_data: Path, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for file in (shared_data / "pmc_mi_bench").glob("*.json"):
        for name in {name for row in json.loads(file.read_text()) for name in row.get("images", [])}:
            Image.new("RGB", (40, 30)).save(tmp_path / "images" / name)
    convert(shared_data / "pmc_mi_bench", tmp_path, "bench", "--limit", "1")
    records, out = tmp_path / "bench" / "bench_all_test.json", tmp_path / "predictions.jsonl"
    words = ["--model", str(tiny_checkpoint("internvl3")), "--template", "intern_vl", "--out", str(out)]
    predict(tmp_path, records, *words)
    words = [
        "--rules",
        "strict,m3llm",
        "--compat",
        "v1",
        "--bootstrap",
        "0",
        "--force",
        "--out",
        str(tmp_path / "scores"),
        "--no-page",
    ]
    assert score([str(out), "--references", str(records), *words]) == 0
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert metrics["counts"]["matched"] == 6 and len(metrics["datasets"]) == 6
    for rules in (metrics, *metrics["other_rules"].values()):
        assert {task: next(iter(part.values()))["n"] for task, part in rules["tasks"].items()} == {
            "classification": 1, "report_generation": 5}  # fmt: skip
