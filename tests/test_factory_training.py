"""Real training runs in this process, through LLaMA-Factory's own `run_exp`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llamafactory")
from llamafactory.data.template import TEMPLATES
from llamafactory.train.sft import workflow
from llamafactory.train.tuner import run_exp

from medvl.factory import hook
from medvl.factory.run_card import FILE_NAME, RunCard, read_run_card
from medvl.factory.trainer import TrainerFactory

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
FAMILIES = ["qwen3vl", "internvl3"]
WORKFLOW = "llamafactory.train.sft.workflow"
# LLaMA-Factory writes a recipe's default_system into this table, where it stays for later runs of the process.
CHINESE_SYSTEM_PROMPT = TEMPLATES["intern_vl"].default_system


def losses(folder: Path) -> list[float]:
    """The loss of every step, as the trainer logged it."""
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def without_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock trainer back in place, as if the extension of the workflow module had failed."""
    assert isinstance(workflow.CustomSeq2SeqTrainer, TrainerFactory)
    monkeypatch.setattr(workflow, "CustomSeq2SeqTrainer", workflow.CustomSeq2SeqTrainer.stock)
    monkeypatch.setattr(hook.STATE, "extended", hook.STATE.extended - {WORKFLOW})
    monkeypatch.setitem(hook.STATE.failures, WORKFLOW, "AttributeError: renamed")


@pytest.mark.parametrize("family", FAMILIES)
def test_recipe_without_medvl_keys_trains_exactly_as_without_the_hook(
    family: str, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_exp(tiny_recipe(family, output_dir=str(tmp_path / "with")))
    without_hook(monkeypatch)
    run_exp(tiny_recipe(family, output_dir=str(tmp_path / "without")))
    with_hook, stock = tmp_path / "with", tmp_path / "without"
    assert len(losses(stock)) == 2
    assert losses(with_hook) == losses(stock)
    weights = "adapter_model.safetensors"
    assert (with_hook / weights).read_bytes() == (stock / weights).read_bytes()
    assert not (with_hook / FILE_NAME).exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_run_card_changes_no_loss_and_is_read_back(family: str, tiny_recipe: Recipe, tmp_path: Path) -> None:
    run_exp(tiny_recipe(family, output_dir=str(tmp_path / "plain")))
    run_exp(tiny_recipe(family, output_dir=str(tmp_path / "carded"), medvl_run_card=True))
    assert losses(tmp_path / "carded") == losses(tmp_path / "plain")
    card = read_run_card(tmp_path / "carded")
    assert card.run.steps == 2
    assert card.run.final_loss == losses(tmp_path / "carded")[-1]
    assert card.prompt.system == "You are a careful radiologist."


@pytest.fixture(scope="module")
def full_run(
    tiny_checkpoint: Callable[[str], Path], tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One InternVL3 run with many keys set, checkpoints, evaluation and no default_system; the output folder."""
    out = tmp_path_factory.mktemp("full_run")
    TEMPLATES["intern_vl"].default_system = CHINESE_SYSTEM_PROMPT
    run_exp(
        {
            "model_name_or_path": str(tiny_checkpoint("internvl3")),
            "image_max_pixels": 4096,
            "image_min_pixels": 1024,
            "crop_to_patches": True,
            "quantization_bit": 4,
            "double_quantization": False,
            "hf_hub_token": "not-to-be-written",
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_rank": 4,
            "lora_target": "all",
            "dataset": "tiny_train",
            "eval_dataset": "tiny_val",
            "dataset_dir": str(tiny_dataset),
            "template": "intern_vl",
            "cutoff_len": 512,
            "output_dir": str(out),
            "logging_steps": 1,
            "save_steps": 1,
            "report_to": "none",
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1.0e-3,
            "max_steps": 2,
            "bf16": True,
            "use_cpu": True,
            "medvl_run_card": True,
        }
    )
    return out


@pytest.fixture(scope="module")
def card(full_run: Path) -> RunCard:
    return read_run_card(full_run)


def test_card_has_what_prediction_reads(card: RunCard) -> None:
    assert (card.vision.image_max_pixels, card.vision.image_min_pixels) == (4096, 1024)
    assert (card.vision.crop_to_patches, card.vision.max_tiles) == (True, 12)
    assert (card.vision.processor_min_pixels, card.vision.processor_max_pixels) == (None, None)
    assert (card.quantization.bit, card.quantization.method) == (4, "bnb")
    assert (card.quantization.type, card.quantization.double_quantization) == ("nf4", False)
    assert card.prompt.template == "intern_vl"


def test_card_names_the_system_prompt_that_the_template_brings_when_none_is_set(card: RunCard) -> None:
    assert card.prompt.system == CHINESE_SYSTEM_PROMPT
    assert card.prompt.rendered == (
        f"<|im_start|>system\n{card.prompt.system}<|im_end|>\n"
        "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "default_system" not in card.recipe


def test_card_holds_every_key_the_user_set_and_no_secret(card: RunCard, full_run: Path) -> None:
    assert card.recipe["crop_to_patches"] is True
    assert card.recipe["lora_target"] == ["all"]
    assert card.recipe["learning_rate"] == 1.0e-3
    assert card.recipe["hf_hub_token"] == "<secret>"
    assert "lora_alpha" not in card.recipe
    assert card.finetuning.lora_alpha == 8
    assert "not-to-be-written" not in (full_run / FILE_NAME).read_text()


def test_card_counts_the_batch_and_the_trained_weights(card: RunCard) -> None:
    assert (card.training.batch_size, card.training.dtype) == (4, "bfloat16")
    assert card.finetuning.trainable_parameters > 0
    assert (card.finetuning.freeze_vision_tower, card.finetuning.freeze_multi_modal_projector) == (True, True)


def test_card_identifies_data_and_base_model(card: RunCard, tiny_dataset: Path) -> None:
    import hashlib

    train, val = card.data
    assert (train.entry, train.role, train.records) == ("tiny_train", "train", 8)
    assert (val.entry, val.role, val.records) == ("tiny_val", "eval", 4)
    assert train.sha256 == hashlib.sha256((tiny_dataset / "tiny_train.json").read_bytes()).hexdigest()
    assert (train.frame, train.box_style, train.manifest_matches) == (None, None, None)
    config = Path(card.model.name_or_path) / "config.json"
    assert card.model.config_sha256 == hashlib.sha256(config.read_bytes()).hexdigest()


def test_every_checkpoint_has_the_card_of_its_step(full_run: Path) -> None:
    steps = {folder.name: read_run_card(folder).run.steps for folder in full_run.glob("checkpoint-*")}
    assert steps == {"checkpoint-1": 1, "checkpoint-2": 2}


def test_resumed_run_says_so_and_gives_no_misleading_mean(tiny_recipe: Recipe, tmp_path: Path) -> None:
    run_exp(tiny_recipe("qwen3vl", medvl_run_card=True, save_strategy="steps", save_steps=1))
    checkpoint = tmp_path / "out" / "checkpoint-2"
    run_exp(tiny_recipe("qwen3vl", medvl_run_card=True, resume_from_checkpoint=str(checkpoint), max_steps=3))
    card = read_run_card(tmp_path / "out")
    assert (card.run.steps, card.run.resumed_from, card.run.mean_loss) == (3, str(checkpoint), None)
    assert card.run.final_loss is not None


def test_restored_best_checkpoint_is_named(tiny_recipe: Recipe, tmp_path: Path) -> None:
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "eval_dataset": "tiny_val"}
    run_exp(tiny_recipe("qwen3vl", medvl_run_card=True, save_strategy="steps", save_steps=1, do_eval=True, **best))
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] is not None
    assert read_run_card(tmp_path / "out").run.restored_best == state["best_model_checkpoint"]


def test_full_finetuning_has_no_lora_fields(tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = tiny_recipe("qwen3vl", finetuning_type="full", medvl_run_card=True, max_steps=1)
    run_exp({key: value for key, value in recipe.items() if not key.startswith("lora_")})
    finetuning = read_run_card(tmp_path / "out").finetuning
    assert (finetuning.type, finetuning.lora_rank, finetuning.lora_target) == ("full", None, None)


def test_key_is_refused_before_training_when_the_trainer_was_renamed(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_hook(monkeypatch)
    with pytest.raises(RuntimeError, match=r"asks for medvl_run_card, but .*sft\.workflow \(AttributeError: renamed\)"):
        run_exp(tiny_recipe("qwen3vl", medvl_run_card=True))
    assert not (tmp_path / "out").exists()


def test_budget_below_the_checkpoints_own_minimum_is_said(
    tiny_recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Qwen3-VL enlarges again what LLaMA-Factory shrank; the published checkpoints go to 65,536 pixels at least."""
    run_exp(tiny_recipe("qwen3vl", medvl_run_card=True, image_max_pixels=900, image_min_pixels=100, max_steps=1))
    vision = read_run_card(tmp_path / "out").vision
    assert vision.processor_min_pixels is not None
    assert vision.processor_min_pixels > vision.image_max_pixels
    assert vision.max_tiles is None
    assert f"at least {vision.processor_min_pixels} pixels" in caplog.text
