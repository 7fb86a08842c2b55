#!/usr/bin/env python
"""Tables of what grounding_quality.py and grounding_families.py kept, and what the decision rule says of it.

python benchmarks/grounding_table.py                          # the confirmatory seeds, 0 to 7
python benchmarks/grounding_table.py --seeds 8-15             # those of later ideas
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
from compact.table import BASE, DEFAULTS, SEEDS, Rule, cells_of, gain, markdown  # noqa: E402

KEPT = ROOT / "benchmarks/evidence"
TODAY = "beta=2"  # the defaults since seeds 0 to 7 decided
DECIDING = (("compact", "drawn"), ("compact", "bccd"))
# As pre-registered in RESULTS.md.
RULES = (
    Rule(SEEDS, DEFAULTS, ("beta=2", "scale=0.2", "w1+soft=4x0.1"), DECIDING),
    Rule(tuple(range(8, 16)), TODAY, ("beta=2,matched",), DECIDING),
)


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
    rule = next((rule for rule in RULES if tuple(args.seeds) == rule.seeds), None)
    bases = list(dict.fromkeys((BASE, DEFAULTS, rule.base if rule else TODAY)))
    for (family, images), arms in cells.items():
        sys.stdout.write(f"{family}, {images}\n\n{markdown(arms, bases)}\n")
        if rule and rule.seeds == SEEDS:
            for arm in arms:
                if arm in (rule.base, *rule.candidates):
                    sys.stdout.write(f"{arm} over {BASE}: {gain(arms, arm)}\n")
            sys.stdout.write("\n")
    for arm in rule.candidates if rule else ():
        sys.stdout.write(f"{arm} in place of {rule.base}: {rule.verdict(cells, arm)}\n")
    codes = Counter(f"{row['family']} {row['code']}" for row in rows)
    sys.stdout.write(f"\nRuns by code: {', '.join(f'{code} ({n})' for code, n in sorted(codes.items()))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
