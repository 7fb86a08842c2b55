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
# Ends within minutes; such a model learns little more from real images than how answers look.
_REAL_DATA_STEPS = 200


@dataclass(frozen=True)
class Pipeline:
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


def convert(pipeline: Pipeline) -> Step:
    """FLARE tree to records and registry entries."""
    options = ("--root", str(pipeline.tree), "--out", str(pipeline.records), "--name", "demo")
    return Step("convert", "Convert the tree to records", ("python", "preprocess/flare.py", *options), 6)


def build(pipeline: Pipeline) -> Step:
    """The untrained checkpoint, with a tokenizer that knows the records' words."""
    options = (
        "--scale",
        "demo",
        "--corpus",
        str(pipeline.records / "demo_all_train.json"),
        "--seed",
        str(pipeline.seed),
    )
    command = ("python", "-m", "medvl.demo.checkpoints", pipeline.family, str(pipeline.checkpoint), *options)
    return Step("build", "Build an untrained checkpoint", command, 12)


def after_conversion(pipeline: Pipeline) -> list[Step]:
    """Everything that follows once the records are there."""
    steps = [build(pipeline), predict(pipeline, "untrained"), score(pipeline, "untrained"), train(pipeline)]
    return [*steps, predict(pipeline, "trained"), score(pipeline, "trained")]


def train(pipeline: Pipeline) -> Step:
    """The recipe as it is, plus an override for each thing the user changed."""
    command = [*_recipe(pipeline), *_changed(pipeline, "model_name_or_path", pipeline.checkpoint, "checkpoint")]
    command += _changed(pipeline, "output_dir", pipeline.trained, "trained")
    command += [f"seed={pipeline.seed}"] if pipeline.seed else []
    if pipeline.data is not None:
        # Answers with dozens of boxes do not fit the drawn images' length; cutting them would cut into image tokens.
        command += ["eval_dataset=demo_sample_val", "cutoff_len=4096", "per_device_train_batch_size=8"]
    steps = pipeline.max_steps or (_REAL_DATA_STEPS if pipeline.data is not None else None)
    command += [f"max_steps={steps}"] if steps else []
    return Step("train", "Train", tuple(command), 160, pipeline.trained / "trainer_log.jsonl")


def predict(pipeline: Pipeline, state: str) -> Step:
    """LLaMA-Factory's own batched generation with the `untrained` or `trained` checkpoint."""
    model = pipeline.checkpoint if state == "untrained" else pipeline.trained
    long = pipeline.data is not None
    overrides = {
        "do_train": "false",
        "do_predict": "true",
        "predict_with_generate": "true",
        "do_sample": "false",
        "dataset": "null",
        "eval_dataset": pipeline.evaluation_set,
        "model_name_or_path": str(model),
        "output_dir": str(pipeline.model / f"predict_{state}"),
        "max_new_tokens": "1024" if long else "120",
        "cutoff_len": "4096" if long else "512",
    }
    command = (*_recipe(pipeline), *(f"{key}={value}" for key, value in overrides.items()))
    return Step(f"predict_{state}", f"Predict with the {state} model", command, 20)


def score(pipeline: Pipeline, state: str) -> Step:
    """Scoring under strict rules."""
    predictions = str(pipeline.model / f"predict_{state}" / "generated_predictions.jsonl")
    options = ("--references", str(pipeline.references), "--out", str(scores(pipeline, state)))
    command = ("python", "evaluation/run.py", predictions, *options)
    return Step(f"score_{state}", f"Score the {state} model", command, 4)


def scores(pipeline: Pipeline, state: str) -> Path:
    """Where the scores of the `untrained` or `trained` model lie."""
    return pipeline.model / f"scores_{state}"


def _recipe(pipeline: Pipeline) -> list[str]:
    return ["llamafactory-cli", "train", RECIPES[pipeline.family]]


def _changed(pipeline: Pipeline, key: str, path: Path, folder: str) -> list[str]:
    return [] if path == DEFAULT_OUT / pipeline.family / folder else [f"{key}={path}"]
