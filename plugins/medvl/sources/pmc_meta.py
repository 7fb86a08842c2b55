"""M3LLM's meta file, PMC-data.json: which files the training data is, where images lie, how often each is seen.

    {"qa-bbox": {"root": "…/images/", "annotation": "…/boundingboxVQA.jsonl", "data_augment": false,
                 "max_dynamic_patch": 1, "repeat_time": 1, "length": "40293"}, …}

As InternVL's trainer reads it: `repeat_time` below 1 takes the first rows, not a sample; above 1 it is whole, and
repeats. `length` is only read by people. Paths are relative to where that trainer is started.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medvl.errors import DataError
from medvl.sources.pmc_files import Note
from medvl.sources.pmc_sets import PmcSet, file_set

_SET_NAME = re.compile(r"[A-Za-z0-9][\w .-]*", re.ASCII)


def meta_sets(path: Path, value: Mapping[str, Any]) -> tuple[list[PmcSet], list[str]]:
    """The sets of a meta file, and a line for every entry that was refused."""
    sets, refused = [], []
    for name, entry in value.items():
        try:
            sets.append(_set(path, name, entry))
        except DataError as error:
            refused.append(f"{path}, {name}: {error}")
    return sets, refused


def _set(meta: Path, name: str, entry: Any) -> PmcSet:
    if not _SET_NAME.fullmatch(name):
        raise DataError("a set's name has letters, digits, space, _, . and - only, the first a letter or digit")
    if not isinstance(entry, dict) or not isinstance(entry.get("annotation"), str):
        raise DataError("annotation is not the name of a file")
    root = entry.get("root") or ""
    if not isinstance(root, str):
        raise DataError(f"root is {root!r}, not the name of a folder")
    annotation = _found(meta, entry["annotation"])
    if not annotation.is_file():
        raise DataError(f"there is no {annotation}, nor in a folder above the meta file; mend annotation")
    made = file_set(annotation, name, [_found(meta, root)])
    share, repeat = _repeat(entry.get("repeat_time", 1))
    return replace(made, share=share, repeat=repeat, length=_length(entry.get("length")), notes=_notes(entry))


def _found(meta: Path, name: str) -> Path:
    """A path that is relative to the meta file's folder, or one above it: trainers are started at the clone's root."""
    plain = Path(name.replace("\\", "/"))
    places = [folder / plain for folder in (meta.parent, *meta.parent.parents)]
    return next((place for place in places if place.exists()), places[0])


def _repeat(value: Any) -> tuple[float, int]:
    """Share of the rows that is read, and how often each is seen."""
    try:
        times = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        times = -1.0
    if not 0 < times < float("inf"):
        raise DataError(f"repeat_time is {value!r}; expected a number above 0")
    if times > 1 and not times.is_integer():
        raise DataError(f"repeat_time is {value!r}; above 1 it is a whole number (the reference stops there too)")
    return min(times, 1.0), max(int(times), 1)


def _length(value: Any) -> int | None:
    """The number of rows, which is written as text in PMC-data.json."""
    try:
        return None if value is None else int(str(value).replace(",", ""))
    except ValueError:
        raise DataError(f"length is {value!r}; expected a whole number") from None


def _notes(entry: Mapping[str, Any]) -> tuple[Note, ...]:
    """What recipes decide here, and the meta file decides there."""
    notes = []
    if entry.get("data_augment"):
        notes.append("data_augment is true: the reference augments these images while training; here a recipe does")
    if "max_dynamic_patch" in entry:
        tiles = entry["max_dynamic_patch"]
        notes.append(
            f"max_dynamic_patch is {tiles}, which overrides the reference's script; here a recipe's crop_to_patches "
            f"decides ({'false is one tile' if tiles == 1 else 'true is up to 12 tiles and a thumbnail'})"
        )
    return tuple(("META_KEY", note) for note in notes)
