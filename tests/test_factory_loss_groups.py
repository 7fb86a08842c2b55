"""`medvl_loss_group`: other micro-batches train the same, step for step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llamafactory")
from llamafactory.train.tuner import run_exp

from medvl.factory.loss_groups import parts_of_step
from medvl.factory.run_card import read_run_card

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
FAMILIES = ["qwen3vl", "internvl3"]
STEPS = 20
# What the others have to be equal to: 2 x 2 records a step, the last of an epoch with 3 of 7.
AS_IT_IS = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "disable_gradient_checkpointing": False}


def log(recipe: dict[str, Any]) -> list[tuple[float, float]]:
    """(loss, gradient norm) of every step."""
    run_exp(recipe)
    entries = json.loads((Path(recipe["output_dir"]) / "trainer_state.json").read_text())["log_history"]
    return [(entry["loss"], entry["grad_norm"]) for entry in entries if "loss" in entry]


@pytest.fixture
def unequal(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A data set of 7 records whose answers have 1 to 40 tokens."""
    folder = tmp_path / "unequal"
    folder.mkdir()
    records = json.loads((tiny_dataset / "tiny_train.json").read_text())
    for index, record in enumerate(records[:7]):
        record["id"] = f"unequal/{index}"
        if index % 3 == 0:
            record["conversations"][1]["value"] = "A word of the report. " * (2 * index + 1)
    (folder / "tiny_train.json").write_text(json.dumps(records[:7]))
    (folder / "dataset_info.json").write_text((tiny_dataset / "dataset_info.json").read_text())
    return folder


def test_parts_of_step() -> None:
    # The groups of 2: (3, 1), (2, 2), (4). A step of three micro-batches is divided by three afterwards.
    third = pytest.approx(1 / 3)
    assert parts_of_step([[3, 1], [2, 2], [4]], 2) == [[(2, 1.0)], [(2, 1.0)], [(1, 1.0)]]
    assert parts_of_step([[3, 1, 2, 2], [4]], 2) == [[(2, pytest.approx(2 / 3))] * 2, [(1, pytest.approx(2 / 3))]]
    assert parts_of_step([[3, 1, 2, 2, 4]], 2) == [[(2, third), (2, third), (1, third)]]
    # A group over two micro-batches; one without any token.
    assert parts_of_step([[3, 1, 2], [6, 0, 0]], 2) == [[(2, 2 / 3), (1, pytest.approx(1 / 6))], [(1, 0.5), (2, 0.0)]]


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_equal_over_twenty_steps(family: str, tiny_recipe: Recipe, unequal: Path, tmp_path: Path) -> None:
    common = {"dataset_dir": str(unequal), "max_steps": STEPS, "medvl_run_card": True} | AS_IT_IS
    common["lr_scheduler_type"] = "constant"
    expected = log(tiny_recipe(family, **common, output_dir=str(tmp_path / "as it is")))
    assert len(expected) == STEPS
    whole = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "medvl_loss_group": 2}
    single = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "medvl_loss_group": 2}
    settings = [
        whole | {"disable_gradient_checkpointing": True},
        {"disable_gradient_checkpointing": True, "max_steps": 3},
        whole | {"max_steps": 3},
        single | {"max_steps": 3},
    ]
    for number, setting in enumerate(settings):
        out = str(tmp_path / str(number))
        found = log(tiny_recipe(family, **(common | setting), output_dir=out))
        assert found == [pytest.approx(pair, rel=2e-3) for pair in expected[: setting.get("max_steps", STEPS)]]
        training = read_run_card(Path(out)).training
        assert (training.loss_group, training.batch_size) == (2, 4)
        assert training.gradient_checkpointing is not setting.get("disable_gradient_checkpointing", False)
    without = common | whole | {"medvl_loss_group": 0, "max_steps": 1}
    other = log(tiny_recipe(family, **without, output_dir=str(tmp_path / "without")))
    assert other[0] != pytest.approx(expected[0], rel=1e-2)  # the test can fail
