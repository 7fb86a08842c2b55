"""Compares the run card of a checkpoint with the run that is about to go on from it.

Without this, LLaMA-Factory resumes whatever checkpoint lies in `output_dir` under any recipe: the rest of the steps, or
none, is trained on other data, and the run card tells only of the new one. Importable without torch.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import msgspec

from medvl.factory.arguments import OTHER_LOSSES
from medvl.factory.losses import LOSSES
from medvl.factory.run_card import DataFile, RunCard

_WRITTEN_LAST = "trainer_state.json"  # of a checkpoint
# Settings that shape the order and number of training records.
_DATA_KEYS = (
    *("max_samples", "val_size", "mix_strategy", "interleave_probs", "streaming", "packing", "mask_history"),
    "train_sampling_strategy",
)
# Settings that make another loss of the same records.
_LOSS_KEYS = (*OTHER_LOSSES, *(loss.switch for loss in LOSSES))

log = logging.getLogger("medvl")


def resumed_checkpoint(training: Any) -> Path | None:
    """The checkpoint that these training arguments resume from; None for a new run.

    `resume_from_checkpoint: true` means the last one in output_dir.
    """
    asked = training.resume_from_checkpoint
    if asked is not True:
        return Path(asked) if asked else None
    from transformers.trainer_utils import get_last_checkpoint

    last = get_last_checkpoint(training.output_dir)
    return Path(last) if last else None


def skip_incomplete(training: Any, recipe: Any) -> None:
    """Go on from the last whole checkpoint in output_dir; a run that is killed while it saves leaves one in parts.

    LLaMA-Factory takes the one of the highest number, and fails to load it at every start. One that the recipe names is
    left as it is.
    """
    taken = resumed_checkpoint(training)
    named = "resume_from_checkpoint" in recipe.keys and training.resume_from_checkpoint is not True
    if taken is None or named or (taken / _WRITTEN_LAST).is_file():
        return
    whole = [path.parent for path in taken.parent.glob(f"checkpoint-*/{_WRITTEN_LAST}")]
    last = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)
    training.resume_from_checkpoint = str(last) if last else None
    log.warning("%s was not written to its end: training goes on from %s", taken, last or "the beginning")


def differences(old: RunCard, new: RunCard, recipe: Any) -> list[str]:
    """What the new run is asked to train with and the old one was not; each as "what: new instead of old".

    Steps and epochs may differ: a run may be made longer. Evaluation data, versions and devices may too. A model or
    file that was moved is the same as long as its name and hash are.

    Args:
        old: Card of the checkpoint.
        new: Card of the run that is about to start.
        recipe: Its `Recipe`, for the defaults of keys that the old one set.
    """
    before, now = (_compared(card, old, recipe) for card in (old, new))
    return [f"{what}: {now[what]} instead of {before[what]}" for what in now if now[what] != before[what]]


def require_same(checkpoint: Path, found: list[str]) -> None:
    """ValueError that lists the differences, with the ways out; nothing for an empty list."""
    if found:
        listed = "".join(f"\n  {sentence}" for sentence in found)
        raise ValueError(
            f"{checkpoint} was trained with other settings than this recipe asks for:{listed}\n"
            "To train anew, set another output_dir or `overwrite_output_dir: true`; to resume, write the settings that "
            "the checkpoint had; to go on with the new ones all the same, set `medvl_resume_anyway: true`"
        )


def _compared(card: RunCard, old: RunCard, recipe: Any) -> dict[str, Any]:
    model, prompt, quantization, tuning = card.model, card.prompt, card.quantization, card.finetuning
    # Quantisation settings mean nothing without bits, and the revision nothing for a folder.
    bits = msgspec.to_builtins(quantization) if quantization.bit else "none"
    compared: dict[str, Any] = {
        "model": _last(model.name_or_path),
        "model revision": model.commit or model.revision,
        "adapters trained on": [_last(name) for name in model.adapters],
        "quantisation": bits,
        "training data": [_data(file) for file in card.data if file.role == "train"],
        **{key: _value(card, key, recipe) for key in (*_DATA_KEYS, *_LOSS_KEYS)},
        "prompt": repr(prompt.rendered),
        "cutoff_len": prompt.cutoff_len,
        **{f"vision, {name}": value for name, value in msgspec.to_builtins(card.vision).items()},
        "finetuning_type": tuning.type,
        "lora_rank": tuning.lora_rank,
        "lora_alpha": tuning.lora_alpha,
        "trained weights": _trained(card, old),
        # The optimiser's state brings its own rate, and the place in the data is counted in batches.
        "learning_rate": card.training.learning_rate,
        "records per step": card.training.batch_size,
        "seed": card.training.seed,
    }
    if old.training.loss_group is not None:
        # The micro-batch, unless the key said another.
        compared["records whose loss is averaged together (medvl_loss_group)"] = card.training.loss_group
    if old.model.config_sha256 is not None:
        compared["config.json of the model"] = model.config_sha256
    return compared


def _last(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _data(file: DataFile) -> str:
    told = f"{file.entry} (sha256 {file.sha256[:12]}" if file.sha256 else f"{file.entry} ({file.path or 'hub'}"
    return told + (f", {file.num_samples} samples)" if file.num_samples else ")")


def _trained(card: RunCard, old: RunCard) -> Any:
    """By part where the old card tells it, else their number."""
    if not old.finetuning.trained:
        return card.finetuning.trainable_parameters
    return {part.part: part.parameters for part in card.finetuning.trained}


def _value(card: RunCard, key: str, recipe: Any) -> Any:
    if key in card.recipe:
        return card.recipe[key]
    owner = recipe.owner(key)
    return next(known.default for known in dataclasses.fields(owner) if known.name == key)
