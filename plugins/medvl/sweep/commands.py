"""`medvl sweep`: one recipe trained under many settings, one run after another; what is finished is not done again."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from medvl.errors import DataError, UsageError
from medvl.processes import CommandFailedError
from medvl.sharegpt import to_json, write_atomic
from medvl.sweep import plan
from medvl.sweep.plan import Run, Score, Sweep, read_sweep
from medvl.sweep.running import RunFolder, Runner, in_processes, predict, run_folder, score, track, train
from medvl.sweep.search import search
from medvl.sweep.table import Result, changed_keys, console_table, entry_of, result, write_table

OK, USAGE, REFUSED, INCOMPLETE = 0, 2, 3, 4
_FINISHED = "finished"
_WIDTH = 200  # where standard output is a file or a pipe, which have no width
_LOOKED_AT = "test.json"  # which runs the test file was shown to

_EPILOG = f"""
examples:
  medvl sweep recipes/sweeps/ultrasound_layers.yaml --out saves/layers
  medvl sweep SWEEP.yaml --out DIR --commands > jobs.txt        # a line per run, for a scheduler
  sbatch --array=1-5 --wrap 'eval "$(sed -n ${{SLURM_ARRAY_TASK_ID}}p jobs.txt)"'
  medvl sweep SWEEP.yaml --out DIR --collect                    # then the table
  medvl sweep SWEEP.yaml --out DIR --search 20

A sweep file:
{(plan.__doc__ or "").partition("judged.")[2].rstrip()}

Exit codes: 0 done, 2 wrong options or sweep file, 3 data refused, 4 some runs failed or are not there yet.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `medvl sweep`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("sweep", type=Path, metavar="SWEEP.yaml", help="recipe, runs, and how they are judged")
    add("--out", type=Path, required=True, metavar="DIR", help="a folder per run, and table.md, .csv, .html, .json")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="RUN", help="train and predict this run alone, and write no table")
    which.add_argument("--collect", action="store_true", help="train nothing: score what is there, write the table")
    which.add_argument("--commands", action="store_true", help="print the command of every run, and do nothing else")
    which.add_argument("--search", type=int, metavar="N", help="N runs whose settings Optuna proposes from `search`")
    add("--seed", type=int, default=0, help="of --search (default: 0)")


def run(args: argparse.Namespace, runner: Runner | None = None) -> int:
    """Run the sweep; returns the exit code. `runner` runs the commands of its steps, by default as processes."""
    console = Console(stderr=True)
    runner = runner or in_processes(args.sweep.stem)
    try:
        sweep = read_sweep(args.sweep)
        if args.commands:
            for item in sweep.runs:
                words = ["medvl", "sweep", str(args.sweep), "--out", str(args.out), "--only", item.name]
                print(shlex.join(words))  # noqa: T201  (results go to standard output as they are)
            return OK
        _refuse_absent_data(sweep)
        if args.only:
            states = _trained(sweep, [_named(sweep, args.only)], args.out, runner, console)
            return OK if set(states.values()) == {_FINISHED} else INCOMPLETE
        if args.search:
            runs = _searched(sweep, args, runner, console)
        else:
            runs = list(sweep.runs)
            if not runs:
                raise UsageError(f"{args.sweep}: no runs but a search; give --search N")
        return _collected(sweep, runs, args, runner, console)
    except UsageError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return USAGE
    except (DataError, CommandFailedError, OSError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return REFUSED


def _refuse_absent_data(sweep: Sweep) -> None:
    """Before anything is trained: runs that cannot be judged would be trained for nothing."""
    scores = filter(None, (sweep.score, *(item.score for item in sweep.runs)))
    named = {data: None for score in scores for data in (score.val, score.test) if data}
    if absent := [data for data in named if not Path(data).exists()]:
        raise UsageError(
            f"{sweep.path}: `score` names {', '.join(absent)}, which is not there; convert the data first, and start "
            "in the folder that paths are relative to"
        )


def _named(sweep: Sweep, name: str) -> Run:
    try:
        return next(item for item in sweep.runs if item.name == name)
    except StopIteration:
        names = ", ".join(item.name for item in sweep.runs)
        raise UsageError(f"{sweep.path}: no run {name}; there are {names}") from None


def _trained(sweep: Sweep, runs: Sequence[Run], out: Path, runner: Runner, console: Console) -> dict[str, str]:
    """Train and predict runs, one after another. Returns what became of each; one that fails stops no other."""
    states = {}
    for item in runs:
        folder = run_folder(sweep, item, out)
        try:
            with console.status(f"{item.name}: see {folder.path}/train.log"):
                did = train(folder, runner)
                if how := item.score or sweep.score:
                    predict(folder, "val", how.val, how, runner)
            console.print(f"{item.name}: {'trained' if did else 'was finished'}", markup=False, highlight=False)
            states[item.name] = _FINISHED
        except (CommandFailedError, DataError) as error:
            console.print(f"{item.name}: {error}", markup=False, highlight=False, soft_wrap=True)
            states[item.name] = f"failed: {str(error).strip().splitlines()[-1]}"
    return states


def _searched(sweep: Sweep, args: argparse.Namespace, runner: Runner, console: Console) -> list[Run]:
    if not sweep.search or sweep.score is None:
        raise UsageError(f"{sweep.path}: --search needs `search` and `score` in it")
    how = sweep.score

    def judge(item: Run) -> float:
        folder = run_folder(sweep, item, args.out)
        state = _trained(sweep, [item], args.out, runner, console)[item.name]
        if state != _FINISHED:
            raise DataError(f"{item.name}: {state}")
        _scored(folder, "val", how.val, how, runner, console)
        entry = entry_of(folder.metrics("val"), how)
        return _goodness(entry, how, item.name)

    return search(sweep.search, args.search, args.out, judge, args.seed)


def _goodness(entry: dict[str, object], how: Score, name: str) -> float:
    """The value of an entry of metrics.json, larger for better."""
    value = entry.get("value")
    if not isinstance(value, int | float):
        raise DataError(f"{name}: {how.val} gives no {how.metric} ({entry.get('reason', 'not among its metrics')})")
    return float(value) if entry["higher_is_better"] else -float(value)


def _collected(sweep: Sweep, runs: Sequence[Run], args: argparse.Namespace, runner: Runner, console: Console) -> int:
    """Train what is not trained yet, score everything, choose, and write the table."""
    folders = [run_folder(sweep, item, args.out) for item in runs]
    if args.collect:
        states = {f.run.name: _FINISHED if f.card() else "not finished" for f in folders}
    else:
        states = _trained(sweep, runs, args.out, runner, console)
    finished = [folder for folder in folders if states[folder.run.name] == _FINISHED]
    notes = [f"{len(finished)} of {len(folders)} runs are finished."]
    if len({how.metric for f in finished if (how := f.run.score or sweep.score)}) > 1:
        raise UsageError(f"{sweep.path}: runs are judged by different metrics; there is no best among them")
    for folder in finished:
        if how := folder.run.score or sweep.score:
            same = folder is not finished[0] and how.val == (finished[0].run.score or sweep.score or how).val
            _scored(folder, "val", how.val, how, runner, console, finished[0] if same else None)
    keys = changed_keys(folders)
    results = [result(f, keys, f.run.score or sweep.score, states[f.run.name]) for f in folders]
    if finished and len(finished) == len(folders) and all(entry.value is not None for entry in results):
        results = _chosen(sweep, folders, results, runner, notes, console)
    elif sweep.score:
        notes.append("None is chosen, and test is not looked at, before all are finished and have a value on val.")
    title = f"{sweep.path.stem}: {sweep.recipe_path}"
    write_table(results, args.out, title, notes)
    printed = Console(width=None if sys.stdout.isatty() else _WIDTH)
    printed.print(console_table(results, title))
    for note in (*notes, str(args.out / "table.html")):
        printed.print(note, markup=False, highlight=False, soft_wrap=True)
    return OK if len(finished) == len(folders) else INCOMPLETE


def _chosen(
    sweep: Sweep,
    folders: Sequence[RunFolder],
    results: Sequence[Result],
    runner: Runner,
    notes: list[str],
    console: Console,
) -> list[Result]:
    """The results with the best on val marked, and its value on test."""
    hows = [folder.run.score or sweep.score for folder in folders]
    good = [
        _goodness(entry_of(folder.metrics("val"), how), how, folder.run.name) if how else 0.0
        for folder, how in zip(folders, hows, strict=True)
    ]
    place = max(range(len(good)), key=good.__getitem__)
    folder, how = folders[place], hows[place]
    best = msgspec.structs.replace(results[place], chosen=True)
    notes.append(f"{best.name} * is the best of {len(results)} on val, so that its value there is too good.")
    if alike := [other.name for at, other in enumerate(results) if good[at] == good[place] and at != place]:
        notes.append(f"As good on val: {', '.join(alike)}. The first of them is taken.")
    if how and how.test:
        predict(folder, "test", how.test, how, runner)
        _scored(folder, "test", how.test, how, runner, console)
        entry = entry_of(folder.metrics("test"), how)
        best = msgspec.structs.replace(best, test=entry.get("value"), test_ci95=entry.get("ci95"))
        notes.append(_looked_at(folder, how.test))
    return [best if at == place else other for at, other in enumerate(results)]


def _scored(
    folder: RunFolder,
    split: str,
    data: str,
    how: Score,
    runner: Runner,
    console: Console,
    baseline: RunFolder | None = None,
) -> None:
    """Score a run, and tell its tracker; one that cannot be told is no reason to have no table."""
    score(folder, split, data, how, runner, baseline)
    try:
        track(folder, split, runner)
    except CommandFailedError as error:
        console.print(f"{folder.run.name}: not tracked: {error}", markup=False, highlight=False, soft_wrap=True)


def _looked_at(folder: RunFolder, test: str) -> str:
    """Note that a run was shown the test file, and say who was before."""
    path = folder.path.parent / _LOOKED_AT
    before = msgspec.json.decode(path.read_bytes(), type=list[str]) if path.is_file() else []
    write_atomic(path, to_json(list(dict.fromkeys([*before, folder.run.name]))))
    others = [name for name in before if name != folder.run.name]
    if not others:
        return f"{test} was shown to the chosen run alone."
    return f"{test} was shown to {', '.join(others)} before: say so where the value on test is reported."
