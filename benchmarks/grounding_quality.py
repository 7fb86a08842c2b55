#!/usr/bin/env python
"""What the grounding loss does to boxes: a small detector trained from one start with each form of the loss.

    python benchmarks/grounding_quality.py --out grounding_quality.json
    python benchmarks/grounding_quality.py --set bccd --bccd ../shared/data/bccd_flare --out grounding_quality.json
    python benchmarks/grounding_quality.py --out grounding_quality.json --arms            # tables of what is there

The detector is no vision-language model, but it writes the same answer text token by token and is trained with the very
functions of `medvl.losses`. Per seed, one start is trained with the language-model loss; every arm goes on from it for
as many steps, over the same images in the same order. Arms end up in `--out` one by one; a second call goes on where
the first stopped. One thread.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from compact.arms import ARMS, CHECKED, Arm  # noqa: E402
from compact.images import COMPARED, Scene, read_bccd, stream, test_scenes  # noqa: E402
from compact.model import CompactDetector  # noqa: E402
from compact.report import show  # noqa: E402
from compact.scoring import scores  # noqa: E402
from compact.training import (  # noqa: E402
    BATCH,
    START_STEPS,
    Batch,
    collate,
    digest,
    make_tokenizer,
    new_model,
    start_batches,
    train,
)

from medvl.losses.coordinates import Vocabulary  # noqa: E402
from medvl.sharegpt import write_atomic  # noqa: E402

MAIN = ("lm", "reference", "w1", "w1+iou", "full")
_LONGEST = 320  # tokens; eight boxes with labels
_TEST_IMAGES = 500


def main() -> int:
    """Train what is missing in `--out`, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=("generated", "bccd"), default="generated")
    parser.add_argument("--bccd", type=Path, default=ROOT / "data/bccd_flare", help="BCCD as a FLARE tree")
    parser.add_argument("--steps", type=int, default=500, help="of each arm")
    parser.add_argument("--start-steps", type=int, default=START_STEPS, help="of the common start")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(MAIN), metavar="ARM",
                        help=f"of {', '.join(ARMS)}; default: {' '.join(MAIN)}")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="JSON file of all runs; read, and written after each")
    args = parser.parse_args()
    if args.set == "bccd" and args.arms and not args.bccd.is_dir():
        sys.stderr.write(f"skipped: {args.bccd} is not there; give the BCCD tree in the FLARE layout as --bccd\n")
        return 0
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    runs = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    plan = f"{args.set}, {args.start_steps} + {args.steps} steps"
    done = runs.setdefault(plan, {})
    todo = [
        (seed, ARMS[name]) for seed in range(args.seeds) for name in args.arms if str(seed) not in done.get(name, {})
    ]
    if todo:
        with Progress(console=Console(stderr=True)) as progress:
            work(args, todo, done, lambda: write_atomic(args.out, json.dumps(runs, indent=1).encode()), progress)
    show(plan, done)
    return 0


def work(
    args: argparse.Namespace,
    todo: Sequence[tuple[int, Arm]],
    done: dict[str, dict[str, Any]],
    keep: Callable[[], None],
    progress: Progress,
) -> None:
    """Train and score each of `todo`; each goes into `done[arm][seed]` and is kept at once."""
    tokenizer = make_tokenizer()
    vocabulary = Vocabulary.of(tokenizer)
    if args.set == "bccd":
        source, test = read_bccd(args.bccd, train=True), read_bccd(args.bccd, train=False)
    else:
        source, test = None, test_scenes(_TEST_IMAGES)

    @functools.lru_cache(maxsize=1)
    def batches(seed: int) -> list[Batch]:
        scenes = stream(source, (COMPARED, seed), BATCH)
        return [collate(next(scenes), tokenizer, vocabulary) for _ in range(args.steps)]

    for seed, arm in todo:
        model = new_model(seed, len(tokenizer))
        start = args.out.with_suffix(f".start-{args.start_steps}-{seed}.safetensors")
        if not start.exists():
            bar = progress.add_task(f"start, seed {seed}", total=args.start_steps)
            advance = functools.partial(_advance, progress, bar)
            train(model, start_batches(seed, tokenizer, vocabulary), args.start_steps, Arm("start"), tokenizer, advance,
                  decay=False)  # fmt: skip
            save_file(model.state_dict(), start)
        model.load_state_dict(load_file(start))
        run: dict[str, Any] = {"start": test_scores(model, test, tokenizer)} if arm.name == "lm" else {}
        bar = progress.add_task(f"{args.set}, {arm.name}, seed {seed}", total=round(args.steps * arm.share))
        run |= run_arm(model, batches(seed), args.steps, arm, tokenizer, functools.partial(_advance, progress, bar))
        if arm.share == 1.0:
            run["scores"] = test_scores(model, test, tokenizer)
        done.setdefault(arm.name, {})[str(seed)] = run
        keep()


def run_arm(
    model: torch.nn.Module,
    batches: list[Batch],
    steps: int,
    arm: Arm,
    tokenizer: Any,
    advance: Callable[[int, float], None],
) -> dict[str, Any]:
    """Train one arm: its processor time, its last losses, and the weights' fingerprint after a share of the steps."""
    clock, losses, run = time.process_time(), [], {}

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if step + 1 == round(CHECKED * steps):
            run["digest"] = digest(model)
        advance(step, loss)

    train(model, batches, steps, arm, tokenizer, on_step)
    return run | {"train_cpu_s": time.process_time() - clock, "final_loss": mean(losses[-25:])}


def _advance(progress: Progress, bar: TaskID, step: int, loss: float) -> None:
    progress.update(bar, completed=step + 1)
    if not progress.console.is_terminal and step % 100 == 99:
        progress.console.print(f"{progress.tasks[bar].description}: step {step + 1}, loss {loss:.3f}")


def test_scores(model: CompactDetector, test: list[Scene], tokenizer: Any) -> dict[str, float]:
    """Scores of greedily written answers on the test images."""
    model.eval()
    images = torch.from_numpy(np.stack([scene.image for scene in test]))
    texts = [tokenizer.decode(ids) for ids in model.write(images, tokenizer.eos_token_id, _LONGEST)]
    model.train()
    return scores(test, texts)


if __name__ == "__main__":
    sys.exit(main())
