"""The demo's commands, in order: exactly what a user would type in the clone."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # For annotations only: the module imports torch, and `medvl --help` should not.
    from medvl.demo.checkpoints import Family

RECIPES: dict[Family, str] = {
    "qwen3vl": "recipes/demo_qwen3vl_tiny.yaml",
    "internvl3": "recipes/demo_internvl3_tiny.yaml",
}
DEFAULT_OUT = Path("data/demo")
# Ends within minutes; such a model learns little more from real pictures than how answers look.
_REAL_DATA_STEPS = 200


@dataclass(frozen=True)
class Road:
    """What the user asked for, and where everything lies. Paths are relative to the clone where they can be."""

    family: Family
    out: Path
    data: Path | None = None
    seed: int = 0
    max_steps: int | None = None

    @property
    def tree(self) -> Path:
        """The FLARE tree: the drawn one, or the user's."""
        return self.data or self.out / "tree"

    @property
    def records(self) -> Path:
        """Output of the preprocessor."""
        return self.out / "records"

    @property
    def model(self) -> Path:
        """Folder of everything that belongs to one family."""
        return self.out / self.family

    @property
    def checkpoint(self) -> Path:
        """The untrained checkpoint."""
        return self.model / "checkpoint"

    @property
    def trained(self) -> Path:
        """The trained checkpoint, with LLaMA-Factory's logs and the run card."""
        return self.model / "trained"

    @property
    def evaluation_set(self) -> str:
        """Name in the registry of what is predicted: with real data a sample, as a laptop's patience is short."""
        return "demo_all_val" if self.data is None else "demo_sample_val"

    @property
    def references(self) -> Path:
        """File of records that predictions are scored against."""
        return self.records / f"{self.evaluation_set}.json"


@dataclass(frozen=True)
class Step:
    """One command; `seconds` is what it took when measured and only scales the progress bar."""

    name: str
    title: str
    command: tuple[str, ...]
    seconds: int
    training_log: Path | None = None

    def shown(self) -> str:
        """The command as it can be pasted into a shell."""
        return shlex.join(self.command)


def convert(road: Road) -> Step:
    """FLARE tree to records and registry entries."""
    options = ("--root", str(road.tree), "--out", str(road.records), "--name", "demo")
    return Step("convert", "Convert the tree to records", ("python", "preprocess/flare.py", *options), 6)


def build(road: Road) -> Step:
    """The untrained checkpoint, with a tokenizer that knows the records' words."""
    options = ("--scale", "demo", "--corpus", str(road.records / "demo_all_train.json"), "--seed", str(road.seed))
    command = ("python", "-m", "medvl.demo.checkpoints", road.family, str(road.checkpoint), *options)
    return Step("build", "Build an untrained checkpoint", command, 12)


def after_conversion(road: Road) -> list[Step]:
    """Everything that follows once the records are there."""
    steps = [build(road), predict(road, "untrained"), score(road, "untrained"), train(road)]
    return [*steps, predict(road, "trained"), score(road, "trained")]


def train(road: Road) -> Step:
    """The recipe as it is, plus an override for each thing the user changed."""
    command = [*_recipe(road), *_changed(road, "model_name_or_path", road.checkpoint, "checkpoint")]
    command += _changed(road, "output_dir", road.trained, "trained")
    command += [f"seed={road.seed}"] if road.seed else []
    if road.data is not None:
        # Answers with dozens of boxes do not fit the drawn pictures' length; cutting them would cut into image tokens.
        command += ["eval_dataset=demo_sample_val", "cutoff_len=4096", "per_device_train_batch_size=8"]
    steps = road.max_steps or (_REAL_DATA_STEPS if road.data is not None else None)
    command += [f"max_steps={steps}"] if steps else []
    return Step("train", "Train", tuple(command), 160, road.trained / "trainer_log.jsonl")


def predict(road: Road, state: str) -> Step:
    """LLaMA-Factory's own batched generation with the `untrained` or `trained` checkpoint."""
    model = road.checkpoint if state == "untrained" else road.trained
    long = road.data is not None
    overrides = {
        "do_train": "false",
        "do_predict": "true",
        "predict_with_generate": "true",
        "do_sample": "false",
        "dataset": "null",
        "eval_dataset": road.evaluation_set,
        "model_name_or_path": str(model),
        "output_dir": str(road.model / f"predict_{state}"),
        "max_new_tokens": "1024" if long else "120",
        "cutoff_len": "4096" if long else "512",
    }
    command = (*_recipe(road), *(f"{key}={value}" for key, value in overrides.items()))
    return Step(f"predict_{state}", f"Predict with the {state} model", command, 20)


def score(road: Road, state: str) -> Step:
    """Scoring under strict rules."""
    predictions = str(road.model / f"predict_{state}" / "generated_predictions.jsonl")
    options = ("--references", str(road.references), "--out", str(scores(road, state)))
    command = ("python", "evaluation/run.py", predictions, *options)
    return Step(f"score_{state}", f"Score the {state} model", command, 4)


def scores(road: Road, state: str) -> Path:
    """Where the scores of the `untrained` or `trained` model lie."""
    return road.model / f"scores_{state}"


def _recipe(road: Road) -> list[str]:
    return ["llamafactory-cli", "train", RECIPES[road.family]]


def _changed(road: Road, key: str, path: Path, folder: str) -> list[str]:
    return [] if path == DEFAULT_OUT / road.family / folder else [f"{key}={path}"]
