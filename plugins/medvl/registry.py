"""The entries of record files in LLaMA-Factory's dataset_info.json, the registry that recipes read."""

import os
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from medvl.files import not_utf8
from medvl.sharegpt import to_json, write_atomic

_LOCKED_FOR = 60  # seconds that the registry may be held by others; merging takes a fraction of one


def dataset_entry(file_name: str) -> dict[str, Any]:
    """The dataset_info entry of a file of records."""
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "images": "images"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
    }


def register(
    dataset_info: Path,
    files: Mapping[str, Path],
    *,
    samples: Mapping[str, int] | None = None,
    before: Mapping[str, tuple[Path, Collection[int]]] | None = None,
) -> list[str]:
    """Merge entries into a dataset_info.json, under a lock, sorted, file names relative to its folder.

    Keys that a user added to an entry are kept, `num_samples` among them unless `samples` or `before` name it.

    Args:
        dataset_info: The registry; made if absent, its other entries kept.
        files: Entry name -> file of records.
        samples: Entry name -> `num_samples`: LLaMA-Factory then draws that many records, each once before any twice.
        before: Entries that earlier runs made, with their files and every `num_samples` they may have written. Those
            not among `files` are taken out unless they point at another file by now, and a `num_samples` that stands
            as an earlier run wrote it goes.

    Returns:
        Names of entries that pointed at another file before.

    Raises:
        ValueError: the registry is something else than a JSON object of entries.
        TimeoutError: another run holds the lock for a minute, or it cannot be made.
    """
    dataset_info.parent.mkdir(parents=True, exist_ok=True)
    with _lock(dataset_info):
        entries = _read_registry(dataset_info)
        folder = dataset_info.parent.resolve()
        for name, (path, numbers) in (before or {}).items():
            if name not in files:
                if entries.get(name, {}).get("file_name") == _relative(path, folder):
                    del entries[name]
            elif entries.get(name, {}).get("num_samples") in numbers:
                del entries[name]["num_samples"]
        moved = []
        for name, path in files.items():
            relative = _relative(path, folder)
            entry = entries.get(name, {})
            if entry.get("file_name", relative) != relative:
                moved.append(name)
            sampled = {"num_samples": samples[name]} if samples and name in samples else {}
            entries[name] = entry | dataset_entry(relative) | sampled
        merged = to_json(entries)
        if not dataset_info.exists() or dataset_info.read_bytes() != merged:
            write_atomic(dataset_info, merged)
    return moved


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder)).as_posix()


def _lock(dataset_info: Path) -> AbstractContextManager[object]:
    try:
        return FileLock(f"{dataset_info}.lock").acquire(_LOCKED_FOR)
    except Timeout as error:
        raise TimeoutError(
            f"{dataset_info}: another run has held {error.lock_file} for {_LOCKED_FOR} s, or it cannot be made; "
            "wait, delete it if no run is left, or choose another --dataset-info"
        ) from error


def _read_registry(dataset_info: Path) -> dict[str, dict[str, Any]]:
    try:
        data = dataset_info.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        return msgspec.json.decode(data, type=dict[str, dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = not_utf8(data) or error
        raise ValueError(f"{dataset_info}: {problem}; mend or delete it, the preprocess scripts write it") from error
