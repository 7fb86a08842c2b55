#!/usr/bin/env python
"""benchmarks/predict.py with a model of true size and random weights, for a GPU; a row of rates as JSON.

    python benchmarks/gpu/predict.py --folder FOLDER --out row.json [--bits 4] [--questions 64] [--alone 8]

FOLDER is of checkpoints.py, with an adapter per task. Answers have `--new-tokens` tokens: random weights generate as
long as they may, at the speed of trained ones. The ways that ask one at a time get `--alone` questions only, spread
over all tasks: their rate stands for all.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "WARNING")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins"), str(ROOT / "benchmarks")]

import predict  # noqa: E402

from medvl.demo.images import build_tree  # noqa: E402
from medvl.instructions import GENERAL  # noqa: E402
from medvl.predict.setup import ModelOptions, find_adapters, read_setup  # noqa: E402

NAMES = [*predict.LABELS, GENERAL]


def main() -> None:
    """Measure, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--alone", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--bits", type=int, choices=[0, 4], default=0)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--no-static", action="store_true", help="leave the static cache out")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build_tree(Path(folder), train=0, val=-(-args.questions // 9))
        options = ModelOptions(str(args.folder / "base"), bits=args.bits, dtype=args.dtype)
        setup = read_setup(find_adapters(NAMES, args.folder / "adapters"), options)
        asked = predict.plan(Path(folder), setup, args.new_tokens, args.questions)
        rates = predict.compare(
            setup, asked, [8, None], args.repeats, alone=args.alone, differing=1.0, static=not args.no_static
        )
    args.out.write_text(json.dumps({"questions_per_s": rates, "new_tokens": args.new_tokens}))


if __name__ == "__main__":
    main()
