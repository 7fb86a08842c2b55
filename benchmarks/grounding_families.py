#!/usr/bin/env python
"""The comparison of `grounding_quality.py` with the real thing: both families, small, through LLaMA-Factory's trainer.

    python benchmarks/grounding_families.py --families qwen3vl --seeds 100 --sets drawn
    python benchmarks/grounding_families.py --bccd ../shared/data/bccd_flare --seeds 0-7 --work /tmp/families

Per seed, a checkpoint with random weights is trained with the language-model loss on drawn images; every arm goes on
from it over the same images, drawn ones or blood smears, with the recipe's own keys (`use_grounding_loss`,
`grounding_beta`, …). Each run is one line of `--out`; a second call runs what is missing there. Starts and images are
kept in `--work`. Tables: `grounding_table.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import yaml
from llamafactory.train.tuner import run_exp
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from compact.arms import ARMS, Arm  # noqa: E402
from compact.images import COMPARED, FAMILIES, SIDE, Scene, draw, read_bccd, test_scenes, turned  # noqa: E402
from compact.rows import Row, append_row, code_fingerprint, fingerprint, key_of, parse_seeds, read_rows  # noqa: E402
from compact.scoring import scores  # noqa: E402

from medvl.demo.checkpoints import SHAPES, Family, build_checkpoint  # noqa: E402
from medvl.registry import dataset_entry  # noqa: E402
from medvl.sharegpt import write_atomic  # noqa: E402

KEPT = ROOT / "benchmarks/evidence/families.jsonl"
_QUESTION = "Find every cell and give its bounding box as JSON."
_BATCH, _TEST_IMAGES = 16, 300
_PATCH = 16  # 2 x 2 patches are a token, as in the real models: 16 tokens
_TRAINING = {"disable_gradient_checkpointing": True}  # Batches of like length would halve the time, but do not learn.
_RECIPES = {"qwen3vl": "demo_qwen3vl_tiny.yaml", "internvl3": "demo_internvl3_tiny.yaml"}
_PRODUCT = [name for name, arm in ARMS.items() if arm.numbers is None and arm.order == "raster" and not arm.reference]


@dataclass(frozen=True)
class Work:
    """What all runs share."""

    steps: int
    start_steps: int
    bccd: Path
    folder: Path

    @property
    def common(self) -> str:
        """Fingerprint of what all arms of all seeds have in common."""
        recipes = [yaml.safe_load((ROOT / "recipes" / name).read_text(encoding="utf-8")) for name in _RECIPES.values()]
        parts = [SIDE, _PATCH, _BATCH, self.start_steps, self.steps, _TEST_IMAGES, _TRAINING, recipes]
        return fingerprint(parts)


def main() -> int:
    """Run what is missing, one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=get_args(Family), default=list(get_args(Family)))
    parser.add_argument("--sets", nargs="+", choices=("drawn", "bccd"), default=["drawn", "bccd"])
    parser.add_argument("--bccd", type=Path, default=ROOT / "data/bccd_flare", help="BCCD as a FLARE tree")
    parser.add_argument("--start-steps", type=int, default=600, help="of the common start, batches of 16")
    parser.add_argument("--steps", type=int, default=300, help="of each arm")
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("0-7"), help="as 0-7 or 100,101")
    parser.add_argument("--arms", nargs="+", choices=_PRODUCT, metavar="ARM", default=["lm", "beta=2"],
                        help=f"of {', '.join(_PRODUCT)}; default: lm beta=2")  # fmt: skip
    parser.add_argument("--out", type=Path, default=KEPT, help="JSON Lines of runs")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "saves/evidence_families", help="folder of starts and images"
    )
    args = parser.parse_args()
    if "bccd" in args.sets and not args.bccd.is_dir():
        sys.stderr.write(
            f"{args.bccd} is not there; give the BCCD tree in the FLARE layout as --bccd, or --sets drawn\n"
        )
        return 2
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    code()  # of the files as they are now, whatever becomes of them during the run
    work = Work(args.steps, args.start_steps, args.bccd.resolve(), args.work.resolve())
    done = {key_of(row) for row in read_rows([args.out])}
    for seed in args.seeds:
        for family in args.families:
            for images in args.sets:
                for arm in (ARMS[name] for name in args.arms):
                    row = plan_of(work, family, images, arm, seed)
                    if key_of(row) not in done:
                        append_row(args.out, row | run(work, family, images, arm, seed))
    return 0


def plan_of(work: Work, family: str, images: str, arm: Arm, seed: int) -> Row:
    """A row without its results: which run it is."""
    plan = fingerprint([work.common, arm.plan])
    return {"family": family, "set": images, "arm": arm.name, "seed": seed, "common": work.common, "plan": plan}


def run(work: Work, family: Any, images: str, arm: Arm, seed: int) -> Row:
    """Train and score one arm: the results of a row."""
    place = work.folder / f"{work.common}-{seed}"
    test = _tested(images, work.bccd)
    write_images(work, place / images, images, seed)
    recipe = base_recipe(family, place / images, seed)
    start = trained_start(work, place, family, seed)
    keys = {"max_steps": work.steps, "model_name_or_path": str(start), "lr_scheduler_type": "linear"}
    out = place / f"{family}-{images}-{arm.name}"
    result = train(recipe | keys | arm_keys(arm), out)
    clock = time.process_time()
    result["scores"] = answered(recipe, out, place / "predicted", test)
    result["test_cpu_s"] = round(time.process_time() - clock, 1)
    shutil.rmtree(out)
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return result | {"steps": work.steps, "code": code(), "date": date}


def trained_start(work: Work, place: Path, family: Any, seed: int) -> Path:
    """The checkpoint that the arms of a seed go on from; its images are others than theirs."""
    start = place / f"{family}-start"
    done = place / f"{family}-start.done"
    if not done.exists():
        write_images(work, place / "start", "start", seed)
        shape = SHAPES[family, "demo"]
        SHAPES[family, "demo"] = dataclasses.replace(shape, patch=_PATCH, side=SIDE)
        rng = np.random.default_rng((FAMILIES, 0))
        corpus = [_QUESTION, *(draw(rng).text for _ in range(500))]
        random = build_checkpoint(family, place / f"{family}-random", scale="demo", corpus=corpus, seed=seed)
        SHAPES[family, "demo"] = shape
        keys = {"max_steps": work.start_steps, "model_name_or_path": str(random), "dataset": "train"}
        trained = train(
            base_recipe(family, place / "start", seed) | keys | {"lr_scheduler_type": "constant_with_warmup"}, start
        )
        write_atomic(done, json.dumps(trained).encode())
    return start


@functools.cache
def code() -> str:
    """Fingerprint of the code that shapes a run."""
    parts = [ROOT / f"benchmarks/compact/{part}.py" for part in ("images", "scoring")]
    return code_fingerprint([*parts, Path(__file__), *(ROOT / "plugins/medvl/losses").glob("*.py")])


@functools.cache
def _tested(images: str, bccd: Path) -> list[Scene]:
    return read_bccd(bccd, train=False) if images == "bccd" else test_scenes(_TEST_IMAGES)


def write_images(work: Work, folder: Path, images: str, seed: int) -> None:
    """The images that a seed's start or arms are trained and tested on, each of them once."""
    if (folder / "dataset_info.json").exists():
        return
    if images == "bccd":
        rng, source = np.random.default_rng((COMPARED, seed)), read_bccd(work.bccd, train=True)
        trained = [turned(source[i], rng) for i in rng.integers(0, len(source), work.steps * _BATCH)]
    else:
        first, steps = (0, work.start_steps) if images == "start" else (1, work.steps)
        trained = [draw(np.random.default_rng((FAMILIES, seed, first, i))) for i in range(steps * _BATCH)]
    write_dataset(folder, {"train": trained, "test": [] if images == "start" else _tested(images, work.bccd)})


def write_dataset(folder: Path, sets: dict[str, list[Scene]]) -> None:
    """Images, ShareGPT files and dataset_info.json."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name, scenes in sets.items():
        records = []
        for index, scene in enumerate(scenes):
            path = folder / "images" / f"{name}_{index:05d}.png"
            pixels = np.clip(90 + 80 * scene.image, 0, 255).astype(np.uint8)
            Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
            turns = [{"from": "human", "value": f"<image>\n{_QUESTION}"}, {"from": "gpt", "value": scene.text}]
            records.append({"conversations": turns, "images": [str(path.resolve())]})
        write_atomic(folder / f"{name}.json", json.dumps(records).encode())
    info = {name: dataset_entry(f"{name}.json") for name in sets}
    write_atomic(folder / "dataset_info.json", json.dumps(info, indent=1).encode())


def base_recipe(family: str, data: Path, seed: int) -> dict[str, Any]:
    """The demo's recipe of the family, on these images."""
    keys: dict[str, Any] = yaml.safe_load((ROOT / "recipes" / _RECIPES[family]).read_text(encoding="utf-8"))
    quiet = {"plot_loss": False, "medvl_run_card": False, "dataloader_num_workers": 0, "logging_steps": 50}
    return keys | quiet | {"dataset_dir": str(data), "dataset": "train", "eval_dataset": None, "seed": seed,
                           "image_max_pixels": SIDE**2, "per_device_train_batch_size": _BATCH,
                           "use_cpu": not torch.cuda.is_available(), **_TRAINING}  # fmt: skip


def arm_keys(arm: Arm) -> dict[str, Any]:
    """An arm as recipe keys."""
    if arm.settings is None:
        return {}
    weights = {f"grounding_{name}": value for name, value in dataclasses.asdict(arm.settings).items()}
    return {"use_grounding_loss": True, **weights}


def train(recipe: dict[str, Any], out: Path) -> dict[str, Any]:
    """One training; its processor time in seconds."""
    clock = time.process_time()
    run_exp(recipe | {"output_dir": str(out)})
    return {"train_cpu_s": round(time.process_time() - clock, 1)}


def answered(recipe: dict[str, Any], model: Path, out: Path, test: Sequence[Scene]) -> dict[str, float]:
    """Scores of LLaMA-Factory's own greedy predictions on the test images."""
    keys = {"do_train": False, "do_predict": True, "predict_with_generate": True, "do_sample": False, "dataset": None,
            "eval_dataset": "test", "model_name_or_path": str(model), "output_dir": str(out),
            "max_new_tokens": 240}  # fmt: skip
    run_exp(recipe | keys)
    lines = (out / "generated_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    found = scores(test, [json.loads(line)["predict"] for line in lines])
    return {name: round(value, 5) for name, value in found.items()}


if __name__ == "__main__":
    sys.exit(main())
