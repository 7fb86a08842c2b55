#!/usr/bin/env python
r"""Speed and memory of preprocess/flare.py beside the way the reference converters work, on one tree in one run.

examples:
  python benchmarks/flare_tree.py /tmp/flare/tree --unzipped
  python benchmarks/preprocess.py /tmp/flare/tree --workers 2

The reference way, as the public FLARE baselines do it: for every row, Pillow `verify()`, open again, `load()`, in one
process; then `json.dump`. It looks at a picture once per row that names it; `--remember` lets it look once per picture.
Ours: the whole command, with what the references do not do: answers parsed, boxes rewritten, rows audited, reports.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image

from medvl.flare import SPLITS

REPOSITORY = Path(__file__).resolve().parent.parent


def reference_way(root: Path, out: Path, *, remember: bool) -> int:
    """Convert the tree as the references do. Returns the number of records."""
    count = 0
    known: dict[str, bool] = {}
    for split in SPLITS.values():
        for path in sorted((root / split.folder).glob(f"*/*/*_questions_{split.stem}*.json")):
            if not path.stem.endswith("_withGT") and path.with_name(f"{path.stem}_withGT.json").exists():
                continue
            records = []
            for row in json.loads(path.read_text()):
                names = row["ImageName"] if isinstance(row["ImageName"], list) else [row["ImageName"]]
                images = [str(path.parent / name) for name in names if name]
                if not remember:
                    known.clear()
                good = [image for image in images if known.setdefault(image, False) or _is_readable(image, known)]
                if good:
                    text = "\n".join(["<image>"] * len(good)) + "\n" + str(row["Question"])
                    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": str(row["Answer"]).strip()}]
                    records.append({"image": good, "conversations": turns})
            with (out / f"{path.parent.name}_{split.name}.json").open("w") as file:
                json.dump(records, file, indent=2, ensure_ascii=False)
            count += len(records)
    return count


def _is_readable(path: str, known: dict[str, bool]) -> bool:
    try:
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            image.load()
    except Exception:  # as the references: whatever is wrong, the picture is bad
        return False
    known[path] = True
    return True


@dataclass
class Cost:
    """What a run took.

    Attributes:
        seconds: On the wall clock.
        processor: Seconds of processor time, of all processes. On a busy machine the more telling figure.
        largest: Peak memory of the largest process, MB.
        together: Peak memory of all processes, MB; pages that they share are counted once.
    """

    seconds: float = 0.0
    processor: float = 0.0
    largest: float = 0.0
    together: float = 0.0


def ours(root: Path, out: Path, workers: int, options: Sequence[str]) -> Cost:
    """Run the command."""
    command = [sys.executable, str(REPOSITORY / "preprocess/flare.py"), "--root", str(root), "--out", str(out)]
    command += ["--dataset-info", str(out / "dataset_info.json"), "--workers", str(workers), *options]
    # Python keeps compiled modules from the first run on, unless it is told not to.
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(out.parent / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
    cost, started = Cost(), time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment)
        watcher = threading.Thread(target=_watch_memory, args=(process.pid, cost))
        watcher.start()
        _, status, used = os.wait4(process.pid, 0)  # with that of the processes it started
        process.returncode = os.waitstatus_to_exitcode(status)
        cost.seconds, cost.processor = time.perf_counter() - started, used.ru_utime + used.ru_stime
        watcher.join()
        if process.returncode:
            said.seek(0)
            raise RuntimeError(said.read().decode())
    return cost


def _watch_memory(pid: int, cost: Cost) -> None:
    """Note the memory of a process and those it starts, until it ends; not often, since looking takes time from it."""
    while psutil.pid_exists(pid):
        try:
            parent = psutil.Process(pid)
            memory = [process.memory_full_info().pss / 2**20 for process in (parent, *parent.children(recursive=True))]
        except psutil.Error:
            continue  # one has just ended
        cost.largest, cost.together = max(cost.largest, *memory), max(cost.together, sum(memory))
        time.sleep(0.2)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    description, _, rest = (__doc__ or "").partition("\n\n")
    arguments = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("root", type=Path, help="a tree whose archives are unpacked")
    arguments.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="for ours (default: all cores)")
    arguments.add_argument("--remember", action="store_true", help="the reference way looks at every picture once only")
    arguments.add_argument("--leaks", default="off", help="for ours: near needs a second look at each (default: off)")
    args = arguments.parse_args(argv)
    root = args.root.resolve()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for path in root.rglob("*"):  # both find the files in the page cache
            if path.is_file():
                path.read_bytes()
        (out / "reference").mkdir()
        started, used = time.perf_counter(), time.process_time()
        count = reference_way(root, out / "reference", remember=args.remember)
        reference, used = time.perf_counter() - started, time.process_time() - used
        print(f"reference way              {reference:7.2f} s, processor {used:7.2f} s, {count} records", flush=True)  # noqa: T201
        options = ["--leaks", args.leaks]
        ours(root, out / "once", args.workers, ["--help"])
        for name in ("cold", "unchanged", "one picture changed"):
            if name == "one picture changed":
                next(root.glob("training/*/*/images*/*_00002*")).touch()
            cost = ours(root, out / "ours", args.workers, options)
            print(  # noqa: T201
                f"ours, {name:20} {cost.seconds:7.2f} s, processor {cost.processor:7.2f} s, "
                f"{reference / cost.seconds:6.1f} x faster, {used / cost.processor:6.1f} x less work, "
                f"peak {cost.largest:.0f} MB, with workers {cost.together:.0f} MB",
                flush=True,
            )
        shutil.rmtree(out / "ours")
    return 0


if __name__ == "__main__":
    sys.exit(main())
