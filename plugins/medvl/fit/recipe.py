"""A recipe with its overrides, as LLaMA-Factory's command line merges them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvl.errors import UsageError
from medvl.factory.arguments import OTHER_LOSSES
from medvl.factory.losses import LOSSES
from medvl.yaml_files import read_yaml

LIKE_LENGTH = "group_by_length"
# Runs that one machine cannot stand for, or that another trainer does.
_ELSEWHERE = {"USE_RAY": "Ray", "USE_MCA": "Megatron", "USE_KT": "KTransformers"}


def read_recipe(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """All keys of a recipe that trains.

    Raises:
        UsageError: no such file, no recipe, a word that is no key=value, a recipe that does not train.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if wrong := [word for word in overrides if not word.partition("=")[0].isidentifier() or "=" not in word]:
        raise UsageError(f"{', '.join(wrong)}: expected key=value, as per_device_train_batch_size=4")
    try:
        read_yaml(path)  # refuses a key that stands twice
        # As LLaMA-Factory reads it, for which 1e-4 is a number; JSON is YAML too.
        merged = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_cli(list(overrides)))
        content = dict(OmegaConf.to_container(merged))  # type: ignore[arg-type]
    except (ValueError, OmegaConfBaseException) as error:
        raise UsageError(str(error)) from error
    recipe = {str(key): value for key, value in content.items() if value is not None}
    if found := list(_problems(recipe)):
        raise UsageError(f"{path}: " + f"\n{path}: ".join(found))
    return recipe


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
    if recipe.get("train_sampling_strategy") == LIKE_LENGTH:
        return f"train_sampling_strategy: {LIKE_LENGTH}: the order depends on the micro-batch, which stays as it is."
    return ""
