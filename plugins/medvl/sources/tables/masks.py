"""Masks in a column of a table, as the boxes around them: run lengths, or the names of mask images.

    EncodedPixels                                    mask
    3 2 9 2                                          masks/a.png
    -1                      there is no mask

Run lengths without brackets are Kaggle's: start and length in turn, counted from 1 down the columns; a row is one mask.
An object with `counts` and `size` is COCO's. In a mask image every connected region that is not black is an object. The
box of a mask encloses whole pixels.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medvl.boxes import Size
from medvl.sources.tables import cells, images
from medvl.sources.tables.header import is_blank
from medvl.sources.tables.outlines import around_segmentation
from medvl.sources.tables.shapes import Shape

_RUNS = re.compile(r"\d+ +\d+(?: +\d+ +\d+)*")
_NONE = ("-1", "[]")  # Kaggle's for a row without a mask


def shapes_in_mask(value: Any, size: Size | None, folder: str) -> tuple[Shape, ...]:
    """The objects of a cell; none where it is empty, or the mask is.

    Args:
        value: The cell.
        size: (width, height) of the image that it lies on, pixels; None where that cannot be read.
        folder: Names of mask images are relative to it.

    Raises:
        ValueError: it is no mask, or none of this image.
    """
    value = cells.data(value)
    if is_blank(value) or cells.text(value).strip() in _NONE:
        return ()
    if size is None:
        raise ValueError("a mask, and its image cannot be read, so that its size is not known")
    if isinstance(value, Mapping):
        return (Shape(tuple(around_segmentation(value, *size)), settled=True, outline=True),)
    text = cells.text(value).strip()
    if _RUNS.fullmatch(text):
        return (Shape(_around_runs([int(number) for number in text.split()], size), settled=True, outline=True),)
    boxes = _regions(Path(images.find(folder, text).path), size)
    return tuple(Shape(box, settled=True, outline=True) for box in boxes)


def _around_runs(numbers: list[int], size: Size) -> tuple[float, ...]:
    """The box around runs of pixels, start and length, counted from 1 down the columns.

    >>> _around_runs([3, 2, 9, 2], (4, 5))
    (0, 2, 2, 5)
    """
    width, height = size
    starts, lengths = np.array(numbers[::2]) - 1, np.array(numbers[1::2])
    ends = starts + lengths - 1
    if starts.min() < 0 or lengths.min() < 1 or ends.max() >= width * height:
        raise ValueError(f"run lengths that leave an image of {width} x {height}")
    whole = starts // height != ends // height  # a run that goes on in the next column has both edges
    top = np.where(whole, 0, starts % height).min()
    bottom = np.where(whole, height - 1, ends % height).max() + 1
    return int(starts.min() // height), int(top), int(ends.max() // height) + 1, int(bottom)


def _regions(path: Path, size: Size) -> list[tuple[float, ...]]:
    from scipy import ndimage  # a quarter of a second, and only mask images need it

    try:
        with Image.open(path) as image:
            mask = np.asarray(image.convert("L") if image.mode not in ("P", "I", "I;16") else image) > 0
    except OSError as error:
        raise ValueError(f"the mask {path} cannot be read: {error}") from error
    if mask.shape[::-1] != size:
        raise ValueError(f"the mask {path.name} is {mask.shape[1]} x {mask.shape[0]}, its image {size[0]} x {size[1]}")
    found = ndimage.find_objects(ndimage.label(mask, np.ones((3, 3)))[0])
    return [(across.start, down.start, across.stop, down.stop) for down, across in found]
