"""Families, methods and kinds of data train two steps on tiny checkpoints, on data as the scripts convert it.

Every two of the three meet: half of all combinations, each family taking the other half of the kinds per method.
"""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llamafactory")
from llamafactory.train.tuner import run_exp
from PIL import Image

from medvl.demo.images import build_tree
from medvl.factory.run_card import read_run_card
from preprocess import flare, pmc, table
from tests.support.once import Once
from tests.support.templates import pristine_templates  # noqa: F401  (used by every test)

pytestmark = pytest.mark.training

FAMILIES = {"qwen3vl": {"medvl_image_positions": True}, "internvl3": {"crop_to_patches": False}}
METHODS = {
    "lora": {},
    "full": {"finetuning_type": "full", "lora_rank": None, "lora_target": None},
    "qlora": {"quantization_bit": 4, "double_quantization": False, "bf16": True},
}
KINDS: dict[str, dict[str, Any]] = {
    "mixed": {"dataset": "c_all_train"},
    "boxes": {"dataset": "c_detection_train,c_instance_detection_train", "use_grounding_loss": True},
    "several-images": {"dataset": "figures_all_train"},
    "text": {"dataset": "text_all_train"},
    "label": {"dataset": "normality_all_train", "loss_balance": "focal"},
    "augmented": {"dataset": "c_detection_train", "augment": "advanced", "augment_probability": 1.0},
}


@pytest.fixture(scope="module")
def converted(once: Once) -> Path:
    """A folder with dataset_info.json: drawn images of every FLARE task, figures of three panels, and plain text."""
    return once("combinations", _convert)


def _convert(folder: Path) -> None:
    common = ["--dataset-info", str(folder / "dataset_info.json"), "--workers", "1", "--contamination", "off"]
    build_tree(folder / "tree", train=6, val=1, seed=0)
    assert flare.main(["--root", str(folder / "tree"), "--out", str(folder / "flare"), "--name", "c", *common]) == 0
    (folder / "images").mkdir()
    names = [f"PMC1_f{place}.jpg" for place in range(3)]
    for place, name in enumerate(names):
        Image.new("RGB", (64 + 32 * place, 64), (70 * place, 90, 30)).save(folder / "images" / name)
    head = "".join(f"Fig-{place}: <image>\n" for place in range(3))
    rows = [f"{names[row % 3]},{'normal' if row % 4 else 'abnormal'},Is it normal?" for row in range(16)]
    labels = ["image,label,question", *rows]
    (folder / "labels.csv").write_text("\n".join(labels))
    words = ["--images", str(folder / "images"), "--out", str(folder / "normality"), "--name", "normality"]
    assert table.main([str(folder / "labels.csv"), "--task", "classification", *words, *common]) == 0
    for name, figures in (("figures", names), ("text", [])):
        rows = []
        for number in range(4):
            question = {"from": "human", "value": f"{head if figures else ''}Question {number}: what is it?"}
            turns = [question, {"from": "gpt", "value": f"It is lung tissue, sample {number}."}]
            rows.append({"id": f"{name}{number}", "conversations": turns} | ({"image": figures} if figures else {}))
        data = folder / f"{name}.jsonl"
        data.write_text("\n".join(map(json.dumps, rows)))
        words = ["--images", str(folder / "images"), "--out", str(folder / name), "--name", name]
        assert pmc.main([str(data), *words, *common]) == 0


COMBINATIONS = [
    (list(FAMILIES)[(place + other) % 2], method, kind)
    for (place, method), (other, kind) in product(enumerate(METHODS), enumerate(KINDS))
]


@pytest.mark.parametrize(("family", "method", "kind"), COMBINATIONS)
def test_two_steps(
    family: str, method: str, kind: str, converted: Path, tiny_recipe: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    keys = FAMILIES[family] | METHODS[method] | KINDS[kind]
    recipe = tiny_recipe(family, dataset_dir=str(converted), medvl_run_card=True, cutoff_len=1536, **keys)
    run_exp({key: value for key, value in recipe.items() if value is not None})
    card = read_run_card(tmp_path / "out")
    assert card.run.steps == 2
    history = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in history if "loss" in entry]
    assert all(0 < entry["loss"] < 50 and entry["grad_norm"] > 0 for entry in steps)
    if "use_grounding_loss" in keys:
        assert all(entry["boxes_per_batch"] > 0 and entry["loss_w1"] > 0 for entry in steps)
    assert card.finetuning.type == keys.get("finetuning_type", "lora")
    assert card.quantization.bit == keys.get("quantization_bit")
    parts = {part.part for part in card.finetuning.trained}
    assert "language model" in parts
