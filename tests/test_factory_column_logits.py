"""Logits of chosen rows and columns, and liger's fused loss that builds no others."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("llamafactory")
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import (
    AutoModelForImageTextToText,
    InternVLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from medvl.factory import fused
from medvl.factory.column_logits import ColumnLogits

pytestmark = pytest.mark.training

FAMILIES = ["qwen3vl", "internvl3"]
ROWS, COLUMNS = torch.tensor([3, 4, 9, 17]), torch.tensor([11, 400, 12])


@pytest.fixture
def load(tiny_checkpoint: Callable[[str], Path]) -> Callable[[str], Any]:
    """A tiny model in training mode; text is enough here."""
    return lambda family: AutoModelForImageTextToText.from_pretrained(tiny_checkpoint(family)).train()


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(20, 400, (2, 10), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "gradient checkpointing"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_same_logits_and_gradients_as_of_the_whole_matrix(
    family: str, lora: bool, checkpointing: bool, load: Callable[[str], Any]
) -> None:
    model = load(family)
    if lora:
        model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": True})
    columns = ColumnLogits(model)
    assert columns.usable()
    found = []
    for whole in (False, True):
        model.zero_grad()
        outputs = model(**batch())
        logits = outputs["logits"].flatten(0, 1)[ROWS][:, COLUMNS] if whole else columns(ROWS, COLUMNS, outputs)
        (outputs["loss"] + logits.square().sum()).backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        assert all(not gradient.is_sparse for gradient in gradients)
        found.append((logits.detach(), gradients))
    (ours, our_gradients), (theirs, their_gradients) = found
    torch.testing.assert_close(ours, theirs)
    assert len(our_gradients) == len(their_gradients) > 0
    for our, their in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-6)


def test_bfloat16_weights_give_float32_logits_also_under_autocast(load: Callable[[str], Any]) -> None:
    model = load("qwen3vl").bfloat16()
    columns = ColumnLogits(model)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**batch())
        logits = columns(ROWS, COLUMNS, outputs)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, outputs["logits"].float().flatten(0, 1)[ROWS][:, COLUMNS], rtol=0.02, atol=0.02)


UNUSABLE: dict[str, Callable[[ColumnLogits], None]] = {
    "sharded by FSDP": lambda columns: setattr(columns, "sharded", True),
    "split by ZeRO-3": lambda columns: setattr(columns.head.weight, "ds_id", 7),
    "gathered elsewhere": lambda columns: setattr(columns.head.weight, "data", torch.empty(0)),
    "under an adapter": lambda columns: setattr(columns, "head", torch.nn.Sequential(columns.head)),
}


@pytest.mark.parametrize("spoil", UNUSABLE.values(), ids=UNUSABLE)
def test_head_that_cannot_be_used_directly(spoil: Callable[[ColumnLogits], None], load: Callable[[str], Any]) -> None:
    model = load("internvl3")
    columns = ColumnLogits(model)
    outputs = dict(model(**batch()))
    spoil(columns)
    expected = outputs["logits"].flatten(0, 1)[ROWS][:, COLUMNS]
    torch.testing.assert_close(columns(ROWS, COLUMNS, outputs), expected)
    with pytest.raises(ValueError, match="the model returned no logits, and its output head cannot be used directly"):
        columns(ROWS, COLUMNS, outputs | {"logits": None})


def test_states_of_one_pass_are_not_taken_for_another(load: Callable[[str], Any]) -> None:
    model = load("qwen3vl")
    columns = ColumnLogits(model)
    outputs = dict(model(**batch())) | {"logits": None}
    columns(ROWS, COLUMNS, outputs)
    with pytest.raises(ValueError, match="no logits"):
        columns(ROWS, COLUMNS, outputs)
    model(**batch())
    assert columns.none(outputs) is None
    with pytest.raises(ValueError, match="no logits"):
        columns(ROWS, COLUMNS, outputs)
    model.eval()(**batch())
    with pytest.raises(ValueError, match="no logits"):
        columns(ROWS, COLUMNS, outputs)


# liger


def torch_loss(states: torch.Tensor, weight: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
    """What liger's kernel computes, for machines without a GPU."""
    chosen = {key: options[key] for key in ("reduction", "ignore_index") if key in options}
    return functional.cross_entropy(states @ weight.T, target, **chosen)


def stand_in(model: Any) -> None:
    """A patch that, as liger's, takes the loss from the hidden states and returns no logits."""

    def forward(self: Any, labels: torch.Tensor, num_items_in_batch: Any = None, **inputs: Any) -> dict[str, Any]:
        assert num_items_in_batch is None, "LLaMA-Factory averages over micro-batches for these families"
        states = self.model(**inputs)[0][:, :-1].flatten(0, 1)
        return {"loss": torch_loss(states, self.lm_head.weight, labels[:, 1:].flatten()), "logits": None}

    model.forward = MethodType(forward, model)


@pytest.fixture(params=["stand-in", "liger"])
def liger(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """liger's patches without its kernels, on a machine that passes for one with a GPU; or a stand-in for them."""
    monkeypatch.setattr(fused, "gpu", lambda: True)
    if request.param == "stand-in":
        patches = SimpleNamespace(**dict.fromkeys(fused.PATCHES.values(), stand_in))
        monkeypatch.setitem(__import__("sys").modules, "liger_kernel.transformers", patches)
        return
    transformers = pytest.importorskip("liger_kernel.transformers", reason="the extra `fused` is not installed")
    from functools import partial

    forward = InternVLForConditionalGeneration.forward
    monkeypatch.setattr(InternVLForConditionalGeneration, "forward", forward)  # liger replaces it for good
    monkeypatch.setattr("liger_kernel.transformers.functional.liger_fused_linear_cross_entropy", torch_loss)
    off = {"rope": False, "rms_norm": False, "swiglu": False}
    for name, more in zip(fused.PATCHES.values(), ({}, {"layer_norm": False}), strict=True):
        monkeypatch.setattr(transformers, name, partial(getattr(transformers, name), **off, **more))


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_loss_leaves_the_terms_as_they_are(family: str, liger: None, load: Callable[[str], Any]) -> None:
    model = load(family)
    found = []
    for fusing in (False, True):
        one = copy.deepcopy(model)
        columns = ColumnLogits(one)
        if fusing:
            fused.fuse(one)
        outputs = one(**batch())
        assert (outputs.get("logits") is None) is fusing
        logits = columns(ROWS, COLUMNS, outputs)
        (outputs["loss"] + logits.square().sum()).backward()
        found.append((outputs["loss"].detach(), logits.detach(), [p.grad for p in one.parameters() if p.requires_grad]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-6)


def test_fusing_is_refused_where_it_cannot_be_done(load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("qwen3vl")
    with pytest.raises(ValueError, match="enable_liger_kernel: liger's kernels need a GPU"):
        fused.fuse(model)
    monkeypatch.setattr(fused, "gpu", lambda: True)
    monkeypatch.setitem(__import__("sys").modules, "liger_kernel.transformers", SimpleNamespace())
    with pytest.raises(ValueError, match="this liger-kernel has no apply_liger_kernel_to_qwen3_vl"):
        fused.fuse(model)
    monkeypatch.setattr(fused, "PATCHES", {"qwen3_vl": "__doc__"})
    with pytest.raises(ValueError, match="are sharded"):
        fused.fuse(model, sharded=True)
    monkeypatch.setattr(fused, "PATCHES", {"internvl": "x"})
    with pytest.raises(ValueError, match="medvl fuses internvl, this model is `qwen3_vl`"):
        fused.fuse(model)


Recipe = Callable[..., dict[str, Any]]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaMA-Factory looks for liger-kernel when it parses the recipe; a stand-in will do."""
    from llamafactory.hparams import parser

    monkeypatch.setattr(parser, "check_version", lambda *_, **__: None)


@pytest.mark.parametrize("family", FAMILIES)
def test_recipe_trains_the_same_fused_with_and_without_the_grounding_loss(
    family: str, liger: None, installed: None, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafactory.train.tuner import run_exp
    from safetensors.torch import load_file

    asked: list[Any] = []
    monkeypatch.setattr(fused, "fuse", lambda model, _fuse=fused.fuse, **more: asked.append(_fuse(model, **more)))
    forward = {kind: kind.forward for kind in (InternVLForConditionalGeneration, Qwen3VLForConditionalGeneration)}
    keys = {"medvl_run_card": True, "use_grounding_loss": family == "qwen3vl"}
    for fusing in (False, True):
        run_exp(tiny_recipe(family, **keys, enable_liger_kernel=fusing, output_dir=str(tmp_path / str(fusing))))
        assert len(asked) == fusing
    plain, ours = (load_file(tmp_path / str(name) / "adapter_model.safetensors") for name in (False, True))
    for name, weight in plain.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-6)
    assert all(kind.forward is stock for kind, stock in forward.items()), "later models of the process are left alone"


def test_fusing_is_refused_beside_a_loss_that_needs_all_logits(installed: None, tiny_recipe: Recipe) -> None:
    from llamafactory.train.tuner import run_exp

    keys = {"medvl_run_card": True, "enable_liger_kernel": True, "use_asft_loss": True}
    with pytest.raises(ValueError, match="enable_liger_kernel: the ASFT loss needs the logits"):
        run_exp(tiny_recipe("qwen3vl", **keys))
    with pytest.raises(ValueError, match="enable_liger_kernel: liger's kernels need a GPU"):
        run_exp(tiny_recipe("internvl3", **keys | {"use_asft_loss": False}))
