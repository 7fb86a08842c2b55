#!/usr/bin/env python
"""Hours and GPU-hours of a training run from a measured rate, and what else it asks of the machines. A calculation.

    python benchmarks/scale.py                        the table of docs/scale.md
    python benchmarks/scale.py --rate 12.5 --records 2e6 --gpus 1 4 --bandwidth 12.5

hours = records x epochs / (rate x GPUs x efficiency) / 3600

efficiency = step / (step + exchange), where step = micro-batch / rate, and exchange = 2 (n - 1) / n x bytes / bandwidth
is a ring's all-reduce of the gradients that train, not hidden behind the backward pass: the worst case.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

# benchmarks/RESULTS.md, 2026-11-27, one H200: InternVL3-8B, bf16, batch 8 x 1, no checkpointing.
RATE, MICRO_BATCH = 18.3, 8
# LoRA of rank 8 on all linear layers of InternVL3-8B's language model, gradients in 32 bits.
TRAINED = 20_185_088
RUNS = ((45_880, 3.0), (10_000_000, 1.0), (100_000_000, 1.0))


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        records: In the data.
        epochs: Times that each is read.
        gpus: Of one kind, one process each.
        rate: Samples per second of one GPU.
        micro_batch: Records per GPU and step.
        trained: Parameters with gradients.
        bandwidth: Of the slowest link between two GPUs, gigabytes per second.
    """

    records: float
    epochs: float
    gpus: int
    rate: float = RATE
    micro_batch: int = MICRO_BATCH
    trained: int = TRAINED
    bandwidth: float = 12.5

    @property
    def efficiency(self) -> float:
        """Share of the time that is no exchange of gradients."""
        step = self.micro_batch / self.rate
        exchange = 2 * (self.gpus - 1) / self.gpus * 4 * self.trained / (self.bandwidth * 1e9)
        return step / (step + exchange)

    @property
    def hours(self) -> float:
        """By the clock."""
        return self.records * self.epochs / (self.rate * self.gpus * self.efficiency) / 3600

    @property
    def samples_per_s(self) -> float:
        """Of all GPUs together: what storage and decoders must keep up with."""
        return self.rate * self.gpus * self.efficiency


def table(runs: list[Run]) -> str:
    """A row per run, in Markdown."""
    lines = [
        "| records x epochs | GPUs | hours | GPU-hours | images/s to read and decode | records per step |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {run.records:,.0f} x {run.epochs:g} | {run.gpus} | {run.hours:,.2f} | {run.hours * run.gpus:,.1f} | "
        f"{run.samples_per_s:,.0f} | {run.micro_batch * run.gpus} |"
        for run in runs
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=RATE, help="samples per second of one GPU")
    parser.add_argument("--micro-batch", type=int, default=MICRO_BATCH)
    parser.add_argument("--trained", type=int, default=TRAINED, help="parameters that train")
    parser.add_argument("--records", type=float, nargs="+", help="(default: FLARE, 10 and 100 million)")
    parser.add_argument("--epochs", type=float, default=1.0, help="with --records")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--bandwidth", type=float, default=12.5, help="gigabytes per second of the slowest link")
    args = parser.parse_args()
    wanted = [(records, args.epochs) for records in args.records] if args.records else RUNS
    stated = {name: getattr(args, name) for name in ("rate", "micro_batch", "trained", "bandwidth")}
    runs = [Run(records, epochs, gpus, **stated) for records, epochs in wanted for gpus in args.gpus]
    sys.stdout.write(table(runs) + "\n")


if __name__ == "__main__":
    main()
