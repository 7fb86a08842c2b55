"""Where YOLO keeps images, labels and names: `data.yaml`, `images` beside `labels`, or all in one folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvl.errors import DataError
from medvl.sources.tables.annotation_files import read_bytes, read_text, split_below
from medvl.sources.tables.image_files import images_below, visible
from medvl.yaml_files import read_yaml

YAML = (".yaml", ".yml")
_NAMES = ("classes.txt", "obj.names", "predefined_classes.txt")
_SPLITS = ("train", "val", "test")
_BEGINNING = 100_000  # bytes; the outline of one object may be long


def yaml_in(folder: Path) -> Path | None:
    """The YAML file that names classes; the one called data or dataset if there are several."""
    found = [file for file in visible(folder) if file.suffix.lower() in YAML and b"names" in read_bytes(file)]
    return next((file for file in found if file.stem.lower() in ("data", "dataset")), found[0] if found else None)


def read_yaml_file(file: Path | None, refused: list[str]) -> dict[str, Any]:
    """What it says; nothing if there is none, or if it is refused."""
    try:
        return read_yaml(file) if file else {}
    except ValueError as error:
        refused.append(str(error))
        return {}


def is_label(file: Path) -> bool:
    """Whether a text's first line is numbers, five at least, the first of them whole."""
    if file.name in _NAMES:
        return False
    words = next(iter(read_bytes(file)[:_BEGINNING].decode("latin-1").splitlines()), "").split()
    try:
        return len([float(word) for word in words]) >= 5 and words[0].isdigit()
    except ValueError:
        return False


def split_images(
    root: Path, content: Mapping[str, Any], images: Path | None, refused: list[str]
) -> dict[Path, str | None]:
    """Image -> split, by data.yaml; by the folders, where it names no split or the images lie elsewhere."""
    found: dict[Path, str | None] = {}
    for split in () if images else _SPLITS:
        value = content.get(split)
        for place in filter(None, value if isinstance(value, list) else [value]):
            try:
                listed = _listed(root, content, str(place))
            except DataError as error:
                refused.append(f"{split}: {error}")
                continue
            refused += [
                f"{image} is in {found[image]} and in {split}; an image has one split"
                for image in listed
                if found.setdefault(image, split) != split
            ]
    home = Path(os.path.abspath(images or root))  # noqa: PTH100  (as it is written, links and all)
    return found or {image: split_below(image, home) for image in images_below(home)}


def _listed(root: Path, content: Mapping[str, Any], place: str) -> list[Path]:
    """The images of a split: those below a folder, or in a list. It is relative to `path`, or to the file.

    Roboflow writes `../train/images` and means `train/images`.
    """
    written = Path(str(content.get("path") or "."))
    for home in dict.fromkeys((root / written, root, root / written.name)):
        for candidate in (home / place, home / place.removeprefix("../")):
            at = Path(os.path.abspath(candidate))  # noqa: PTH100
            if at.is_dir():
                return list(images_below(at))
            if at.is_file():
                lines = [line.strip() for line in read_text(at).splitlines() if line.strip()]
                beside = [at.parent if line.startswith("./") else home for line in lines]  # as Ultralytics reads them
                return [Path(os.path.abspath(folder / line)) for folder, line in zip(beside, lines, strict=True)]  # noqa: PTH100
    raise DataError(f"{place} is not there, from {root}; expected a folder with images or a list of them")


def class_names(content: Mapping[str, Any], root: Path) -> dict[int, str]:
    """Class -> name, of data.yaml, else of a file with a name in each line."""
    names = content.get("names")
    if isinstance(names, list):
        return {place: str(name) for place, name in enumerate(names)}
    if isinstance(names, dict):
        return {int(place): str(name) for place, name in names.items() if str(place).isdigit()}
    below = [folder for folder in visible(root) if folder.is_dir()]
    for folder in (root, *below, *(folder / "labels" for folder in below)):
        for name in _NAMES:
            if (folder / name).is_file():
                lines = read_text(folder / name).splitlines()
                return {place: line.strip() for place, line in enumerate(lines) if line.strip()}
    return {}


def labels_of(image: Path, root: Path, images: Path | None) -> list[Path]:
    """Where the text file of an image may lie: in `labels` for the last `images` of its path, or beside it.

    Of images that lie elsewhere, in the same folders below the data.
    """
    if images:
        inside = image.relative_to(Path(os.path.abspath(images))).with_suffix(".txt")  # noqa: PTH100
        home = Path(os.path.abspath(root))  # noqa: PTH100
        return [home / "labels" / inside, home / inside, home / "labels" / inside.name, home / inside.name]
    parts = list(image.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return [Path(*parts).with_suffix(".txt"), image.with_suffix(".txt")]
