#!/usr/bin/env python
"""A source converted by several processes, a share of its datasets each, against one process: the same records?

    python benchmarks/flare_tree.py /tmp/flare --scale 0.1
    python benchmarks/shards.py /tmp/flare [--shards 2]

Each shard is an ordinary conversion with `--datasets`, an output folder and a `--name` of its own. All write into one
registry, under its lock: what several machines on one file system would do. All that a record holds is compared, but
for the conversion's name in its id, and its folder in the paths of images that were written upright.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from medvl.sources.flare import FLARE  # noqa: E402


def main() -> int:
    """Convert both ways, compare, say how long both took; 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--shards", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        whole = ["--out", str(out / "whole"), "--name", "whole", "--workers", str(args.shards)]
        started = time.perf_counter()
        wait([start(args.root, out / "one.json", *whole)])
        one = time.perf_counter() - started
        found = datasets(args.root)
        # Alternately by size, so that the shards take alike.
        parts = [found[place :: args.shards] for place in range(args.shards)]
        started = time.perf_counter()
        wait([
            start(args.root, out / "dataset_info.json", "--out", str(out / f"part{number}"), "--name", f"part{number}",
                  "--workers", "1", "--datasets", *part)
            for number, part in enumerate(parts)
        ])  # fmt: skip
        many = time.perf_counter() - started
        expected, joined = (
            records(out / "one.json", ["whole"]),
            records(out / "dataset_info.json", [f"part{number}" for number in range(args.shards)]),
        )
    differ = {key for key in expected.keys() | joined.keys() if expected.get(key) != joined.get(key)}
    sys.stdout.write(
        f"{len(expected)} records in one, {one:.1f} s with {args.shards} workers; {len(joined)} in {args.shards} "
        f"shards, {many:.1f} s; {len(differ)} differ{': ' * bool(differ)}{', '.join(sorted(differ)[:5])}\n"
    )
    return 1 if differ or not expected else 0


def start(root: Path, registry: Path, *options: str) -> subprocess.Popen[bytes]:
    """One conversion."""
    command = [sys.executable, str(ROOT / "preprocess" / "flare.py"), "--root", str(root), *options]
    return subprocess.Popen([*command, "--dataset-info", str(registry)], stdout=subprocess.DEVNULL)


def wait(processes: list[subprocess.Popen[bytes]]) -> None:
    """Until all have ended.

    Raises:
        SystemExit: one failed.
    """
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit("a conversion failed")


def datasets(root: Path) -> list[str]:
    """Those of a tree, those with most rows first."""
    files = FLARE.find(root, (), ()).files
    sizes: dict[str, int] = {}
    for file in files:
        sizes[file.dataset] = sizes.get(file.dataset, 0) + file.path.stat().st_size
    return sorted(sizes, key=lambda name: -sizes[name])


def records(registry: Path, names: list[str]) -> dict[str, Any]:
    """Id and split -> record, of the entries `NAME_all_*`."""
    entries = json.loads(registry.read_text())
    found: dict[str, Any] = {}
    for name in names:
        for entry, stated in entries.items():
            if entry.startswith(f"{name}_all_"):
                for record in json.loads((registry.parent / stated["file_name"]).read_text()):
                    record["id"] = record["id"].removeprefix(name)
                    own = str(registry.parent / name)
                    record["images"] = [image.replace(own, "OUT") for image in record["images"]]
                    found[entry.removeprefix(name) + record["id"]] = record
    return found


if __name__ == "__main__":
    sys.exit(main())
