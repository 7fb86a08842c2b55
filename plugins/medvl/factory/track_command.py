"""`medvl track`: the scores of a trained model join its run in MLflow, W&B or TensorBoard."""

import argparse
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from medvl.errors import DataError
from medvl.factory.run_card import read_run_card
from medvl.factory.trackers import FILE_NAME, TRACKERS, read_tracked

OK, REFUSED = 0, 3
_PAGE, _METRICS = "report.html", "metrics.json"

_EPILOG = """
examples:
  llamafactory-cli train RECIPE.yaml report_to=mlflow           # output_dir: saves/run
  python evaluation/run.py val.jsonl --references VAL.json --out saves/run/val_scores
  medvl track saves/run saves/run/val_scores --as val

Exit codes: 0 done, 2 wrong options, 3 not a tracked run, or no scores.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `medvl track`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("model", type=Path, metavar="RUN", help="output_dir of a training with `report_to` and a run card")
    add("scores", type=Path, metavar="SCORES", help="folder that evaluation/run.py wrote: metrics.json, report.html")
    add("--as", dest="group", default="val", metavar="NAME", help="what was scored (default: val)")


def run(args: argparse.Namespace) -> int:
    """Log the values of every task as `NAME/<task>.<metric>`, and the page; returns the exit code."""
    console = Console(stderr=True)
    try:
        add_scores(args.model, args.scores, args.group)
    except (DataError, FileNotFoundError, ImportError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return REFUSED
    return OK


def add_scores(model: Path, scores: Path, group: str) -> None:
    """Log scores to every run that a training is tracked in.

    Raises:
        DataError: the training was not tracked, or the folder holds no scores.
    """
    runs = read_tracked(model)
    if not runs:
        raise DataError(
            f"{model} has no {FILE_NAME}: train with `report_to: mlflow` (wandb, tensorboard) and a run card"
        )
    path = scores / _METRICS
    if not path.is_file():
        raise DataError(f"{scores} has no {_METRICS}: give the folder that evaluation/run.py wrote (--out)")
    values = values_of(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
    files = [file for name in (_PAGE, _METRICS) if (file := scores / name).is_file()]
    step = read_run_card(model).run.steps
    for tracked in runs:
        TRACKERS[tracked.tracker].add(tracked, values, files, group, step)


def values_of(metrics: dict[str, Any]) -> dict[str, float]:
    """`<task>.<metric>` to value; without those that have none, whose reason is in the file and on the page."""
    return {
        f"{task}.{name}": float(entry["value"])
        for task, entries in metrics.get("tasks", {}).items()
        for name, entry in entries.items()
        if isinstance(entry.get("value"), int | float)
    }
