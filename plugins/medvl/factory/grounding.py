"""The grounding loss at work in LLaMA-Factory's SFT trainer.

The collator finds the boxes of each batch in its labels, in the data loader's processes where there are any, so that no
GPU waits for it. The terms are added to the loss the model returned, and each is logged for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from medvl.boxes import Frame
from medvl.factory.collator import WrappedCollator
from medvl.factory.column_logits import ColumnLogits
from medvl.factory.data.frames import require_frame
from medvl.factory.grounding_eval import BoxEvaluation
from medvl.factory.grounding_log import GroundingLog, panels
from medvl.factory.losses.base import AddedLoss
from medvl.factory.positions import tell_token_types
from medvl.losses.coordinates import Targets, Vocabulary, find_targets
from medvl.losses.grounding import GroundingSettings, combine, grounding_terms

TARGETS = "medvl_targets"


@dataclass(frozen=True)
class BoxFinder(WrappedCollator):
    """A collator that adds the grounding targets of each batch."""

    vocabulary: Vocabulary
    frame: Frame

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """The collator's batch and, under `TARGETS`, its `Targets`."""
        batch = super().__call__(features)
        batch[TARGETS] = find_targets(batch["labels"], self.vocabulary, self.frame)
        return batch


def prepare(keywords: dict[str, Any]) -> None:
    """Wraps the collator among a trainer's keywords; ValueError for data in another frame than `grounding_frame`."""
    arguments = keywords["finetuning_args"]
    require_frame(arguments)
    vocabulary = Vocabulary.of(keywords["tokenizer"])
    keywords["data_collator"] = BoxFinder(keywords["data_collator"], vocabulary, arguments.grounding_frame)


def settings_of(arguments: Any) -> GroundingSettings:
    """The weights that the recipe's keys give."""
    return GroundingSettings(
        alpha=arguments.grounding_alpha,
        beta=arguments.grounding_beta,
        gamma=arguments.grounding_gamma,
        w1=arguments.grounding_w1,
        scale=arguments.grounding_scale,
        iou=arguments.grounding_iou,
    )


class GroundingLoss(AddedLoss):
    """The terms of each batch, their record, and the boxes that are generated while it trains."""

    in_batch = TARGETS

    def __init__(self, trainer: Any) -> None:
        """trainer: built, with its model and collator; ValueError where the loss cannot be added to it."""
        keys = trainer.finetuning_args
        self.trainer, self.weights = trainer, settings_of(keys)
        self.column_logits = ColumnLogits(trainer.model, sharded=trainer.is_fsdp_enabled)
        self.record = GroundingLog()
        self.box_evaluation = None
        if keys.grounding_eval_steps:
            collator = tell_token_types(trainer.data_collator, trainer.model)
            asked = keys.grounding_eval_steps, keys.grounding_eval_samples
            self.box_evaluation = BoxEvaluation(trainer, collator, *asked, self.weights)
            trainer.add_callback(self.box_evaluation)

    def term(
        self, language: torch.Tensor, outputs: Mapping[str, Any], _labels: torch.Tensor, found: Targets | None
    ) -> torch.Tensor | None:
        """The grounding terms of one micro-batch; nothing, or a zero, where nothing is to be grounded."""
        if found is None:
            return None
        targets = found.to(language.device)
        if targets.empty:
            self.record.add(language, None, targets)
            zero = self.column_logits.none(outputs)
            return None if zero is None else zero.to(language.device)
        terms = grounding_terms(self.column_logits(targets.rows, targets.columns, outputs), targets, self.weights)
        self.record.add(language, terms, targets)
        return combine(terms, self.weights, self.warmup()).to(language.device)

    def warmup(self) -> float:
        """Share of their weight that all terms but W1 have at this step."""
        state = self.trainer.state
        steps = self.trainer.finetuning_args.grounding_warmup_ratio * state.max_steps
        return 1.0 if steps <= 0 else min(1.0, state.global_step / steps)

    def metrics(self) -> dict[str, float]:
        """The generated boxes of this step."""
        asked = self.box_evaluation
        return asked.metrics if asked is not None and asked.step == self.trainer.state.global_step else {}

    def logs(self) -> dict[str, float]:
        """The parts of the loss; warns where there is nothing to ground."""
        args = self.trainer.args
        logged = self.record.read(self.trainer.accelerator, args.gradient_accumulation_steps * args.world_size)
        if self.trainer.is_world_process_zero():
            self.record.warn_once()
        return logged

    def panels(self) -> dict[str, str]:
        """Every term, and the generated boxes."""
        return panels(self.weights, () if self.box_evaluation is None else self.box_evaluation.questions)
