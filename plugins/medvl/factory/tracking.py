"""What is added to `report_to` while a recipe with a run card trains: parameters, files, one run per training.

transformers' own callbacks log the loss and all its parts. They know no LoRA rank and no dataset, and begin another run
when a training is resumed; MLflow's logs an evaluation at the end to a new run without a name.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

from medvl.factory import loss_plot, run_card
from medvl.factory.run_card import RunCard
from medvl.factory.trackers import FILE_NAME, TRACKERS, TrackedRun, read_tracked, write_tracked

_STOCK = {"mlflow": MLflowCallback, "wandb": WandbCallback, "tensorboard": TensorBoardCallback}

log = logging.getLogger("medvl")


def track(trainer: Any, card: RunCard, resumed: bool) -> None:
    """Add to what the trainer's own callbacks for `report_to` log; nothing where it has none that medvl knows."""
    handler = trainer.callback_handler
    stock = {name: one for name, kind in _STOCK.items() for one in handler.callbacks if isinstance(one, kind)}
    if not stock:
        return
    callback = TrackingCallback(stock, card)
    if resumed:
        callback.resume(read_tracked(Path(trainer.args.output_dir)))
    trainer.add_callback(callback)
    trainer.on_failure.append(callback.failed)
    if "mlflow" in stock:
        handler.callbacks.insert(0, _Reopening(callback))


def parameters(card: RunCard) -> dict[str, Any]:
    """What tells runs apart: keys of the recipe, weights trained, records and hash of each dataset, revision."""
    found = {f"recipe/{key}": value for key, value in card.recipe.items()}
    found["trained_weights"] = card.finetuning.trainable_parameters
    for file in card.data:
        found[f"data/{file.role}/{file.entry}"] = f"{file.records} records, SHA-256 {file.sha256}"
    found["system_prompt"] = card.prompt.system
    found["git_revision"] = card.git_revision
    return found


class TrackingCallback(TrainerCallback):  # type: ignore[misc]
    """Behind transformers' callbacks, which have begun their runs when it is asked."""

    def __init__(self, stock: dict[str, Any], card: RunCard) -> None:
        """stock: transformers' callbacks by the name of their tracker."""
        self.stock, self.card = stock, card
        self.runs: list[TrackedRun] = []
        self.environment: dict[str, str | None] = {}  # as it was

    def resume(self, runs: list[TrackedRun]) -> None:
        """Go on in these runs; ValueError when one is not there any more."""
        for run in runs:
            if run.tracker not in self.stock:
                continue
            try:
                needed = TRACKERS[run.tracker].resume(run, self.stock[run.tracker])
            except Exception as error:
                raise ValueError(
                    f"{run.tracker} cannot go on with run {run.run} ({run.where}): {error}. To begin another run, "
                    f"delete {FILE_NAME} in output_dir"
                ) from error
            for key, value in needed.items():
                self.environment[key] = os.environ.get(key)
                os.environ[key] = value

    def on_train_begin(self, args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Log the parameters, and keep where the run is."""
        self._restore_environment()
        self.runs = [TRACKERS[name].begun(stock) for name, stock in self.stock.items()]
        for run in self.runs:
            TRACKERS[run.tracker].describe(run, parameters(self.card), self.stock[run.tracker])
        write_tracked(self.runs, Path(args.output_dir))

    def on_train_end(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Log the run card and the plot of the loss. The model is saved after this, so nothing is raised."""
        self._restore_environment()
        out = Path(args.output_dir)
        files = [path for name in (run_card.FILE_NAME, loss_plot.FILE_NAME) if (path := out / name).is_file()]
        for run in self.runs:
            try:
                TRACKERS[run.tracker].add(run, {}, files, "run", state.global_step)
            except Exception as error:
                log.warning("%s got no %s: %s", run.tracker, " and no ".join(file.name for file in files), error)

    def failed(self, error: BaseException) -> None:
        """Training broke, or was stopped by hand."""
        for run in self.runs:
            TRACKERS[run.tracker].failed(run, stopped=not isinstance(error, Exception))

    def _restore_environment(self) -> None:
        for key, value in self.environment.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
        self.environment = {}


class _Reopening(TrainerCallback):  # type: ignore[misc]
    """Before MLflow's callback, which ends its run with the training: an evaluation after that belongs to it too."""

    def __init__(self, tracking: TrackingCallback) -> None:
        self.tracking, self.reopened = tracking, False

    def on_log(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Open the run again if it has ended."""
        import mlflow

        ids = [run.run for run in self.tracking.runs if run.tracker == "mlflow"]
        if ids and mlflow.active_run() is None:
            mlflow.start_run(run_id=ids[0])
            self.reopened = True

    def on_evaluate(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """End it for good."""
        if self.reopened:
            import mlflow

            mlflow.end_run()
            self.reopened = False
