"""What a loss is: the keys that ask for it, and what it does to training.

A file in this folder with a `LOSS` is a loss, and nothing else has to name it. These files are read on every machine
(`medvl doctor`, the parser): torch and LLaMA-Factory are imported inside of functions only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from medvl.factory.recipe import KeyGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class AddedLoss(ABC):
    """A loss at work in one run, added to the language-model loss of every training batch.

    Attributes:
        in_batch: What its collator adds to a batch under this name, which the model must not see; None for nothing.
    """

    in_batch: str | None = None

    @abstractmethod
    def term(self, language: Tensor, outputs: Mapping[str, Any], labels: Tensor, found: Any) -> Tensor | None:
        """What is added for one micro-batch, a scalar on the device of `language`; None for nothing.

        Args:
            language: The language-model loss of the batch.
            outputs: What the model returned.
            labels: (batch, length), -100 where nothing is trained.
            found: What stood in the batch under `in_batch`; None for nothing.
        """

    def logs(self) -> dict[str, float]:
        """What goes into the log beside `loss`: means since the last call. Every rank calls it."""
        return {}

    def metrics(self) -> dict[str, float]:
        """What goes with the metrics of an evaluation at this step."""
        return {}

    def panels(self) -> dict[str, str]:
        """Logged names to the titles of their panels in the plot of the loss's parts."""
        return {}


class Loss:
    """One entry of the registry.

    Attributes:
        keys: Its keys in a recipe, `-h` and on the command line.
        switch: The one of them that asks for it, by another value than its default.
        by_record: Whether a step's loss stays the same however its records are divided into micro-batches, but for the
            language-model loss, which `medvl_loss_group` keeps.
    """

    keys: ClassVar[type[KeyGroup]]
    switch: ClassVar[str]
    by_record: ClassVar[bool] = False

    def prepare(self, keywords: dict[str, Any]) -> None:
        """Change what LLaMA-Factory builds its trainer from: `train_dataset`, `data_collator`."""

    def trainer(self, stock: type) -> type:
        """The trainer to build instead of `stock`, for a loss in place of the language-model loss."""
        return stock

    def added(self, trainer: Any) -> AddedLoss | None:
        """The loss at work in a trainer that was built; None for one that adds nothing."""
        del trainer
        return None


class TermLoss(Loss, ABC):
    """A loss that is computed from the logits of the supervised tokens alone: `terms` is all it needs."""

    @abstractmethod
    def terms(self, keys: Any, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What is added to the loss, by the name under which each part is logged and plotted.

        Args:
            keys: The recipe's, as attributes.
            logits: (n, vocabulary) float32, of the n supervised tokens of a micro-batch.
            labels: (n,) the right tokens.

        Returns:
            Scalars, weighted already.
        """

    def added(self, trainer: Any) -> AddedLoss:
        """The terms of each batch."""
        from medvl.factory.adding import Terms

        return Terms(trainer, self)
