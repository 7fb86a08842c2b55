"""The lines of a YOLO text file: boxes, outlines, keypoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvl.sources.tables.annotation_files import read_text, several
from medvl.sources.tables.outlines import around, pairs


@dataclass(frozen=True)
class Labels:
    """The objects of an image.

    Attributes:
        boxes: Centre x and y, width, height, as shares of the image's sides.
        classes: One per box.
        notes: Codes and details.
        refused: A line for each line of the file that is no object.
    """

    boxes: list[list[float]]
    classes: list[int]
    notes: tuple[tuple[str, str], ...] = ()
    refused: tuple[str, ...] = ()


def read_labels(file: Path, *, keypoints: bool) -> Labels:
    """The objects of a text file; `keypoints` says that what follows a box are keypoints, not an outline."""
    boxes, classes, longer, refused = list[list[float]](), list[int](), list[int](), list[str]()
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            kind, numbers = _numbers(line)
            boxes.append(numbers[:4] if keypoints else _box(numbers))
        except ValueError as error:
            refused.append(f"{file}, line {number}: {error}: {line.strip()[:80]!r}")
            continue
        classes.append(kind)
        longer += [number] if len(numbers) > 4 else []
    said = "keypoints beside the box, which are not used" if keypoints else "an outline, whose box is used"
    notes = (("BOX_OUTLINE", f"{said}: line {several(longer)}"),) if longer else ()
    return Labels(boxes, classes, notes, tuple(refused))


def _numbers(line: str) -> tuple[int, list[Any]]:
    try:
        kind, *numbers = map(float, line.split())
    except ValueError:
        raise ValueError("expected a class and numbers") from None
    if kind < 0 or kind != int(kind) or len(numbers) < 4:
        raise ValueError("expected a class from 0 and four numbers at least")
    return int(kind), numbers


def _box(numbers: list[float]) -> list[float]:
    if len(numbers) == 4:
        return numbers
    if len(numbers) == 5:
        raise ValueError("six columns are a prediction with its confidence, not a label")
    x1, y1, x2, y2 = around(pairs(numbers))
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
