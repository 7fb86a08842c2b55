"""A recipe with its overrides, as LLaMA-Factory's command line merges them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medvl.errors import UsageError
from medvl.factory.arguments import OTHER_LOSSES, defaults
from medvl.factory.losses import LOSSES
from medvl.yaml_files import read_yaml

LIKE_LENGTH = "group_by_length"
# Runs that one machine cannot stand for, or that another trainer does.
_ELSEWHERE = {"USE_RAY": "Ray", "USE_MCA": "Megatron", "USE_KT": "KTransformers"}
_PLATEAU = "reduce_lr_on_plateau"  # a rate that only evaluation changes
# What of it depends on how the records of a step are divided.
_DEPENDING = {
    "dataloader_drop_last": "which records are dropped",
    "neftune_noise_alpha": "the noise",
    "moe_aux_loss_coef": "the router's loss",
    "neat_packing": "the padding of a packed row",
}
# What only evaluation, prediction or going on reads, and would be refused without it.
_EVALUATION = (
    *("eval_dataset", "eval_on_each_dataset", "resume_from_checkpoint", "early_stopping_steps"),
    "metric_for_best_model",
)
_OFF = {
    "do_eval": False,
    "do_predict": False,
    "predict_with_generate": False,
    "eval_strategy": "no",
    "load_best_model_at_end": False,
    "report_to": "none",
}
_OFF_IF_THERE = {"grounding_eval_steps": 0}


def read_recipe(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """All keys of a recipe that trains, also those that are null: some have another default.

    Raises:
        UsageError: no such file, no recipe, a word that is no key=value, a recipe that does not train.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if wrong := [word for word in overrides if not _is_override(word)]:
        raise UsageError(f"{', '.join(wrong)}: expected key=value, as per_device_train_batch_size=4")
    try:
        # As LLaMA-Factory reads it, for which 1e-4 is a number.
        if path.suffix == ".json":
            loaded = OmegaConf.create(json.loads(path.read_text(encoding="utf-8")))
        else:
            read_yaml(path)  # refuses a key that stands twice
            loaded = OmegaConf.load(path)
        merged = OmegaConf.merge(loaded, OmegaConf.from_cli(list(overrides)))
        content = dict(OmegaConf.to_container(merged))  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError, yaml.YAMLError, OmegaConfBaseException) as error:
        told = str(error)
        raise UsageError(told if str(path) in told else f"{' '.join([str(path), *overrides])}: {told}") from error
    recipe = {str(key): value for key, value in content.items()}
    if found := list(_problems(recipe)):
        raise UsageError(f"{path}: " + f"\n{path}: ".join(found))
    return recipe


def _is_override(word: str) -> bool:
    key, mark, _ = word.partition("=")
    return bool(mark) and all(part.isidentifier() for part in key.split("."))


def _problems(recipe: Mapping[str, Any]) -> list[str]:
    found = []
    if recipe.get("do_train") is not True:
        found.append("does not train: it has no `do_train: true`; give a recipe for `llamafactory-cli train`")
    elif (stage := recipe.get("stage", "sft")) != "sft":
        found.append(f"`stage: {stage}`: only `stage: sft` is measured")
    found += [f"{key} is missing" for key in ("model_name_or_path", "output_dir") if not recipe.get(key)]
    if not recipe.get("dataset") and not recipe.get("tokenized_path"):
        found.append("dataset is missing: there is nothing to train on")
    if recipe.get("streaming"):
        found.append("streaming: a stream has no longest record and no length; fit it with `streaming=false`")
    for variable, name in _ELSEWHERE.items():
        if os.environ.get(variable, "0").lower() in ("1", "true", "y"):
            found.append(f"{variable}: a run of {name} is not measured; unset it")
    if os.environ.get("NNODES", "1") != "1":
        found.append("NNODES: one machine is measured at a time; unset it, and give the same setting to all machines")
    return found


def cpu_trains(recipe: Mapping[str, Any]) -> bool:
    """Whether LLaMA-Factory would train it without a GPU."""
    return bool(recipe.get("use_cpu")) or not (recipe.get("bf16") or recipe.get("fp16"))


def has_weights(model: str) -> bool:
    """Whether a model is a folder with weights."""
    return any(next(Path(model).glob(pattern), None) for pattern in ("*.safetensors", "*.bin"))


def fixed_batch(recipe: Mapping[str, Any]) -> str:
    """Why other micro-batches would train something else; empty where they do not."""
    off = (None, False, "none", 0)
    asked = [key for key in OTHER_LOSSES if recipe.get(key)]
    asked += [loss.switch for loss in LOSSES if not loss.by_record and recipe.get(loss.switch) not in off]
    if asked:
        return f"{', '.join(asked)}: the loss depends on the micro-batch, which stays as it is."
    stock_order = not any(recipe.get(key, off) != off for key, off in defaults().items() if key != "medvl_loss_group")
    if recipe.get("train_sampling_strategy") == LIKE_LENGTH and stock_order:
        return (
            f"train_sampling_strategy: {LIKE_LENGTH}: without a medvl key, the order depends on the micro-batch, which "
            "stays as it is; set `medvl_run_card: true`."
        )
    for key, what in _DEPENDING.items():
        if recipe.get(key):
            return f"{key}: {what} depends on the micro-batch, which stays as it is."
    return ""


def tokenised(recipe: Mapping[str, Any]) -> str | None:
    """The recipe's `tokenized_path` if data lie there, as LLaMA-Factory looks; None where training would write it."""
    folder = recipe.get("tokenized_path")
    return str(folder) if folder and Path(folder).is_dir() and any(Path(folder).iterdir()) else None


def training_alone(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without evaluation, prediction and going on, which are no part of a step; its data stay."""
    plateau = recipe.get("lr_scheduler_type") == _PLATEAU
    left_out = _EVALUATION + (("lr_scheduler_kwargs",) if plateau else ())
    off = _OFF | ({"lr_scheduler_type": "constant"} if plateau else {})
    off |= {key: value for key, value in _OFF_IF_THERE.items() if key in recipe}
    return {key: value for key, value in recipe.items() if key not in left_out} | off
