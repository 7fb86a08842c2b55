"""`use_grounding_loss`: a loss that knows what a box is, added to the language-model loss.

medvl/losses/grounding.py has the formula and the defaults of its weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from medvl.boxes import Frame
from medvl.factory.losses.base import Loss
from medvl.factory.recipe import KeyGroup, is_number
from medvl.losses.grounding import IOU_KINDS, GroundingSettings, IouKind

if TYPE_CHECKING:
    from medvl.factory.losses.base import AddedLoss

GROUNDING = GroundingSettings()


@dataclass
class GroundingArguments(KeyGroup):
    """The loss that knows what a box is; medvl.losses.grounding has the formula and the weights' defaults."""

    prefixes: ClassVar[tuple[str, ...]] = ("use_grounding", "grounding_")

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
        default=Frame.NORM1000,
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
            unread = self.unread(GroundingArguments, "use_grounding_loss")
            return [f"{', '.join(unread)}: nothing reads them without `use_grounding_loss: true`"] if unread else []
        weights = ("grounding_alpha", "grounding_beta", "grounding_gamma", "grounding_w1", "grounding_scale")
        found = [
            f"{key}: {value!r} is not a number of at least 0{'' if most == math.inf else f' and at most {most}'}"
            for key, most in [*((key, math.inf) for key in weights), ("grounding_warmup_ratio", 1)]
            if not is_number(value := getattr(self, key), most)
        ]
        found += [
            f"{key}: {value!r} is not a whole number of at least {least}"
            for key, least in (("grounding_eval_steps", 0), ("grounding_eval_samples", 1))
            if type(value := getattr(self, key)) is not int or value < least
        ]
        for key, kinds in (("grounding_iou", IOU_KINDS), ("grounding_frame", tuple(Frame))):
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
        return found + self.clashing("use_grounding_loss", clashing)

    def _has_eval_set(self) -> bool:
        """A set that was tokenised before may hold its own; the trainer looks once more when all is loaded."""
        return any(self.setting(key) for key in ("eval_dataset", "val_size", "tokenized_path"))


class Grounding(Loss):
    """Finds the boxes of each batch in its labels, and adds the terms to the loss."""

    keys, switch = GroundingArguments, "use_grounding_loss"
    by_record = True

    def prepare(self, keywords: dict[str, Any]) -> None:
        """A collator that finds the boxes; ValueError for data in another frame than `grounding_frame`."""
        from medvl.factory.grounding import prepare

        prepare(keywords)

    def added(self, trainer: Any) -> AddedLoss:
        """The terms of each batch."""
        from medvl.factory.grounding import GroundingLoss

        return GroundingLoss(trainer)


LOSS = Grounding()
