#!/usr/bin/env python
r"""Kill preprocess/flare.py at random points and run it again: the final bytes must be those of an undisturbed run.

examples:
  python benchmarks/flare_tree.py /tmp/flare/tree --scale 0.05
  python benchmarks/kill_preprocess.py /tmp/flare/tree --times 20

Half of the kills hit the converter alone, whose workers must then end by themselves. After every kill the output is
read as a reader would: a manifest that is there must list files that are there with those hashes, and every file in the
folder must be whole. Exits with 1 if any of that fails.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # before this folder, which has a preprocess.py of its own

from preprocess.unchanged import STAMP  # noqa: E402


def start(root: Path, out: Path, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """Begin a conversion in a process group of its own, so that its workers can be killed with it or not."""
    command = [sys.executable, str(REPOSITORY / "preprocess/flare.py"), "--root", str(root), "--out", str(out)]
    command += ["--dataset-info", str(out / "dataset_info.json"), "--workers", "2", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def finish(root: Path, out: Path, options: Sequence[str]) -> float:
    """Run to the end. Returns seconds."""
    started = time.monotonic()
    process = start(root, out, options)
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(said.decode())
    return time.monotonic() - started


def issues(out: Path) -> list[str]:
    """What a reader of a folder that a killed run left would trip over."""
    found = []
    for path in out.rglob("*.json"):
        if not path.name.startswith("."):
            try:
                json.loads(path.read_bytes())
            except ValueError as error:
                found.append(f"{path.name} is half written: {error}")
    manifest = out / "manifest.json"
    if manifest.is_file():
        for name, entry in json.loads(manifest.read_bytes())["files"].items():
            file = out / name
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
                found.append(f"the manifest lists {name}, which is not the file that is there")
    return found


def snapshot(out: Path) -> dict[str, str]:
    """Hash of every visible file."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def _prepare(tree: Path, out: Path, root: Path, *, again: bool) -> None:
    """An untouched tree and no output; or with `again` an output that is written once more from end to end."""
    if again:
        (out / STAMP).unlink(missing_ok=True)
    else:
        shutil.rmtree(out)
        shutil.rmtree(tree)
        shutil.copytree(root, tree)


def kill_often(root: Path, times: int, seed: int, options: Sequence[str]) -> int:
    """Kill `times` runs, every other one over the whole output of an earlier run. Returns the number of failures."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        # Paths are part of the output, so every run writes to the same place and works on a copy of the tree.
        tree, out = Path(folder, "tree"), Path(folder, "out")
        shutil.copytree(root, tree)
        finish(tree, out, options)
        expected, failures = snapshot(out), 0
        seconds = {}  # of a run from the beginning, and of one over an earlier run's output
        for again in (False, True):
            _prepare(tree, out, root, again=again)
            seconds[again] = finish(tree, out, options)
        killed = 0
        while killed < times:
            again = bool(killed % 2)
            _prepare(tree, out, root, again=again)
            wait = rng.uniform(0.0, seconds[again])
            process = start(tree, out, options)
            time.sleep(wait)
            if process.poll() is None:
                (os.killpg if killed % 4 < 2 else os.kill)(process.pid, signal.SIGKILL)
            process.communicate()  # ends with the last worker, since they hold its stderr too
            killed += process.returncode != 0
            found = issues(out) if out.exists() else []
            finish(tree, out, options)
            found += [] if snapshot(out) == expected else ["rerunning did not end in the same bytes"]
            complete = "complete" if process.returncode == 0 else "killed"
            print(f"{killed:3}  {complete} after {wait:5.2f} s  {'; '.join(found) or 'well'}", flush=True)  # noqa: T201
            failures += bool(found)
    return failures


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, rerun, compare."""
    description, _, rest = (__doc__ or "").partition("\n\n")
    arguments = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("root", type=Path, help="a tree; it is copied, its archives stay packed")
    arguments.add_argument("--times", type=int, default=20, help="how often (default: 20)")
    arguments.add_argument("--seed", type=int, default=0, help="for the points in time (default: 0)")
    args, options = arguments.parse_known_args(argv)
    return 1 if kill_often(args.root.resolve(), args.times, args.seed, options) else 0


if __name__ == "__main__":
    sys.exit(main())
