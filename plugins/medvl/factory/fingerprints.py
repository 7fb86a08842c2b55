"""What identifies the inputs of a run: hashes of the data and of the base model's config, versions, git revision.

No torch, no network: a hub name is looked up in the local Hugging Face cache only.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import subprocess
from pathlib import Path

from medvl.factory.data.entries import Entry, count_records, read_entries
from medvl.factory.run_card import DataFile
from medvl.sharegpt import file_sha256, manifest_of

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
    "liger-kernel",
)
CLONE = Path(__file__).resolve().parents[3]

log = logging.getLogger("medvl")


def describe_data(names: list[str] | None, role: str, dataset_dir: str) -> list[DataFile]:
    """One record per file of the named entries of `dataset_dir`/dataset_info.json.

    An entry without a local file (a hub name) gives one record without a path. Entries whose file_name is a folder give
    one record per file, as LLaMA-Factory reads them.
    """
    return [
        _describe_file(entry, role, file)
        for entry in read_entries(names, dataset_dir)
        for file in (entry.files if entry.location else [None])
    ]


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


def _describe_file(entry: Entry, role: str, file: Path | None) -> DataFile:
    samples = entry.content.get("num_samples")
    if file is None or not file.is_file():
        # LLaMA-Factory itself refuses a missing file, unless it trains from `tokenized_path`.
        return DataFile(entry.name, role, str(file) if file else None, None, None, samples, None, None, None)
    digest = file_sha256(file)
    manifest = manifest_of(file)
    if manifest is None:
        frame = box_style = matches = instructions = None
    else:
        options = manifest.options
        frame, box_style, instructions = options.frame, options.box_style, options.instructions
        matches = manifest.files[file.name].sha256 == digest
        if not matches:
            log.warning("%s has changed since its manifest.json was written; frame and box style may not hold", file)
    records = count_records(file)
    return DataFile(entry.name, role, str(file), digest, records, samples, frame, box_style, matches, instructions)
