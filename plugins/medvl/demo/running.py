"""Runs one command of the pipeline: output to a log file, progress on the console, nothing left behind on Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from medvl.demo.steps import Step

_TAIL_LINES = 30
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10


class StepFailedError(RuntimeError):
    """A command ended with an exit code other than 0; the message holds the end of its output."""


def repository_root() -> Path:
    """The clone this package is installed from.

    Raises:
        FileNotFoundError: the package was installed without its clone, which holds the recipes and scripts.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / "recipes").is_dir():
        raise FileNotFoundError(f"{root} has no recipes/: `medvl demo` runs in a clone; install with pip install -e .")
    return root


def environment() -> dict[str, str]:
    """What the commands need set: this interpreter's scripts first, one thread each, no network, no GPU.

    Two threads fighting for two busy cores were measured ten times slower than one. A machine with several GPUs would
    make LLaMA-Factory start one process for each.
    """
    fixed = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    return {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **os.environ, **fixed}


def run_step(step: Step, root: Path, log: Path, on_progress: Callable[[float, str], None]) -> float:
    """Run the command in `root`, its output in `log`; seconds of wall time.

    `on_progress` is called about twice a second with a fraction between 0 and 1 and a note on the state of training.

    Raises:
        StepFailedError: the command failed.
        KeyboardInterrupt: the user gave up; the command and what it started have been ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("wb") as output:
        # A session of its own, so that the command and its data loaders can be ended together.
        process = subprocess.Popen(
            step.command, cwd=root, env=environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                fraction, note = training_progress(root / step.training_log) if step.training_log else (0.0, "")
                on_progress(fraction or min(0.95, (time.monotonic() - started) / step.seconds), note)
                time.sleep(_POLL_SECONDS)
        finally:
            _end(process)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
        raise StepFailedError(f"{tail}\n\n{step.title}: exit code {process.returncode}. Whole output: {log}")
    return time.monotonic() - started


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


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
