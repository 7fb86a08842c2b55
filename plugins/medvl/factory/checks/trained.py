"""What a run really trains, by part of the model, and settings that have no effect on it.

Needs `COMPOSITE_MODELS` of `llamafactory.model.model_utils.visual`: which modules are the vision tower, the projector
and the language model of a family.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper

from medvl.factory.run_card import TrainedPart

# Attribute of LLaMA-Factory's CompositeModel -> name of the part, and the key that freezes it.
PARTS = {
    "projector_keys": ("projector", "freeze_multi_modal_projector"),
    "vision_model_keys": ("vision tower", "freeze_vision_tower"),
    "language_model_keys": ("language model", "freeze_language_model"),
}
_ADAPTER_WORDS = {"base_layer", "modules_to_save", "default", "original_module"}


def trained_parts(model: Any) -> list[TrainedPart]:
    """The parts of a model that have trainable weights, with the kinds of their modules, e.g. `q_proj`."""
    found: dict[str, list[tuple[str, int]]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            # DeepSpeed ZeRO-3 keeps empty tensors on each rank and the true size in ds_numel.
            size = int(getattr(weight, "ds_numel", weight.numel()))
            found.setdefault(part_of(name, model), []).append((_kind(name), size))
    return [
        TrainedPart(part, sorted({kind for kind, _ in weights}), len(weights), sum(size for _, size in weights))
        for part, weights in sorted(found.items())
    ]


def part_of(name: str, model: Any) -> str:
    """The part a module or weight belongs to; "model" where LLaMA-Factory knows no parts, "other" for the rest."""
    composite = _composite(model)
    if composite is None:
        return "model"
    return next(
        (part for keys, (part, _) in PARTS.items() if any(key in name for key in getattr(composite, keys))), "other"
    )


def problems(arguments: Any, model: Any) -> list[str]:
    """Settings of the recipe that train something else than they say, each with the way that works.

    Args:
        arguments: LLaMA-Factory's finetuning arguments with the medvl keys.
        model: The model as it is about to be trained, adapters in place.
    """
    trained = {part.part for part in trained_parts(model)}
    written = set(arguments.medvl_recipe.keys)
    found = []
    for part, key in PARTS.values():
        if key not in written:
            continue
        frozen = bool(getattr(arguments, key))
        if frozen and part in trained:
            found.append(f"{key}: true has no effect: weights of the {part} are trained. {_resumed(arguments)}")
        if not frozen and part not in trained:
            found.append(
                f"{key}: false has no effect: no weight of the {part} is trained. {_way(part, arguments, model)}"
            )
    return found + _unmatched(arguments, model)


def _way(part: str, arguments: Any, model: Any) -> str:
    """How to train a part that the recipe asks for in vain."""
    kinds = sorted(
        {_kind(name) for name, module in model.named_modules() if _is_linear(module) and part_of(name, model) == part}
    )
    if not kinds:
        return f"This model has no {part}: remove the key."
    if arguments.setting("adapter_name_or_path"):
        return _resumed(arguments)
    if arguments.finetuning_type != "lora":
        return "Set `finetuning_type: full` or `lora`, or remove the key."
    if part == "vision tower":
        return "Set `lora_target: all`, or remove the key."
    asked = [kind for trained in trained_parts(model) for kind in trained.modules]
    target = ",".join(dict.fromkeys([*asked, *kinds]))
    return f"Name its modules, `lora_target: {target}`, or remove the key."


def _resumed(arguments: Any) -> str:
    if arguments.setting("adapter_name_or_path"):
        return "The adapter that is trained on decides: remove the key, or set `create_new_adapter: true`."
    return "Remove the key, or take these modules out of lora_target and additional_target."


def _unmatched(arguments: Any, model: Any) -> list[str]:
    """Names in lora_target and additional_target that no trained module has."""
    if arguments.finetuning_type != "lora" or arguments.setting("adapter_name_or_path"):
        return []
    trained = set(_adapted(model))
    found = []
    for key in ("lora_target", "additional_target"):
        names = [name for name in getattr(arguments, key) or [] if name != "all"]
        missing = [name for name in names if not any(name in module for module in trained)]
        if missing and key in arguments.medvl_recipe.keys:
            kinds = sorted({module.rsplit(".", 1)[-1] for module in trained})
            found.append(
                f"{key}: no trained module is called {', '.join(missing)}; trained are {', '.join(kinds)}. Correct the "
                "name, or unfreeze the part that has it"
            )
    return found


def _adapted(model: Any) -> Iterator[str]:
    """Names of modules that carry an adapter or a trained copy."""
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            yield name


def _kind(name: str) -> str:
    """`q_proj` for `model.layers.0.self_attn.q_proj.lora_A.default.weight` and for `….q_proj`."""
    words = name.split(".")
    if words[-1] in ("weight", "bias"):
        words = words[:-1]
    words = [word for word in words if word not in _ADAPTER_WORDS and not word.startswith("lora_")]
    return words[-1]


def _is_linear(module: torch.nn.Module) -> bool:
    return "Linear" in type(module).__name__


def _composite(model: Any) -> Any:
    from llamafactory.model.model_utils.visual import COMPOSITE_MODELS

    return COMPOSITE_MODELS.get(getattr(model.config, "model_type", None))
