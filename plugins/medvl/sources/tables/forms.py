"""The forms that people's own data comes in, and which of them a file or folder has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from medvl.errors import DataError, UsageError
from medvl.sources.tables import (
    arrow,
    chat,
    class_folders,
    coco,
    cvat,
    delimited,
    excel,
    json_rows,
    medmnist,
    table_folder,
    voc,
    yolo,
)
from medvl.sources.tables.base import Table


@dataclass(frozen=True)
class Form:
    """A form of data.

    Attributes:
        name: What people call it.
        holds: Whether a file or folder has it, by its name and, where that does not tell, its beginning.
        read: Its rows. Raises `DataError` where it cannot be read at all.
        options: Names of the keyword arguments of `read`, which are options of the script. With `images` it looks
            for them itself; for others names of images are relative to that folder.
    """

    name: str
    holds: Callable[[Path], bool]
    read: Callable[..., Table]
    options: frozenset[str] = frozenset()


# The first that holds a path reads it: those that look into a file stand before those that go by its name.
_IMAGES = frozenset({"images"})
_FIRST = 20  # rows, one of which tells that they are conversations
FORMS: tuple[Form, ...] = (
    Form("a dataset saved by the library datasets", arrow.is_saved, arrow.read_saved),
    Form("CSV or TSV", delimited.holds, delimited.read, frozenset({"encoding", "separator"})),
    Form("Excel", excel.holds, excel.read, frozenset({"sheet"})),
    Form("MedMNIST", medmnist.holds, medmnist.read),
    Form("COCO", coco.holds, coco.read, _IMAGES),
    Form("Pascal VOC", voc.holds, voc.read, _IMAGES | {"pixels_from"}),
    Form("CVAT for images", cvat.holds, cvat.read, _IMAGES),
    Form("YOLO", yolo.holds, yolo.read, _IMAGES),
    Form("a folder per class", class_folders.holds, class_folders.read),
    Form("Parquet", arrow.is_parquet, arrow.read_parquet),
    Form("JSON", json_rows.holds, json_rows.read),
    Form("a folder of tables", table_folder.holds, table_folder.read),
)
HUB = Form("a dataset of the Hugging Face Hub", arrow.is_hub_name, arrow.read_hub, frozenset({"subset"}))


def form_of(path: Path) -> Form:
    """The form of a file, a folder or the name of a dataset.

    Raises:
        DataError: it has none.
    """
    if path.exists():
        for form in FORMS:
            if form.holds(path):
                return form
        raise DataError(f"{path}: none of {', '.join(form.name for form in FORMS)}; say what it is by its suffix")
    if HUB.holds(path):
        return HUB
    raise DataError(f"{path}: there is no such file or folder")


def read_table(path: Path, options: Mapping[str, str], images: Path | None = None) -> Table:
    """The rows of a file, a folder or the name of a dataset.

    Args:
        path: As given.
        options: Keyword arguments for its reader, by name.
        images: Where the images lie; the usual places of its form are looked at if None.

    Raises:
        UsageError: options that are not for this form.
        DataError: it cannot be read.
    """
    form = form_of(path)
    if others := sorted(options.keys() - form.options):
        raise UsageError(f"{path} is {form.name}, for which --{others[0].replace('_', '-')} says nothing; remove it")
    table = form.read(path, **options, **({"images": images} if images and "images" in form.options else {}))
    if images and "images" not in form.options:
        table = replace(table, folder=images)
    if any(map(chat.is_chat, islice(table.rows, _FIRST))):
        table = chat.as_questions(table)
    if not len(table.rows) and not table.refused:
        raise DataError(f"{path}: no rows in it")
    return table
