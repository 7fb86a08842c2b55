"""Puts what the medvl keys ask for into LLaMA-Factory's SFT trainer.

Needs the name `CustomSeq2SeqTrainer` of `llamafactory.train.sft.workflow`, which `run_sft` looks up at call time and
calls with `finetuning_args`, `args`, `model`, `train_dataset`, `data_collator` (with its `template`), `tokenizer` and
`processor` by keyword.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medvl.factory.arguments import requested_keys
from medvl.factory.checks.resuming import skip_incomplete
from medvl.factory.data.loading import extend_datasets
from medvl.factory.losses import LOSSES
from medvl.factory.losses.base import Loss


def extend_workflow(workflow: Any) -> None:
    """Let `run_sft` build its trainer through `TrainerFactory`; AttributeError when the trainer has another name."""
    stock = workflow.CustomSeq2SeqTrainer
    if not isinstance(stock, TrainerFactory):
        workflow.CustomSeq2SeqTrainer = TrainerFactory(stock)
    extend_datasets(workflow)


@dataclass(frozen=True)
class TrainerFactory:
    """Builds the stock trainer, with additions only for the medvl keys that are set."""

    stock: type

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer of one run; the stock trainer and nothing else when the recipe sets no medvl key."""
        arguments: Any = kwargs.get("finetuning_args", args[0] if args else None)
        requested = requested_keys(arguments)
        if not requested:
            return self.stock(*args, **kwargs)
        if "medvl_image_positions" in requested and kwargs["args"].predict_with_generate:
            from medvl.factory.positions import tell_token_types

            kwargs["data_collator"] = tell_token_types(kwargs["data_collator"], kwargs["model"])
        trainer_class, callbacks = self.stock, []
        if kwargs["args"].do_train:
            skip_incomplete(kwargs["args"], arguments.medvl_recipe)
            if "augment" in requested:
                from medvl.factory.augmentation import augment_training

                callbacks.append(augment_training(kwargs))
            trainer_class = with_losses(trainer_class, [loss for loss in LOSSES if loss.switch in requested], kwargs)
            if "medvl_loss_group" in requested:
                from medvl.factory.loss_groups import grouping_trainer

                trainer_class = grouping_trainer(trainer_class)
        return self._guarded(trainer_class, callbacks, args, kwargs)

    def _guarded(self, trainer_class: type, callbacks: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The trainer with what every medvl key brings: safeguards, and a run card if it is asked for."""
        from medvl.factory.batching import batching_trainer
        from medvl.factory.checks.trained import problems
        from medvl.factory.frozen import DropHooks
        from medvl.factory.fused import fuse_if_asked
        from medvl.factory.recording import Text, record
        from medvl.factory.safeguards import guard

        arguments = kwargs["finetuning_args"]
        if kwargs["args"].do_train and (found := problems(arguments, kwargs["model"])):
            raise ValueError("\n".join(found))
        trainer = guard(batching_trainer(trainer_class), kwargs)(*args, **kwargs)
        if kwargs["args"].do_train:
            fuse_if_asked(trainer)
        for callback in [*callbacks, DropHooks()]:
            trainer.add_callback(callback)
        text = Text(kwargs["data_collator"].template, kwargs["tokenizer"])
        record(trainer, arguments, text, getattr(kwargs["processor"], "image_processor", None))
        return trainer


def with_losses(trainer_class: type, losses: list[Loss], keywords: dict[str, Any]) -> type:
    """The trainer to build for these losses; changes the keywords that it is built from."""
    for loss in losses:
        loss.prepare(keywords)
        trainer_class = loss.trainer(trainer_class)
    if not losses:
        return trainer_class
    from medvl.factory.adding import adding_trainer

    keywords["losses"] = losses
    return adding_trainer(trainer_class)
