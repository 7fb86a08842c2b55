"""`loss_balance`: rare labels, or answers the model is unsure of, count more in the language-model loss.

medvl/losses/balanced.py has the formula, medvl/losses/classes.py which answers are labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from medvl.factory.losses.base import Loss
from medvl.factory.recipe import KeyGroup, is_number


@dataclass
class BalanceArguments(KeyGroup):
    """Training on labels that are unevenly distributed."""

    prefixes: ClassVar[tuple[str, ...]] = ("loss_balance",)

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
            unused = self.unread(BalanceArguments, "loss_balance")
            return [f"{key}: does nothing without `loss_balance: weighted` or `focal`" for key in unused]
        found = []
        if self.loss_balance not in ("weighted", "focal"):
            found.append(f"loss_balance: `{self.loss_balance}` is none of none, weighted, focal")
        if not is_number(self.loss_balance_gamma, 10):
            found.append(f"loss_balance_gamma: {self.loss_balance_gamma!r} is not a number from 0 to 10")
        if not isinstance(self.loss_balance_weights, dict | str | None):
            found.append(f"loss_balance_weights: {self.loss_balance_weights!r} is neither label: weight nor a file")
        fused = ("enable_liger_kernel", "use_dft_loss", "use_eaft_loss", "use_asft_loss", "label_smoothing_factor")
        others = (*fused, "packing", "train_on_prompt", "streaming")
        return found + self.clashing("loss_balance", dict.fromkeys(others, ""))


class Balance(Loss):
    """Weighs the training set, and computes the language-model loss with its weights."""

    keys, switch = BalanceArguments, "loss_balance"
    by_record = True

    def prepare(self, keywords: dict[str, Any]) -> None:
        """Weights as columns of the training set, which the collator keeps beside the batch."""
        from medvl.factory.balance import prepare

        prepare(keywords)

    def trainer(self, stock: type) -> type:
        """The trainer that reads those weights."""
        from medvl.factory.balance import balanced_trainer

        return balanced_trainer(stock)


LOSS = Balance()
