"""The keys medvl adds to a LLaMA-Factory recipe.

To add keys, write one more `KeyGroup` and list it in `KEY_GROUPS`: the parser, `-h`, command-line overrides, the check
for misspelt keys and the loud failure when the trainer cannot be extended follow from that list. Nothing here imports
LLaMA-Factory or torch, so that `medvl doctor` can list the keys on any machine.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from medvl.boxes import FRAMES, Frame
from medvl.factory import training_text
from medvl.losses.grounding import IOU_KINDS, IouKind, Settings

GROUNDING = Settings()


@dataclass
class KeyGroup:
    """Keys that belong together; every key has a default that means "not asked for" and a `help` text."""

    def problems(self) -> list[str]:
        """Sentences about values that cannot be trained with; called for the keys of this group before training."""
        return []

    def setting(self, key: str) -> Any:
        """What the recipe says for any key of LLaMA-Factory; None for one that it does not know."""
        recipe: Recipe = self.medvl_recipe  # type: ignore[attr-defined]
        return recipe.value(key)

    def unread(self, switch: str, *keys: str) -> list[str]:
        """Those keys that the recipe sets though it never says that `switch` is off.

        A recipe that writes the switch, and off, may keep them: `use_grounding_loss=false` on the command line of a
        grounding recipe trains it plainly.
        """
        recipe: Recipe = self.medvl_recipe  # type: ignore[attr-defined]
        return [] if switch in recipe.keys else [key for key in keys if key in recipe.keys]


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
        return training_text.problems(names, str(self.setting("dataset_dir")), str(self.setting("model_name_or_path")))


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
class BalanceArguments(KeyGroup):
    """Training on labels that are unevenly distributed."""

    loss_balance: str = field(
        default="none",
        metadata={
            "help": "weighted: rare labels count more, each answer that is one label is multiplied by the weight of "
            "its label. focal: also, its tokens count the less the surer the model is of them. Boxes, numbers and "
            "free text keep weight 1; the mean weight of a question is 1, so the learning rate can stay. none: off."
        },
    )
    loss_balance_gamma: float = field(
        default=2.0,
        metadata={
            "help": "Exponent of `loss_balance: focal`. Larger leaves the loss to ever fewer, harder answers and makes "
            "it smaller; 0 is `weighted`. Mislabelled records stay hard: lower it where labels are doubtful."
        },
    )
    loss_balance_weights: dict | str | None = field(  # type: ignore[type-arg]
        default=None,
        metadata={
            "help": "Label -> weight, or a YAML or JSON file of that; only ratios count. Raise a label that is missed "
            "too often, lower one that is claimed too often. Default: inverse frequency in the training data, at most "
            "20 to 1. none: every label 1, for focal alone."
        },
    )

    def problems(self) -> list[str]:
        """Values out of range, and losses that this one cannot be combined with."""
        if self.loss_balance == "none":
            unused = self.unread("loss_balance", "loss_balance_gamma", "loss_balance_weights")
            return [f"{key}: does nothing without `loss_balance: weighted` or `focal`" for key in unused]
        found = []
        if self.loss_balance not in ("weighted", "focal"):
            found.append(f"loss_balance: `{self.loss_balance}` is none of none, weighted, focal")
        if not _is_number(self.loss_balance_gamma, 10):
            found.append(f"loss_balance_gamma: {self.loss_balance_gamma!r} is not a number from 0 to 10")
        if not isinstance(self.loss_balance_weights, dict | str | None):
            found.append(f"loss_balance_weights: {self.loss_balance_weights!r} is neither label: weight nor a file")
        fused = ("enable_liger_kernel", "use_dft_loss", "use_eaft_loss", "use_asft_loss", "label_smoothing_factor")
        clashing = [key for key in (*fused, "packing", "train_on_prompt", "streaming") if self.setting(key)]
        return found + [f"loss_balance: cannot be combined with `{key}`; remove one of the two" for key in clashing]


@dataclass
class AugmentArguments(KeyGroup):
    """Images changed anew in every epoch, with the boxes of their answers; training only."""

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
            unread = self.unread("augment", *(key for key in defaults() if key.startswith("augment_")))
            return [f"{key}: does nothing without `augment: basic` or `advanced`" for key in unread]
        allowed = {
            "augment": ("basic", "advanced"),
            "augment_mirror": ("none", "horizontal", "both"),
            "augment_frame": ("auto", *FRAMES),
        }
        found = [
            f"{key}: {getattr(self, key)!r} is none of {', '.join(values)}"
            for key, values in allowed.items()
            if getattr(self, key) not in values
        ]
        if not _is_number(self.augment_probability, 1):
            found.append(f"augment_probability: {self.augment_probability!r} is not a number from 0 to 1")
        if type(self.augment_seed) is not int or self.augment_seed < 0:
            found.append(f"augment_seed: {self.augment_seed!r} is not a whole number of at least 0")
        clashing = [key for key in ("packing", "neat_packing", "train_on_prompt", "streaming") if self.setting(key)]
        return found + [f"augment: cannot be combined with `{key}`; remove one of the two" for key in clashing]


@dataclass
class GroundingArguments(KeyGroup):
    """The loss that knows what a box is; medvl.losses.grounding has the formula and the weights' defaults."""

    use_grounding_loss: bool = field(
        default=False,
        metadata={
            "help": "Add the grounding loss to the language-model loss: boxes are found in the text of the answers; "
            "their coordinates, and the choice to list one more object or to stop, get gradients of their own. "
            "Records without boxes train as before."
        },
    )
    grounding_alpha: float = field(
        default=GROUNDING.alpha,
        metadata={
            "help": "Weight of 1 - IoU of the expected boxes, and of the distance of their corners. More: tighter "
            "boxes; 0 switches it off."
        },
    )
    grounding_beta: float = field(
        default=GROUNDING.beta,
        metadata={
            "help": "Weight of false positives: going on where the list of objects ends. More against gamma: fewer and "
            "surer boxes (precision)."
        },
    )
    grounding_gamma: float = field(
        default=GROUNDING.gamma,
        metadata={
            "help": "Weight of misses: stopping where the list of objects goes on. More against beta: more boxes "
            "(recall), at the price of false positives."
        },
    )
    grounding_w1: float = field(
        default=GROUNDING.w1,
        metadata={
            "help": "Weight of the distance between predicted and true digits, larger for leading ones: 301 for 300 "
            "costs less than 900 for 300. On from the first step; 0 switches it off."
        },
    )
    grounding_scale: float = field(
        default=GROUNDING.scale,
        metadata={
            "help": "Common factor of alpha, beta and gamma. More weighs boxes against text without changing the "
            "proportion of the three; 0 leaves grounding_w1 alone."
        },
    )
    grounding_warmup_ratio: float = field(
        default=0.1,
        metadata={
            "help": "Share of all steps over which alpha, beta and gamma grow from nothing to their weight, so that "
            "digits are learned before boxes are judged; 0 starts them in full."
        },
    )
    grounding_iou: IouKind = field(
        default=GROUNDING.iou,
        metadata={
            "help": "The overlap that alpha acts on. giou, diou and ciou also pull boxes that do not touch (diou by "
            "their centres, ciou by their shape too); iou pulls those by their corners only."
        },
    )
    grounding_frame: Frame = field(
        default="norm1000",
        metadata={
            "help": "The unit of the coordinates in the answers, as preprocessing wrote them: norm1000 (0 to 1000 of "
            "the image), norm1 (0 to 1) or pixel. A wrong one weighs distances wrongly."
        },
    )
    grounding_eval_steps: int = field(
        default=0,
        metadata={
            "help": "Every so many steps the model answers records of the eval set, and how its boxes compare with the "
            "true ones is logged (IoU, false positives, misses, F1). Generation is slow; 0 never does it."
        },
    )
    grounding_eval_samples: int = field(
        default=64,
        metadata={"help": "How many eval records with a box answer grounding_eval_steps asks. More: surer and slower."},
    )

    def problems(self) -> list[str]:
        """A grounding key that nothing would read, values without a meaning, settings that exclude the loss."""
        if not self.use_grounding_loss:
            unread = self.unread("use_grounding_loss", *(key for key in defaults() if key.startswith("grounding_")))
            return [f"{', '.join(unread)}: nothing reads them without `use_grounding_loss: true`"] if unread else []
        weights = ("grounding_alpha", "grounding_beta", "grounding_gamma", "grounding_w1", "grounding_scale")
        found = [
            f"{key}: {value!r} is not a number of at least 0{'' if most == math.inf else f' and at most {most}'}"
            for key, most in [*((key, math.inf) for key in weights), ("grounding_warmup_ratio", 1)]
            if not _is_number(value := getattr(self, key), most)
        ]
        found += [
            f"{key}: {value!r} is not a whole number of at least {least}"
            for key, least in (("grounding_eval_steps", 0), ("grounding_eval_samples", 1))
            if type(value := getattr(self, key)) is not int or value < least
        ]
        for key, kinds in (("grounding_iou", IOU_KINDS), ("grounding_frame", FRAMES)):
            if getattr(self, key) not in kinds:
                found.append(f"{key}: {getattr(self, key)!r} is none of {', '.join(kinds)}")
        if self.setting("do_train") and self.grounding_eval_steps and not self._has_eval_set():
            found.append("grounding_eval_steps: there is no eval_dataset (or val_size); add one, or set 0")
        one_sequence = "the answers of several records would follow each other in one sequence"
        other_loss = "it replaces the loss function and its scale under gradient accumulation"
        clashing = {
            "packing": one_sequence,
            "neat_packing": one_sequence,
            "train_on_prompt": "boxes in the question would be trained as if they were the answer",
            **dict.fromkeys(("use_dft_loss", "use_eaft_loss", "use_asft_loss"), other_loss),
        }
        return found + [
            f"use_grounding_loss: cannot be combined with `{key}` ({reason}); remove one of the two"
            for key, reason in clashing.items()
            if self.setting(key)
        ]

    def _has_eval_set(self) -> bool:
        """A set that was tokenised before may hold its own; the trainer looks once more when all is loaded."""
        return any(self.setting(key) for key in ("eval_dataset", "val_size", "tokenized_path"))


def _is_number(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most and value < math.inf


KEY_GROUPS: tuple[type[KeyGroup], ...] = (
    RunCardArguments,
    SafeguardArguments,
    PredictionArguments,
    BalanceArguments,
    AugmentArguments,
    GroundingArguments,
)


@dataclass(frozen=True)
class Recipe:
    """What the user wrote and what LLaMA-Factory made of it.

    `keys` are the names set in the recipe or on the command line; `arguments` are LLaMA-Factory's parsed argument
    objects, shared with the trainer, so that later corrections by LLaMA-Factory are seen here too.
    """

    keys: tuple[str, ...]
    arguments: tuple[Any, ...]

    def value(self, key: str) -> Any:
        """What LLaMA-Factory made of any key; None for one that it does not know."""
        return next((getattr(item, key) for item in self.arguments if hasattr(item, key)), None)

    def word(self, key: str) -> str:
        """A setting as text in lower case, the same for enumerations and what the recipe spells; "none" if unset."""
        value = self.value(key)
        return str(getattr(value, "value", value)).lower()

    @property
    def is_training(self) -> bool:
        """Whether `train` reads it, which also evaluates and predicts; not `export`, `chat` or `api`."""
        return any(hasattr(item, "do_train") for item in self.arguments)

    def asks(self, key: str) -> bool:
        """Whether the user wrote this key, and anything but "off" or "decide yourself" behind it."""
        return key in self.keys and bool(self.value(key)) and self.word(key) not in ("no", "none", "auto", "off")

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
