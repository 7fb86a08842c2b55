"""A folder per class, as torchvision's ImageFolder and the library datasets read it; with splits above, or without.

    train/normal/1.png    train/abnormal/2.png    test/normal/3.png        (or normal/1.png and abnormal/2.png alone)

The name of the folder is the answer; folders in it are no classes, but parts of it. The question is not in the data,
so that `--question` has to say it. Images that lie beside the class folders have no class: they are rows without an
answer, which conversion drops and reports.
"""

from collections.abc import Mapping
from pathlib import Path

from medvl.sources.tables.annotation_files import several
from medvl.sources.tables.base import Table, columns_called
from medvl.sources.tables.image_files import images_below, is_image, visible
from medvl.sources.tables.splits import split_in
from medvl.tasks import Task


def holds(path: Path) -> bool:
    """Whether a folder has nothing but folders with images, two at least, perhaps in folders of splits."""
    if not path.is_dir():
        return False
    splits = _splits(path)
    homes = list(splits) or [path]
    classes = {folder.name for home in homes for folder in _folders(home) if next(images_below(folder), None)}
    files = [file for home in {path, *homes} for file in visible(home) if file.is_file() and not is_image(file)]
    tables = [file for file in files if file.suffix.lower() not in ("", ".txt", ".md", ".pdf", ".html")]
    return len(classes) > 1 and not tables


def read(path: Path, images: Path | None = None) -> Table:  # noqa: ARG001  (one signature for all readers)
    """A row per image."""
    splits = _splits(path)
    homes: Mapping[Path, str | None] = splits or {path: None}
    rows = [
        {"image": image.relative_to(path).as_posix(), "class": kind, "split": split}
        for home, split in homes.items()
        for kind, image in _images(home)
    ]
    beside = [
        part.name for part in visible(path) if splits and part not in splits and (part.is_dir() or is_image(part))
    ]
    notes = [("FILE_UNREAD", f"beside the folders of the splits: {several(beside)}")] if beside else []
    return Table(
        path=path,
        rows=rows,
        columns=columns_called(rows, "image") | {"answer": "class"},
        folder=path,
        task=Task.CLASSIFICATION,
        notes=tuple(notes),
    )


def _folders(home: Path) -> list[Path]:
    return [folder for folder in visible(home) if folder.is_dir()]


def _splits(path: Path) -> dict[Path, str]:
    """The folders of splits that have folders in them: a folder of images called `test` may be a class."""
    return {folder: split for folder in _folders(path) if (split := split_in(folder.name)) and _folders(folder)}


def _images(home: Path) -> list[tuple[str | None, Path]]:
    """Class and image; no class for an image that lies beside the folders."""
    lonely = [(None, image) for image in visible(home) if image.is_file() and is_image(image)]
    return [*lonely, *((folder.name, image) for folder in _folders(home) for image in images_below(folder))]
