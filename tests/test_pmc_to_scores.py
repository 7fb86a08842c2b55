"""M3LLM from its files to scores on tiny checkpoints: records with no, one and several images in one batch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llamafactory")
from llamafactory.data.template import TEMPLATES
from llamafactory.train.tuner import run_exp
from PIL import Image

from evaluation.run import main as score
from medvl.cli import main as medvl
from medvl.factory.run_card import read_run_card
from preprocess import pmc

FAMILIES = pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])


@pytest.fixture(autouse=True)
def pristine_templates() -> Any:
    """LLaMA-Factory writes `default_system` into its table of templates, for good."""
    before = {name: template.default_system for name, template in TEMPLATES.items()}
    yield
    for name, system in before.items():
        TEMPLATES[name].default_system = system


def convert(data: Path, folder: Path, name: str) -> None:
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
    assert pmc.main([str(data), "--name", name, "--dataset-info", info, *words]) == 0


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


@FAMILIES
@pytest.mark.parametrize("batch", [4, 1], ids=["mixed batch", "one by one"])
def test_records_without_images_train_beside_others_and_are_asked(
    family: str, batch: int, training: Path, tiny_recipe: Callable[..., dict[str, Any]]
) -> None:
    convert(training / "mine.jsonl", training, "pmc")
    positions = {"medvl_image_positions": True} if family == "qwen3vl" else {"crop_to_patches": False}
    data = {"dataset": "pmc_all_train", "dataset_dir": str(training), "output_dir": str(training / "adapter")}
    run_exp(tiny_recipe(family, medvl_run_card=True, per_device_train_batch_size=batch, **data, **positions))
    card = read_run_card(training / "adapter")
    assert card.run.steps == 2 and card.run.final_loss is not None and 0 < card.run.final_loss < 20
    if batch == 1:
        return
    out, records = training / "predictions.jsonl", training / "pmc" / "pmc_all_train.json"
    assert medvl(["predict", "--data", str(records), "--adapter", str(training / "adapter"), "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 4 and not any(line.get("error") for line in lines)
    assert (
        score([str(out), "--references", str(records), "--force", "--out", str(training / "scores"), "--no-page"]) == 0
    )
    metrics = json.loads((training / "scores" / "metrics.json").read_text())
    assert metrics["counts"]["references"] == metrics["counts"]["matched"] == 4
    assert metrics["tasks"]["report_generation"]["rouge_l"]["n"] == 4
