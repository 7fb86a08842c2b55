"""Runs one command of the demo's pipeline, and tells how far training has come."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from medvl import processes
from medvl.demo.steps import Step


def environment() -> dict[str, str]:
    """What the commands need set: this interpreter's scripts first, one thread each, no network, no GPU.

    Two threads fighting for two busy cores were measured ten times slower than one. A machine with several GPUs would
    make LLaMA-Factory start one process for each.
    """
    own = {name: os.environ.get(name, default) for name, default in (("OMP_NUM_THREADS", "1"), ("HF_HUB_OFFLINE", "1"))}
    return processes.environment(**own, CUDA_VISIBLE_DEVICES="")


def run_step(step: Step, root: Path, log: Path, on_progress: Callable[[float, str], None]) -> float:
    """Run the command in `root`, its output in `log`; seconds of wall time.

    `on_progress` is called about twice a second with a fraction between 0 and 1 and a note on the state of training.

    Raises:
        CommandFailedError: the command failed.
        KeyboardInterrupt: the user gave up; the command and what it started have been ended.
    """
    started = time.monotonic()

    def tell() -> None:
        fraction, note = training_progress(root / step.training_log) if step.training_log else (0.0, "")
        on_progress(fraction or min(0.95, (time.monotonic() - started) / step.seconds), note)

    return processes.run_logged(step.command, title=step.title, cwd=root, log=log, env=environment(), on_poll=tell)


def training_progress(trainer_log: Path) -> tuple[float, str]:
    """Fraction done and a note such as `step 40/1000, loss 0.41`, from LLaMA-Factory's trainer_log.jsonl.

    The file is read while it is written: it may not be there yet, and its last line may be half a line.
    """
    if not trainer_log.exists():
        return 0.0, ""
    for line in reversed(trainer_log.read_text(encoding="utf-8").splitlines()):
        with contextlib.suppress(json.JSONDecodeError):
            entry = json.loads(line)
            done, total = entry["current_steps"], entry["total_steps"]
            loss = f", loss {entry['loss']:.3f}" if entry.get("loss") is not None else ""
            return done / total, f"step {done}/{total}{loss}"
    return 0.0, ""
