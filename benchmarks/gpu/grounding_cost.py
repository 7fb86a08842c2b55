#!/usr/bin/env python
"""`grounding_cost.py` for one GPU of 80 GB or more: both families at real size, 16 and 4 bits, 8 and 100 boxes.

    python benchmarks/gpu/grounding_cost.py --out grounding_cost.json
    python benchmarks/gpu/grounding_cost.py --sizes tiny-qwen3vl tiny-internvl3 --device cpu --dtype float32 --bits 16

Every setting runs in a process of its own, one after the other, so that one that fails (no bitsandbytes, no memory)
says so and the others go on. Needs torch, transformers, peft and numpy; bitsandbytes for 4 bits; liger-kernel and
llamafactory for `--fused`. No checkpoint and no network: weights are random. About ten minutes on an H200, guessed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins"), str(ROOT / "benchmarks")]

from grounding_cost import table  # noqa: E402
from grounding_models import SIZES  # noqa: E402

# At most this much of the stock step's time and peak memory.
TARGETS = {"seconds": 1.03, "peak_bytes": 1.02}


def main() -> int:
    """Run all settings, print their tables and whether the targets are met; 1 if one failed or missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["qwen3vl-4b", "internvl3-8b"])
    parser.add_argument("--bits", type=int, nargs="+", choices=(4, 16), default=[16, 4])
    parser.add_argument("--boxes", nargs="+", default=["8", "100"])
    parser.add_argument("--batch", default="2")
    parser.add_argument("--steps", default="10")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--out", type=Path, help="all figures as JSON")
    args = parser.parse_args()
    results, failed = [], 0
    for size in args.sizes:
        for bits in args.bits:
            command = [sys.executable, str(ROOT / "benchmarks" / "grounding_cost.py"), "--json", "--size", size]
            command += ["--bits", str(bits), "--batch", args.batch, "--steps", args.steps, "--device", args.device]
            command += ["--dtype", args.dtype, "--boxes", *args.boxes, *(["--fused"] if args.fused else [])]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                failed += 1
                sys.stdout.write(f"{size}, {bits} bits: failed\n{done.stderr[-2000:]}\n")
                continue
            for result in json.loads(done.stdout.splitlines()[-1]):
                results.append(result)
                misses = missed(result)
                failed += len(misses)
                sys.stdout.write("\n".join([table(result), *misses]) + "\n")
            sys.stdout.flush()
            if args.out:
                args.out.write_text(json.dumps(results, indent=1))
    return 1 if failed else 0


def missed(result: dict[str, dict[str, float]]) -> list[str]:
    """A line for each target that the grounding loss misses."""
    ratios = {name: result[name]["grounding"] / result[name]["stock"] for name in TARGETS}
    return [
        f"  missed: {name} {ratios[name]:.3f}, target {most}" for name, most in TARGETS.items() if ratios[name] > most
    ]


if __name__ == "__main__":
    sys.exit(main())
