"""Where the images lie that a table names: as written, or somewhere below the folder by their bare names."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from medvl.sources.tables import cells
from medvl.sources.tables.header import IMAGE_SUFFIXES, is_blank

_LOOKED_AT = 50  # rows


@dataclass(frozen=True)
class Place:
    """Where an image lies.

    Attributes:
        path: The file; where it should be, if it is not there.
        others: Files that could be meant as well.
        renamed: Whether it has another suffix than its name has.
    """

    path: str
    others: tuple[str, ...] = ()
    renamed: bool = False


@cache  # a process walks through a folder once
def _index(folder: str) -> Mapping[str, tuple[str, ...]]:
    """Bare names, and those without suffix, in one case -> the images below a folder that have them."""
    found: dict[str, list[str]] = defaultdict(list)
    seen = set[str]()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                for key in {_key(name), _key(_stem(name))}:
                    found[key].append(f"{place}/{name}")
    return {key: tuple(paths) for key, paths in found.items()}


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    suffix = next((suffix for suffix in reversed(IMAGE_SUFFIXES) if name.lower().endswith(suffix)), "")
    return name.removesuffix(name[len(name) - len(suffix) :]) if suffix else name


@cache
def find(folder: str, name: str) -> Place:
    """Where the image of a name lies: as written below the folder, else by its bare name, with any suffix.

    A name may be a whole path, also of another machine, of which the bare name is left then.
    """
    written = name.strip().replace("\\", "/")
    direct = os.path.normpath(written if os.path.isabs(written) else f"{folder}/{written}")  # noqa: PTH117
    if "\0" not in direct and os.path.isfile(direct):  # noqa: PTH113
        return Place(direct)
    bare = written.rpartition("/")[2]
    index = _index(folder)
    same = index.get(_key(bare), ()) if bare else ()
    stem = index.get(_key(_stem(bare)), ()) if bare and not same else ()
    found = same or stem
    if len(found) > 1:  # the folders of the name may tell
        tail = [path for path in found if _key(path).endswith(_key(f"/{written.lstrip('./')}"))]
        tail = tail or [path for path in found if _key(_stem(path)).endswith(_key(f"/{_stem(written.lstrip('./'))}"))]
        found = tuple(tail) if len(tail) == 1 else found
    if not found:
        return Place(direct)
    return Place(found[0], found[1:], renamed=bool(stem) and _stem(bare) != bare)


def forget() -> None:
    """Look at the folders anew."""
    find.cache_clear()
    _index.cache_clear()


def _is_there(folder: str, name: str) -> bool:
    return os.path.isfile(find(folder, name).path)  # noqa: PTH113


def column_of_files(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], folder: str) -> str | None:
    """The one column whose values are images below a folder, by its first rows; None for none, or several."""
    found = []
    for column in columns:
        values = {cells.text(value).strip() for row in rows[:_LOOKED_AT] if isinstance(value := row.get(column), str)}
        values.discard("")
        if values and all(_is_there(folder, value) for value in values):
            found.append(column)
    return found[0] if len(found) == 1 else None


def names(value: Any, folder: str) -> tuple[str, ...]:
    """The names of images in a cell: a list in any form, or names with ; or | between, if these are files.

    >>> names('["a.png", "b.png"]', "/nowhere"), names("a;b.png", "/nowhere")
    (('a.png', 'b.png'), ('a;b.png',))
    """
    value = cells.data(value)
    if isinstance(value, Mapping):  # {"path": …} or {"image": …}
        value = next((value[key] for key in ("path", "image", "file_name", "url") if value.get(key)), None)
    if isinstance(value, list | tuple):
        return tuple(name for item in value for name in names(item, folder))
    if is_blank(value):
        return ()
    name = cells.text(value).strip()
    for separator in (";", "|"):
        parts = [part.strip() for part in re.split(re.escape(separator), name) if part.strip()]
        if len(parts) > 1 and not _is_there(folder, name) and all(_is_there(folder, part) for part in parts):
            return tuple(parts)
    return (name,)
