#!/usr/bin/env python
"""The comparison of `grounding_quality.py` with the real thing: both families, small, through LLaMA-Factory's trainer.

    python benchmarks/grounding_families.py --family qwen3vl --out families
    python benchmarks/grounding_families.py --family internvl3 --out families --arms lm full --steps 2000

Per seed, a checkpoint with random weights is trained with the language-model loss; every arm goes on from it over the
same drawn images, with the recipe's own keys (`use_grounding_loss`, `grounding_beta`, …). Runs end up in
`<out>/families.json` one by one; a second call goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
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
from compact.images import FAMILIES, Scene, draw, test_scenes  # noqa: E402
from compact.report import show  # noqa: E402
from compact.scoring import scores  # noqa: E402

from medvl.demo.checkpoints import Family, build_checkpoint  # noqa: E402
from medvl.registry import dataset_entry  # noqa: E402
from medvl.sharegpt import write_atomic  # noqa: E402

_QUESTION = "Find every cell and give its bounding box as JSON."
_TRAIN_IMAGES, _TEST_IMAGES = 8000, 300
_RECIPES = {"qwen3vl": "demo_qwen3vl_tiny.yaml", "internvl3": "demo_internvl3_tiny.yaml"}


def main() -> int:
    """Draw the images, train what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=get_args(Family), default="qwen3vl")
    parser.add_argument("--start-steps", type=int, default=600, help="of the common start, batches of 16")
    parser.add_argument("--steps", type=int, default=400, help="of each arm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="*", choices=[name for name in ARMS if name != "reference"], metavar="ARM",
                        default=["lm", "full"], help=f"of {', '.join(ARMS)}; default: lm full")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder of everything")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    results = args.out / "families.json"
    runs = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    plan = f"{args.family}, {args.start_steps} + {args.steps} steps"
    done = runs.setdefault(plan, {})
    test = test_scenes(_TEST_IMAGES)
    for seed in range(args.seeds):
        missing = [ARMS[name] for name in args.arms if str(seed) not in done.get(name, {})]
        if not missing:
            continue
        place = args.out / f"{args.family}-{seed}"
        recipe = base_recipe(args.family, place / "data", seed)
        start = trained_start(args, place, recipe, seed, test)
        for arm in missing:
            keys = {"max_steps": args.steps, "model_name_or_path": str(start), "lr_scheduler_type": "linear"}
            run = train(recipe | keys | arm_keys(arm), place / arm.name)
            if arm.name == "lm":
                run["start"] = answered(recipe, start, place / "predicted", test)
            run["scores"] = answered(recipe, place / arm.name, place / "predicted", test)
            done.setdefault(arm.name, {})[str(seed)] = run
            write_atomic(results, json.dumps(runs, indent=1).encode())
            shutil.rmtree(place / arm.name)
    show(plan, done)
    return 0


def trained_start(
    args: argparse.Namespace, place: Path, recipe: dict[str, Any], seed: int, test: Sequence[Scene]
) -> Path:
    """The checkpoint that the arms of a seed go on from; its images are others than theirs."""
    start = place / "start"
    if (place / "start.done").exists():
        return start
    train_scenes = [draw(np.random.default_rng((FAMILIES, seed, index))) for index in range(2 * _TRAIN_IMAGES)]
    sets = {"start": train_scenes[:_TRAIN_IMAGES], "train": train_scenes[_TRAIN_IMAGES:], "test": list(test)}
    write_dataset(place / "data", sets)
    corpus = [_QUESTION, *(scene.text for scene in train_scenes)]
    random = build_checkpoint(args.family, place / "random", scale="demo", corpus=corpus, seed=seed)
    keys = {"max_steps": args.start_steps, "model_name_or_path": str(random), "dataset": "start"}
    run = train(recipe | keys | {"lr_scheduler_type": "constant_with_warmup"}, start)
    write_atomic(place / "start.done", json.dumps(run).encode())
    return start


def write_dataset(folder: Path, sets: dict[str, list[Scene]]) -> None:
    """Images, ShareGPT files and dataset_info.json."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name, scenes in sets.items():
        records = []
        for index, scene in enumerate(scenes):
            path = folder / "images" / f"{name}_{index:05d}.png"
            grey = np.clip(90 + 80 * scene.image[0], 0, 255).astype(np.uint8)
            Image.fromarray(grey).convert("RGB").save(path)
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
                           "use_cpu": not torch.cuda.is_available()}  # fmt: skip


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
    return {"train_cpu_s": time.process_time() - clock}


def answered(recipe: dict[str, Any], model: Path, out: Path, test: Sequence[Scene]) -> dict[str, float]:
    """Scores of LLaMA-Factory's own greedy predictions on the test images."""
    keys = {"do_train": False, "do_predict": True, "predict_with_generate": True, "do_sample": False, "dataset": None,
            "eval_dataset": "test", "model_name_or_path": str(model), "output_dir": str(out),
            "max_new_tokens": 240}  # fmt: skip
    run_exp(recipe | keys)
    lines = (out / "generated_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return scores(test, [json.loads(line)["predict"] for line in lines])


if __name__ == "__main__":
    sys.exit(main())
