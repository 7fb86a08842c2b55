#!/usr/bin/env python
"""The pictures of `grounding_quality.py` through LLaMA-Factory: a real model class, small and from random weights.

    python benchmarks/grounding_families.py --family qwen3vl --steps 400 --out families
    python benchmarks/grounding_families.py --family internvl3 --steps 20000 --out families use_grounding_loss=true

Says how much of multi-object detection such a model has learned per minute of processor time. On a CPU that is next to
nothing, which is why `grounding_quality.py` has a model of its own; with a GPU, this is the comparison to run. What
stands behind the options goes into the recipe as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
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

from compact.pictures import Scene, draw  # noqa: E402
from compact.scoring import scores  # noqa: E402

from medvl.demo.checkpoints import Family, build_checkpoint  # noqa: E402
from medvl.sharegpt import dataset_entry, write_atomic  # noqa: E402

_QUESTION = "Find every cell and give its bounding box as JSON."
_TEST_PICTURES = 200


def main() -> int:
    """Draw, build, train, predict, score; the result goes to stdout and, as JSON, into `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=get_args(Family), default="qwen3vl")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=4000, help="to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of everything")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="recipe keys")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    test = [draw(np.random.default_rng((2, 0, index))) for index in range(_TEST_PICTURES)]
    train = [draw(np.random.default_rng((3, args.seed, index))) for index in range(args.pictures)]
    write_dataset(args.out / "data", {"cells_train": train, "cells_test": test})
    corpus = [_QUESTION, *(scene.text for scene in train)]
    checkpoint = build_checkpoint(args.family, args.out / "start", scale="demo", corpus=corpus, seed=args.seed)
    base = recipe(args.family, args.out / "data")
    overrides = yaml.safe_load("\n".join(text.replace("=", ": ", 1) for text in args.overrides)) or {}
    clock, cpu = time.perf_counter(), time.process_time()
    trained = {"output_dir": str(args.out / "trained"), "seed": args.seed, "max_steps": args.steps,
               "model_name_or_path": str(checkpoint), "per_device_train_batch_size": args.batch}  # fmt: skip
    run_exp(base | trained | overrides)
    result: dict[str, Any] = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - clock}
    predicted = {"do_train": False, "do_predict": True, "predict_with_generate": True, "do_sample": False,
                 "dataset": None, "eval_dataset": "cells_test", "model_name_or_path": str(args.out / "trained"),
                 "output_dir": str(args.out / "predicted"), "max_new_tokens": 240}  # fmt: skip
    run_exp(base | predicted)
    lines = (args.out / "predicted" / "generated_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    result |= scores(test, [json.loads(line)["predict"] for line in lines])
    write_atomic(args.out / "result.json", json.dumps(result, indent=1).encode())
    sys.stdout.write("\n".join(f"{name:10} {value:.3f}" for name, value in result.items()) + "\n")
    return 0


def write_dataset(folder: Path, sets: dict[str, list[Scene]]) -> None:
    """Pictures, ShareGPT files and dataset_info.json."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for name, scenes in sets.items():
        records = []
        for index, scene in enumerate(scenes):
            path = folder / "pictures" / f"{name}_{index:05d}.png"
            grey = np.clip(90 + 80 * scene.picture[0], 0, 255).astype(np.uint8)
            Image.fromarray(grey).convert("RGB").save(path)
            turns = [{"from": "human", "value": f"<image>\n{_QUESTION}"}, {"from": "gpt", "value": scene.text}]
            records.append({"conversations": turns, "images": [str(path.resolve())]})
        write_atomic(folder / f"{name}.json", json.dumps(records).encode())
    info = {name: dataset_entry(f"{name}.json") for name in sets}
    write_atomic(folder / "dataset_info.json", json.dumps(info, indent=1).encode())


def recipe(family: str, data: Path) -> dict[str, Any]:
    """The demo's recipe of the family, on these pictures."""
    name = {"qwen3vl": "demo_qwen3vl_tiny.yaml", "internvl3": "demo_internvl3_tiny.yaml"}[family]
    keys: dict[str, Any] = yaml.safe_load((ROOT / "recipes" / name).read_text(encoding="utf-8"))
    quiet = {"plot_loss": False, "medvl_run_card": False, "dataloader_num_workers": 0, "logging_steps": 50}
    return keys | quiet | {"dataset_dir": str(data), "dataset": "cells_train", "eval_dataset": None,
                           "use_cpu": not torch.cuda.is_available()}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
