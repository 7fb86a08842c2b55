"""The trainer under losses that are added to the language-model loss. Evaluation keeps the language-model loss.

Gradient accumulation and data parallelism need nothing here: every loss is a mean over the records of a micro-batch,
and the trainer averages over micro-batches and devices. For these model families it does the same to the language-model
loss, which is a mean over the tokens of a micro-batch: with answers of unequal length, that one depends on how a batch
is divided (transformers' `model_accepts_loss_kwargs`, set to False by LLaMA-Factory).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from medvl.factory.loss_plot import LossPlotCallback
from medvl.factory.losses.base import AddedLoss, Loss, TermLoss
from medvl.losses import IGNORED

if TYPE_CHECKING:
    from transformers import Seq2SeqTrainer as Stock
else:
    Stock = object


class AddingMixin(Stock):  # type: ignore[misc]
    """What is put before LLaMA-Factory's trainer, or a subclass of it."""

    def __init__(self, *args: Any, losses: Sequence[Loss], **kwargs: Any) -> None:
        """losses: those that the recipe asks for; ValueError where one cannot be added."""
        super().__init__(*args, **kwargs)
        for loss in losses:
            _require_addable(loss.switch, self)
        self.added = [added for loss in losses if (added := loss.added(self)) is not None]
        self.in_batch = [added.in_batch for added in self.added if added.in_batch]
        if self.added and self.finetuning_args.plot_loss:
            self.add_callback(LossPlotCallback(self.panels))

    def panels(self) -> dict[str, str]:
        """Logged names to the titles of their panels."""
        titles = {"loss": "loss, all parts", "loss_lm": "language model"}
        for added in self.added:
            titles |= added.panels()
        return titles

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **options: Any
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The stock loss; in training with what is added to it."""
        found = {name: inputs.pop(name, None) for name in self.in_batch}
        labels = inputs.get("labels")
        language, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        loss = language
        for added in self.added if model.training else ():
            term = added.term(language, outputs, labels, found.get(added.in_batch or ""))
            loss = loss if term is None else loss + term
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As the stock trainer, which may hand all that the collator made to the model."""
        for name in self.in_batch:
            inputs.pop(name, None)
        return super().prediction_step(model, inputs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As the stock trainer, with the losses' own metrics of this step, for `metric_for_best_model`."""
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        for added in self.added:
            metrics |= added.metrics()
        return metrics

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the stock trainer; a log of the training loss also has its parts."""
        if "loss" in logs:
            for added in self.added:
                logs.update(added.logs())
        super().log(logs, *args, **kwargs)


def adding_trainer(stock: type) -> type:
    """A subclass of LLaMA-Factory's trainer, or of one of ours, that adds losses in training."""
    return type("AddingTrainer", (AddingMixin, stock), {})


def _require_addable(switch: str, trainer: Any) -> None:
    if trainer.args.n_gpu > 1:
        raise ValueError(f"{switch}: start several GPUs of one machine with FORCE_TORCHRUN=1")
    if trainer.model_accepts_loss_kwargs:  # LLaMA-Factory says no for models with a processor
        raise ValueError(f"{switch}: this model has no processor for images; train a vision model")


class Terms(AddedLoss):
    """The terms of a `TermLoss` in one run, and their sums since the last log."""

    def __init__(self, trainer: Any, loss: TermLoss) -> None:
        """trainer: whose batches they are computed from."""
        self.trainer, self.loss = trainer, loss
        self.sums, self.batches = Counter[str](), 0
        self.names: dict[str, str] = {}

    def term(
        self, language: torch.Tensor, outputs: Mapping[str, Any], labels: torch.Tensor, _found: Any
    ) -> torch.Tensor | None:
        """Their sum; None for a batch without a supervised token. ValueError without logits."""
        logits = outputs.get("logits")
        if logits is None:
            raise ValueError(f"{self.loss.switch}: the model returned no logits; set `enable_liger_kernel: false`")
        labels = labels.to(logits.device)[:, 1:]
        wanted = labels != IGNORED
        if not wanted.any():
            return None
        terms = self.loss.terms(self.trainer.finetuning_args, logits[:, :-1][wanted].float(), labels[wanted])
        self.batches += 1
        for name, term in terms.items():
            self.names[name] = name
            self.sums[name] += term.item()
        return torch.stack(list(terms.values())).sum().to(language.device)

    def logs(self) -> dict[str, float]:
        """Mean of each term over micro-batches and devices."""
        mine = [(dict(self.sums), self.batches)]
        everywhere = gather_object(mine) if self.trainer.args.world_size > 1 else mine
        self.sums, self.batches = Counter[str](), 0
        batches = sum(count for _, count in everywhere)
        names = dict.fromkeys(name for sums, _ in everywhere for name in sums)
        return {name: round(sum(sums.get(name, 0.0) for sums, _ in everywhere) / batches, 6) for name in names}

    def panels(self) -> dict[str, str]:
        """One for each term."""
        return self.names
