"""The data sets a recipe names, as dataset_info.json has them: the one reading of that file, and of theirs.

Importable without torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from medvl.sharegpt import MANIFEST

CONVERT = "run the preprocess script that wrote it again"
_RECORDS = (".json", ".jsonl")


@dataclass(frozen=True)
class Entry:
    """One data set.

    Attributes:
        name: As the recipe writes it.
        content: What dataset_info.json says of it; empty where it has no such entry.
        location: Its file or folder; None for a data set of a hub, and for one without an entry.
    """

    name: str
    content: Mapping[str, Any]
    location: Path | None

    @property
    def files(self) -> list[Path]:
        """Its files, as LLaMA-Factory reads them: all those of a folder, but for a manifest; there or not."""
        if self.location is None:
            return []
        if self.location.is_dir():
            return [file for file in sorted(self.location.iterdir()) if file.name != MANIFEST]
        return [self.location]

    @property
    def readable(self) -> list[Path]:
        """Those of its files that are there and are read here."""
        return [file for file in self.files if file.suffix in _RECORDS and file.is_file()]


def registry(dataset_dir: str | Path) -> Path:
    """The file that names the data sets of a folder."""
    return Path(dataset_dir) / "dataset_info.json"


def read_entries(names: Iterable[str] | None, dataset_dir: str | Path) -> list[Entry]:
    """The entries of these names, in their order. Without a dataset_info.json none of them is known."""
    info = registry(dataset_dir)
    contents = msgspec.json.decode(info.read_bytes(), type=dict[str, dict[str, Any]]) if info.is_file() else {}
    entries = [(name, contents.get(name, {})) for name in names or ()]
    return [
        Entry(name, content, Path(dataset_dir) / content["file_name"] if "file_name" in content else None)
        for name, content in entries
    ]


def read_rows(file: Path) -> list[Any]:
    """What a .json list or a .jsonl file holds, unchecked; ValueError with the file's name.

    A .json file of JSON lines is read too, as LLaMA-Factory does.
    """
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        content = json.loads(text)
    except ValueError as error:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise ValueError(f"{file}: no JSON ({error}); {CONVERT}") from error
    return content if isinstance(content, list) else [content]


def count_records(file: Path) -> int | None:
    """Number of records in a .json list or a .jsonl file; None for other formats."""
    if file.suffix == ".json":
        return len(msgspec.json.decode(file.read_bytes(), type=list[msgspec.Raw]))
    if file.suffix == ".jsonl":
        with file.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    return None
