#!/usr/bin/env python
"""How much of a batch is padding, at random and in batches of like length (`train_sampling_strategy: group_by_length`).

    python benchmarks/like_length.py TREE/*/*/*_questions_train.json
    python benchmarks/like_length.py FILES --image-tokens 300 --batch 2 8 16 --epochs 3

Tokens of question and answer by the formula of preprocess/tokens, an image as --image-tokens (InternVL3: 256 of one
tile). All files are mixed, as a recipe with several datasets does. No model: what is counted is what the sampler of
medvl.factory.batching would pad.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from medvl.factory.batching import like_length_order  # noqa: E402
from preprocess.tokens.formula import text_tokens  # noqa: E402

FRAME = 20  # chat template and system prompt


def main() -> int:
    """Print one row per batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="question files of a FLARE tree")
    parser.add_argument("--image-tokens", type=int, default=256)
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[2, 4, 8, 16], help="records of a step, in one micro-batch"
    )
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    rows = [row for file in args.files for row in json.loads(file.read_text(encoding="utf-8"))]
    lengths = np.array([count(row, args.image_tokens) for row in rows])
    low, middle, high = np.percentile(lengths, [5, 50, 95]).astype(int)
    lines = [f"{len(lengths):,} records; tokens: median {middle}, 5 % below {low}, 5 % above {high}", ""]
    lines += [
        "| records per step | padding at random | of like length | tokens computed, ratio |",
        "|---|---|---|---|",
    ]
    for unit in args.batch:
        shares = np.array([both(lengths, unit, epoch) for epoch in range(args.epochs)]).mean(axis=0)
        ratio = (1 - shares[0]) / (1 - shares[1])
        lines.append(f"| {unit} | {shares[0]:.3f} | {shares[1]:.3f} | {ratio:.3f} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def count(row: dict[str, object], image_tokens: int) -> int:
    """Tokens of one question."""
    names = row["ImageName"]
    images = len(names) if isinstance(names, list) else 1
    return FRAME + text_tokens(f"{row['Question']}") + text_tokens(f"{row['Answer']}") + images * image_tokens


def both(lengths: np.ndarray, unit: int, epoch: int) -> tuple[float, float]:
    """Share of padding in an epoch, at random and of like length."""
    at_random = np.random.default_rng(epoch).permutation(len(lengths))
    return padding(lengths[at_random], unit), padding(lengths[like_length_order(lengths, unit, (0, epoch))], unit)


def padding(lengths: np.ndarray, unit: int) -> float:
    """Share of all tokens, for rows in this order."""
    batches = np.split(lengths, range(unit, len(lengths), unit))
    return 1 - lengths.sum() / sum(len(batch) * batch.max() for batch in batches)


if __name__ == "__main__":
    sys.exit(main())
