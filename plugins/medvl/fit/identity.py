"""What the results of `medvl fit` hold for; with anything else of it they are measured anew."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from medvl.factory.checks.model import model_config
from medvl.factory.data.entries import read_entries, registry
from medvl.factory.fingerprints import versions
from medvl.fit.recipe import tokenised
from medvl.fit.trying import How


def identity(recipe: Mapping[str, Any], how: How, gpu: bool) -> dict[str, Any]:
    """Name, as the user is told it -> fingerprint or value.

    Args:
        recipe: All its keys.
        how: Steps, limit and devices.
        gpu: Whether a GPU is used.
    """
    revision = str(recipe.get("model_revision") or "main")
    return {
        "recipe": _hash(recipe),
        "data": _hash([[str(file), _state(file)] for file in _files(recipe)]),
        "model": _hash(model_config(str(recipe["model_name_or_path"]), revision, recipe.get("cache_dir"))),
        "GPU": [_cards() if gpu else None, how.world],
        "version": versions(),
        "--steps": how.steps,
        "--memory": how.memory,
    }


def _files(recipe: Mapping[str, Any]) -> list[Path]:
    """What the training rows are read from, as far as it lies on this machine."""
    if folder := tokenised(recipe):
        return sorted(file for file in Path(folder).rglob("*") if file.is_file())
    names = recipe.get("dataset") or []
    names = names.split(",") if isinstance(names, str) else names
    folder = str(recipe.get("dataset_dir") or "data")
    try:
        entries = read_entries([str(name).strip() for name in names], folder)
    except msgspec.DecodeError:  # LLaMA-Factory says so when it reads it
        entries = []
    return [registry(folder), *(file for entry in entries for file in entry.files)]


def _cards() -> str:
    """Names and memory of the GPUs. Not asked of torch, which would take some of it while settings are tried."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "not told by nvidia-smi"


def _hash(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def _state(file: Path) -> list[int]:
    status = file.stat() if file.is_file() else None
    return [status.st_size, status.st_mtime_ns] if status else []
