"""Where the images lie that a file of annotations names: formats say a name, and every tool has its own folders."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from medvl.sources.tables.header import IMAGE_SUFFIXES

# What file managers and zip programs leave behind.
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir")


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden files and litter."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in _LITTER)


def images_below(folder: Path) -> Iterator[Path]:
    """Every image below a folder, sorted."""
    for path in visible(folder):
        if path.is_dir():
            yield from images_below(path)
        elif is_image(path):
            yield path


def find_images(names: Sequence[str], folders: Sequence[Path], stems: Sequence[str] = ()) -> list[Path]:
    """Where images lie: each name in the first folder that has it, by its path or its bare name.

    A name that is nowhere is given the folder in which most others lie: other suffixes are looked for later. Absolute
    names of another machine are looked up by their bare name; those that exist stay as they are.

    Args:
        names: As they are written.
        folders: Where they may lie, the likeliest first.
        stems: What each is called too, without suffix: some annotations lie in a file that is called like the image.
    """
    likely = [folder for folder in dict.fromkeys(folders) if folder.is_dir()] or list(folders)
    found = [_find(name, likely) for name in names]
    if stems and not all(found):
        by_stem = _by_stem(likely)
        found = [place or by_stem.get(stem.lower()) for place, stem in zip(found, stems, strict=True)]
    homes = Counter(place.parent for place in found if place)
    usual = homes.most_common(1)[0][0] if homes else likely[0]
    return [place or usual / _relative(name).name for name, place in zip(names, found, strict=True)]


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    written = _relative(name)
    if os.path.isabs(name) and os.path.isfile(name):  # noqa: PTH113, PTH117
        return Path(name)
    for part in dict.fromkeys((written, Path(written.name))):
        for folder in folders:
            if part.name and (folder / part).is_file():
                return folder / part
    return None


def _by_stem(folders: Sequence[Path]) -> dict[str, Path]:
    """Images by their names without suffix in lower case, where that is one image's only."""
    images = dict.fromkeys(path for folder in folders for path in visible(folder) if path.is_file() and is_image(path))
    counts = Counter(path.stem.lower() for path in images)
    return {path.stem.lower(): path for path in images if counts[path.stem.lower()] == 1}


def _relative(name: str) -> Path:
    """A name with slashes only; the bare one of a name that is absolute or leads up."""
    path = Path(os.path.normpath(name.replace("\\", "/")))
    outside = path.is_absolute() or path.parts[:1] == ("..",) or re.match("[A-Za-z]:", str(path))
    return Path(path.name) if outside else path


def relative_to_all(paths: Sequence[Path], root: Path) -> tuple[Path, list[str]]:
    """A folder that all paths lie below, `root` if they do, and their names in it.

    >>> relative_to_all([Path("/d/train/1.png"), Path("/d/val/2.png")], Path("/d/notes"))
    (PosixPath('/d'), ['train/1.png', 'val/2.png'])
    """
    inside = [root, *(path.parent for path in paths)]
    folder = Path(os.path.commonpath([path.absolute() for path in inside]))
    return folder, [path.absolute().relative_to(folder).as_posix() for path in paths]
