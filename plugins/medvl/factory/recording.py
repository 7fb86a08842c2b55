"""Writes the run card of a training run: inputs are hashed before the first step, figures added at the end."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from medvl.factory import run_card
from medvl.factory.checks.resuming import differences, require_same, resumed_checkpoint
from medvl.factory.checks.trained import trained_parts
from medvl.factory.fingerprints import base_model, describe_data, git_revision, versions
from medvl.factory.frozen import idle_parts
from medvl.factory.recipe import Recipe
from medvl.factory.tracking import track

SECRET_ENDINGS = ("_token", "_api_key", "_secret", "_webhook_url")
QUESTION = "{question}"

log = logging.getLogger("medvl")


@dataclass(frozen=True)
class Text:
    """LLaMA-Factory's template, after it was fixed for this tokenizer."""

    template: Any
    tokenizer: Any

    def render(self) -> str:
        """The exact text around a question, from the first token to the one before the answer."""
        turn = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ""}]
        prompt, _ = self.template.encode_oneturn(self.tokenizer, turn)
        return str(self.tokenizer.decode(prompt, skip_special_tokens=False, clean_up_tokenization_spaces=False))


class RunCardCallback(TrainerCallback):  # type: ignore[misc]
    """Collects on the main process of the run and writes into checkpoints and into the output folder.

    Everything that can fail (a damaged manifest, an unreadable file) does so before training, not after it.
    """

    def __init__(self, recipe: Recipe, text: Text, image_processor: Any, trainer: Any) -> None:
        """Hash and describe the inputs.

        image_processor: the one that LLaMA-Factory loaded; None for a text model. trainer: with the safeguards.
        """
        self.ending, self.changes = trainer.ending, list[str]()
        self.resumed = resumed_checkpoint(trainer.args)  # now: "the last one" is another after the first save
        self.clock, self.started = time.monotonic(), _now()
        vision = _vision(recipe, image_processor)
        self.card = describe(recipe, text, vision, trainer.model, self._run(trainer.args, trainer.state))

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Start the clock."""
        self.clock, self.started = time.monotonic(), _now()

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """A checkpoint can be evaluated like the final model, so it gets the card as of its step."""
        self._write(args, state, Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")

    def on_train_end(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """The card of the finished run; one that trained nothing has none."""
        if not self.ending.nothing_trained:
            self._write(args, state, Path(args.output_dir))

    def _write(self, args: Any, state: Any, folder: Path) -> None:
        run_card.write_run_card(msgspec.structs.replace(self.card, run=self._run(args, state)), folder)

    def _run(self, args: Any, state: Any) -> run_card.Run:
        return run_card.Run(
            started=self.started,
            ended=_now(),
            seconds=round(time.monotonic() - self.clock, 1),
            steps=state.global_step,
            epoch=_finite(state.epoch),
            final_loss=_last_logged(state, "loss"),
            mean_loss=None if self.resumed else _last_logged(state, "train_loss"),
            resumed_from=str(self.resumed) if self.resumed else None,
            restored_best=state.best_model_checkpoint if args.load_best_model_at_end else None,
            world_size=args.world_size,
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            planned_steps=state.max_steps,
            ended_early=self.ending.ended_early,
            resumed_with_changes=self.changes,
            peak_gpu_gib=round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None,
        )


def record(trainer: Any, arguments: Any, text: Text, image_processor: Any) -> None:
    """Let the main process write run cards if the recipe asks for them, and compare with the run that is resumed.

    What the recipe reports to is told the same.

    Raises what `describe` raises, and ValueError if the resumed checkpoint was trained with other settings.
    """
    wanted = arguments.medvl_run_card
    if not trainer.args.do_train or not trainer.is_world_process_zero():
        return
    if not (wanted or trainer.args.resume_from_checkpoint):
        return
    callback = RunCardCallback(arguments.medvl_recipe, text, image_processor, trainer)
    if callback.resumed:
        callback.changes = _changes(callback.resumed, callback.card, arguments)
    if wanted:
        trainer.add_callback(callback)
        track(trainer, callback.card, resumed=callback.resumed is not None)


def _changes(checkpoint: Path, card: run_card.RunCard, arguments: Any) -> list[str]:
    """What a resumed run changes, and those that it resumed from had changed."""
    if not (checkpoint / run_card.FILE_NAME).is_file():
        log.warning("%s has no run card: whether this recipe goes on with what it began cannot be checked", checkpoint)
        return []
    old = run_card.read_run_card(checkpoint)
    found = differences(old, card, arguments.medvl_recipe)
    if not arguments.medvl_resume_anyway:
        require_same(checkpoint, found)
    for sentence in found:
        log.warning("resumed with other settings: %s", sentence)
    return [*old.run.resumed_with_changes, *(f"from step {old.run.steps}, {sentence}" for sentence in found)]


def describe(recipe: Recipe, text: Text, vision: run_card.Vision, model: Any, run: run_card.Run) -> run_card.RunCard:
    """The run card of a run that is about to start.

    Raises what reading the data files and dataset_info.json raises, and ValueError for a damaged manifest.
    """
    training = recipe.owner("learning_rate")
    tuning, models, data = (
        recipe.owner("finetuning_type"),
        recipe.owner("model_name_or_path"),
        recipe.owner("cutoff_len"),
    )
    config_sha256, commit = base_model(models.model_name_or_path, models.model_revision, models.cache_dir)
    return run_card.RunCard(
        schema=run_card.SCHEMA,
        model=run_card.Model(
            name_or_path=models.model_name_or_path,
            adapters=list(models.adapter_name_or_path or []),
            revision=models.model_revision,
            config_sha256=config_sha256,
            commit=commit,
        ),
        vision=vision,
        prompt=run_card.Prompt(
            template=data.template,
            system=text.template.default_system,
            enable_thinking=data.enable_thinking,
            rendered=text.render(),
            cutoff_len=data.cutoff_len,
        ),
        quantization=run_card.Quantization(
            bit=models.quantization_bit,
            method=str(_plain(models.quantization_method)),
            type=models.quantization_type,
            double_quantization=models.double_quantization,
        ),
        finetuning=_finetuning(tuning, model),
        training=_training(training, models, tuning, model, run.world_size),
        recipe=written(recipe),
        data=[
            *describe_data(data.dataset, "train", data.dataset_dir),
            *describe_data(data.eval_dataset, "eval", data.dataset_dir),
        ],
        versions=versions(),
        git_revision=git_revision(),
        run=run,
    )


def written(recipe: Recipe) -> dict[str, Any]:
    """Every key the user set, sorted, as LLaMA-Factory parsed it; tokens and other secrets are replaced by a mark."""
    values = {}
    for key in sorted(set(recipe.keys)):
        try:
            value = getattr(recipe.owner(key), key)
        except KeyError:
            # Dropped by LLaMA-Factory too: ALLOW_EXTRA_ARGS=1, or a key of its Ray arguments.
            continue
        values[key] = "<secret>" if key.endswith(SECRET_ENDINGS) and value else _plain(value)
    return values


def _vision(recipe: Recipe, image_processor: Any) -> run_card.Vision:
    models = recipe.owner("image_max_pixels")
    # LLaMA-Factory passes 12 to the image processor for `crop_to_patches: true` and nothing otherwise.
    tiles_by_itself = getattr(image_processor, "crop_to_patches", None)
    limit = 12 if models.crop_to_patches else image_processor.max_patches if tiles_by_itself else 1
    size = getattr(image_processor, "size", None) or {}
    smallest, largest = (getattr(size, name, None) for name in ("shortest_edge", "longest_edge"))
    # For Qwen's processors the two "edges" are areas; only there are both set.
    if smallest is None or largest is None:
        smallest = largest = None
    if smallest is not None and smallest > models.image_max_pixels:
        log.warning(
            "image_max_pixels is %d, but the checkpoint's own image processor enlarges every image to at least %d "
            "pixels: detail is lost and no token saved. Set image_max_pixels to %d or more.",
            *(models.image_max_pixels, smallest, smallest),
        )
    return run_card.Vision(
        image_max_pixels=models.image_max_pixels,
        image_min_pixels=models.image_min_pixels,
        crop_to_patches=models.crop_to_patches,
        processor_min_pixels=smallest,
        processor_max_pixels=largest,
        max_tiles=None if tiles_by_itself is None else limit,
    )


def _finetuning(tuning: Any, model: Any) -> run_card.Finetuning:
    lora = tuning.finetuning_type == "lora"
    trained = trained_parts(model)
    return run_card.Finetuning(
        type=tuning.finetuning_type,
        lora_rank=tuning.lora_rank if lora else None,
        lora_alpha=tuning.lora_alpha if lora else None,
        lora_dropout=tuning.lora_dropout if lora else None,
        lora_target=list(tuning.lora_target) if lora else None,
        freeze_vision_tower=tuning.freeze_vision_tower,
        freeze_multi_modal_projector=tuning.freeze_multi_modal_projector,
        freeze_language_model=tuning.freeze_language_model,
        trainable_parameters=sum(part.parameters for part in trained),
        trained=trained,
    )


def _training(training: Any, models: Any, tuning: Any, model: Any, world_size: int) -> run_card.Training:
    per_device, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    return run_card.Training(
        batch_size=per_device * accumulation * world_size,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=str(_plain(training.lr_scheduler_type)),
        num_train_epochs=training.num_train_epochs,
        max_steps=training.max_steps,
        seed=training.seed,
        dtype=str(models.compute_dtype or torch.float32).removeprefix("torch."),
        deepspeed=str(training.deepspeed) if training.deepspeed else None,
        without_gradients=idle_parts(model),
        gradient_checkpointing=bool(training.gradient_checkpointing or not models.disable_gradient_checkpointing),
        fused_loss=bool(models.enable_liger_kernel),
        loss_group=tuning.medvl_loss_group or per_device,
    )


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    return str(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _last_logged(state: Any, name: str) -> float | None:
    logged = [entry[name] for entry in state.log_history if name in entry]
    return _finite(float(logged[-1])) if logged else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
