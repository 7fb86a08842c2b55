#!/usr/bin/env python
r"""Everything a clone writes, recorded and compared byte by byte: for changes that must change nothing.

examples:
  python benchmarks/same_outputs.py record ../before /tmp/before --tree /tmp/flare
  python benchmarks/same_outputs.py record . /tmp/after --tree /tmp/flare
  python benchmarks/same_outputs.py compare /tmp/before /tmp/after

`record` runs the commands of CLONE with CLONE's own `.venv`: conversion of the trees at hand under several sets of
options, scores of the prediction files under both rule sets, routes of all question files, answers of tiny checkpoints.
All of them work in one folder, so that paths in the outputs do not differ, which is moved to FOLDER afterwards: one
recording at a time.
"""

import argparse
import difflib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

WORK = Path("/tmp/medvl_same_outputs")
# Times, speeds, versions and caches, which differ from run to run.
NOT_COMPARED = (".lock", ".msgpack", ".log", ".stamp", "unchanged.json")
CONVERSIONS: dict[str, list[str]] = {
    "plain": [],
    "pixel": ["--frame", "pixel", "--box-style", "flare"],
    "internvl": ["--box-style", "internvl", "--number-images", "--dev-fraction", "0.2"],
    "qwen_vl1": ["--box-style", "qwen_vl1", "--frame", "norm1", "--max-images-per-sample", "2"],
    "clean": ["--clean", "--dev-fraction", "0.1", "--balance", "small", "--flatten-multi-image"],
    "limited": ["--limit", "50", "--seed", "3", "--name", "starter"],
    "shares": ["--split-train", "true_test=0.1", "A=0.45", "B=0.45", "--balance", "classes"],
}


def trees(data: Path, full: Path | None) -> Iterator[tuple[str, Path, Sequence[str]]]:
    """(name, root, names of conversions) of the trees at hand; real records get blank images of sufficient size."""
    yield "bccd", data / "bccd_flare", list(CONVERSIONS)
    records = WORK.parent / f"{WORK.name}_records"
    if not records.exists():
        blank = WORK.parent / f"{WORK.name}.png"
        Image.new("1", (1024, 1024)).save(blank)
        for file in sorted((data / "flare_records").rglob("*.json")):
            place = records / file.parent.relative_to(data / "flare_records")
            (place / "imagesTr").mkdir(parents=True)
            shutil.copy(file, place)
            for name in {row["ImageName"] for row in json.loads(file.read_text())}:
                (place / name).hardlink_to(blank)
    yield "records", records, ["plain", "pixel", "clean", "shares"]
    if full:
        yield "full", full, ["plain", "clean"]


def record(clone: Path, data: Path, full: Path | None) -> None:
    """Run everything; what the commands print is an output too."""
    clone = clone.resolve()
    python, medvl = str(clone / ".venv/bin/python"), str(clone / ".venv/bin/medvl")
    for tree, root, names in trees(data, full):
        for name in names:
            out = WORK / "convert" / tree / name
            command = [python, "preprocess/flare.py", "--root", str(root), "--out", str(out), "--dataset-info",
                       str(out / "dataset_info.json"), "--workers", "2", *CONVERSIONS[name]]  # fmt: skip
            run(clone, f"convert-{tree}-{name}", command)
    bccd = WORK / "convert" / "bccd"
    predictions = data / "flare_predictions"
    tuned, base = (
        predictions / "medgemma15_hidden_validation.json",
        predictions / "base_medgemma15_hidden_validation.json",
    )
    hidden = data / "bccd_flare/validation-hidden/Microscopy/bccd/bccd_questions_val_withGT.json"
    pairs = {
        "base-tuned": (base, tuned), "tuned-base": (tuned, base), "tuned-tuned": (tuned, tuned),
        "bccd-tree": (hidden, data / "bccd_flare"), "bccd-file": (hidden, hidden),
        "bccd-records": (hidden, bccd / "plain" / "flare_bccd_hidden.json"),
        "bccd-pixel": (hidden, bccd / "pixel" / "flare_bccd_hidden.json"),
    }  # fmt: skip
    for name, (answers, references) in pairs.items():
        command = [python, "evaluation/run.py", str(answers), "--references", str(references), "--rules",
                   "strict,official", "--force", "--bootstrap", "200", "--out", str(WORK / "score" / name)]  # fmt: skip
        run(clone, f"score-{name}", command)
    for questions in sorted((clone / "tests/data").glob("router_*.jsonl")):
        routes = WORK / "route" / questions.name
        run(clone, f"route-{questions.stem}",
            [medvl, "router", "route", str(questions), "--out", str(routes), "--explain"])  # fmt: skip
    for family in ("qwen3vl", "internvl3"):
        run(clone, f"predict-{family}", [python, "-c", PREDICT, family, str(bccd / "plain/flare_bccd_val.json")])


PREDICT = f"""
import sys
from pathlib import Path
from medvl.cli import main
from medvl.demo.checkpoints import build_checkpoint
family, data = sys.argv[1:]
folder = Path("{WORK}/predict") / family
build_checkpoint(family, folder / "model", scale="micro")
sys.exit(main(["predict", "--data", data, "--limit", "12", "--no-router", "--model", str(folder / "model"), "--out",
               str(folder / "answers.jsonl"), "--challenge", str(folder / "predictions.json")]))
"""


def run(clone: Path, name: str, command: Sequence[str]) -> None:
    """Run a command in the clone; standard output and exit code become files, errors are shown."""
    sys.stderr.write(f"{name}\n")
    (WORK / "printed").mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": f"{clone}:{clone / 'plugins'}", "OMP_NUM_THREADS": "1", "COLUMNS": "200",
                                "HF_HUB_OFFLINE": "1"}  # fmt: skip
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    (WORK / "printed" / f"{name}.txt").write_text(f"exit code {done.returncode}\n{done.stdout}")
    (WORK / "printed" / f"{name}.log").write_text(done.stderr)
    if done.returncode not in (0, 3):
        sys.stderr.write(done.stderr[-2000:])


def compare(before: Path, after: Path, words: Sequence[str]) -> int:
    """Print every difference; returns how many files differ. `words` (old=new) are applied to `before` first."""
    names = sorted({path.relative_to(root) for root in (before, after) for path in root.rglob("*") if path.is_file()})
    different = 0
    for name in names:
        if name.name.endswith(NOT_COMPARED) or name.name.startswith(".") or "model" in name.parts:
            continue
        sides = [(root / name).read_bytes() if (root / name).is_file() else None for root in (before, after)]
        if sides[0] is not None:
            for word in words:
                old, _, new = word.partition("=")
                sides[0] = sides[0].replace(old.encode(), new.encode())
        if sides[0] != sides[1]:
            different += 1
            texts = [(side or b"(absent)").decode(errors="replace").splitlines() for side in sides]
            lines = list(difflib.unified_diff(*texts, str(before / name), str(after / name), lineterm="", n=0))[:12]
            print("\n".join(line[:240] for line in lines))  # noqa: T201
    print(f"{len(names)} files, {different} differ")  # noqa: T201
    return different


def main(argv: Sequence[str] | None = None) -> int:
    """Record or compare."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    actions = arguments.add_subparsers(dest="action", required=True)
    recording = actions.add_parser("record", help="run everything in a clone")
    recording.add_argument("clone", type=Path)
    recording.add_argument("folder", type=Path)
    recording.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data")
    recording.add_argument("--tree", type=Path, help="a tree of benchmarks/flare_tree.py, converted too")
    comparing = actions.add_parser("compare", help="compare two recordings")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--word", action="append", default=[], metavar="OLD=NEW", help="a word that was renamed")
    args = arguments.parse_args(argv)
    if args.action == "compare":
        return 1 if compare(args.before, args.after, args.word) else 0
    shutil.rmtree(WORK, ignore_errors=True)
    record(args.clone, args.data.resolve(), args.tree and args.tree.resolve())
    shutil.rmtree(args.folder, ignore_errors=True)
    WORK.rename(args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
