"""Frozen parts below the first trained weight run without gradients, and nothing else changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llamafactory")
import torch
from llamafactory.train.tuner import run_exp
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, TrainerCallback

from medvl.factory import frozen
from medvl.factory.checks.adapter_fit import without_adapter
from medvl.factory.run_card import read_run_card

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]


class Watch(TrainerCallback):
    """Which parts' outputs require gradients, and the trained gradients of each step."""

    def __init__(self) -> None:
        self.requires: dict[str, bool] = {}
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, model: Any = None, **_: Any) -> None:
        inner = without_adapter(model).model
        parts = {"tower": getattr(inner, "visual", None) or inner.vision_tower, "text": inner.get_input_embeddings()}
        for name, module in parts.items():
            module.register_forward_hook(lambda _module, _args, output, name=name: self.keep(name, output))

    def keep(self, name: str, output: Any) -> None:
        tensors = [output] if torch.is_tensor(output) else [output.last_hidden_state, output.pooler_output]
        self.requires[name] = any(tensor is not None and tensor.requires_grad for tensor in tensors)

    def on_pre_optimizer_step(self, _args: Any, _state: Any, _control: Any, model: Any = None, **_: Any) -> None:
        named = without_adapter(model).named_parameters()
        self.gradients.append({name: weight.grad.clone() for name, weight in named if weight.grad is not None})


def train(recipe: dict[str, Any], out: Path) -> Watch:
    watch = Watch()
    run_exp(recipe | {"output_dir": str(out)}, callbacks=[watch])
    return watch


def losses(folder: Path) -> list[float]:
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


HOOKED = {"augment": "basic", "augment_frame": "norm1000", "use_reentrant_gc": False}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen3-VL": ("qwen3vl", {}),
    "InternVL3": ("internvl3", {}),
    "checkpointing that is not reentrant, images changed": ("internvl3", HOOKED),
    "checkpointing of transformers": (
        "internvl3",
        {"disable_gradient_checkpointing": True, "gradient_checkpointing": True},
    ),
    "4 bits": ("internvl3", {"quantization_bit": 4, "bf16": True}),
}


@pytest.mark.parametrize(("family", "keys"), WAYS.values(), ids=WAYS)
def test_frozen_tower_has_no_gradients_and_training_stays_the_same_to_the_bit(
    family: str, keys: dict[str, Any], tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(family, medvl_run_card=True, **keys)
    without = train(recipe, tmp_path / "without")
    monkeypatch.setattr(frozen, "drop_hooks", lambda _: [])
    stock = train(recipe, tmp_path / "stock")
    assert stock.requires["tower"] is (family == "internvl3" and "quantization_bit" not in keys)
    assert without.requires["tower"] is False
    assert losses(tmp_path / "without") == losses(tmp_path / "stock")
    require_equal(without, stock)
    assert read_run_card(tmp_path / "without").training.without_gradients == ["vision tower", "projector"]


def require_equal(ours: Watch, theirs: Watch) -> None:
    """To the bit, in every step."""
    assert len(ours.gradients) == len(theirs.gradients) == 2
    for one, other in zip(ours.gradients, theirs.gradients, strict=True):
        assert one.keys() == other.keys() and len(one) > 0
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_gradients_reach_adapters_in_the_tower(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("internvl3", medvl_run_card=True, freeze_vision_tower=False)
    ours = train(recipe, tmp_path / "ours")
    monkeypatch.setattr(frozen, "drop_hooks", lambda _: [])
    require_equal(ours, train(recipe, tmp_path / "stock"))
    tower = [name for name in ours.gradients[-1] if "vision_tower" in name and "lora_B" in name]
    assert tower and all(ours.gradients[-1][name].any() for name in tower)
    assert read_run_card(tmp_path / "ours").training.without_gradients == []


def test_only_what_lies_below_a_trained_projector_has_none(tiny_recipe: Recipe, tmp_path: Path) -> None:
    keys = {"freeze_multi_modal_projector": False, "lora_target": "q_proj,linear_1"}
    watch = train(tiny_recipe("internvl3", medvl_run_card=True, **keys), tmp_path / "out")
    assert watch.requires["tower"] is False
    projector = [name for name in watch.gradients[-1] if "multi_modal_projector" in name and "lora_B" in name]
    assert projector and all(watch.gradients[-1][name].any() for name in projector)
    assert read_run_card(tmp_path / "out").training.without_gradients == ["vision tower"]


def test_layers_below_the_first_adapter_have_none_either(tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = tiny_recipe("internvl3", medvl_run_card=True, lora_target="layers.1.self_attn.q_proj")
    watch = train(recipe, tmp_path / "out")
    assert watch.requires == {"tower": False, "text": False}
    assert all(gradient.any() for name, gradient in watch.gradients[-1].items() if "lora_B" in name)


def test_hooks_that_other_checkpointing_needs_stay(tiny_checkpoint: Callable[[str], Path]) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint("internvl3"))
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model = get_peft_model(model, LoraConfig(target_modules=r".*language_model.*q_proj"))
    assert frozen.drop_hooks(model) == ["model.vision_tower.embeddings.patch_embeddings"]
    assert frozen.drop_hooks(model) == []
    ids = torch.randint(20, 400, (1, 10), generator=torch.Generator().manual_seed(0))
    model.train()(input_ids=ids, labels=ids).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)


def test_a_frozen_language_model_keeps_its_own(tiny_checkpoint: Callable[[str], Path]) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint("internvl3"))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model = get_peft_model(model, LoraConfig(target_modules=r".*multi_modal_projector.linear_1"))
    model.get_base_model().gradient_checkpointing_enable = lambda **_: None  # as LLaMA-Factory puts it there
    assert frozen.idle_parts(model) == ["vision tower"]
    assert frozen.drop_hooks(model) == ["model.vision_tower.embeddings.patch_embeddings"]
