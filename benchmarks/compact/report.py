"""Runs as Markdown tables."""

from __future__ import annotations

import sys
from statistics import mean, stdev
from typing import Any

from compact.arms import ARMS

METRICS = ("f1_50", "f1_75", "mean_iou", "precision", "recall", "fp", "fn", "unparsed")


def show(plan: str, done: dict[str, dict[str, Any]]) -> None:
    """Two Markdown tables, values and differences to `lm`; and whether the reference's number changed any weight."""
    found = {
        arm: {seed: run["scores"] for seed, run in done[arm].items() if "scores" in run} for arm in ARMS if arm in done
    }
    lm = found.get("lm", {})
    start = {seed: run["start"] for seed, run in done.get("lm", {}).items()}
    sys.stdout.write(f"{plan}\n\n" + _table({"(start)": start} | found))
    differences = {
        arm: {seed: {m: run[m] - lm[seed][m] for m in METRICS} for seed, run in by_seed.items() if seed in lm}
        for arm, by_seed in found.items()
        if arm != "lm"
    }
    sys.stdout.write("\nDifference to lm within a seed\n\n" + _table(differences, "+"))
    for seed, run in done.get("reference", {}).items():
        if seed in lm:
            same = "the same weights, bit for bit" if run["digest"] == done["lm"][seed]["digest"] else "OTHER WEIGHTS"
            sys.stdout.write(f"\nreference against lm, seed {seed}: {same} ({run['digest']})\n")


def _table(rows: dict[str, dict[str, dict[str, float]]], sign: str = "") -> str:
    lines = ["| arm | n | " + " | ".join(METRICS) + " |", "|" + "---|" * (len(METRICS) + 2)]
    for arm, by_seed in rows.items():
        if by_seed:
            cells = []
            for metric in METRICS:
                values = [run[metric] for run in by_seed.values()]
                spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
                cells.append(f"{mean(values):{sign}.3f}{spread}")
            lines.append(f"| {arm} | {len(by_seed)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
