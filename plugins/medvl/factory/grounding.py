"""The grounding loss in LLaMA-Factory's SFT trainer.

The collator finds the boxes of each batch in its labels, in the data loader's processes where there are any, so that no
GPU waits for it. The trainer adds the terms to the loss the model returned and logs each for itself. Evaluation keeps
the language-model loss.

Gradient accumulation and data parallelism need nothing here: every term is a mean over the records of a micro-batch,
and the trainer averages over micro-batches and devices. For these model families it does the same to the language-model
loss, which is a mean over the tokens of a micro-batch: with answers of unequal length, that one depends on how a batch
is divided (transformers' `model_accepts_loss_kwargs`, set to False by LLaMA-Factory).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from medvl.boxes import Frame
from medvl.factory.column_logits import ColumnLogits
from medvl.factory.fused import fuse
from medvl.factory.grounding_eval import BoxEvaluation
from medvl.factory.grounding_log import Record, panels
from medvl.factory.loss_plot import LossPlotCallback
from medvl.factory.positions import tell_token_types
from medvl.losses.coordinates import Targets, Vocabulary, find_targets
from medvl.losses.grounding import Settings, combine, grounding_terms

if TYPE_CHECKING:
    from transformers import Seq2SeqTrainer as Stock
else:
    Stock = object

TARGETS = "medvl_targets"


@dataclass(frozen=True)
class BoxFinder:
    """A collator that adds the grounding targets of each batch; other attributes are the wrapped collator's."""

    collator: Any
    vocabulary: Vocabulary
    frame: Frame

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """The collator's batch and, under `TARGETS`, its `Targets`."""
        batch: dict[str, Any] = self.collator(features)
        batch[TARGETS] = find_targets(batch["labels"], self.vocabulary, self.frame)
        return batch

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked of the collator."""
        return getattr(object.__getattribute__(self, "collator"), name)


def settings_of(arguments: Any) -> Settings:
    """The weights that the recipe's keys give."""
    return Settings(
        alpha=arguments.grounding_alpha,
        beta=arguments.grounding_beta,
        gamma=arguments.grounding_gamma,
        w1=arguments.grounding_w1,
        scale=arguments.grounding_scale,
        iou=arguments.grounding_iou,
    )


class GroundingMixin(Stock):  # type: ignore[misc]
    """What is put before LLaMA-Factory's trainer, or a subclass of it."""

    def __init__(self, *args: Any, plain_collator: Any, **kwargs: Any) -> None:
        """plain_collator: LLaMA-Factory's own, for the questions of `grounding_eval_steps`."""
        super().__init__(*args, **kwargs)
        keys = self.finetuning_args
        if self.args.n_gpu > 1:
            raise ValueError("use_grounding_loss: start several GPUs of one machine with FORCE_TORCHRUN=1")
        if self.model_accepts_loss_kwargs:  # LLaMA-Factory says no for models with a processor
            raise ValueError("use_grounding_loss: this model has no processor for images; train a vision model")
        self.grounding = settings_of(keys)
        self.column_logits = ColumnLogits(self.model, sharded=self.is_fsdp_enabled)
        self.record = Record()
        if keys.setting("enable_liger_kernel"):
            fuse(self.model, self.column_logits)
        self.box_evaluation = None
        if keys.grounding_eval_steps:
            collator = tell_token_types(plain_collator, self.model)
            self.box_evaluation = BoxEvaluation(self, collator, keys.grounding_eval_steps, keys.grounding_eval_samples)
            self.add_callback(self.box_evaluation)
        if keys.plot_loss:
            asked = () if self.box_evaluation is None else self.box_evaluation.questions
            self.add_callback(LossPlotCallback(panels(self.grounding, asked)))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **options: Any
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The stock loss; in training with the grounding terms, where the batch has boxes or an empty list."""
        targets: Targets | None = inputs.pop(TARGETS, None)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        if model.training and targets is not None:
            loss = self.add_grounding(loss, outputs, targets.to(loss.device))
        return (loss, outputs) if return_outputs else loss

    def add_grounding(self, loss: torch.Tensor, outputs: Mapping[str, Any], targets: Targets) -> torch.Tensor:
        """The loss of one micro-batch with the grounding terms; the same value where nothing is to be grounded."""
        if targets.empty:
            self.record.add(loss, None, targets)
            zero = self.column_logits.none(outputs)
            return loss if zero is None else loss + zero.to(loss.device)
        terms = grounding_terms(self.column_logits(targets.rows, targets.columns, outputs), targets, self.grounding)
        self.record.add(loss, terms, targets)
        return loss + combine(terms, self.grounding, self.warmup()).to(loss.device)

    def warmup(self) -> float:
        """Share of their weight that all terms but W1 have at this step."""
        steps = self.finetuning_args.grounding_warmup_ratio * self.state.max_steps
        return 1.0 if steps <= 0 else min(1.0, self.state.global_step / steps)

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As the stock trainer, which may hand all that the collator made to the model."""
        inputs.pop(TARGETS, None)
        return super().prediction_step(model, inputs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As the stock trainer, with the generated boxes of this step, for `metric_for_best_model`."""
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        if self.box_evaluation is not None and self.box_evaluation.step == self.state.global_step:
            metrics |= self.box_evaluation.metrics
        return metrics

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the stock trainer; a log of the training loss also has its parts."""
        if "loss" in logs:
            micro_batches = self.args.gradient_accumulation_steps * self.args.world_size
            logs.update(self.record.read(self.accelerator, micro_batches))
            if self.is_world_process_zero():
                self.record.warn_once()
        super().log(logs, *args, **kwargs)


def grounding_trainer(stock: type) -> type:
    """A subclass of LLaMA-Factory's trainer that adds the grounding loss in training."""
    return type("GroundingTrainer", (GroundingMixin, stock), {})
