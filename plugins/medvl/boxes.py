"""Box arrays: frames, area, IoU and matching. The one IoU of the project.

Boxes are float64 arrays of shape (n, 4), `x_min, y_min, x_max, y_max`, half-open. Unless a function says otherwise they
are pixels of the image as a viewer shows it (EXIF orientation applied), and `size` is that image's (width, height).
"""

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.float64]
Size = tuple[int, int]


class Frame(StrEnum):
    """What the numbers of a box count: thousandths of the image's sides, shares of them, or pixels.

    Raises:
        ValueError: of a word that is none of them; the message names it and all there are.
    """

    NORM1000 = "norm1000"
    NORM1 = "norm1"
    PIXEL = "pixel"

    @classmethod
    def _missing_(cls, value: object) -> "Frame":
        raise ValueError(f"unknown frame {value!r}; known are {', '.join(cls)}")


# Decimals written per frame. Three for norm1 carry what norm1000 does; two for pixels keep sub-pixel boxes.
DECIMALS: dict[Frame, int] = {Frame.NORM1000: 0, Frame.NORM1: 3, Frame.PIXEL: 2}


def as_boxes(values: ArrayLike) -> Boxes:
    """An (n, 4) float64 array of `values`; an empty list gives shape (0, 4), a single flat box shape (1, 4).

    Raises:
        ValueError: the values are not boxes of four numbers.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.shape == (4,):
        array = array[None]
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes must have shape (n, 4), not {array.shape}")
    return array


def _scale(size: Size, frame: Frame) -> NDArray[np.float64]:
    width, height = size
    if width <= 0 or height <= 0:
        raise ValueError(f"image size must be positive, not {width} x {height}")
    unit = 1000.0 if frame == Frame.NORM1000 else 1.0
    side = np.ones(4) if frame == Frame.PIXEL else np.array([width, height, width, height], dtype=np.float64)
    return unit / side


def to_frame(boxes: Boxes, size: Size, frame: Frame) -> Boxes:
    """Pixel boxes in the numbers that are written for `frame`: rounded, so exact to 0.5 / 1000 of the side."""
    return np.round(boxes * _scale(size, frame), DECIMALS[frame])


def from_frame(boxes: Boxes, size: Size, frame: Frame) -> Boxes:
    """Boxes read in `frame` as pixels; not rounded, not clipped."""
    return boxes / _scale(size, frame)


def clip(boxes: Boxes, size: Size) -> Boxes:
    """Boxes with every corner moved into the image."""
    width, height = size
    return np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float64))


def order_corners(boxes: Boxes) -> Boxes:
    """Boxes with `x_min <= x_max` and `y_min <= y_max`: two opposite corners mean one box in any order."""
    corners = boxes.reshape(-1, 2, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def area(boxes: Boxes) -> NDArray[np.float64]:
    """Areas of shape (n,); 0 for a box that is inverted or a line."""
    areas: NDArray[np.float64] = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(axis=1)
    return areas


def iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Intersection over union of every pair, shape (len(a), len(b)); 0 where a box has no area.

    Coordinates are continuous (no `+ 1`), as in torchvision and in the FLARE scorers.

    >>> iou(as_boxes([0, 0, 2, 2]), as_boxes([[0, 0, 2, 1], [2, 2, 4, 4]]))
    array([[0.5, 0. ]])
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    width, height = np.moveaxis(np.clip(high - low, 0.0, None), 2, 0)
    intersection = width * height
    union = area(a)[:, None] + area(b)[None, :] - intersection
    overlaps: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return overlaps


def match_greedy(overlaps: NDArray[np.float64], threshold: float) -> NDArray[np.intp]:
    """Pairs (row, column) of an IoU matrix, best pair first, each row and column once, IoU >= `threshold`.

    Returns:
        Array of shape (k, 2), in falling IoU; ties go to the lower row, then the lower column.
    """
    rows, columns = np.nonzero(overlaps >= threshold)
    order = np.argsort(-overlaps[rows, columns], kind="stable")
    free_row, free_column = np.ones(overlaps.shape[0], bool), np.ones(overlaps.shape[1], bool)
    pairs = []
    for row, column in zip(rows[order], columns[order], strict=True):
        if free_row[row] and free_column[column]:
            free_row[row] = free_column[column] = False
            pairs.append((row, column))
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


def match_optimal(overlaps: NDArray[np.float64], threshold: float) -> NDArray[np.intp]:
    """Pairs (row, column) of an IoU matrix with IoU >= `threshold`: as many as can be, then of the largest sum.

    The result does not depend on the order of the boxes, so that a permuted answer scores the same.

    Returns:
        Array of shape (k, 2), in rising row.
    """
    from scipy.optimize import linear_sum_assignment  # half a second to import, and only scoring needs it

    allowed = overlaps >= threshold
    # A pair weighs more than all IoUs together can, so the assignment maximises the number of pairs first.
    rows, columns = linear_sum_assignment(allowed * (overlaps + min(overlaps.shape)), maximize=True)
    pairs = np.stack([rows, columns], axis=1)
    return pairs[allowed[rows, columns]]
