"""Which frame the boxes of a dataset are in, as far as their numbers tell, beside what the dataset is said to be in."""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medvl.boxes import Boxes, Frame, Size, from_frame, to_frame

SourceFrame = Frame | Literal["auto"]
# Special tokens of families that write 0-1000 (Qwen-VL, Qwen2-VL, InternVL, DeepSeek-VL2).
_CONVENTION = re.compile(r"<\|?(?:box_start|box|det)\|?>")
_BEYOND = 0.05  # of a side: a box that reaches farther out of its image is no error of drawing
_FEW = 0.01  # share of boxes that may be errors of drawing
_MANY = 10  # boxes: of fewer, the largest number says little


def fits(boxes: Boxes, size: Size, frame: Frame) -> bool:
    """Whether boxes, (n, 4) and read in `frame`, lie in an image of `size`, but for errors of drawing."""
    return not _outside(_shares(boxes, size, frame)).any()


def _shares(boxes: Boxes, size: Size, frame: Frame) -> Boxes:
    """Boxes read in `frame`, in shares of the image's sides."""
    return to_frame(from_frame(boxes, size, frame), size, Frame.NORM1)


def _outside(shares: Boxes) -> NDArray[np.bool_]:
    """Which boxes reach out of their image, shape (n,)."""
    outside: NDArray[np.bool_] = (shares.max(axis=1) > 1 + _BEYOND) | (shares.min(axis=1) < -_BEYOND)
    return outside


def better_frames(boxes: Boxes, size: Size, stated: Frame, text: str = "") -> tuple[Frame, ...]:
    """Frames that the boxes of one answer fit much better than the stated one; none where that will do.

    Args:
        boxes: Shape (n, 4), the numbers of the answer.
        size: (width, height) of the image.
        stated: What the answer is said to be in.
        text: The answer; the special tokens of some families stand for 0-1000.

    >>> better_frames(np.array([[100.0, 200, 900, 950]]), (640, 480), Frame.PIXEL)
    (<Frame.NORM1000: 'norm1000'>,)
    """
    if not len(boxes) or boxes.max() <= 0:
        return ()
    if boxes.max() <= 1:  # whole images of a pixel, or shares of the sides
        return () if stated == Frame.NORM1 else (Frame.NORM1,)
    if not fits(boxes, size, stated):
        return tuple(frame for frame in Frame if frame != stated and fits(boxes, size, frame))
    return (Frame.NORM1000,) if stated == Frame.PIXEL and _CONVENTION.search(text) and boxes.max() <= 1000 else ()


def likely_frame(answers: Sequence[tuple[Boxes, Size]]) -> Frame | None:
    """The frame that all boxes of one file are in; None where their numbers do not tell.

    A frame is ruled out by boxes that leave their images in it. Where two are left, many boxes tell: in the right one
    the farthest of them comes near to an edge.

    Args:
        answers: Boxes, (n, 4), in the file's own numbers, and the size of the image they lie on.
    """
    known = [(boxes, size) for boxes, size in answers if len(boxes)]
    if not known:
        return None
    numbers = np.concatenate([boxes for boxes, _ in known])
    if (numbers.max(axis=1) <= 1).mean() >= 1 - _FEW:
        return Frame.NORM1
    candidates = (Frame.PIXEL, Frame.NORM1000)
    shares = {frame: np.concatenate([_shares(boxes, size, frame) for boxes, size in known]) for frame in candidates}
    left = [frame for frame in candidates if _outside(shares[frame]).mean() <= _FEW]
    if len(left) < 2:
        return left[0] if left else None
    (_, shorter), (nearest, longer) = sorted(
        ((frame, float(np.quantile(shares[frame].max(axis=1), 0.99))) for frame in left), key=lambda item: item[1]
    )
    return nearest if len(numbers) >= _MANY and longer > 0.85 and shorter < 0.75 * longer else None
