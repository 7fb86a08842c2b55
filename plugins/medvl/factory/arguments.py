"""The keys medvl adds to a LLaMA-Factory recipe.

To add keys, write one more `KeyGroup` and list it in `KEY_GROUPS`: the parser, `-h`, command-line overrides, the check
for misspelt keys and the loud failure when the trainer cannot be extended follow from that list. The keys of a loss
stand in its file in factory/losses/. Nothing here imports LLaMA-Factory or torch, so that `medvl doctor` can list the
keys on any machine.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

from medvl.boxes import Frame
from medvl.factory.data import texts
from medvl.factory.losses import LOSSES
from medvl.factory.recipe import KeyGroup, Recipe, is_number

# Keys of LLaMA-Factory and transformers that replace the loss function.
OTHER_LOSSES = ("use_dft_loss", "use_eaft_loss", "use_asft_loss", "label_smoothing_factor")


@dataclass
class RunCardArguments(KeyGroup):
    """The record of a run that prediction reads."""

    prefixes: ClassVar[tuple[str, ...]] = ("medvl_",)

    medvl_run_card: bool = field(
        default=False,
        metadata={
            "help": "Write medvl_run_card.json beside the trained model and in every checkpoint: recipe, vision "
            "budget, prompt, quantisation, SHA-256 of the data, versions."
        },
    )


@dataclass
class SafeguardArguments(KeyGroup):
    """What is checked in every run that sets a medvl key."""

    medvl_resume_anyway: bool = field(
        default=False,
        metadata={
            "help": "Resume from a checkpoint although its run card names other data, another model, prompt, vision "
            "budget or adapter than this recipe. The new run card lists what was changed."
        },
    )

    def problems(self) -> list[str]:
        """Training texts with control tokens, under any medvl key."""
        if not requested_keys(self) or self.setting("tokenized_path"):
            return []
        names = [*(self.setting("dataset") or []), *(self.setting("eval_dataset") or [])]
        return texts.problems(names, str(self.setting("dataset_dir")), str(self.setting("model_name_or_path")))


@dataclass
class LossGroupArguments(KeyGroup):
    """Micro-batches of another size that train the same."""

    medvl_loss_group: int = field(
        default=0,
        metadata={
            "help": "Average the language-model loss over each so many records, as a per_device_train_batch_size of "
            "that number does, whatever the micro-batch is; `medvl fit` sets it where it changes the micro-batch. "
            "Without it other micro-batches are another loss where answers differ in length. 0: off."
        },
    )

    def problems(self) -> list[str]:
        """Groups that are none, that the micro-batches are anyhow, or that no device has whole."""
        group = self.medvl_loss_group
        if group == 0 and type(group) is int:
            return []
        if type(group) is not int or group < 0:
            return [f"medvl_loss_group: {group!r} is not a whole number of at least 0"]
        batch, accumulation = self.setting("per_device_train_batch_size"), self.setting("gradient_accumulation_steps")
        if not self.setting("do_train"):
            return []
        found = []
        if batch == group:
            found.append(f"medvl_loss_group: does nothing, per_device_train_batch_size is {group} too; remove it")
        elif batch * accumulation % group:
            found.append(
                f"medvl_loss_group: {group} does not divide the {batch} x {accumulation} records of a step and device"
            )
        elif batch % group and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            found.append(
                f"medvl_loss_group: on several devices, per_device_train_batch_size must be a multiple of {group}, "
                f"not {batch}"
            )
        other = "it divides the loss in another way"
        asked = requested_keys(self)
        switches = [loss.switch for loss in LOSSES if not loss.by_record and loss.switch in asked]
        return found + self.clashing("medvl_loss_group", dict.fromkeys((*OTHER_LOSSES, *switches), other))


@dataclass
class PredictionArguments(KeyGroup):
    """What prediction needs to ask the model as it was trained."""

    medvl_image_positions: bool = field(
        default=False,
        metadata={
            "help": "Predict with the image positions (M-RoPE) that training used. Without it LLaMA-Factory 0.9.5 "
            "predicts with plain ones, and a Qwen3-VL that was trained well looks untrained in everything with boxes."
        },
    )


@dataclass
class AugmentArguments(KeyGroup):
    """Images changed anew in every epoch, with the boxes of their answers; training only."""

    prefixes: ClassVar[tuple[str, ...]] = ("augment",)

    augment: str = field(
        default="none",
        metadata={
            "help": "basic: brightness, contrast, gamma, and small turns, scalings and shifts that boxes follow. "
            "advanced: also crops around boxes, noise, blur and compression; for ultrasound speckle and elastic "
            "deformation. What would make an answer untrue is left out, record by record. Set "
            "`dataloader_num_workers` with it: an image of 768 x 768 takes 20 to 50 ms of a core. none: off."
        },
    )
    augment_seed: int = field(
        default=0,
        metadata={"help": "Other draws for another number; the same number, epoch and row give the same image."},
    )
    augment_probability: float = field(
        default=0.5,
        metadata={
            "help": "How often a record is changed at all. 1 never shows the images as prediction will see them."
        },
    )
    augment_mirror: str = field(
        default="none",
        metadata={
            "help": "horizontal: left and right may change places, both: top and bottom too. Only where question and "
            "answer name no side, and for images without one, such as smears or skin: a mirrored chest film shows a "
            "heart on the right, whatever its text says."
        },
    )
    augment_frame: str = field(
        default="auto",
        metadata={
            "help": "Unit of the coordinates in the answers: norm1000, norm1 or pixel. auto reads the manifest.json "
            "beside the training files, or grounding_frame. A wrong one moves boxes wrongly."
        },
    )

    def problems(self) -> list[str]:
        """Values without a meaning, and settings under which records have no row, image or answer of their own."""
        if self.augment == "none":
            unread = self.unread(AugmentArguments, "augment")
            return [f"{key}: does nothing without `augment: basic` or `advanced`" for key in unread]
        allowed = {
            "augment": ("basic", "advanced"),
            "augment_mirror": ("none", "horizontal", "both"),
            "augment_frame": ("auto", *Frame),
        }
        found = [
            f"{key}: {getattr(self, key)!r} is none of {', '.join(values)}"
            for key, values in allowed.items()
            if getattr(self, key) not in values
        ]
        if not is_number(self.augment_probability, 1):
            found.append(f"augment_probability: {self.augment_probability!r} is not a number from 0 to 1")
        if type(self.augment_seed) is not int or self.augment_seed < 0:
            found.append(f"augment_seed: {self.augment_seed!r} is not a whole number of at least 0")
        others = ("packing", "neat_packing", "train_on_prompt", "streaming")
        return found + self.clashing("augment", dict.fromkeys(others, ""))


KEY_GROUPS: tuple[type[KeyGroup], ...] = (
    RunCardArguments,
    SafeguardArguments,
    LossGroupArguments,
    PredictionArguments,
    AugmentArguments,
    *(loss.keys for loss in LOSSES),
)


def defaults() -> dict[str, Any]:
    """Every key medvl adds, with the value that means "not asked for"."""
    return {known.name: known.default for group in KEY_GROUPS for known in dataclasses.fields(group)}


def requested_keys(arguments: Any) -> list[str]:
    """The medvl keys that this recipe asks for; empty for arguments parsed without medvl."""
    return [key for key, default in defaults().items() if getattr(arguments, key, default) != default]


def problems(arguments: Any) -> list[str]:
    """Every reason why these arguments cannot be trained with the medvl keys they ask for."""
    # A quoted "no" is text, and any text is true.
    found = [
        f"{key}: {value!r} is neither true nor false; write it without quotes"
        for key, default in defaults().items()
        if type(default) is bool and type(value := getattr(arguments, key, default)) is not bool
    ]
    found += [sentence for group in KEY_GROUPS for sentence in group.problems(arguments)]
    requested = requested_keys(arguments)
    if not requested:
        return found
    if arguments.stage != "sft":
        found.append(
            f"{', '.join(requested)}: only `stage: sft` is supported, the recipe has `stage: {arguments.stage}`"
        )
    return found + [
        f"{', '.join(requested)}: `{other}` has a trainer of its own; remove one of the two"
        for other in ("use_hyper_parallel", "use_mca")
        if getattr(arguments, other)
    ]


def extend_arguments(base: type) -> type:
    """A dataclass with the fields of `base` (LLaMA-Factory's FinetuningArguments) and of every group."""

    @dataclass
    class RecipeArguments(*KEY_GROUPS, base):  # type: ignore[misc]
        def __post_init__(self) -> None:
            super().__post_init__()
            # Not a field: filled by the parser, and kept out of LLaMA-Factory's own dumps of its arguments.
            self.medvl_recipe = Recipe((), (self,))

    return RecipeArguments
