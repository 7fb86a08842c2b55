"""The keys medvl adds to a LLaMA-Factory recipe.

To add keys, write one more `KeyGroup` and list it in `KEY_GROUPS`: the parser, `-h`, command-line overrides, the check
for misspelt keys and the loud failure when the trainer cannot be extended follow from that list. Nothing here imports
LLaMA-Factory or torch, so that `medvl doctor` can list the keys on any machine.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class KeyGroup:
    """Keys that belong together; every key has a default that means "not asked for" and a `help` text."""

    def problems(self) -> list[str]:
        """Sentences about values that cannot be trained with; called for the keys of this group before training."""
        return []


@dataclass
class RunCardArguments(KeyGroup):
    """The record of a run that prediction reads."""

    medvl_run_card: bool = field(
        default=False,
        metadata={
            "help": "Write medvl_run_card.json beside the trained model and in every checkpoint: recipe, vision "
            "budget, prompt, quantisation, SHA-256 of the data, versions."
        },
    )


@dataclass
class PredictionArguments(KeyGroup):
    """What prediction needs to ask the model as it was trained."""

    medvl_image_positions: bool = field(
        default=False,
        metadata={
            "help": "Predict with the picture positions (M-RoPE) that training used. Without it LLaMA-Factory 0.9.5 "
            "predicts with plain ones, and a Qwen3-VL that was trained well looks untrained in everything with boxes."
        },
    )


KEY_GROUPS: tuple[type[KeyGroup], ...] = (RunCardArguments, PredictionArguments)


@dataclass(frozen=True)
class Recipe:
    """What the user wrote and what LLaMA-Factory made of it.

    `keys` are the names set in the recipe or on the command line; `arguments` are LLaMA-Factory's parsed argument
    objects, shared with the trainer, so that later corrections by LLaMA-Factory are seen here too.
    """

    keys: tuple[str, ...]
    arguments: tuple[Any, ...]

    def owner(self, key: str) -> Any:
        """The argument object that has this key; KeyError when none has."""
        for item in self.arguments:
            if dataclasses.is_dataclass(item) and key in {known.name for known in dataclasses.fields(item)}:
                return item
        raise KeyError(key)


def defaults() -> dict[str, Any]:
    """Every key medvl adds, with the value that means "not asked for"."""
    return {known.name: known.default for group in KEY_GROUPS for known in dataclasses.fields(group)}


def requested_keys(arguments: Any) -> list[str]:
    """The medvl keys that this recipe asks for; empty for arguments parsed without medvl."""
    return [key for key, default in defaults().items() if getattr(arguments, key, default) != default]


def problems(arguments: Any) -> list[str]:
    """Every reason why these arguments cannot be trained with the medvl keys they ask for."""
    requested = requested_keys(arguments)
    if not requested:
        return []
    found = [sentence for group in KEY_GROUPS for sentence in group.problems(arguments)]
    if arguments.stage != "sft":
        found.append(
            f"{', '.join(requested)}: only `stage: sft` is supported, the recipe has `stage: {arguments.stage}`"
        )
    if arguments.use_hyper_parallel:
        found.append(f"{', '.join(requested)}: `use_hyper_parallel` has a trainer of its own; remove one of the two")
    return found


def refuse_unknown(keys: Iterable[str]) -> None:
    """Raise ValueError for a key that carries a medvl prefix and does not exist, naming the nearest that does.

    LLaMA-Factory refuses unknown keys by itself, but drops them silently under ALLOW_EXTRA_ARGS=1: a misspelt key would
    then train without what it asks for.
    """
    known = defaults()
    prefixes = tuple({key.split("_", 1)[0] + "_" for key in known})
    wrong = [key for key in keys if key.startswith(prefixes) and key not in known]
    if not wrong:
        return
    hints = []
    for key in wrong:
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        hints.append(f"`{key}` (did you mean `{nearest[0]}`?)")
    raise ValueError(
        f"Some keys are not used by the HfArgumentParser: {', '.join(hints)}. medvl knows: {', '.join(known)}."
    )


def extend_arguments(base: type) -> type:
    """A dataclass with the fields of `base` (LLaMA-Factory's FinetuningArguments) and of every group."""

    @dataclass
    class RecipeArguments(*KEY_GROUPS, base):  # type: ignore[misc]
        def __post_init__(self) -> None:
            super().__post_init__()
            # Not a field: filled by the parser, and kept out of LLaMA-Factory's own dumps of its arguments.
            self.medvl_recipe = Recipe((), (self,))

    return RecipeArguments
