"""Which split a row of an annotation table is in: by a file that names images, or by folder and annotator.

    {"metadata": {…}, "splits": {"train": {"Abdomen": ["Abdomen/Abdomen_001.png", …], …}, "val": {…}, "test": {…}}}

The folder of a class may also hold plain lists, and names may lack their folder.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from medvl.errors import DataError
from medvl.sources.ultrasound_rows import Annotation

Kept = Literal["folder", "annotator"]
_SPELLINGS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
              "test": "test", "testing": "test"}  # fmt: skip


class SplitFile:
    """The images of every split, by `image_key`."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            DataError: it is not in the form above; names the file, what was found and what was expected.
        """
        self.path = path
        self.splits: dict[str, set[str]] = defaultdict(set)
        self.names: dict[str, str] = {}
        for split, name in _named(path):
            key = image_key(*_parts(name))
            self.names.setdefault(key, name)
            self.splits[key].add(split)

    def split_of(self, row: Annotation) -> frozenset[str]:
        """The splits that name the image of a row; none if it is not there, several where it is in more than one."""
        return frozenset(self.splits.get(image_key(row.folder, row.image), ()))

    def unused(self, rows: Iterable[Annotation]) -> list[str]:
        """The images that no row is about, as the file names them."""
        known = {image_key(row.folder, row.image) for row in rows}
        return [name for key, name in self.names.items() if key not in known]


def image_key(folder: str, image: str) -> str:
    """An image's name whatever stands between its words, and in whatever case.

    >>> image_key("Standard_NT", "Standard NT_001.PNG") == image_key("Standard NT", "standard_nt_001.png")
    True
    """
    path = f"{folder}/{image}" if folder else image
    return path.replace("\\", "/").replace("_", " ").strip("/").casefold()


def _parts(name: str) -> tuple[str, str]:
    folder, _, image = name.replace("\\", "/").rpartition("/")
    return folder.rpartition("/")[2], image


def _named(path: Path) -> Iterator[tuple[str, str]]:
    """Split and image of every name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    splits = content.get("splits", content) if isinstance(content, dict) else None
    named = {name: _SPELLINGS.get(str(name).lower()) for name in splits} if isinstance(splits, dict) else {}
    if not isinstance(splits, dict) or not any(named.values()):
        raise DataError(f"{path}: no splits; expected {{'splits': {{'train': {{class: [images]}}, 'val': …}}}}")
    for name, split in named.items():
        if split is None and "splits" in content:
            raise DataError(f"{path}: the split {name!r} is none of {', '.join(_SPELLINGS)}")
        if split:
            yield from ((split, image) for image in _images(path, splits[name], f"{name}"))


def _images(path: Path, value: Any, where: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            for image in _images(path, part, f"{where}/{name}"):
                yield image if "/" in image.replace("\\", "/") else f"{name}/{image}"
    elif isinstance(value, list) and all(isinstance(image, str) for image in value):
        yield from value
    else:
        raise DataError(f"{path}: {where} is {str(value)[:80]!r}; expected a list of image names, or one per class")


def confounded(rows: Sequence[Annotation], kept: Kept) -> str:
    """What splitting by folder or annotator mixes up, in words."""
    folders = {row.folder for row in rows}
    annotators = {row.annotator for row in rows}
    by_folder: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_folder[row.folder].add(row.annotator)
    shared = sorted(folder for folder, seen in by_folder.items() if len(seen) > 1)
    counts = Counter(row.annotator for row in rows)
    who = ", ".join(f"{name or 'unnamed'} {count}" for name, count in counts.most_common(5))
    if kept == "folder":
        return (
            f"each of the {len(folders)} folders is a view, so held-out views were never trained on: a low score may "
            "be the view's and not the model's"
        )
    but = f" (but for {', '.join(shared)})" if shared else ""
    return (
        f"the {len(annotators)} annotators ({who}) described different folders{but}: annotator and view cannot be told "
        "apart"
    )
