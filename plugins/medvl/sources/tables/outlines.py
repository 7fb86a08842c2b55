"""The box around an outline: polygon, mask, rotated box, ellipse. `x_min, y_min, x_max, y_max`, half-open."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from medvl.sources.tables.extra import needs

Box = list[float]


def around(points: Iterable[Sequence[float]]) -> Box:
    """The box around points.

    >>> around([(4, 1), (8, 3), (6, 9)])
    [4, 1, 8, 9]
    """
    across, down = zip(*points, strict=True)
    return [min(across), min(down), max(across), max(down)]


def pairs(numbers: Sequence[float]) -> list[tuple[float, float]]:
    """`x1, y1, x2, y2, …` as points; raises ValueError for an odd count or fewer than three points."""
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers are no polygon")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def around_rotated(box: Box, degrees: float) -> Box:
    """The box around one that is rotated about its centre, clockwise as one sees it.

    >>> around_rotated([0, 0, 4, 2], 90)
    [1.0, -1.0, 3.0, 3.0]
    """
    x, y, half_width, half_height = _centre(box)
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    across = round(half_width * cosine + half_height * sine, 6)
    down = round(half_width * sine + half_height * cosine, 6)
    return [x - across, y - down, x + across, y + down]


def around_ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float) -> Box:
    """The box around an ellipse that is rotated about its centre.

    >>> around_ellipse(5, 5, 2, 1, 90)
    [4.0, 3.0, 6.0, 7.0]
    """
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    across = round(math.hypot(radius_x * cosine, radius_y * sine), 6)
    down = round(math.hypot(radius_x * sine, radius_y * cosine), 6)
    return [x - across, y - down, x + across, y + down]


def around_segmentation(segmentation: Any, width: int, height: int) -> Box:
    """The box around COCO's `segmentation`: polygons, or a run-length mask, compressed or not.

    A mask's box encloses whole pixels. Needs pycocotools for masks alone: a polygon's box is that of its corners.

    Raises:
        ValueError: it is neither, or encloses nothing.
    """
    if isinstance(segmentation, list):
        points = [point for polygon in segmentation for point in pairs(polygon)]
        if not points:
            raise ValueError("the segmentation is empty")
        return around(points)
    if not isinstance(segmentation, dict) or not {"counts", "size"} <= segmentation.keys():
        raise ValueError(f"the segmentation is neither polygons nor a run-length mask: {str(segmentation)[:80]}")
    needs("pycocotools", "a mask")
    from pycocotools import mask

    counts = segmentation["counts"]
    if isinstance(counts, str):
        encoded = {"size": segmentation["size"], "counts": counts.encode()}
    else:
        encoded = mask.frPyObjects(segmentation, height, width)
    x, y, across, down = (float(number) for number in mask.toBbox(encoded))
    if not across or not down:
        raise ValueError("the mask is empty")
    return [x, y, x + across, y + down]


def _centre(box: Box) -> tuple[float, float, float, float]:
    """Centre and half sides."""
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, abs(x2 - x1) / 2, abs(y2 - y1) / 2
