"""The records behind LLaMA-Factory's training rows, read from the files that dataset_info.json names.

LLaMA-Factory forgets ids when it tokenises, so a row is found again by its images and its text. Importable without
torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvl.control_tokens import KNOWN
from medvl.factory.data.entries import Entry, read_entries, read_rows

_NOT_TEXT = re.compile("|".join([r"\s+", "<image>", *map(re.escape, sorted(KNOWN, key=len, reverse=True))]))
# LLaMA-Factory's names for columns that an entry of dataset_info.json does not map.
_ALPACA_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}


@dataclass(frozen=True)
class Record:
    """One record of a data set that a recipe names.

    Attributes:
        entry: Its data set in dataset_info.json.
        file: The file it stands in.
        index: Its place there, from 0.
        name: Its id, or "number `index`" without one.
        texts: What the model reads or is taught, by place: `turn 1`, `system`, `instruction`, ...
        images: As the record writes them.
    """

    entry: str
    file: Path
    index: int
    name: str
    texts: dict[str, str]
    images: tuple[str, ...]

    def __str__(self) -> str:
        """Id, data set and file."""
        return f"{self.name} of {self.entry} ({self.file})"


def read_records(names: Iterable[str], dataset_dir: str) -> Iterator[Record]:
    """Every record of the named data sets that lies in a local .json or .jsonl file; others are left out.

    What is no record (LLaMA-Factory refuses it by itself) is left out too. Raises OSError for an unreadable file,
    ValueError for one that is no JSON.
    """
    for entry in read_entries(names, dataset_dir):
        for file in entry.readable:
            for index, content in enumerate(read_rows(file)):
                if isinstance(content, dict):
                    yield _record(entry, file, index, content)


def _record(entry: Entry, file: Path, index: int, content: dict[str, Any]) -> Record:
    columns, tags = entry.content.get("columns") or {}, entry.content.get("tags") or {}
    texts: dict[str, Any] = {}
    if entry.content.get("formatting", "alpaca") == "alpaca":
        named = [columns.get(key, column) for key, column in _ALPACA_COLUMNS.items()]
        texts = {column: content.get(column) for column in named}
        for place, pair in enumerate(content.get(columns.get("history", "")) or [], 1):
            texts[f"history {place}"] = "\n".join(part for part in pair if isinstance(part, str))
    else:
        turns = content.get(columns.get("messages", "conversations"))
        for place, turn in enumerate(turns if isinstance(turns, list) else [], 1):
            tag = tags.get("content_tag", "value")
            texts[f"turn {place}"] = turn.get(tag) if isinstance(turn, dict) else None
    texts["system"] = content.get(columns.get("system", ""))
    images = content.get(columns.get("images", "")) or []
    return Record(
        entry=entry.name,
        file=file,
        index=index,
        name=str(content["id"]) if "id" in content else f"number {index}",
        texts={place: text for place, text in texts.items() if isinstance(text, str)},
        images=tuple(map(str, images if isinstance(images, list) else [images])),
    )


@dataclass(frozen=True)
class RecordFinder:
    """Finds the record of a tokenised row; reads the files only when it is asked."""

    names: tuple[str, ...]
    dataset_dir: str

    def find(self, rows: Sequence[tuple[str, Sequence[Any] | None]]) -> list[str]:
        """For each row the name of its record, its data set and file.

        Args:
            rows: Decoded text and images of each row; None for images that are not known.
        """
        wanted = [(_plain(text), images) for text, images in rows]
        found: list[list[tuple[tuple[int, int], Record]]] = [[] for _ in rows]
        unread = ""
        try:
            for record in read_records(self.names, self.dataset_dir):
                for place, (text, images) in enumerate(wanted):
                    fit = _fit(record, text, images)
                    if fit > (0, 0):
                        found[place].append((fit, record))
        except (OSError, ValueError) as error:
            unread = f" ({error})"  # told beside the failure that the records are named for, and not instead of it
        return [_told(records, *row) + unread for records, row in zip(found, rows, strict=True)]


def _fit(record: Record, text: str, images: Sequence[Any] | None) -> tuple[int, int]:
    """How well a record fits a row: 0 not at all, 1 in its images, 2 in the start of its text too, 3 entirely.

    The second number is the length of the text that fits: a question may be part of another one.
    """
    if images is not None:
        same = len(images) == len(record.images) and all(
            str(image).endswith(name) for image, name in zip(images, record.images, strict=True)
        )
        if not same:
            return 0, 0
    texts = [_plain(part) for part in record.texts.values()]
    if texts and all(part in text for part in texts):
        return 3, sum(map(len, texts))
    if images:  # cut by cutoff_len, or changed by a template
        return (2 if texts and texts[0][:40] in text else 1), 0
    return 0, 0


def _told(found: Sequence[tuple[tuple[int, int], Record]], text: str, images: Sequence[Any] | None) -> str:
    if not found:
        where = f"images {', '.join(map(str, images))}, " if images else ""
        return f"a record that is in no local file ({where}text {text[:200]!r})"
    best = max(fit for fit, _ in found)
    records = [record for fit, record in found if fit == best]
    others = f", or one of {len(records) - 1} more like it" if len(records) > 1 else ""
    return f"{records[0]}{others}"


def _plain(text: str) -> str:
    return _NOT_TEXT.sub("", text)
