"""`medvl_loss_group`: other micro-batches train the same, step for step."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import MethodType, ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("llamafactory")
import torch
from llamafactory.train.tuner import run_exp
from torch.nn import functional

from medvl.factory import fused, loss_groups
from medvl.factory.arguments import LossGroupArguments
from medvl.factory.loss_groups import FUSED, _grouped, parts_of_step
from medvl.factory.recipe import Recipe as ParsedRecipe
from medvl.factory.run_card import read_run_card
from medvl.losses import IGNORED

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
        assert found == [pytest.approx(pair, rel=1e-5) for pair in expected[: setting.get("max_steps", STEPS)]]
        training = read_run_card(Path(out)).training
        assert (training.loss_group, training.batch_size) == (2, 4)
        assert training.gradient_checkpointing is not setting.get("disable_gradient_checkpointing", False)
    without = common | whole | {"medvl_loss_group": 0, "max_steps": 1}
    other = log(tiny_recipe(family, **without, output_dir=str(tmp_path / "without")))
    assert other[0] != pytest.approx(expected[0], rel=1e-2)  # the test can fail


@pytest.mark.parametrize(
    "keys",
    [
        {"use_grounding_loss": True, "grounding_warmup_ratio": 0.0, "grounding_scale": 1.0},
        {"loss_balance": "focal", "loss_balance_weights": {"round": 3.0, "square": 1.0}},
    ],
    ids=["grounding", "balance"],
)
def test_other_losses_go_along(keys: dict[str, Any], tiny_recipe: Recipe, unequal: Path, tmp_path: Path) -> None:
    """One step: the grounding terms of the last of an epoch, which has fewer records, are not the same."""
    common = {"dataset_dir": str(unequal), "max_steps": 1, "disable_shuffling": True} | AS_IT_IS | keys
    expected = log(tiny_recipe("qwen3vl", **common, output_dir=str(tmp_path / "as it is")))
    whole = common | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    found = log(tiny_recipe("qwen3vl", **whole, medvl_loss_group=2, output_dir=str(tmp_path / "whole")))
    assert found == [pytest.approx(pair, rel=1e-4) for pair in expected]
    other = log(tiny_recipe("qwen3vl", **whole, output_dir=str(tmp_path / "without")))
    assert other[0] != pytest.approx(expected[0], rel=1e-3)  # the test can fail


def test_a_fused_loss_is_that_of_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """liger's forward pass calls a function of its module, with hidden states instead of logits."""
    torch.manual_seed(0)
    head, states = torch.randn(11, 5), torch.randn(3, 6, 5, requires_grad=True)
    labels = torch.randint(0, 11, (3, 6))
    labels[0, 3:] = IGNORED

    def of_states(*, hidden_states: torch.Tensor, labels: torch.Tensor, **_: Any) -> torch.Tensor:
        flat = (hidden_states[:, :-1] @ head.T).flatten(0, 1)
        return torch.nn.functional.cross_entropy(flat, labels[:, 1:].flatten())

    module = ModuleType("fused")
    monkeypatch.setattr(module, FUSED, of_states, raising=False)
    monkeypatch.setitem(sys.modules, "fused", module)

    def forward() -> torch.Tensor:
        loss: torch.Tensor = getattr(module, FUSED)(
            hidden_states=states, labels=labels, shift_labels=None, hidden_size=5
        )
        return loss

    forward.__module__ = "fused"
    base = SimpleNamespace(forward=forward, loss_function=None, _loss_function=None)
    with _grouped(base, [(2, 0.5), (1, 0.5)]):
        loss = base.forward()
    parts = [of_states(hidden_states=states[rows], labels=labels[rows]) for rows in (slice(2), slice(2, 3))]
    torch.testing.assert_close(loss, sum(parts) / 2)
    (found,) = torch.autograd.grad(loss, states)
    (expected,) = torch.autograd.grad(sum(parts) / 2, states)
    torch.testing.assert_close(found, expected)
    assert getattr(module, FUSED) is of_states
    torch.testing.assert_close(base.forward(), of_states(hidden_states=states, labels=labels))


def stand_in(model: Any) -> None:
    """A patch as liger's: the loss comes from the hidden states, by a function of its module."""
    fused = ModuleType("medvl_test_liger")
    setattr(fused, FUSED, lambda *, hidden_states, labels, weight: functional.cross_entropy(
        (hidden_states[:, :-1] @ weight.T).flatten(0, 1), labels[:, 1:].flatten()))  # fmt: skip
    sys.modules["medvl_test_liger"] = fused

    def forward(self: Any, labels: torch.Tensor, num_items_in_batch: Any = None, **inputs: Any) -> dict[str, Any]:
        states = self.model(**inputs)[0]
        return {"loss": getattr(fused, FUSED)(hidden_states=states, labels=labels, weight=self.lm_head.weight)}

    forward.__module__ = "medvl_test_liger"
    model.forward = MethodType(forward, model)


@pytest.mark.parametrize("known", [True, False])
def test_liger_is_patched_where_its_loss_is_known(
    known: bool, tiny_recipe: Recipe, unequal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafactory.hparams import parser

    monkeypatch.setattr(parser, "check_version", lambda *_, **__: None)
    monkeypatch.setattr(fused, "gpu", lambda: True)
    patches = SimpleNamespace(**dict.fromkeys(fused.PATCHES.values(), stand_in))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", patches)
    monkeypatch.setitem(sys.modules, "medvl_test_liger", ModuleType("medvl_test_liger"))
    common = {"dataset_dir": str(unequal), "max_steps": 1, "medvl_run_card": True} | AS_IT_IS
    whole = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "medvl_loss_group": 2}
    fusing = common | whole | {"enable_liger_kernel": True, "output_dir": str(tmp_path / "fused")}
    if known:
        expected = log(tiny_recipe("qwen3vl", **common, output_dir=str(tmp_path / "as it is")))
        assert log(tiny_recipe("qwen3vl", **fusing)) == [pytest.approx(pair, rel=1e-4) for pair in expected]
        assert read_run_card(tmp_path / "fused").training.fused_loss is True
        return
    monkeypatch.setattr(loss_groups, "FUSED", "another name")
    with pytest.raises(
        RuntimeError, match="medvl_loss_group: this model computes its loss in a way that medvl does not"
    ):
        log(tiny_recipe("qwen3vl", **fusing))


REFUSED = {
    "no effect": ({"medvl_loss_group": 2}, "does nothing, per_device_train_batch_size is 2 too"),
    "no divisor": ({"medvl_loss_group": 3}, "3 does not divide the 2 x 2 records"),
    "no number": ({"medvl_loss_group": True}, "True is not a whole number"),
    "below 0": ({"medvl_loss_group": -2}, "-2 is not a whole number"),
    "another loss": ({"medvl_loss_group": 1, "use_dft_loss": True}, "cannot be combined with `use_dft_loss`"),
    "on several devices": ({"medvl_loss_group": 4}, "must be a multiple of 4, not 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, sentence = REFUSED[name]
    arguments = SimpleNamespace(**(AS_IT_IS | {"do_train": True} | keys))
    group = LossGroupArguments(medvl_loss_group=keys["medvl_loss_group"])
    group.medvl_recipe = ParsedRecipe((), (arguments,))  # type: ignore[attr-defined]
    monkeypatch.setenv("WORLD_SIZE", "2" if name == "on several devices" else "1")
    assert any(sentence in problem for problem in group.problems())
