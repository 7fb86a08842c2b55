"""Boxes in cells: four numbers, lists of them, objects with names, outlines, in JSON, Python or as text.

[10, 20, 30, 40]          [10 20 30 40]          10;20;30;40          [[10, 20, 30, 40], [50, 60, 70, 80]]
[{"bbox": [10, 20, 30, 40], "label": "cyst"}]    {"cyst": [[10, 20, 30, 40]]}    [{"x": 1, "y": 2, "w": 3, "h": 4}]
[[[10, 20], [30, 20], [30, 40]]]                 an outline; its hull is the box
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medvl.sources.tables import cells
from medvl.sources.tables.columns import box_columns, format_of
from medvl.sources.tables.header import is_blank
from medvl.sources.tables.numbers import Decimal, number

_LABEL_KEYS = ("label", "name", "class", "class_name", "category", "category_name", "type")
_BOX_KEYS = ("bbox_2d", "bbox", "box", "bounding_box", "boundingBox", "boxes", "bboxes", "bbox_aabb", "coordinates")
_OUTLINE_KEYS = ("polygon", "points", "segmentation", "outline", "contour")
_FIGURE = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_GROUP = re.compile(rf"\s*{_FIGURE}(?:(?:\s*,\s*|\s+|\s*;\s*){_FIGURE})*\s*[,;]?\s*")


@dataclass(frozen=True)
class Shape:
    """An object.

    Attributes:
        numbers: Four, in the order of the table; two opposite corners where `settled`.
        settled: Whether the cell itself says what the numbers are, or they are the hull of an outline.
        label: Its name, where the cell says it.
        outline: Whether it was an outline.
    """

    numbers: tuple[float, ...]
    settled: bool = False
    label: str | None = None
    outline: bool = False


def shapes_in(value: Any, decimal: Decimal = "point") -> tuple[Shape, ...]:
    """The objects in a cell; none where it is empty or says that there are none.

    Raises:
        ValueError: it holds something else; says what.
    """
    value = cells.data(value)
    if is_blank(value):
        return ()
    shapes = tuple(_in_text(value) if isinstance(value, str) else _shapes(value, decimal))
    if not all(math.isfinite(number) for shape in shapes for number in shape.numbers):
        raise ValueError("a box with a number that is not finite")
    return shapes


def shape_of(four: Sequence[Any], decimal: Decimal) -> tuple[Shape, ...]:
    """The object whose four numbers stand in a column each; none where all are empty."""
    empty = [is_blank(value) for value in four]
    if all(empty):
        return ()
    if any(empty):
        raise ValueError(f"a box with {4 - sum(empty)} of its four numbers")
    return (Shape(tuple(number(cells.text(value), decimal) for value in four)),)


def _shapes(value: Any, decimal: Decimal) -> Iterator[Shape]:
    if isinstance(value, Mapping):
        yield from _named(value, decimal)
    elif not isinstance(value, list | tuple):
        raise ValueError(f"{str(value)[:80]!r} is no box")
    elif value and all(_is_number(item) for item in value):
        yield _flat([number(cells.text(item), decimal) for item in value])
    elif len(value) > 1 and all(_is_point(item) for item in value):
        yield _outline([number(cells.text(part), decimal) for item in value for part in _point(item)])
    else:
        for item in value:
            yield from _in_text(item) if isinstance(item, str) else _shapes(item, decimal)


def _named(value: Mapping[str, Any], decimal: Decimal) -> Iterator[Shape]:
    """An object with keys of its own, or a map of labels to boxes."""
    label = next((cells.text(value[key]) for key in _LABEL_KEYS if isinstance(value.get(key), str)), None)
    inner = next((value[key] for key in (*_BOX_KEYS, *_OUTLINE_KEYS) if value.get(key) is not None), None)
    if inner is not None:
        for shape in _shapes(inner, decimal):
            yield replace(shape, label=label or shape.label)
    elif keys := box_columns(list(value)):
        numbers = [number(cells.text(value[key]), decimal) for key in keys]
        yield Shape(corners(numbers, format_of({"boxes": keys}) or "xyxy"), settled=True, label=label)
    elif value and all(isinstance(item, list | tuple) for item in value.values()):
        for name, boxes in value.items():
            for shape in _shapes(boxes, decimal):
                yield replace(shape, label=str(name))
    else:
        raise ValueError(f"{str(dict(value))[:80]!r} has no box")


def corners(numbers: Sequence[float], order: str) -> tuple[float, ...]:
    """Two opposite corners of a box whose numbers are in an order.

    >>> corners([10, 20, 4, 6], "xywh"), corners([10, 20, 4, 6], "cxcywh")
    ((10, 20, 14, 26), (8.0, 17.0, 12.0, 23.0))
    """
    first, second, third, fourth = numbers
    if order == "xywh":
        return first, second, first + third, second + fourth
    if order == "cxcywh":
        return first - third / 2, second - fourth / 2, first + third / 2, second + fourth / 2
    return first, second, third, fourth


def _flat(numbers: list[float]) -> Shape:
    if len(numbers) == 4:
        return Shape(tuple(numbers))
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        return _outline(numbers)
    raise ValueError(f"{len(numbers)} numbers are no box")


def _outline(numbers: list[float]) -> Shape:
    across, down = numbers[::2], numbers[1::2]
    hull = (min(across), min(down), max(across), max(down))
    return Shape(hull, settled=True, outline=len(across) > 2)


def _in_text(text: str) -> Iterator[Shape]:
    """Boxes in a text that is no JSON: numbers with spaces, commas or semicolons between, each box in brackets.

    Without brackets the text is one box, or boxes with ; or | between whose numbers have commas or spaces.
    """
    groups = re.findall(r"[\[({]([^\[\](){}]*)[\])}]", text)
    if groups:
        rest = re.sub(r"[\[({][^\[\](){}]*[\])}]", "", text)
        if re.sub(r"[\s,;|\[\](){}]", "", rest):
            raise ValueError(f"{text[:80]!r} is no box")
    else:
        groups = re.split(r"[;|]", text) if re.search(r"\d[\s,]+[-\d.]", text) else [text.replace("|", " ")]
    for group in filter(str.strip, groups):
        if not _GROUP.fullmatch(group):
            raise ValueError(f"{group.strip()[:80]!r} is no box")
        yield _flat([float(figure) for figure in re.findall(_FIGURE, group)])


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(rf"\s*{_FIGURE}\s*", value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_point(value: Any) -> bool:
    if isinstance(value, Mapping):
        return set(value) == {"x", "y"}
    return isinstance(value, list | tuple) and len(value) == 2 and all(_is_number(item) for item in value)


def _point(value: Any) -> Sequence[Any]:
    return (value["x"], value["y"]) if isinstance(value, Mapping) else value
