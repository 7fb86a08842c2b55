"""What all trials of a recipe share: its data tokenised once, the rows of their steps, and what this machine is.

    python -m medvl.fit.preparing SPEC.json RESULT.json

A process of its own: the recipe is parsed and its data checked as training does, and no GPU memory is held afterwards.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from medvl.factory.arguments import requested_keys
from medvl.factory.fingerprints import versions
from medvl.fit.memory import Sizes
from medvl.fit.recipe import LIKE_LENGTH, training_alone
from medvl.sharegpt import to_json, write_atomic

LONGEST = 2  # steps of the longest records: the first allocates what all later ones need, the second has the peak
UNTIMED = LONGEST + 1  # and one of ordinary length before the clock starts


class Spec(msgspec.Struct, frozen=True):
    """What is prepared.

    Attributes:
        recipe: Its keys.
        rows: Folder for the tokenised data.
        records: Records of a step on all devices.
        steps: Timed steps.
        world: Devices.
        weights: Whether the weights are to be loaded; without them nothing is tokenised.
    """

    recipe: dict[str, Any]
    rows: str
    records: int
    steps: int
    world: int
    weights: bool


class Facts(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        gpu, gpu_gib: Name and memory of the card; None without one.
        versions: Of what shapes a run.
        rows: Records to train on; None where they could not be tokenised.
        steps: Of the whole recipe; None likewise.
        longest: Tokens of the longest record, images counted; of `cutoff_len` where nothing was tokenised.
        places: Rows of the trials' steps, one after the other.
        tokens: Tokens of each timed step.
        fused: Whether liger's fused loss can be tried here.
        sizes: Of the model, for the formula; None where its config.json is not at hand.
    """

    gpu: str | None
    gpu_gib: float | None
    versions: dict[str, str | None]
    rows: int | None
    steps: int | None
    longest: int
    places: list[int]
    tokens: list[int]
    fused: bool
    sizes: Sizes | None


def is_main() -> bool:
    """Whether this process writes the result: the first of those that torchrun starts."""
    return os.environ.get("RANK", "0") == "0"


def prepare(spec: Spec) -> Facts:
    """Tokenise the data, choose the rows, look at the machine.

    Raises:
        ValueError: the recipe or its data cannot be trained with; LLaMA-Factory's and medvl's own words.
    """
    import torch
    from llamafactory.hparams import get_train_args

    models, data, training, tuning, _ = get_train_args(_keys(spec))
    gpu = torch.cuda.is_available() and not training.use_cpu
    lengths = _tokenise(models, data, training) if spec.weights else None
    places, tokens = _places(lengths, spec, training) if lengths is not None else ([], [])
    from medvl.fit.model import sizes_of

    return Facts(
        gpu=torch.cuda.get_device_name() if gpu else None,
        gpu_gib=round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if gpu else None,
        versions=versions(),
        rows=None if lengths is None else len(lengths),
        steps=None if lengths is None else _steps(len(lengths), spec, training),
        longest=data.cutoff_len if lengths is None else int(lengths.max()),
        places=places,
        tokens=tokens,
        fused=gpu and _fuses(models, bool(requested_keys(tuning))),
        sizes=sizes_of(models, tuning, training, spec.recipe.get("deepspeed")),
    )


def _keys(spec: Spec) -> dict[str, Any]:
    """The recipe as it is parsed: its data written to `rows`; where nothing is loaded, for any machine."""
    keys = training_alone(spec.recipe)
    if spec.weights:
        return keys | {"tokenized_path": spec.rows}
    keys.pop("deepspeed", None)
    return keys | {"use_cpu": True}


def _tokenise(models: Any, data: Any, training: Any) -> Any:
    """Tokens of each training row, images counted; the tokenised rows lie in `tokenized_path`."""
    import numpy as np
    import pyarrow.compute as pc  # type: ignore[import-untyped]
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer
    from llamafactory.train.sft import workflow

    modules = load_tokenizer(models)
    template = get_template_and_fix_tokenizer(modules["tokenizer"], data)
    rows = workflow.get_dataset(template, models, data, training, stage="sft", **modules)["train_dataset"]
    parts = rows.select_columns(["input_ids"]).with_format("arrow").iter(batch_size=1000)
    return np.concatenate([pc.list_value_length(table["input_ids"]).to_numpy() for table in parts])


def _places(lengths: Any, spec: Spec, training: Any) -> tuple[list[int], list[int]]:
    """Rows of all steps, the longest of the data first, then ordinary ones; and the tokens of each timed step."""
    import numpy as np

    order = np.argsort(-lengths, kind="stable")
    longest = np.resize(order, spec.records)
    draw = np.random.default_rng(training.seed)
    count = (UNTIMED - LONGEST + spec.steps) * spec.records
    if training.train_sampling_strategy == LIKE_LENGTH:
        # As training has them: records of like length in a step.
        starts = draw.integers(0, max(1, len(order) - spec.records), size=count // spec.records)
        ordinary = np.concatenate([np.resize(order[start:], spec.records) for start in starts])
    else:
        ordinary = np.concatenate([draw.permutation(len(lengths)) for _ in range(math.ceil(count / len(lengths)))])
    places = np.concatenate([np.tile(longest, LONGEST), ordinary[:count]])
    timed = places[UNTIMED * spec.records :].reshape(spec.steps, spec.records)
    return places.tolist(), lengths[timed].sum(1).tolist()


def _steps(rows: int, spec: Spec, training: Any) -> int:
    if training.max_steps > 0:
        return int(training.max_steps)
    micro = training.per_device_train_batch_size * spec.world
    batches = rows // micro if training.dataloader_drop_last else math.ceil(rows / micro)
    steps: int = max(1, math.ceil(batches / training.gradient_accumulation_steps))
    epochs: float = training.num_train_epochs
    return math.ceil(steps * epochs)


def _fuses(models: Any, ours: bool) -> bool:
    """Whether liger has kernels for this model, and is installed; `ours`: whether the recipe has a medvl key."""
    import importlib.util

    from medvl.factory.checks.model import model_config
    from medvl.factory.families import FAMILIES

    config = model_config(models.model_name_or_path, models.model_revision, models.cache_dir) or {}
    family = FAMILIES.get(config.get("model_type", ""))
    known = family is not None and (family.fused_by_llamafactory or (ours and family.liger is not None))
    return known and importlib.util.find_spec("liger_kernel") is not None


def main(words: Sequence[str]) -> None:
    """Prepare what SPEC.json says; the reason in RESULT.json where it is refused."""
    given, path = map(Path, words)
    spec = msgspec.json.decode(given.read_bytes(), type=Spec)
    try:
        result: Any = {"facts": prepare(spec)}
    except (ValueError, OSError, RuntimeError) as error:
        result = {"refused": str(error)}
    if is_main():
        write_atomic(path, to_json(result))


if __name__ == "__main__":
    main(sys.argv[1:])
