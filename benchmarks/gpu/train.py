#!/usr/bin/env python
"""One recipe for some steps through LLaMA-Factory's own `run_exp`, in this process; a row of figures as JSON.

    python benchmarks/gpu/train.py '{"recipe": "recipes/X.yaml", "set": {"max_steps": 8}, "out": "row.json"}'

It imports everything, says `ready`, and waits for a line: so that imports of one setting run beside the steps of
another. The first two steps are warm-up. Memory is the peak of the allocator, of the process without a GPU.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DISABLE_VERSION_CHECK", "1")

import torch
import yaml
from llamafactory.train.tuner import run_exp
from transformers import TrainerCallback

WARM_UP = 2
# Nothing but steps: no evaluation, no files. None takes a key out.
BARE = {
    "do_eval": False, "eval_strategy": "no", "eval_dataset": None, "load_best_model_at_end": False,
    "metric_for_best_model": None, "greater_is_better": None, "grounding_eval_steps": None, "save_strategy": "no",
    "save_total_limit": None, "plot_loss": False, "report_to": "none", "overwrite_output_dir": True,
    "logging_steps": 1, "preprocessing_num_workers": 1, "overwrite_cache": True,
}  # fmt: skip


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds of every optimiser step."""

    def __init__(self) -> None:
        """No step yet."""
        self.seconds: list[float] = []
        self.started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start, when the GPU has done what it was given before."""
        self.started = now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop, when it has done the step."""
        self.seconds.append(now() - self.started)


def now() -> float:
    """The clock, once the GPU is idle."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def arguments(recipe: Path, changes: dict[str, Any], out: str) -> dict[str, Any]:
    """A recipe as it is measured; its keys of quantisation go with the bits, stock LLaMA-Factory knows none of ours."""
    stated = yaml.safe_load(recipe.read_text()) | BARE | changes | {"output_dir": out}
    if stated.get("quantization_bit") is None:
        stated |= {"quantization_bit": None, "quantization_method": None, "double_quantization": None}
    if os.environ.get("MEDVL_DISABLE"):
        stated = {key: value for key, value in stated.items() if not key.startswith(("medvl_", "grounding_"))}
    return {key: value for key, value in stated.items() if value is not None}


def measure(setting: dict[str, Any]) -> dict[str, Any]:
    """Train, and say what it took."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        stated = arguments(Path(setting["recipe"]), setting["set"], out)
        run_exp(stated, callbacks=[clock])
        logged = json.loads((Path(out) / "trainer_state.json").read_text())["log_history"]
    steps = clock.seconds[WARM_UP:]
    records = stated["per_device_train_batch_size"] * stated["gradient_accumulation_steps"]
    records *= int(os.environ.get("WORLD_SIZE", "1"))
    peak = (
        torch.cuda.max_memory_allocated()
        if torch.cuda.is_available()
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {
        "records_per_step": records,
        "step_s": statistics.median(steps),
        "fastest_s": min(steps),
        "slowest_s": max(steps),
        "samples_per_s": records / statistics.median(steps),
        "gib": peak / 2**30,
        "losses": [entry["loss"] for entry in logged if "loss" in entry],
    }


def main() -> None:
    """Wait for the line, measure, write the row; nothing where the line never comes: who would send it has ended."""
    setting = json.loads(sys.argv[1])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if setting.get("wait", True) and not sys.stdin.readline():
        return
    row = measure(setting)
    if int(os.environ.get("RANK", "0")) == 0:
        Path(setting["out"]).write_text(json.dumps(row))


if __name__ == "__main__":
    main()
