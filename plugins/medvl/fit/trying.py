"""Tries settings one after another, each in a process of its own, and keeps what came of each.

`results.json` grows by one setting at a time. A second run goes on from it, unless the recipe, its data, the card, the
versions or the options are other ones: then it says which, and starts anew.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from medvl.errors import UsageError
from medvl.fit import preparing, trial
from medvl.fit.preparing import Facts
from medvl.fit.settings import Setting, applied, changes
from medvl.fit.trial import KILLED, OK, OUT_OF_MEMORY, REFUSED, Measured
from medvl.processes import CommandFailedError, environment, killed_as_interrupted, run_logged
from medvl.sharegpt import to_json, write_atomic

# (title, command, log): runs a command to its end; raises CommandFailedError.
Runner = Callable[[str, Sequence[str], Path], object]
RESULTS = "results.json"
_FACTS = "facts.json"


class Tried(msgspec.Struct, frozen=True):
    """A setting and what came of it."""

    setting: Setting
    measured: Measured


class Kept(msgspec.Struct):
    """The file of results.

    Attributes:
        of: What must be the same for results to count: name -> fingerprint or value.
        facts: What all trials share; None before it is known.
        tried: In the order of trying.
        written: SHA-256 of the recipe that was written when all were tried; empty before.
    """

    of: dict[str, Any]
    facts: Facts | None = None
    tried: list[Tried] = []
    written: str = ""


def in_process(title: str, command: Sequence[str], log: Path) -> object:
    """The runner: a process, its output in `log`, ended with this one."""
    with killed_as_interrupted():
        return run_logged(command, title=title, cwd=Path.cwd(), log=log, env=environment())


def devices() -> int:
    """As many as `llamafactory-cli train` would use here."""
    import torch

    count = torch.cuda.device_count()
    forced = os.environ.get("FORCE_TORCHRUN", "0").lower() in ("1", "true", "y")
    return int(os.environ.get("NPROC_PER_NODE", count or 1)) if forced or count > 1 else 1


def launch(module: str, spec: Path, result: Path, world: int) -> list[str]:
    """The command of a step, under torchrun where training would be."""
    words = ["-m", module, str(spec), str(result)]
    forced = os.environ.get("FORCE_TORCHRUN", "0").lower() in ("1", "true", "y")
    if world == 1 and not forced:
        return [sys.executable, *words]
    return ["torchrun", "--standalone", "--nproc-per-node", str(world), *words]


def prepare(spec: preparing.Spec, folder: Path, runner: Runner) -> Facts | str:
    """What all trials share; a sentence where the recipe is refused.

    Raises:
        CommandFailedError: it broke; its log lies in the folder.
    """
    given, result = folder / "prepare.json", folder / _FACTS
    result.unlink(missing_ok=True)
    write_atomic(given, to_json(spec))
    command = launch("medvl.fit.preparing", given, result, spec.world)
    runner("preparing the data", command, folder / "prepare.log")
    told = msgspec.json.decode(result.read_bytes(), type=dict[str, Any])
    return str(told["refused"]) if "refused" in told else msgspec.convert(told["facts"], Facts)


def prepared(folder: Path, rows: str) -> bool:
    """Whether `prepare` came to its end, and its rows are there."""
    return (folder / _FACTS).is_file() and Path(rows).is_dir()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While it lasts, no other fit has this folder; UsageError if one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{folder}: another `medvl fit` runs there; wait for it, or choose another --out"
            ) from None
        yield


def read_kept(folder: Path, of: dict[str, Any]) -> tuple[Kept, list[str]]:
    """(results to go on from, names of what has changed since others were kept)."""
    file = folder / RESULTS
    if not file.is_file():
        return Kept(of), []
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=Kept)
    except msgspec.DecodeError:
        return Kept(of), ["its form"]
    now = msgspec.json.decode(msgspec.json.encode(of), type=dict[str, Any])
    changed = [name for name in now | kept.of if now.get(name) != kept.of.get(name)]
    return (Kept(of), changed) if changed else (kept, [])


def write_kept(folder: Path, kept: Kept) -> None:
    """Keep the results."""
    write_atomic(folder / RESULTS, to_json(kept))


class How(msgspec.Struct, frozen=True):
    """What all settings are tried with.

    Attributes:
        steps: Timed steps of each.
        memory: GB of the card to imitate; None for all of this one.
        world: Devices.
        rows: Folder of the tokenised data.
    """

    steps: int
    memory: float | None
    world: int
    rows: str


class Tries:
    """The settings that were tried, and which of the others are not worth it."""

    def __init__(self, own: Setting, recipe: dict[str, Any], tried: Sequence[Tried] = ()) -> None:
        """own: The recipe's own setting; tried: what is known already."""
        self.own, self.recipe = own, recipe
        self.tried = list(tried)

    def pruned(self, setting: Setting) -> str | None:
        """Why a setting need not be tried; None if it has to be."""
        alike = [one for one in self.tried if one.setting.kind == setting.kind]
        if refused := [one for one in alike if one.measured.state == REFUSED]:
            return f"refused as {refused[0].setting} is"
        for one in self.tried:
            if one.measured.state in (OUT_OF_MEMORY, KILLED) and setting.needs_more_than(one.setting):
                return f"{one.setting} ran out of memory or was killed"
        if setting.batch < self.own.batch and any(one.measured.state == OK for one in alike):
            return "smaller micro-batches than the recipe's have more work per record"
        return None

    def known(self, setting: Setting) -> bool:
        """Whether it was tried."""
        return any(one.setting == setting for one in self.tried)

    def measure(self, setting: Setting, folder: Path, facts: Facts, how: How, runner: Runner) -> Measured:
        """Try a setting; what becomes of its process is its result."""
        name = f"{setting.batch}x{setting.accumulation}_{'_'.join(map(str, setting.kind))}".lower()
        given, result = folder / f"{name}.json", folder / f"{name}.result.json"
        result.unlink(missing_ok=True)
        recipe = applied(self.recipe, changes(setting, self.own, self.recipe))
        steps = preparing.UNTIMED + how.steps
        spec = trial.Spec(recipe, how.rows, facts.places, steps, str(folder / "trained"), how.memory)
        write_atomic(given, to_json(spec))
        log, broke = folder / f"{name}.log", ""
        state = trial.FAILED
        try:
            runner(f"trying {setting}", launch("medvl.fit.trial", given, result, how.world), log)
        except CommandFailedError as error:
            broke = str(error).strip().splitlines()[-1]
            state = KILLED if error.code < 0 else trial.FAILED
        if result.is_file():
            measured = msgspec.json.decode(result.read_bytes(), type=Measured)
        else:
            measured = Measured(state, broke or f"ended without a result; see {log}")
        self.tried.append(Tried(setting, measured))
        return measured
