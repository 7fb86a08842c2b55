"""`medvl fit`: measures the settings of a recipe that train the same, and writes the fastest as a recipe."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from medvl.argument_types import positive
from medvl.errors import DataError, UsageError
from medvl.fit import memory, preparing, report
from medvl.fit.identity import identity
from medvl.fit.preparing import Facts
from medvl.fit.recipe import cpu_trains, fixed_batch, has_weights, read_recipe, tokenised
from medvl.fit.report import Row, best, computed_rows, console_table
from medvl.fit.settings import Setting, candidates, changes, own_setting, words
from medvl.fit.trial import REFUSED as REFUSED_BY_TRAINING
from medvl.fit.trying import (
    RESULTS,
    How,
    Kept,
    Runner,
    Tried,
    Tries,
    alone,
    devices,
    in_process,
    prepare,
    prepared,
    read_kept,
    write_kept,
)
from medvl.processes import CommandFailedError
from medvl.sharegpt import file_sha256, write_atomic

OK, USAGE, REFUSED, INCOMPLETE = 0, 2, 3, 4
STEPS = 5
_WIDTH = 200  # where standard output is a file or a pipe, which have no width
_LEAST_GB = 2

_EPILOG = f"""
examples:
  medvl fit recipes/flare_internvl3_8b_qlora.yaml
  medvl fit recipes/flare_internvl3_8b_qlora.yaml dataset=my_train output_dir=saves/my --out my.yaml
  medvl fit recipes/flare_qwen3vl_4b_lora.yaml --memory 24      # what a card of 24 GB would do
  medvl fit RECIPE --allow-bits                                 # 4 bits and 16 may take each other's place

The records of a step, their order and the loss stay the same in every setting. Overrides stand right behind the recipe.

Without a GPU, memory is computed:
{(memory.__doc__ or "").partition("measured.")[2].rstrip()}

Exit codes: 0 done, 2 wrong options or recipe, 3 data or recipe refused, 4 no setting could be trained with.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `medvl fit`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("recipe", type=Path, metavar="RECIPE", help="what `llamafactory-cli train` takes")
    add("overrides", nargs="*", metavar="key=value", help="as behind `llamafactory-cli train RECIPE`")
    add("--memory", type=_gigabytes, metavar="GB", help="use no more of the GPU, as a smaller card")
    add("--allow-bits", action="store_true", help="let the precision change too: 4 bits or the recipe's 16")
    add("--steps", type=positive, default=STEPS, metavar="N", help=f"timed steps of each setting (default: {STEPS})")
    add("--out", type=Path, metavar="FILE", help="the fitted recipe (default: RECIPE_fitted.yaml beside the recipe)")
    add("--json", action="store_true", help="print the table as JSON")


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not _LEAST_GB <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected gigabytes of a card, at least {_LEAST_GB}, as 24")
    return value


def run(args: argparse.Namespace, runner: Runner = in_process) -> int:
    """Fit the recipe; returns the exit code. `runner` runs the trials, by default as processes."""
    console = Console(stderr=True)
    try:
        recipe = read_recipe(args.recipe, args.overrides)
        return _Fit(args, recipe, runner, console).run()
    except UsageError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return USAGE
    except (DataError, CommandFailedError, OSError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return REFUSED
    except KeyboardInterrupt:
        console.print("Stopped. What was measured is kept: the same command goes on from there.")
        raise


class _Fit:
    """One call of the command."""

    def __init__(self, args: argparse.Namespace, recipe: dict[str, Any], runner: Runner, console: Console) -> None:
        """Look at what is asked for; UsageError where it cannot be done."""
        self.args, self.recipe, self.runner, self.console = args, recipe, runner, console
        self.out: Path = args.out or args.recipe.with_name(f"{args.recipe.stem}_fitted.yaml")
        self.folder = self.out.with_suffix(".fit")
        self.own = own_setting(recipe)
        self.gpu = _gpu() and not recipe.get("use_cpu")
        if args.memory and not self.gpu:
            raise UsageError("--memory: there is no GPU to limit; without it, memory is computed for every setting")
        if self.out.suffix not in (".yaml", ".yml"):
            raise UsageError(f"--out {self.out}: the name of a recipe ends in .yaml")
        there = tokenised(recipe)
        self.own_rows = there is None
        self.how = How(args.steps, args.memory, devices(), there or str(self.folder / "rows"))
        if recipe.get("deepspeed") and self.how.world == 1 and self.gpu:
            self.console.print("DeepSpeed on one device. For more, FORCE_TORCHRUN=1, as with llamafactory-cli train.")
        self.timed = self.gpu or (cpu_trains(recipe) and has_weights(str(recipe["model_name_or_path"])))

    def run(self) -> int:
        """All of it."""
        if self.out.exists() and not (self.folder / RESULTS).is_file():
            raise UsageError(f"{self.out} exists. Delete it, or choose another --out")
        with alone(self.folder):
            return self._run()

    def _run(self) -> int:
        kept, changed = read_kept(self.folder, identity(self.recipe, self.how, self.gpu))
        if self.out.exists() and not (kept.written and kept.written == file_sha256(self.out)):
            other = f" It is of another {', '.join(changed)}." if changed else ""
            raise UsageError(f"{self.out} exists.{other} Delete it, or choose another --out")
        if changed:
            self._say(f"{self.folder}: kept results are of another {', '.join(changed)}; starting anew.")
        elif kept.tried:
            self._say(f"{self.folder}: going on after {len(kept.tried)} settings.")
        facts = kept.facts = kept.facts or self._prepared()
        if not self.timed:
            return self._computed(facts)
        write_kept(self.folder, kept)
        return self._ended(kept, facts, self._tried(kept, facts))

    def _prepared(self) -> Facts:
        if self.own_rows:
            shutil.rmtree(self.how.rows, ignore_errors=True)
        records = self.own.batch * self.own.accumulation * self.how.world
        spec = preparing.Spec(self.recipe, self.how.rows, records, self.how.steps, self.how.world, self.timed)
        with self.console.status("preparing the data"):
            facts = prepare(spec, self.folder, self.runner)
        if isinstance(facts, str):
            raise DataError(f"{self.args.recipe}: {facts}")
        if self.args.memory and facts.gpu_gib and self.args.memory > facts.gpu_gib * 1.1:
            raise UsageError(f"--memory {self.args.memory:g}: {facts.gpu} has {facts.gpu_gib} GiB")
        return facts

    def _candidates(self, facts: Facts) -> list[Setting]:
        bits = [self.own.bits]
        if self.args.allow_bits and self.recipe.get("finetuning_type", "lora") == "lora":
            bits += [None] if self.own.bits else [4]
        elif self.args.allow_bits:
            self._say("--allow-bits: weights that are trained themselves cannot be quantised; only LoRA can.")
        if reason := fixed_batch(self.recipe):
            self._say(reason)
        any_batch, above = not reason, self.how.world > 1
        return candidates(self.own, fused=facts.fused, bits=bits, any_batch=any_batch, above=above)

    def _say(self, sentence: str) -> None:
        self.console.print(sentence, markup=False, soft_wrap=True)

    def _tried(self, kept: Kept, facts: Facts) -> bool:
        """Try what is left; whether anything was."""
        known = len(kept.tried)
        tries = Tries(self.own, self.recipe, kept.tried)
        wanted = self._candidates(facts)
        for number, setting in enumerate(wanted, 1):
            if tries.known(setting) or tries.pruned(setting):
                continue
            if self.own_rows and not prepared(self.folder, self.how.rows):  # of a fit that had ended
                self._prepared()
            with self.console.status(f"{number} of {len(wanted)}: {setting}"):
                measured = tries.measure(setting, self.folder, facts, self.how, self.runner)
            kept.tried = tries.tried
            write_kept(self.folder, kept)
            row = report.rows([Tried(setting, measured)], self.own, facts, self.how)[0]
            told = f"{row.samples_s:g} samples/s" if row.samples_s else f"{row.state}: {row.reason}"
            self._say(f"{number} of {len(wanted)}: {setting}: {told}")
            if setting == self.own and measured.state == REFUSED_BY_TRAINING:
                raise DataError(f"{self.args.recipe}: {measured.reason}")
        return len(kept.tried) > known

    def _ended(self, kept: Kept, facts: Facts, more: bool) -> int:
        """more: whether anything was tried in this run."""
        found = report.rows(kept.tried, self.own, facts, self.how)
        chosen = best(found)
        if chosen is not None and (more or not self.out.exists()):
            text = report.write_recipe(
                self.out, self.args.recipe, self.recipe, found, chosen, self.own, facts, self.how
            )
            write_atomic(self.out, text)
            kept.written = hashlib.sha256(text).hexdigest()
            write_kept(self.folder, kept)
        if self.own_rows:
            shutil.rmtree(self.how.rows, ignore_errors=True)
        shutil.rmtree(self.folder / "trained", ignore_errors=True)
        self._print(found, chosen, facts)
        return INCOMPLETE if chosen is None else OK

    def _computed(self, facts: Facts) -> int:
        found = computed_rows(self._candidates(facts), facts, self.how.world)
        if not found:
            raise DataError(
                f"{self.args.recipe}: {self.recipe['model_name_or_path']} has no config.json on this machine, from "
                "which memory is computed; give a folder that has one: model_name_or_path=FOLDER"
            )
        self._print(found, None, facts)
        self._say(
            "Computed from config.json, nothing was measured and nothing is chosen: there is no GPU here"
            + (
                "."
                if cpu_trains(self.recipe)
                else ", and the recipe is not for a CPU (use_cpu=true bf16=false times it)."
            )
        )
        return OK

    def _print(self, found: list[Row], chosen: Row | None, facts: Facts) -> None:
        changed = changes(chosen.setting, self.own, self.recipe) if chosen else {}
        if self.args.json:
            content = {
                "schema": 1, "recipe": str(self.args.recipe), "gpu": facts.gpu, "gpu_gib": facts.gpu_gib,
                "memory_limit_gb": self.how.memory, "devices": self.how.world, "versions": facts.versions,
                "records": facts.rows, "steps": facts.steps, "longest_tokens": facts.longest, "settings": found,
                "chosen": chosen, "overrides": changed, "out": str(self.out) if chosen else None,
            }  # fmt: skip
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n")
            return
        printed = Console(width=None if sys.stdout.isatty() else _WIDTH)
        device = facts.gpu or "CPU"
        limit = f", {self.how.memory:g} GB of it" if self.how.memory else ""
        printed.print(console_table(found, self.own, chosen, f"{self.args.recipe} on {device}{limit}"))
        for row in found:
            if row.reason:
                printed.print(f"{row.setting}: {row.reason}", markup=False, highlight=False, soft_wrap=True)
        if chosen is not None:
            line = words(changed) or "(nothing changes)"
            for text in (f"Overrides: {line}", f"Recipe:    {self.out}"):
                printed.print(text, markup=False, highlight=False, soft_wrap=True)
        elif self.timed:
            printed.print(f"No setting could be trained with; the logs are in {self.folder}.", markup=False)


def _gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
