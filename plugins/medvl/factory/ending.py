"""Tells a training that finished from one that ended early, broke, or had nothing to do.

Needs of transformers' trainer: `callback_handler.callbacks`, among which early stopping is looked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from medvl.factory.checks.resuming import resumed_checkpoint
from medvl.factory.remedies import to_try
from medvl.weights import no_numbers, nonfinite_parameters

log = logging.getLogger("medvl")


class NothingToTrainError(Exception):
    """The checkpoint that was resumed has all planned steps; the text says which and what to do."""


class EndCallback(TrainerCallback):  # type: ignore[misc]
    """Tells a finished run from one that ended early, or had nothing to do.

    Attributes:
        nothing_trained: No step was done: the checkpoint that was resumed had all of them.
        ended_early: Why fewer steps than planned were done and that is right, e.g. early stopping; None otherwise.
    """

    def __init__(self, trainer: Any) -> None:
        """trainer: whose callbacks may stop it."""
        self.trainer = trainer
        self.nothing_trained = self.ran_dry = False
        self.ended_early: str | None = None
        self.epoch_began = 0

    def on_train_begin(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """NothingToTrainError if there is nothing to train."""
        self.nothing_trained = state.global_step >= state.max_steps
        if self.nothing_trained:
            raise NothingToTrainError(
                f"Nothing to train: {resumed_checkpoint(args)} has done {state.global_step} steps and "
                f"{state.max_steps} are planned. A finished model and its run card stay as they are. To train on, "
                "raise num_train_epochs or max_steps; to train anew, set another output_dir or "
                "`overwrite_output_dir: true`."
            )

    def on_epoch_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Remember where the epoch begins."""
        self.epoch_began = state.global_step

    def on_epoch_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """The trainer stops by itself, without an error, after an epoch without a batch."""
        self.ran_dry = state.global_step == self.epoch_began

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """RuntimeError for an end before the planned steps that nothing asked for, and for weights without numbers."""
        if broken := nonfinite_parameters(kwargs["model"], trained_alone=True):
            raise RuntimeError(
                f"After step {state.global_step}, {no_numbers(broken)}; the model is not saved. "
                f"{to_try(args, kwargs['model'])}"
            )
        if self.trainer.zero:
            raise RuntimeError(
                f"The gradient of the last step, {state.global_step}, is exactly 0 beside a loss: the weights are far "
                f"out of range, or cut off from the loss. The model is not saved. {to_try(args, kwargs['model'])}"
            )
        if state.global_step >= state.max_steps:
            return
        done = f"{state.global_step} of {state.max_steps} planned steps are done"
        if self.ran_dry or not control.should_training_stop:
            why = "an epoch had no batch" if self.ran_dry else "the data ended before the epoch did"
            raise RuntimeError(
                f"Training ended early: {done}, since {why}. The model is not saved; checkpoints are. A stream must "
                "hold as many records as max_steps asks for; otherwise lower max_steps to what the data has."
            )
        self.ended_early = _who_stopped(self.trainer.callback_handler.callbacks)
        if state.is_world_process_zero:
            log.warning("Training was stopped by %s: %s.", self.ended_early, done)


def _who_stopped(callbacks: Iterable[Any]) -> str:
    patient = [callback for callback in callbacks if isinstance(callback, EarlyStoppingCallback)]
    if any(callback.early_stopping_patience_counter >= callback.early_stopping_patience for callback in patient):
        return "early stopping"
    return "a callback, or by hand"
