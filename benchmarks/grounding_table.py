#!/usr/bin/env python
"""Tables of what grounding_quality.py and grounding_families.py kept, and what the decision rule says of it.

python benchmarks/grounding_table.py                          # the confirmatory seeds, 0 to 7
python benchmarks/grounding_table.py --seeds 100-102          # those that chose the arms
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from compact.rows import parse_seeds, read_rows  # noqa: E402
from compact.table import BASE, DEFAULTS, SEEDS, cells_of, gain, markdown, replaces  # noqa: E402

KEPT = ROOT / "benchmarks/evidence"
CANDIDATES = ("beta=2", "scale=0.2", "w1+soft=4x0.1")  # as pre-registered in RESULTS.md
DECIDING = (("compact", "drawn"), ("compact", "bccd"))


def main() -> int:
    """Print all tables, and on the confirmatory seeds what the rule says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="JSON Lines of runs; default: all of benchmarks/evidence")
    parser.add_argument("--seeds", type=parse_seeds, default=list(SEEDS), help="as 0-7 or 100,101")
    parser.add_argument("--common", help="only runs of this plan, where several were kept")
    args = parser.parse_args()
    try:
        rows = read_rows(args.files or sorted(KEPT.glob("*.jsonl")))
        rows = [row for row in rows if row["seed"] in args.seeds and args.common in (None, row["common"])]
        cells = cells_of(rows, args.seeds)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for (family, images), arms in cells.items():
        sys.stdout.write(f"{family}, {images}\n\n{markdown(arms)}\n")
        if tuple(args.seeds) == SEEDS:
            for arm in arms:
                if arm == DEFAULTS or arm in CANDIDATES:
                    sys.stdout.write(f"{arm} over {BASE}: {gain(arms, arm)}\n")
            sys.stdout.write("\n")
    if tuple(args.seeds) == SEEDS:
        for arm in CANDIDATES:
            sys.stdout.write(f"{arm} in place of {DEFAULTS}: {replaces(cells, arm, DECIDING, len(CANDIDATES))}\n")
    codes = Counter(f"{row['family']} {row['code']}" for row in rows)
    sys.stdout.write(f"\nRuns by code: {', '.join(f'{code} ({n})' for code, n in sorted(codes.items()))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
