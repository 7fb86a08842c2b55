#!/usr/bin/env python
"""Kill `medvl predict` (-9) at random moments and run it again: the final file must be that of an undisturbed run.

    python benchmarks/kill_predict.py [--times 10] [--family internvl3] [--seed 0]

A tiny model with an adapter per task answers drawn images in process. After every kill the file is read as a reader
would: every line but the last must be whole. Exits with 1 if that fails, a run answers nothing new, or the final bytes
differ.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from medvl.demo.adapters import build_marked
from medvl.demo.images import build_tree
from medvl.instructions import GENERAL
from medvl.tasks import Task


def command(folder: Path, out: Path, batch_size: int) -> list[str]:
    """The run; answers as long as they may be, so that batches take their time."""
    models = folder / "models"
    options = ["--model", str(models / "base"), "--adapters", str(models / "adapters"), "--out", str(out)]
    options += ["--profiles", str(folder / "profiles.yaml"), "--batch-size", str(batch_size)]
    return [sys.executable, "-m", "medvl.cli", "predict", "--data", str(folder / "tree"), *options]


def start(line: list[str]) -> subprocess.Popen[bytes]:
    """Begin a run."""
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def size(path: Path) -> int:
    """Bytes of the file, 0 if it is not there."""
    return path.stat().st_size if path.exists() else 0


def whole_lines(path: Path) -> int:
    """Lines that can be read; raises ValueError if one before the last cannot."""
    *lines, _ = path.read_bytes().split(b"\n")
    for line in lines:
        json.loads(line)
    return len(lines)


def main() -> int:
    """Undisturbed run, kills, last run, comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--family", choices=["internvl3", "qwen3vl"], default="internvl3")
    parser.add_argument("--questions", type=int, default=40, help="per drawn dataset")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = [*map(str, Task), GENERAL]
        build_marked(args.family, folder / "models", dict(zip(names, "ABCDEFGHI", strict=True)), endless=True)
        build_tree(folder / "tree", train=0, val=args.questions)
        (folder / "profiles.yaml").write_text(json.dumps({name: {"max_new_tokens": 24} for name in names}))
        expected, out = folder / "whole.jsonl", folder / "killed.jsonl"
        subprocess.run(command(folder, expected, args.batch_size), check=True, stdout=subprocess.DEVNULL)
        total = whole_lines(expected)
        share = size(expected) / (args.times + 1)
        for kill in range(1, args.times + 1):
            before = size(out)
            process = start(command(folder, out, args.batch_size))
            until = before + rng.uniform(0.1, 1.0) * share
            while size(out) < until and process.poll() is None:
                time.sleep(rng.uniform(0.0, 0.05))
            process.send_signal(signal.SIGKILL)
            process.wait()
            done = whole_lines(out)
            sys.stdout.write(f"kill {kill}: {done} of {total} whole lines, {size(out) - before} bytes more\n")
            sys.stdout.flush()
            if size(out) <= before or done >= total:
                sys.stdout.write("the run was not killed while it predicted\n")
                return 1
        subprocess.run(command(folder, out, args.batch_size), check=True, stdout=subprocess.DEVNULL)
        same = out.read_bytes() == expected.read_bytes()
        sys.stdout.write(f"{args.times} kills, {total} predictions: the files are {'equal' if same else 'DIFFERENT'}\n")
        return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
