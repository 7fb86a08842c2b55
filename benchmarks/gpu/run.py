#!/usr/bin/env python
"""What one GPU of 80 GB does with medvl: training from stock to fitted, grounding loss, prediction, DeepSpeed, serving.

    python benchmarks/gpu/run.py --work /tmp/bench                      all parts, 8 minutes at most
    python benchmarks/gpu/run.py --work /tmp/bench --parts predict      one part
    python benchmarks/gpu/run.py --work /tmp/bench --tiny               all on a CPU, figures without meaning

Every setting runs in a process of its own and leaves a row in WORK/rows.jsonl. A second call does what is missing;
rows of another card stay and do not count. No network: weights are random and of true size, images drawn. With
--dataset-info and --name it trains on converted records of yours, with --tokenizer on true numbers of tokens.
At the end: a table in Markdown.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks" / "gpu")]

from settings import PARTS, TASKS, Setting, Where  # noqa: E402

LONGEST_S = 180  # a setting that takes longer is stopped, and says so
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "llamafactory", "liger-kernel", "deepspeed")


def main() -> int:
    """Measure what is missing; 1 if a setting failed, 3 if time was up before all were measured."""
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * args.minutes
    where = prepare(args)
    rows, card = args.work / "rows.jsonl", card_name()
    settings = [setting for part in args.parts for setting in PARTS[part](where)]
    done = {row["name"] for row in read(rows) if row["card"] == card and "error" not in row}
    missing = [setting for setting in settings if setting.name not in done]
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for place, setting in enumerate(missing):
            if time.monotonic() > until:
                say(f"time is up: {len(missing) - place} settings are left; the same command goes on with them")
                break
            build(where, setting.size, args.tokenizer)
            following = missing[place + 1 : place + 2]
            row = measure(setting, [it for it in following if it.waits and it.size == setting.size], processes, where)
            line = {"part": setting.part, "name": setting.name, "card": card, "date": str(datetime.date.today()), **row}
            with rows.open("a") as file:
                file.write(json.dumps(line) + "\n")
            say(f"{setting.part}: {setting.name}: {row.get('error') or summary(row)}")
    finally:  # also on Ctrl-C, which does not reach them
        for process in processes.values():
            end(process)
    latest = {row["name"]: row for row in read(rows) if row["card"] == card}
    told = [latest[setting.name] for setting in settings if setting.name in latest]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    sys.stdout.write(f"\n{card}; {versions}\n\n" + table(told) + "\n")
    return 1 if any("error" in row for row in told) else 0 if len(told) == len(settings) else 3


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=8.0, help="no setting is begun after them")
    parser.add_argument("--tiny", action="store_true", help="tiny models on a CPU")
    parser.add_argument("--tokenizer", type=Path, help="a published tokenizer.json, or .json.gz")
    parser.add_argument("--dataset-info", type=Path, help="folder of a registry of converted records")
    parser.add_argument("--name", help="first part of its entries' names: NAME_all_train")
    args = parser.parse_args()
    if (args.dataset_info is None) != (args.name is None):
        parser.error("--dataset-info and --name belong together")
    return args


def prepare(args: argparse.Namespace) -> Where:
    """Where everything lies; draws and converts records unless some are given."""
    where = Where(args.work.resolve(), args.tiny, args.work.resolve() / "dataset_info", "drawn", args.tokenizer)
    if args.dataset_info is not None:
        return Where(where.work, args.tiny, args.dataset_info.resolve(), args.name, args.tokenizer)
    if not (where.dataset_info / "dataset_info.json").exists():
        tree, run = str(where.work / "tree"), [sys.executable]
        images = [*run, "-m", "medvl.demo.images", tree, "--train", "8" if args.tiny else "64", "--val", "4"]
        subprocess.run(images, check=True, cwd=ROOT, env=paths())
        convert = [*run, "preprocess/flare.py", "--root", tree, "--out", str(where.work / "data"), "--name", "drawn"]
        subprocess.run(
            [*convert, "--dataset-info", str(where.dataset_info / "dataset_info.json")],
            check=True,
            cwd=ROOT,
            env=paths(),
        )
    return where


def build(where: Where, size: str, tokenizer: Path | None) -> None:
    """The checkpoint, unless it is there."""
    folder = where.checkpoint(size)
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "checkpoints.py"), folder.name, str(folder)]
    command += [*(["--tokenizer", str(tokenizer)] if tokenizer else []), "--adapters", *TASKS]
    if not (folder / "adapters" / TASKS[-1]).exists():
        subprocess.run(command, check=True, env=paths(), stderr=subprocess.DEVNULL)


def measure(
    setting: Setting, following: Iterable[Setting], processes: dict[str, subprocess.Popen[str]], where: Where
) -> dict[str, Any]:
    """One setting's row, or why there is none. The following one starts its imports meanwhile."""
    started = time.monotonic()
    process, log, out = start(setting, processes, where)
    for later in following:
        processes[later.name] = start(later, processes, where)[0]
    processes.pop(setting.name, None)
    try:
        process.communicate("go\n" if setting.waits else None, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {LONGEST_S} s"}
    finally:
        end(process)
    if process.returncode or not out.exists():
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return {"error": f"exit code {process.returncode}: {' | '.join(lines[-3:])[-600:]}", "log": str(log)}
    row = json.loads(out.read_text())
    return {"seconds": round(time.monotonic() - started, 1), **(row if isinstance(row, dict) else {"results": row})}


def start(
    setting: Setting, processes: dict[str, subprocess.Popen[str]], where: Where
) -> tuple[subprocess.Popen[str], Path, Path]:
    """The setting's process, its log and its row; the one that was started before, if it was."""
    stem = "".join(letter if letter.isalnum() else "_" for letter in setting.name)
    log, out = where.work / f"{setting.part}_{stem}.log", where.work / f"{setting.part}_{stem}.json"
    if setting.name in processes:
        return processes[setting.name], log, out
    out.unlink(missing_ok=True)
    command = [part.replace("{out}", str(out)) for part in setting.command]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=paths() | setting.environment, stdin=subprocess.PIPE if setting.waits else None,
            stdout=file, stderr=file, text=True, start_new_session=True,
        )  # fmt: skip
    return process, log, out


def end(process: subprocess.Popen[str]) -> None:
    """End a process that runs, and what it started: torchrun's processes, the data loader's."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def paths() -> dict[str, str]:
    """The environment of every process: this clone, no network."""
    known = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": known, "HF_HUB_OFFLINE": "1", "DISABLE_VERSION_CHECK": "1"}


def read(rows: Path) -> list[dict[str, Any]]:
    """All rows there are."""
    return [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []


def summary(row: dict[str, Any]) -> str:
    """The figure that counts."""
    return f"{row['samples_per_s']:.2f} samples/s, {row['gib']:.1f} GiB" if "samples_per_s" in row else json.dumps(row)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; training in columns, ratios to the first row of a model in its part, the rest as it is."""
    lines = [
        "| setting | records per step | s per step (least to most) | samples/s | ratio | GiB | loss, first and last |",
        "|---|---|---|---|---|---|---|",
    ]
    first: dict[tuple[str, str], float] = {}
    for row in rows:
        if "samples_per_s" not in row:
            continue
        base = first.setdefault((row["part"], row["name"].split(":")[0]), row["samples_per_s"])
        losses = f"{row['losses'][0]:.4f}, {row['losses'][-1]:.4f}" if row["losses"] else ""
        lines.append(
            f"| {row['name']} | {row['records_per_step']} | {row['step_s']:.2f} ({row['fastest_s']:.2f} to "
            f"{row['slowest_s']:.2f}) | {row['samples_per_s']:.2f} | {row['samples_per_s'] / base:.2f} | "
            f"{row['gib']:.1f} | {losses} |"
        )
    rest = [row for row in rows if "samples_per_s" not in row]
    shown = ("part", "name", "card", "date", "log")
    told = [f"- {row['name']}: {json.dumps({k: v for k, v in row.items() if k not in shown})}" for row in rest]
    return "\n".join([*lines, "", *told])


def card_name() -> str:
    """The GPU's name, by torch in a process of its own, so that this one holds none of its memory."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU')"
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=folder, env=paths()
        ).stdout.strip()  # fmt: skip


def version(package: str) -> str:
    """Its version; "none" where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def say(line: str) -> None:
    """A line for people."""
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
