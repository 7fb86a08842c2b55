"""One setting, tried in a process of its own: a few steps of LLaMA-Factory's own training, timed.

    python -m medvl.fit.trial SPEC.json RESULT.json

Evaluation, saving and logging are off. The longest records come first, so that a setting that runs out of memory later
runs out of it here.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from medvl.fit.preparing import UNTIMED, is_main
from medvl.fit.recipe import training_alone
from medvl.sharegpt import to_json, write_atomic

OK, OUT_OF_MEMORY, REFUSED, FAILED, KILLED = "ok", "out of memory", "refused", "failed", "killed"
# Not of this card's memory when a smaller card is asked for: CUDA's context and its libraries lie outside the limit.
CUDA_GIB = 0.8


class Spec(msgspec.Struct, frozen=True):
    """What is tried.

    Attributes:
        recipe: The whole recipe, the setting's changes in it.
        rows: Folder of the tokenised data.
        places: Rows of the steps, one after the other.
        steps: All steps, the untimed ones included.
        out: Folder that the trainer may write into.
        memory: GiB of the card to imitate; None for all of this one.
    """

    recipe: dict[str, Any]
    rows: str
    places: list[int]
    steps: int
    out: str
    memory: float | None


class Measured(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        state: "ok", "out of memory", "refused", "failed" or "killed".
        reason: Why it is not ok.
        seconds: Of each timed step, from the end of the one before, the wait for data included.
        peak_gib: The most that tensors had of the GPU; None without one.
        reserved_gib: With the blocks that the allocator keeps.
        loss: Of the first step, with the weights as they were: the same in all settings.
    """

    state: str
    reason: str = ""
    seconds: list[float] = []
    peak_gib: float | None = None
    reserved_gib: float | None = None
    loss: float | None = None


class _DoneError(Exception):
    """All steps are done: nothing is to be saved."""


def trial_keys(recipe: dict[str, Any], *, rows: str, out: str, steps: int) -> dict[str, Any]:
    """The recipe of a trial: the same training, without all that is not a step."""
    left = {key: value for key, value in training_alone(recipe).items() if key not in _LEFT_OUT}
    return left | {
        "tokenized_path": rows,
        "output_dir": out,
        "overwrite_output_dir": True,
        "max_steps": steps,
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_first_step": True,
        "plot_loss": False,
        "push_to_hub": False,
        "auto_find_batch_size": False,
        "disable_tqdm": True,
        # The order is the trial's own.
        **({"train_sampling_strategy": "random"} if "train_sampling_strategy" in recipe else {}),
    }


# Of libraries that have no class for it.
_MEMORY_WORDS = ("out of memory", "alloc_failed")
_LEFT_OUT = ("length_column_name", "val_size")


def measure(spec: Spec) -> Measured:
    """Train the steps of a setting; whatever becomes of it."""
    import torch
    from llamafactory.train.sft import workflow
    from llamafactory.train.tuner import run_exp

    clock, seconds = _clock(spec.steps), list[float]()
    keys = trial_keys(spec.recipe, rows=spec.rows, out=spec.out, steps=spec.steps)
    stock = getattr(workflow.CustomSeq2SeqTrainer, "stock", workflow.CustomSeq2SeqTrainer)
    sampler = stock._get_train_sampler
    # Which rows a step has is all that is changed: the data set, and what losses read in it, stay whole.
    stock._get_train_sampler = lambda *_, **__: _Places(spec.places)
    state, reason = OK, ""
    try:
        if spec.memory is not None:
            device = int(os.environ.get("LOCAL_RANK", "0"))
            whole = torch.cuda.get_device_properties(device).total_memory / 2**30
            torch.cuda.set_per_process_memory_fraction(min(1.0, (spec.memory - CUDA_GIB) / whole), device)
        run_exp(keys, callbacks=[clock])
        state, reason = FAILED, "training ended before its steps were done"
    except _DoneError:
        pass
    except torch.OutOfMemoryError as error:
        state, reason = OUT_OF_MEMORY, str(error).partition("\n")[0]
    except Exception as error:  # a setting that cannot be trained with costs itself alone
        state = REFUSED if isinstance(error, ValueError) else FAILED
        reason = f"{type(error).__name__}: {error}"
        if any(words in str(error).lower() for words in _MEMORY_WORDS):
            state = OUT_OF_MEMORY
    finally:
        stock._get_train_sampler = sampler
    if state == OK:
        seconds = [round(end - begin, 6) for begin, end in pairwise(clock.ends[UNTIMED - 1 :])]
    gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return Measured(
        state=state,
        reason=reason,
        seconds=seconds,
        peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 2) if gpu else None,
        reserved_gib=round(torch.cuda.max_memory_reserved() / 2**30, 2) if gpu else None,
        loss=clock.loss,
    )


class _Places:
    """A sampler that gives the rows it is told."""

    def __init__(self, places: Sequence[int]) -> None:
        self.places = places

    def __iter__(self) -> Any:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def _clock(steps: int) -> Any:
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[float] = []
            self.loss: float | None = None

        def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())
            if len(self.ends) == steps:
                raise _DoneError

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
            self.loss = (logs or {}).get("loss", self.loss)

    return Clock()


def main(words: Sequence[str]) -> int:
    """Measure what SPEC.json says, into RESULT.json; 1 if it came to nothing."""
    given, result = map(Path, words)
    measured = measure(msgspec.json.decode(given.read_bytes(), type=Spec))
    good = measured.state == OK
    if is_main() or not good:
        write_atomic(result, to_json(measured))
    return 0 if good else 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # Data loaders and process groups need not be waited for; torchrun ends the other devices' processes.
    os._exit(code)
