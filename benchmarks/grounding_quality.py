#!/usr/bin/env python
"""What the grounding loss does to boxes: a small detector trained from one start with each form of the loss.

    python benchmarks/grounding_quality.py --seeds 100-102 --arms lm full scale=0.2 --bccd ../shared/data/bccd_flare
    python benchmarks/grounding_quality.py --sets drawn --seeds 0-7 --work /tmp/starts
    python benchmarks/grounding_table.py                                                 # tables of what is there

The detector is no vision-language model, but it writes the same answer text token by token and is trained with the very
functions of `medvl.losses`. Per seed, one start is trained with the language-model loss on drawn images; every arm goes
on from it for as many steps, over the same images in the same order. Each run is one line of `--out`; a second call
runs what is missing there. Starts are kept in `--work`. One thread.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from compact.arms import ARMS, CHECKED, Arm  # noqa: E402
from compact.images import SIDE, Scene, read_bccd, test_scenes  # noqa: E402
from compact.model import CompactDetector  # noqa: E402
from compact.rows import Row, append_row, code_fingerprint, fingerprint, key_of, parse_seeds, read_rows  # noqa: E402
from compact.scoring import scores  # noqa: E402
from compact.training import (  # noqa: E402
    BATCH,
    CURRICULUM,
    LEARNING_RATE,
    START_STEPS,
    arm_batches,
    digest,
    make_tokenizer,
    new_model,
    start_batches,
    train,
)

from medvl.losses.coordinates import Vocabulary  # noqa: E402

KEPT = ROOT / "benchmarks/evidence/compact.jsonl"
MAIN = ("lm", "full")
LONGEST = 320  # tokens; eight boxes with labels
TEST_IMAGES = 500  # drawn ones
# Of the benchmark, whose code shapes a run.
PARTS = ("denoising", "images", "matching", "model", "numbers", "scoring", "training")


@dataclass(frozen=True)
class Work:
    """What all runs share."""

    tokenizer: Any
    vocabulary: Vocabulary
    steps: int
    start_steps: int
    folder: Path

    @property
    def common(self) -> str:
        """Fingerprint of what all arms of all seeds have in common."""
        return fingerprint([SIDE, BATCH, LEARNING_RATE, CURRICULUM, self.start_steps, self.steps, TEST_IMAGES])


def main() -> int:
    """Run what is missing, one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=("drawn", "bccd"), default=["drawn", "bccd"])
    parser.add_argument("--bccd", type=Path, default=ROOT / "data/bccd_flare", help="BCCD as a FLARE tree")
    parser.add_argument("--steps", type=int, default=200, help="of each arm")
    parser.add_argument("--start-steps", type=int, default=START_STEPS, help="of the common start")
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("0-7"), help="as 0-7 or 100,101")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(MAIN), metavar="ARM",
                        help=f"of {', '.join(ARMS)}; default: {' '.join(MAIN)}")  # fmt: skip
    parser.add_argument("--out", type=Path, default=KEPT, help="JSON Lines of runs")
    parser.add_argument("--work", type=Path, default=ROOT / "saves/evidence", help="folder of the starts")
    args = parser.parse_args()
    sets = list(args.sets)
    if "bccd" in sets and not args.bccd.is_dir():
        sys.stderr.write(f"skipped bccd: {args.bccd} is not there; give the BCCD tree in the FLARE layout as --bccd\n")
        sets.remove("bccd")
    torch.set_num_threads(1)
    code()  # of the files as they are now, whatever becomes of them during the run
    tokenizer = make_tokenizer()
    work = Work(tokenizer, Vocabulary.of(tokenizer), args.steps, args.start_steps, args.work)
    done = {key_of(row) for row in read_rows([args.out])}
    for seed in args.seeds:
        for images in sets:
            for arm in (ARMS[name] for name in args.arms):
                row = plan_of(work, images, arm, seed)
                if key_of(row) not in done:
                    append_row(args.out, row | run(work, images, arm, seed, args.bccd))
    return 0


def plan_of(work: Work, images: str, arm: Arm, seed: int) -> Row:
    """A row without its results: which run it is."""
    plan = fingerprint([work.common, arm.plan])
    return {"family": "compact", "set": images, "arm": arm.name, "seed": seed, "common": work.common, "plan": plan}


def run(work: Work, images: str, arm: Arm, seed: int, bccd: Path) -> Row:
    """Train and score one arm: the results of a row."""
    source = _smears(bccd, train=True) if images == "bccd" else None
    model, started = start_of(work, seed)
    clock, losses, result = time.process_time(), [], {}

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if step + 1 == round(CHECKED * work.steps):
            result["digest"] = digest(model)
        _say(f"{images}, {arm.name}, seed {seed}", step, loss)

    batches = arm_batches(source, arm, seed, work.steps, work.tokenizer, work.vocabulary)
    train(model, batches, work.steps, arm, work.tokenizer, on_step)
    result |= {"train_cpu_s": round(time.process_time() - clock, 1), "final_loss": round(mean(losses[-25:]), 4)}
    if arm.share == 1.0:
        clock = time.process_time()
        test = _smears(bccd, train=False) if images == "bccd" else _drawn()
        result["scores"] = test_scores(model, test, work.tokenizer)
        result["test_cpu_s"] = round(time.process_time() - clock, 1)
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return result | {"start": started, "steps": work.steps, "code": code(), "date": date}


def start_of(work: Work, seed: int) -> tuple[CompactDetector, str]:
    """The common start of a seed, trained if it is not kept; and the fingerprint of its weights."""
    model = new_model(seed, len(work.tokenizer))
    path = work.folder / f"start-{work.common}-{seed}.safetensors"
    if not path.exists():
        batches = start_batches(seed, work.tokenizer, work.vocabulary)
        on_step = functools.partial(_say, f"start, seed {seed}")
        train(model, batches, work.start_steps, Arm("start"), work.tokenizer, on_step, start=True)
        work.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file(model.state_dict(), part)
        part.replace(path)
    model.load_state_dict(load_file(path))
    return model, digest(model)


def _say(what: str, step: int, loss: float) -> None:
    if step % 100 == 99:
        sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {what}: step {step + 1}, loss {loss:.3f}\n")


@functools.cache
def _smears(bccd: Path, *, train: bool) -> list[Scene]:
    return read_bccd(bccd, train=train)


@functools.cache
def _drawn() -> list[Scene]:
    return test_scenes(TEST_IMAGES)


@functools.cache
def code() -> str:
    """Fingerprint of the code that shapes a run."""
    parts = [ROOT / f"benchmarks/compact/{part}.py" for part in PARTS]
    return code_fingerprint([*parts, *(ROOT / "plugins/medvl/losses").glob("*.py")])


def test_scores(model: CompactDetector, test: Sequence[Scene], tokenizer: Any) -> dict[str, float]:
    """Scores of greedily written answers on the test images."""
    model.eval()
    images = torch.from_numpy(np.stack([scene.image for scene in test]))
    texts = [tokenizer.decode(ids) for ids in model.write(images, tokenizer.eos_token_id, LONGEST)]
    model.train()
    return {name: round(value, 5) for name, value in scores(test, texts).items()}


if __name__ == "__main__":
    sys.exit(main())
