"""`medvl demo`: draw images, convert, predict, score, train, predict and score again, and judge the difference.

Everything but the drawing is done by the commands a user would type; each is printed before it runs.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from medvl.argument_types import positive
from medvl.demo import steps, verdict
from medvl.demo.images import build_tree
from medvl.demo.running import run_step
from medvl.demo.sample import write_sample
from medvl.demo.steps import Pipeline, Step
from medvl.processes import CommandFailedError, repository_root

_DRAW_SECONDS = 4
_USAGE, _INTERRUPTED = 2, 130
_MARK = ".medvl_demo"  # in a folder whose contents a demo made and may remove


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `medvl demo`."""
    parser.add_argument("--family", choices=list(steps.RECIPES), default="qwen3vl", help="model family (%(default)s)")
    parser.add_argument("--data", type=Path, help="an existing FLARE tree instead of drawn images; not judged")
    parser.add_argument("--out", type=Path, default=steps.DEFAULT_OUT, help="where everything goes (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of images, weights and training (%(default)s)")
    parser.add_argument(
        "--max-steps", type=positive, help="training steps (default: the recipe's number, 200 with --data)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the whole pipeline.

    0: the model learnt; 1: a step failed or it did not learn; 2: options that cannot be followed; 130: stopped by the
    user.
    """
    console = Console()
    if problem := _problem(args):
        console.print(problem, markup=False, highlight=False)
        return _USAGE
    root = repository_root()
    pipeline = Pipeline(
        args.family, _inside(args.out, root), args.data and args.data.resolve(), args.seed, args.max_steps
    )
    try:
        _start_over(pipeline, root)
        with _progress(console) as progress:
            walk = _Walk(pipeline, root, console, progress)
            walk.all_steps()
    except FileExistsError as error:
        console.print(str(error), markup=False, highlight=False)
        return _USAGE
    except CommandFailedError as error:
        console.print(str(error), markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped. Nothing is left running; the same command starts over.")
        return _INTERRUPTED
    return _report(pipeline, root, console, walk.seconds)


def _problem(args: argparse.Namespace) -> str | None:
    if args.data is not None and not (args.data / "training").is_dir():
        return f"--data {args.data}: no folder training/ in it; give the root of a FLARE tree"
    if args.data is not None:
        data, out = args.data.resolve(), args.out.resolve()
        if data.is_relative_to(out) or out.is_relative_to(data):
            return f"--data {args.data} and --out {args.out} lie in one another; choose another --out"
    return None


def _inside(path: Path, root: Path) -> Path:
    """`path` relative to the clone when it lies in it, as the commands run there and are shown like that."""
    absolute = path if path.is_absolute() or path == steps.DEFAULT_OUT else Path.cwd() / path
    return absolute.relative_to(root) if absolute.is_relative_to(root) else absolute


def _start_over(pipeline: Pipeline, root: Path) -> None:
    """Remove what an earlier or interrupted run of this family left, and nothing else.

    Raises:
        FileExistsError: what is there was not made by a demo, as the mark of one is missing.
    """
    drawn = [pipeline.tree] if pipeline.data is None else []
    folders = [root / folder for folder in (*drawn, pipeline.records, pipeline.model)]
    mark = root / pipeline.out / _MARK
    if not mark.exists() and (there := [folder for folder in folders if folder.exists()]):
        raise FileExistsError(f"{there[0]} is there already and no demo made it; choose another --out")
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True)


@dataclass
class _Walk:
    """The state of one run of the pipeline: the progress bar and the seconds per step."""

    pipeline: Pipeline
    root: Path
    console: Console
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    def all_steps(self) -> None:
        """Every step in order; CommandFailedError from the first that fails."""
        conversion, following = steps.convert(self.pipeline), steps.after_conversion(self.pipeline)
        total = _DRAW_SECONDS + sum(step.seconds for step in (conversion, *following))
        bar = self.progress.add_task("the whole pipeline", total=total, note="")
        self.console.print("export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=")
        if self.pipeline.data is None:
            self.console.print(f"\nDraw images in {self.pipeline.tree}", style="bold cyan", markup=False)
            build_tree(self.root / self.pipeline.tree, seed=self.pipeline.seed)
        self.progress.advance(bar, _DRAW_SECONDS)
        self._run(conversion, bar)
        if self.pipeline.data is not None:
            write_sample(self.root, self.pipeline)
        for step in following:
            self._run(step, bar)

    def _run(self, step: Step, bar: TaskID) -> None:
        self.console.print(f"\n{step.title}", style="bold cyan")
        self.console.print(step.shown(), markup=False, highlight=False, soft_wrap=True)
        before = self.progress.tasks[0].completed

        def show(fraction: float, note: str) -> None:
            self.progress.update(bar, completed=before + fraction * step.seconds, note=note)

        log = self.root / self.pipeline.model / "logs" / f"{step.name}.log"
        self.seconds[step.title] = run_step(step, self.root, log, show)
        show(1.0, "")
        self.console.print(f"done in {self.seconds[step.title]:.0f} s, output in {log}", markup=False, highlight=False)


def _report(pipeline: Pipeline, root: Path, console: Console, seconds: dict[str, float]) -> int:
    metrics = [verdict.read_metrics(root / steps.scores(pipeline, state)) for state in ("untrained", "trained")]
    comparisons = verdict.compare(*metrics)
    console.print(verdict.score_table(comparisons))
    times = Table("step", "seconds", title=f"Wall time, {sum(seconds.values()) / 60:.1f} minutes in all")
    for title, spent in seconds.items():
        times.add_row(title, f"{spent:.0f}")
    console.print(times)
    places = {
        "images": pipeline.tree,
        "records and report": pipeline.records,
        "untrained checkpoint": pipeline.checkpoint,
        "trained checkpoint": pipeline.trained,
        "run card": pipeline.trained / "medvl_run_card.json",
        "scores": steps.scores(pipeline, "trained"),
        "logs": pipeline.model / "logs",
    }
    for name, place in places.items():
        console.print(f"{name + ':':22}{root / place}", markup=False, highlight=False, soft_wrap=True)
    if pipeline.data is not None:
        console.print(
            "Real images, a tiny model and a short run: the pipeline works, the scores say no more than that."
        )
        return 0
    found = verdict.failures(comparisons)
    for sentence in found:
        console.print(f"[red]{sentence}[/red]", highlight=False)
    console.print("The model did not learn." if found else "[green]The model learnt every task.[/green]")
    return 1 if found else 0
