"""One run of a sweep: trained unless it is finished, predicted, scored. Every step is a command that users type too."""

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from medvl.errors import DataError
from medvl.factory.run_card import RunCard, read_run_card
from medvl.factory.trackers import read_tracked
from medvl.processes import environment, killed_as_interrupted, repository_root, run_logged
from medvl.sharegpt import to_json, write_atomic
from medvl.sweep.plan import Run, Score, Sweep

RECIPE = "recipe.yaml"
_ASKED = "asked.json"  # hash of the settings that a folder's run was begun with

# (title, command, log): runs a command to its end; raises `medvl.processes.CommandFailedError`.
Runner = Callable[[str, Sequence[str], Path], object]


def in_processes(name: str) -> Runner:
    """Runs commands in the working folder, as recipes expect; what they track is grouped under `name`, unless told."""
    groups = {"MLFLOW_EXPERIMENT_NAME": name, "WANDB_RUN_GROUP": name}

    def run(title: str, command: Sequence[str], log: Path) -> object:
        with killed_as_interrupted():
            return run_logged(command, title=title, cwd=Path.cwd(), log=log, env=environment(**(groups | os.environ)))

    return run


@dataclass(frozen=True)
class RunFolder:
    """Where everything of one run lies.

    Attributes:
        path: The folder.
        run: Whose it is.
        settings: Its whole recipe.
    """

    path: Path
    run: Run
    settings: Mapping[str, Any]

    @property
    def model(self) -> Path:
        """LLaMA-Factory's output folder."""
        return self.path / "model"

    @property
    def fingerprint(self) -> str:
        """Of all settings that the run is trained with."""
        return hashlib.sha256(msgspec.json.encode(dict(self.settings), order="deterministic")).hexdigest()

    def card(self) -> RunCard | None:
        """The card of the finished run; None while it is not finished.

        A run is finished when it did all steps that it planned, or ended early for a reason that its card gives.
        """
        try:
            card = read_run_card(self.model)
        except FileNotFoundError:
            return None
        whole = card.run.planned_steps is None or card.run.steps >= card.run.planned_steps
        return card if whole or card.run.ended_early else None

    def predictions(self, split: str) -> Path:
        """Its answers on `val` or `test`."""
        return self.path / f"{split}.jsonl"

    def scores(self, split: str) -> Path:
        """Folder of their scores."""
        return self.path / f"{split}_scores"

    def metrics(self, split: str) -> dict[str, Any] | None:
        """The metrics.json of a split; None if it is not scored."""
        path = self.scores(split) / "metrics.json"
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.is_file() else None


def run_folder(sweep: Sweep, run: Run, out: Path) -> RunFolder:
    """The folder of a run below the sweep's."""
    return RunFolder(out / run.name, run, sweep.settings(run))


def train(folder: RunFolder, runner: Runner) -> bool:
    """Train a run, or go on with it; False if it was finished already.

    Raises:
        DataError: the folder holds a run of other settings.
        CommandFailedError: training failed; its log lies in the folder.
    """
    asked = folder.path / _ASKED
    before = msgspec.json.decode(asked.read_bytes(), type=dict[str, str]) if asked.is_file() else {}
    if before.get("settings", folder.fingerprint) != folder.fingerprint:
        raise DataError(
            f"{folder.path}: holds {folder.run.name} with other settings, see {folder.path / RECIPE}; the recipe or "
            "the sweep file has changed since. Choose another --out, or delete the folder"
        )
    if folder.card() is not None:
        return False
    write_atomic(asked, to_json({"settings": folder.fingerprint}))
    recipe = dict(folder.settings) | {"output_dir": str(folder.model), "medvl_run_card": True}
    if recipe.get("report_to", "none") != "none":
        recipe.setdefault("run_name", folder.run.name)
    write_atomic(folder.path / RECIPE, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).encode())
    command = ["llamafactory-cli", "train", str(folder.path / RECIPE)]
    runner(f"training {folder.run.name}", command, folder.path / "train.log")
    if folder.card() is None:
        raise DataError(f"{folder.path}: the run ended without a run card; see {folder.path / 'train.log'}")
    return True


def predict(folder: RunFolder, split: str, data: str, score: Score, runner: Runner) -> None:
    """Answers of a finished run to a converted file. What was answered before is not asked again.

    Raises:
        CommandFailedError: it failed; its log lies in the folder.
    """
    card = folder.card()
    if card is None:
        raise DataError(f"{folder.path}: not trained to its end, so that it cannot be asked")
    model = "--adapter" if card.finetuning.type == "lora" else "--model"
    command = ["medvl", "predict", "--data", data, model, str(folder.model), *score.predict, "--out",
               str(folder.predictions(split))]  # fmt: skip
    runner(f"predicting {folder.run.name}", command, folder.path / f"predict_{split}.log")


def score(
    folder: RunFolder, split: str, data: str, how: Score, runner: Runner, baseline: RunFolder | None = None
) -> None:
    """Scores of a run's answers, with a paired test against those of a baseline.

    Raises:
        CommandFailedError: it failed; its log lies in the folder.
    """
    script = str(repository_root() / "evaluation" / "run.py")
    command = [sys.executable, script, str(folder.predictions(split)), "--references", data, "--rules", how.rules,
               "--out", str(folder.scores(split))]  # fmt: skip
    if baseline is not None:
        command += ["--baseline", str(baseline.predictions(split))]
    runner(f"scoring {folder.run.name}", command, folder.path / f"score_{split}.log")


def track(folder: RunFolder, split: str, runner: Runner) -> None:
    """Let the scores of a split join the run that the training was tracked in, if it was and they are new to it.

    Raises:
        CommandFailedError: it failed; its log lies in the folder.
    """
    metrics = folder.metrics(split)
    if metrics is None or not read_tracked(folder.model):
        return
    told, known = folder.path / f"tracked_{split}.json", to_json(metrics["tasks"])
    if told.is_file() and told.read_bytes() == known:
        return
    command = ["medvl", "track", str(folder.model), str(folder.scores(split)), "--as", split]
    runner(f"tracking {folder.run.name}", command, folder.path / f"track_{split}.log")
    write_atomic(told, known)
