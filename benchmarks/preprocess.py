#!/usr/bin/env python
r"""Speed and memory of preprocess/flare.py beside the way the reference converters work, on one tree in one run.

examples:
  python benchmarks/flare_tree.py /tmp/flare/tree --unzipped
  python benchmarks/preprocess.py /tmp/flare/tree --workers 2

The reference way, as the public FLARE baselines do it: for every row, Pillow `verify()`, open again, `load()`, in one
process; then `json.dump`. It looks at an image once per row that names it; `--remember` lets it look once per image.
Ours: the whole command, with what the references do not do: answers parsed, boxes rewritten, rows audited, reports.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import psutil
from PIL import Image

from medvl.sources.flare import FLARE

REPOSITORY = Path(__file__).resolve().parent.parent


def reference_way(root: Path, out: Path, *, remember: bool) -> int:
    """Convert the tree as the references do. Returns the number of records."""
    count = 0
    known: dict[str, bool] = {}
    for split in FLARE.splits.values():
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
    except Exception:  # as the references: whatever is wrong, the image is bad
        return False
    known[path] = True
    return True


def ours(root: Path, out: Path, workers: int, options: Sequence[str]) -> tuple[float, float]:
    """Run the command. Returns seconds on the wall clock, and of processor time: its own and that of its workers."""
    started = time.perf_counter()
    process = _start(root, out, workers, options)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}; the same command says why")
    return seconds, used.ru_utime + used.ru_stime


def _start(root: Path, out: Path, workers: int, options: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(REPOSITORY / "preprocess/flare.py"), "--root", str(root), "--out", str(out)]
    command += ["--dataset-info", str(out / "dataset_info.json"), "--workers", str(workers), *options]
    # Python keeps compiled modules from the first run on, unless it is told not to.
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(out.parent / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def peak_memory(root: Path, out: Path, workers: int, options: Sequence[str]) -> tuple[float, float]:
    """Peak memory of a run, MB: of its largest process and of all; pages that they share are counted once.

    A run of its own, since looking holds it up.
    """
    process = _start(root, out, workers, options)
    largest = together = 0.0
    while process.poll() is None:
        try:
            parent = psutil.Process(process.pid)
            memory = [each.memory_full_info().pss / 2**20 for each in (parent, *parent.children(recursive=True))]
        except psutil.Error:
            continue  # one has just ended
        largest, together = max(largest, *memory), max(together, sum(memory))
        time.sleep(0.02)
    return largest, together


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    description, _, rest = (__doc__ or "").partition("\n\n")
    arguments = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("root", type=Path, help="a tree whose archives are unpacked")
    arguments.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="for ours (default: all cores)")
    arguments.add_argument("--rounds", type=int, default=3, help="runs of ours, of which the median (default: 3)")
    arguments.add_argument("--remember", action="store_true", help="the reference way looks at every image once only")
    arguments.add_argument(
        "--contamination", default="off", help="for ours: near needs a second look at each (default: off)"
    )
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
        options = ["--contamination", args.contamination]
        ours(root, out / "once", args.workers, ["--help"])
        for name in ("cold", "unchanged", "one image changed"):
            runs = []
            for _ in range(args.rounds):
                if name == "cold":
                    shutil.rmtree(out / "ours", ignore_errors=True)
                if name == "one image changed":
                    next(root.glob("training/*/*/images*/*_00002*")).touch()
                runs.append(ours(root, out / "ours", args.workers, options))
            walls, processors = zip(*runs, strict=True)
            seconds, processor = median(walls), median(processors)
            print(  # noqa: T201
                f"ours, {name:20} {seconds:7.2f} s ({min(walls):.2f} to {max(walls):.2f}), "
                f"processor {processor:7.2f} s, "
                f"{reference / seconds:6.1f} x faster, {used / processor:6.1f} x less work",
                flush=True,
            )
        largest, together = peak_memory(root, out / "again", args.workers, options)
        print(f"ours, cold: peak memory {largest:.0f} MB, with workers {together:.0f} MB")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
