"""Rows as Markdown tables with paired differences, and the decision rule of RESULTS.md applied to them.

An interval is Student's t on the differences within a seed (`scipy.stats`), 95 % unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
from scipy import stats

METRICS = ("f1_50", "f1_75", "mean_iou", "precision", "recall", "fp", "fn")
JUDGED = ("f1_50", "f1_75")
BASE, DEFAULTS = "lm", "full"
SEEDS = tuple(range(8))  # the confirmatory ones; those from 100 on explore
Scores = Mapping[int, Mapping[str, float]]  # of each seed
Cell = tuple[str, str]  # family, set


@dataclass(frozen=True)
class Difference:
    """Mean of the differences within a seed, and its interval; without bounds below two seeds."""

    mean: float
    low: float
    high: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float], level: float = 0.95) -> Difference:
        """Student's t; equal values have an interval of no width."""
        if len(values) < 2:
            return cls(float(np.mean(values)), float("-inf"), float("inf"), len(values))
        centre, error = float(np.mean(values)), float(stats.sem(values))
        half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
        return cls(centre, centre - half, centre + half, len(values))

    def __str__(self) -> str:
        """`+0.031 (+0.010 to +0.052)`."""
        bounds = f" ({self.low:+.3f} to {self.high:+.3f})" if self.seeds > 1 else ""
        return f"{self.mean:+.3f}{bounds}"


def cells_of(rows: Iterable[Mapping[str, Any]], seeds: Iterable[int]) -> dict[Cell, dict[str, Scores]]:
    """Scores by (family, set), arm and seed; rows without scores are left out.

    Raises:
        ValueError: a cell's rows come from more than one plan, so that they cannot be compared.
    """
    wanted = set(seeds)
    cells: dict[Cell, dict[str, dict[int, Any]]] = {}
    plans: dict[Cell, str] = {}
    for row in rows:
        if "scores" not in row or row["seed"] not in wanted:
            continue
        cell = (row["family"], row["set"])
        if plans.setdefault(cell, row["common"]) != row["common"]:
            raise ValueError(f"{cell}: rows of the plans {plans[cell]} and {row['common']}; choose one with --common")
        by_seed = cells.setdefault(cell, {}).setdefault(row["arm"], {})
        if row["seed"] in by_seed:
            raise ValueError(f"{cell}: {row['arm']} has changed, seed {row['seed']} is there twice; rename the older")
        by_seed[row["seed"]] = row["scores"]
    return {cell: dict(arms) for cell, arms in cells.items()}


def differences(arms: Mapping[str, Scores], arm: str, base: str, metric: str) -> list[float]:
    """Of each seed that both have."""
    ours, theirs = arms.get(arm, {}), arms.get(base, {})
    return [ours[seed][metric] - theirs[seed][metric] for seed in sorted(ours.keys() & theirs.keys())]


def markdown(arms: Mapping[str, Scores], bases: Sequence[str] = (BASE, DEFAULTS)) -> str:
    """Values of each arm (mean ± standard deviation), then the differences to the bases: LM and the defaults."""
    lines = _head(("arm", "seeds", *METRICS))
    for arm, by_seed in arms.items():
        values = [[scores[metric] for scores in by_seed.values()] for metric in METRICS]
        cells = [f"{mean(v):.3f}" + (f" ± {stdev(v):.3f}" if len(v) > 1 else "") for v in values]
        lines.append(_line((arm, str(len(by_seed)), *cells)))
    lines += ["", *_head(("difference within a seed", "seeds", *METRICS))]
    for base in bases:
        for arm in arms:
            both = len(arms[arm].keys() & arms.get(base, {}).keys())
            if arm not in (BASE, base) and both:
                cells = [str(Difference.of(differences(arms, arm, base, metric))) for metric in METRICS]
                lines.append(_line((f"{arm} - {base}", str(both), *cells)))
    return "\n".join(lines) + "\n"


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), "|" + "---|" * len(names)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def gain(arms: Mapping[str, Scores], arm: str) -> str:
    """Whether an arm's gain over LM is shown in one cell: `shown`, `not shown`, or how many seeds are missing."""
    missing = len(SEEDS) - len(arms.get(arm, {}).keys() & arms.get(BASE, {}).keys() & set(SEEDS))
    if missing:
        return f"undecided, {missing} of {len(SEEDS)} seeds missing"
    found = {metric: Difference.of(differences(arms, arm, BASE, metric)) for metric in JUDGED}
    failed = [metric for metric, difference in found.items() if difference.low <= 0]
    return "shown" if not failed else f"not shown in {' and '.join(failed)}"


@dataclass(frozen=True)
class Rule:
    """What RESULTS.md wrote down before some seeds were run.

    Attributes:
        seeds: They; all must be there.
        base: The arm whose place candidates would take.
        candidates: Their number widens the intervals: 1 - 0.05 / candidates.
        required: The cells whose mean decides: within a seed, of F1@.5 and F1@.75 over these cells.
    """

    seeds: tuple[int, ...]
    base: str
    candidates: tuple[str, ...]
    required: tuple[Cell, ...]

    def verdict(self, cells: Mapping[Cell, Mapping[str, Scores]], arm: str) -> str:
        """Whether a candidate takes the base's place: `yes`, or why not (yet)."""
        for cell in self.required:
            arms = cells.get(cell, {})
            missing = len(set(self.seeds) - (arms.get(arm, {}).keys() & arms.get(self.base, {}).keys()))
            if missing:
                return f"undecided, {missing} of {len(self.seeds)} seeds missing in {'/'.join(cell)}"
        table = [differences(cells[cell], arm, self.base, metric) for cell in self.required for metric in JUDGED]
        found = Difference.of([float(value) for value in np.mean(table, axis=0)], 1 - 0.05 / len(self.candidates))
        if found.low <= 0:
            return f"no, {found}"
        for cell, arms in cells.items():
            for metric in JUDGED:
                values = differences(arms, arm, self.base, metric)
                if len(values) == len(self.seeds) and Difference.of(values).high < 0:
                    return f"no, {found}, but it loses {metric} in {'/'.join(cell)}"
        return f"yes, {found}"
