"""MedMNIST: an .npz file with `train_images`, `train_labels`, `val_images`, …; arrays instead of files and names.

Images are (n, height, width) or (n, height, width, 3) of uint8; labels (n, 1) are class numbers, or (n, 14) of 0 and 1
in ChestMNIST. The names of the classes are not in the file: they are the published ones of the set that the file is
called after (`pathmnist.npz`, `pathmnist_224.npz`), with capitals and brackets as there. RetinaMNIST has grades.
ChestMNIST is multi-label, and an image with no finding has the answer `no finding`, so that it is not lost.

Volumes (`organmnist3d.npz`) are refused: they are no images. Nothing in the file is run: pickled objects are refused.
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.errors import DataError
from medvl.sources.tables.arrow import Rows
from medvl.sources.tables.base import Row, Table
from medvl.sources.tables.medmnist_names import NAMES, QUESTIONS
from medvl.tasks import Task

NO_FINDING = "no finding"
_SPLITS = ("train", "val", "test")


def holds(path: Path) -> bool:
    """By the suffix."""
    return path.is_file() and path.suffix.lower() == ".npz"


def read(path: Path) -> Table:
    """A row per image, with its bytes as PNG.

    Raises:
        DataError: no such file, another set than the known ones, or arrays that are no images.
    """
    name = path.stem.lower().partition("_")[0]
    if name not in NAMES:
        raise DataError(f"{path}: its classes have no names unless it is called after its set: {', '.join(NAMES)}")
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: no .npz file of plain arrays: {error}") from error
    parts = [(split, *_part(path, arrays, split, NAMES[name])) for split in _SPLITS if f"{split}_images" in arrays]
    if not parts:
        raise DataError(f"{path}: no train_images, val_images or test_images; it has {', '.join(arrays) or 'nothing'}")

    def rows() -> Iterator[Row]:
        for split, images, labels in parts:
            for place, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield {"index": place, "image": {"bytes": _png(image), "path": None}, "label": label, "split": split}

    multi = name == "chestmnist"
    return Table(
        path,
        Rows(sum(len(labels) for _, _, labels in parts), rows),
        {"image": "image", "answer": "label", "split": "split"},
        path.parent,
        task=Task.MULTI_LABEL if multi else Task.CLASSIFICATION,
        question=QUESTIONS[name],
    )


def _part(
    path: Path, arrays: dict[str, NDArray[Any]], split: str, names: tuple[str, ...]
) -> tuple[NDArray[np.uint8], list[str]]:
    """Images and answers of a split."""
    images, labels = arrays[f"{split}_images"], arrays.get(f"{split}_labels")
    grey, colour = images.ndim == 3, images.ndim == 4 and images.shape[3] == 3
    if images.dtype != np.uint8 or not (grey or colour):
        raise DataError(f"{path}: {split}_images are {images.dtype} of shape {images.shape}, no 8-bit images")
    if labels is None or labels.ndim != 2 or len(labels) != len(images):
        shape = "not there" if labels is None else f"of shape {labels.shape}"
        raise DataError(f"{path}: {split}_labels are {shape}; expected one row for each of {len(images)} images")
    if labels.shape[1] == len(names) and len(names) > 1:
        return images, [_names(row, names) for row in labels]
    if labels.shape[1] != 1 or labels.min(initial=0) < 0 or labels.max(initial=0) >= len(names):
        raise DataError(f"{path}: {split}_labels of shape {labels.shape} go to {labels.max()}, with {len(names)} names")
    return images, [names[int(number)] for number in labels[:, 0]]


def _names(row: NDArray[Any], names: tuple[str, ...]) -> str:
    found = [name for name, there in zip(names, row, strict=True) if there]
    return "; ".join(found) or NO_FINDING


def _png(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
