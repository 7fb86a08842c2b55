"""What identifies the inputs of a run: hashes of the data and of the base model's config, versions, git revision.

No torch, no network: a hub name is looked up in the local Hugging Face cache only.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from medvl.factory.run_card import DataFile
from medvl.sharegpt import MANIFEST, file_sha256, read_manifest

PACKAGES = (
    "medvl",
    "llamafactory",
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "bitsandbytes",
    "deepspeed",
    "datasets",
)
CLONE = Path(__file__).resolve().parents[3]

log = logging.getLogger("medvl")


def count_records(file: Path) -> int | None:
    """Number of records in a .json list or a .jsonl file; None for other formats."""
    if file.suffix == ".json":
        return len(msgspec.json.decode(file.read_bytes(), type=list[msgspec.Raw]))
    if file.suffix == ".jsonl":
        with file.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    return None


def describe_data(names: list[str] | None, role: str, dataset_dir: str) -> list[DataFile]:
    """One record per file of the named entries of `dataset_dir`/dataset_info.json.

    An entry without a local file (a hub name) gives one record without a path. Entries whose file_name is a folder give
    one record per file, as LLaMA-Factory reads them.
    """
    if not names:
        return []
    entries = msgspec.json.decode(
        (Path(dataset_dir) / "dataset_info.json").read_bytes(), type=dict[str, dict[str, Any]]
    )
    described = []
    for name in names:
        entry = entries[name]
        location = Path(dataset_dir) / entry["file_name"] if "file_name" in entry else None
        if location is None:
            files: list[Path | None] = [None]
        elif location.is_dir():
            files = [file for file in sorted(location.iterdir()) if file.name != MANIFEST]
        else:
            files = [location]
        described += [_describe_file(name, role, file, entry.get("num_samples")) for file in files]
    return described


def base_model(name_or_path: str, revision: str, cache_dir: str | None = None) -> tuple[str | None, str | None]:
    """(SHA-256 of config.json, commit in the Hugging Face cache); None for what is not on this machine."""
    config = Path(name_or_path) / "config.json"
    if config.is_file():
        return file_sha256(config), None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name_or_path, "config.json", cache_dir=cache_dir, revision=revision)
    if not isinstance(cached, str):
        return None, None
    return file_sha256(Path(cached)), Path(cached).parent.name


def versions() -> dict[str, str | None]:
    """Installed version of Python and of every package that shapes a training run; None for those not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def git_revision(clone: Path = CLONE) -> str | None:
    """Commit of the clone medvl runs from, with `-dirty` for uncommitted changes; None outside a clone."""
    if not (clone / ".git").exists():
        return None
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("the run card will have no git revision: %s", error)
        return None
    return done.stdout.strip()


def _describe_file(entry: str, role: str, file: Path | None, num_samples: int | None) -> DataFile:
    if file is None or not file.is_file():
        # LLaMA-Factory itself refuses a missing file, unless it trains from `tokenized_path`.
        return DataFile(entry, role, str(file) if file else None, None, None, num_samples, None, None, None)
    digest = file_sha256(file)
    manifest = read_manifest(file.parent)
    listed = manifest.files.get(file.name) if manifest else None
    if manifest is None or listed is None:
        frame = box_style = matches = instructions = None
    else:
        options = manifest.options
        frame, box_style, instructions = options.frame, options.box_style, options.instructions
        matches = listed.sha256 == digest
        if not matches:
            log.warning("%s has changed since its manifest.json was written; frame and box style may not hold", file)
    records = count_records(file)
    return DataFile(entry, role, str(file), digest, records, num_samples, frame, box_style, matches, instructions)
