"""What the numbers of a table's boxes are, order and frame: as stated, else by all of them together, never by luck."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from medvl.boxes import Frame, Size, as_boxes
from medvl.errors import DataError, UsageError
from medvl.source_frames import fits, likely_frame
from medvl.sources.tables.base import BoxFormat
from medvl.sources.tables.shapes import Shape, corners

_FEW = 0.01  # share of boxes that may be errors of drawing
_WORDS = {"pixel": "pixels", "norm1": "0-1 of the image", "norm1000": "0-1000 of the image"}


@dataclass(frozen=True)
class Drawn:
    """The objects of a row: number of the row, its shapes, and the size of their image where that is known."""

    row: int
    shapes: tuple[Shape, ...]
    size: Size | None


def settle(drawn: Sequence[Drawn], order: BoxFormat | None, frame: Frame | None) -> tuple[BoxFormat, Frame]:
    """Order and frame of all boxes.

    Args:
        drawn: The boxes of all rows.
        order: As stated, or said by the names of the columns.
        frame: As stated.

    Raises:
        UsageError: the numbers do not tell; says what fits.
        DataError: the numbers say two things.
    """
    boxes = [(shape, row) for row in drawn for shape in row.shapes]
    if not boxes or (order and frame):
        return order or "xyxy", frame or Frame.PIXEL
    _refuse_two_frames(boxes, frame)
    orders = (order,) if order else get_args(BoxFormat)
    frames = (frame,) if frame else _frames(boxes)
    fit = {pair: _fit(boxes, *pair) for pair in product(orders, frames)}
    left = [pair for pair, good in fit.items() if 1 - good.mean() <= _FEW]
    if all(shape.settled for shape, _ in boxes):
        left = [pair for pair in left if pair[0] == orders[0]]
    if len({found for _, found in left}) > 1 and len({found for found, _ in left}) == 1:
        left = [(left[0][0], likely) for likely in [_likely(drawn, left[0][0])] if likely] or left
    if len(left) == 1:
        return left[0]
    said = "; ".join(
        f"{good.sum()} of {len(boxes)} boxes fit {_said(*pair)}" for pair, good in fit.items() if good.any()
    )
    if not left:
        best = max(fit, key=lambda pair: int(fit[pair].sum()))
        others = [row.row for (_, row), good in zip(boxes, fit[best], strict=True) if not good]
        first = ", ".join(map(str, dict.fromkeys(others[:5])))
        raise DataError(f"the boxes are not of one kind: {said or 'none fits its image'}; mend the rows {first} …, or "
                        "say --box-format and --source-frame, and they are reported one by one")  # fmt: skip
    options = [f"--box-format {'|'.join(dict.fromkeys(found for found, _ in left))}" if len({o for o, _ in left}) > 1
               else "", f"--source-frame {'|'.join(dict.fromkeys(found for _, found in left))}"
               if len({f for _, f in left}) > 1 else ""]  # fmt: skip
    raise UsageError(f"what the boxes are is unclear: {said}; say {' and '.join(filter(None, options))}")


def _said(order: BoxFormat, frame: Frame) -> str:
    return f"{order} in {_WORDS[frame]}"


def _frames(boxes: Sequence[tuple[Shape, Drawn]]) -> tuple[Frame, ...]:
    """Frames that are to be thought of: whole boxes of one pixel are not, and neither is 0-1000 for numbers to 1."""
    return (Frame.NORM1,) if max(max(shape.numbers) for shape, _ in boxes) <= 1 else (Frame.PIXEL, Frame.NORM1000)


def _refuse_two_frames(boxes: Sequence[tuple[Shape, Drawn]], frame: Frame | None) -> None:
    small = [max(shape.numbers) <= 1 for shape, _ in boxes]
    if frame is None and any(small) and not all(small):
        rows = [
            next(row.row for (_, row), one in zip(boxes, small, strict=True) if one == side) for side in (True, False)
        ]
        raise DataError(f"the boxes are in two frames: {sum(small)} of {len(small)} in 0-1, as in row {rows[0]}, "
                        f"others not, as in row {rows[1]}; mend them, or say --source-frame")  # fmt: skip


def _fit(boxes: Sequence[tuple[Shape, Drawn]], order: BoxFormat, frame: Frame) -> NDArray[np.bool_]:
    """Which boxes have an area and lie in their image."""
    return np.array([_lies_inside(xyxy(shape, order), row.size, frame) for shape, row in boxes])


def _lies_inside(box: tuple[float, ...], size: Size | None, frame: Frame) -> bool:
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return False
    if frame == "pixel" and size is None:
        return left >= 0 and top >= 0
    return fits(as_boxes(box), size or (1000, 1000), frame)


def xyxy(shape: Shape, order: BoxFormat) -> tuple[float, ...]:
    """Two opposite corners of an object."""
    return shape.numbers if shape.settled else corners(shape.numbers, order)


def _likely(drawn: Sequence[Drawn], order: BoxFormat) -> Frame | None:
    known = [(as_boxes([xyxy(shape, order) for shape in row.shapes]), row.size) for row in drawn if row.size]
    return likely_frame(known)
