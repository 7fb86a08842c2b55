"""`training_loss_components.png`: every part of the loss over the steps, which LLaMA-Factory's plot of `loss` mixes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamafactory.extras.logging import get_logger
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from transformers import TrainerCallback

from medvl.sharegpt import write_atomic

FILE_NAME = "training_loss_components.png"
COLUMNS = 3

log = get_logger("llamafactory.medvl")  # LLaMA-Factory shows what is logged under its own name


class LossPlotCallback(TrainerCallback):  # type: ignore[misc]
    """Draws at the end of training, on the main process."""

    def __init__(self, titles: Callable[[], dict[str, str]]) -> None:
        """titles: logged name to the title of its panel, in the order of the panels; equal titles share one."""
        self.titles = titles

    def on_train_end(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Write the image into the output folder."""
        if not state.is_world_process_zero:
            return
        titles = self.titles()
        curves = {name: points for name in titles if (points := curve(state.log_history, name))}
        if not curves:
            log.warning_rank0(
                f"No loss component was logged (logging_steps: {args.logging_steps}), so none is plotted."
            )
            return
        path = Path(args.output_dir) / FILE_NAME
        write_atomic(path, draw(curves, titles))
        log.info_rank0(f"Loss components plotted in {path}")


def curve(history: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) of every log entry that has this name."""
    return [(entry["step"], entry[name]) for entry in history if name in entry]


def draw(curves: dict[str, list[tuple[int, float]]], titles: dict[str, str]) -> bytes:
    """A PNG with one panel per title: values as logged, and their running mean over a twentieth of them."""
    panels: dict[str, list[str]] = {}
    for name in curves:
        panels.setdefault(titles[name], []).append(name)
    rows = -(-len(panels) // COLUMNS)
    # A figure of its own, not pyplot's: nothing of the process's plotting state is touched.
    figure = Figure(figsize=(4.2 * COLUMNS, 2.8 * rows), layout="constrained")
    for index, (title, names) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, COLUMNS, index + 1)
        for number, name in enumerate(names):
            steps, values = zip(*curves[name], strict=True)
            few, color = len(steps) < 20, f"C{number}"
            axes.plot(steps, values, color=color, alpha=1.0 if few else 0.35, marker="." if few else None, label=name)
            if not few:
                axes.plot(steps, running_mean(values, len(values) // 20), color=color)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def running_mean(values: tuple[float, ...], window: int) -> list[float]:
    """Mean of each value and those before it, `window` in all."""
    starts = [max(0, end - window) for end in range(1, len(values) + 1)]
    return [sum(values[start:end]) / (end - start) for end, start in enumerate(starts, 1)]
