"""MLflow, W&B and TensorBoard: what medvl adds to what transformers' callbacks for `report_to` log there.

Each names the run that was begun, so that a resumed training goes on in it and scores join it later. Importable without
torch and without any tracker; a tracker's own package is loaded when it is used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from medvl.sharegpt import to_json, write_atomic

FILE_NAME = "medvl_tracking.json"


class TrackedRun(msgspec.Struct, frozen=True):
    """Where a training is tracked: the tracker, its own id for the run, and what finds that again."""

    tracker: str
    run: str
    where: dict[str, str] = {}


class Tracker(ABC):
    """One tracker; `stock` is transformers' callback for it."""

    @abstractmethod
    def resume(self, run: TrackedRun, stock: Any) -> dict[str, str]:
        """Let the callback go on with a run; returns the environment that it must start under."""

    @abstractmethod
    def begun(self, stock: Any) -> TrackedRun:
        """The run that the callback has begun."""

    @abstractmethod
    def describe(self, run: TrackedRun, parameters: Mapping[str, Any], stock: Any) -> None:
        """Log what the run is trained with."""

    @abstractmethod
    def add(self, run: TrackedRun, values: Mapping[str, float], files: Sequence[Path], group: str, step: int) -> None:
        """Log values of `group`, and files, to a run that may have ended."""

    def failed(self, run: TrackedRun, stopped: bool) -> None:  # noqa: B027
        """Say that a run broke, or was stopped by hand; W&B sees it itself and TensorBoard has no word for it."""


class _MLflow(Tracker):
    def resume(self, run: TrackedRun, stock: Any) -> dict[str, str]:
        """The callback reads both variables; the run must be of the experiment it is to go on in."""
        client = self._client(run)
        experiment = client.get_experiment(client.get_run(run.run).info.experiment_id).name
        return {"MLFLOW_RUN_ID": run.run, "MLFLOW_EXPERIMENT_NAME": experiment}

    def begun(self, stock: Any) -> TrackedRun:
        import mlflow

        return TrackedRun("mlflow", mlflow.active_run().info.run_id, {"uri": mlflow.get_tracking_uri()})

    def describe(self, run: TrackedRun, parameters: Mapping[str, Any], stock: Any) -> None:
        """MLflow refuses another value for a parameter; the first start of a resumed run has set them."""
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

        client = self._client(run)
        known = client.get_run(run.run).data.params
        for key, value in parameters.items():
            if key not in known:
                client.log_param(run.run, key, str(value)[:MAX_PARAM_VAL_LENGTH])

    def add(self, run: TrackedRun, values: Mapping[str, float], files: Sequence[Path], group: str, step: int) -> None:
        client = self._client(run)
        for name, value in values.items():
            client.log_metric(run.run, f"{group}/{name}", value, step=step)
        for file in files:
            client.log_artifact(run.run, str(file), group)

    def failed(self, run: TrackedRun, stopped: bool) -> None:
        """Otherwise it would be called finished when the process ends."""
        import mlflow

        active = mlflow.active_run()
        if active is not None and active.info.run_id == run.run:
            mlflow.end_run("KILLED" if stopped else "FAILED")

    def _client(self, run: TrackedRun) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(run.where["uri"])


class _WandB(Tracker):
    def resume(self, run: TrackedRun, stock: Any) -> dict[str, str]:
        return {"WANDB_RUN_ID": run.run, "WANDB_RESUME": "allow", "WANDB_PROJECT": run.where["project"]}

    def begun(self, stock: Any) -> TrackedRun:
        import wandb

        run: Any = wandb.run
        mode = "offline" if run.settings.mode == "offline" else "online"
        return TrackedRun("wandb", run.id, {"project": run.project, "mode": mode, "folder": run.settings.root_dir})

    def describe(self, run: TrackedRun, parameters: Mapping[str, Any], stock: Any) -> None:
        """LLaMA-Factory has logged its arguments; this is what came of them."""
        import wandb

        wandb.config.update({"medvl": dict(parameters)}, allow_val_change=True)

    def add(self, run: TrackedRun, values: Mapping[str, float], files: Sequence[Path], group: str, step: int) -> None:
        """Pages to look at in the run, other files as an artifact."""
        wandb: Any = import_module("wandb")
        project, mode, folder = (run.where[key] for key in ("project", "mode", "folder"))
        active: Any = wandb.run
        if ended := active is None or active.id != run.run:
            active = wandb.init(project=project, id=run.run, resume="allow", mode=mode, dir=folder)
        active.summary.update({f"{group}/{name}": value for name, value in values.items()})
        artifact = wandb.Artifact(f"{run.run}-{group}", type="scores" if values else "run")
        for file in files:
            artifact.add_file(str(file))
            if file.suffix == ".html":
                active.log({f"{group}/{file.stem}": wandb.Html(file.read_text(encoding="utf-8"), inject=False)})
        active.log_artifact(artifact)
        if ended:
            active.finish()


class _TensorBoard(Tracker):
    def resume(self, run: TrackedRun, stock: Any) -> dict[str, str]:
        stock.logging_dir = run.run
        return {}

    def begun(self, stock: Any) -> TrackedRun:
        return TrackedRun("tensorboard", str(stock.logging_dir))

    def describe(self, run: TrackedRun, parameters: Mapping[str, Any], stock: Any) -> None:
        rows = [f"| {key} | {str(value).replace('|', '&#124;')} |" for key, value in parameters.items()]
        stock.tb_writer.add_text("medvl", "\n".join(["| | |", "|---|---|", *rows]))

    def add(self, run: TrackedRun, values: Mapping[str, float], files: Sequence[Path], group: str, step: int) -> None:
        """Values and pictures; of other files their place, since TensorBoard holds none."""
        import numpy as np
        from PIL import Image
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(run.run) as writer:
            for name, value in values.items():
                writer.add_scalar(f"{group}/{name}", value, step)
            for file in files:
                if file.suffix == ".png":
                    with Image.open(file) as image:
                        writer.add_image(
                            f"{group}/{file.stem}", np.array(image.convert("RGB")), step, dataformats="HWC"
                        )
                else:
                    writer.add_text(f"{group}/{file.name}", str(file.resolve()), step)


# Name in `report_to` -> tracker; transformers' callbacks are called `<Name>Callback`.
TRACKERS: dict[str, Tracker] = {"mlflow": _MLflow(), "wandb": _WandB(), "tensorboard": _TensorBoard()}


def read_tracked(folder: Path) -> list[TrackedRun]:
    """Where the training in a folder is tracked; empty if it is not."""
    path = folder / FILE_NAME
    return msgspec.json.decode(path.read_bytes(), type=list[TrackedRun]) if path.is_file() else []


def write_tracked(runs: Sequence[TrackedRun], folder: Path) -> None:
    """Note where the training in a folder is tracked."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / FILE_NAME, to_json(list(runs)))
