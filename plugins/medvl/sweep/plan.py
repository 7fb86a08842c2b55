"""What a sweep file asks for: a recipe, the runs that change it, and how they are judged.

recipe: recipes/ultrasound_qwen3vl_8b_qlora_q7.yaml
overrides: {num_train_epochs: 1}                # of every run
runs:                                           # a list of runs …
  - {name: language, overrides: {freeze_vision_tower: true}}
  - {name: all, overrides: {freeze_vision_tower: false}}
grid: {lora_rank: [8, 16], learning_rate: [1.0e-4, 2.0e-4]}     # … or every combination, or both together
search: {learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}} # for --search
score:
  val: data/ultrasound/ultrasound_q7_val.json   # runs are chosen by it
  test: data/ultrasound/ultrasound_q7_test.json # scored once, for the chosen run
  metric: classification.balanced_accuracy
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from medvl.errors import UsageError
from medvl.processes import repository_root
from medvl.yaml_files import read_yaml

# Set by the sweep: a folder per run, and the card by which a finished run is known.
_OWN = ("output_dir", "medvl_run_card")


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How runs are judged.

    Attributes:
        val: Converted file that all runs are predicted and scored on.
        metric: `<task>.<metric>` of metrics.json, by which the best is chosen.
        test: Converted file for the chosen run alone.
        rules: Of scoring.
        predict: Further words for `medvl predict`.
    """

    val: str
    metric: str
    test: str | None = None
    rules: str = "strict"
    predict: tuple[str, ...] = ("--no-router",)


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One training: its name, the keys that it changes, and another way to be judged if it needs one."""

    name: str
    overrides: dict[str, Any] = {}
    score: Score | None = None


class Space(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers that --search tries for a key, from `low` to `high`; whole ones if both are."""

    low: int | float
    high: int | float
    log: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    recipe: str
    overrides: dict[str, Any] = {}
    runs: list[Run] = []
    grid: dict[str, list[Any]] = {}
    search: dict[str, Space | list[Any]] = {}
    score: Score | None = None


class Sweep(msgspec.Struct, frozen=True):
    """A sweep file, read and checked.

    Attributes:
        path: The file.
        recipe: The base recipe's own keys.
        recipe_path: Where it lies.
        runs: With the overrides of every run taken in.
        search: Key -> what --search tries.
        score: How runs are judged; None: by their loss alone.
    """

    path: Path
    recipe: dict[str, Any]
    recipe_path: Path
    runs: tuple[Run, ...]
    search: Mapping[str, Space | list[Any]]
    score: Score | None

    def settings(self, run: Run) -> dict[str, Any]:
        """The whole recipe of a run, less its output folder."""
        return {key: value for key, value in (self.recipe | run.overrides).items() if value is not None}


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file. Paths in it are relative to the working folder, as in a recipe.

    Raises:
        UsageError: every line that is wrong.
    """
    try:
        content = msgspec.convert(read_yaml(path), _File)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}; see the example in `medvl sweep --help`") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    recipe_path = _found(Path(content.recipe))
    if recipe_path is None:
        raise UsageError(f"{path}: there is no recipe {content.recipe}")
    try:
        recipe = read_yaml(recipe_path)
    except ValueError as error:
        raise UsageError(str(error)) from error
    runs = [*content.runs, *_combinations(content.grid)]
    runs = [msgspec.structs.replace(run, overrides=content.overrides | run.overrides) for run in runs]
    sweep = Sweep(path, recipe | content.overrides, recipe_path, tuple(runs), content.search, content.score)
    if problems := list(_problems(sweep)):
        raise UsageError(f"{path}: " + f"\n{path}: ".join(problems))
    return sweep


def _found(recipe: Path) -> Path | None:
    return next((path for path in (recipe, repository_root() / recipe) if path.is_file()), None)


def _combinations(grid: Mapping[str, list[Any]]) -> Iterator[Run]:
    """Every combination of a grid, named by its values: `lora_rank=8,learning_rate=0.0001`."""
    if grid:
        for values in itertools.product(*grid.values()):
            overrides = dict(zip(grid, values, strict=True))
            name = ",".join(f"{key}={_in_name(value)}" for key, value in overrides.items())
            yield Run(name, overrides)


def _in_name(value: Any) -> str:
    return re.sub(r"[^\w.-]+", "_", str(value)).strip("_") or "none"


def _problems(sweep: Sweep) -> Iterator[str]:
    if not sweep.runs and not sweep.search:
        yield "no runs: give `runs`, `grid` or `search`"
    yield from _wrong_runs(sweep)
    for key, space in sweep.search.items():
        if isinstance(space, Space) and not space.low < space.high:
            yield f"search.{key}: low must be below high"
    for score in (sweep.score, *(run.score for run in sweep.runs)):
        if score is not None and not re.fullmatch(r"\w+\.\w+", score.metric):
            yield f"score.metric {score.metric!r}: expected <task>.<metric>, as classification.balanced_accuracy"
    if sweep.search and sweep.score is None:
        yield "search needs score: runs are chosen by it"


def _wrong_runs(sweep: Sweep) -> Iterator[str]:
    names = [run.name for run in sweep.runs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two runs are called {name}"
    for run in sweep.runs:
        if not re.fullmatch(r"[\w][\w.,=+-]*", run.name):
            yield f"{run.name!r} is no name for a folder: letters, digits and _ . , = + - only"
        for key in _OWN:
            if key in run.overrides:
                yield f"{run.name} sets {key}, which the sweep sets itself"
