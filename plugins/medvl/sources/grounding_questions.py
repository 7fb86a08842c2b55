"""What is asked of an image with objects, and of one that shows none of a class."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medvl.boxes import Boxes, Frame, Size, area, from_frame, iou
from medvl.sources.grounding_scenes import Asked, Objects, Scene
from medvl.tasks import Task

ClassMode = Literal["primary", "all", "each"]
_THIRDS = (0.33, 0.66)  # of TerraQuery's eval/evaluate_iou.py, as are the areas and the IoU below
_SMALL, _MEDIUM = 0.01, 0.05
_UNIQUE_IOU = 0.2
_LOCATE = "Locate and output bounding boxes for all {} in the image{}."


@dataclass(frozen=True)
class Classes:
    """The classes of a set, and which of them an image shows.

    Attributes:
        names: All of them, sorted.
        shown: Image -> names of its objects in any row, in lower case; None among them for what has no name, or could
            not be read: the image may then show any class.
    """

    names: tuple[str, ...]
    shown: Mapping[str, set[str | None]]

    def absent(self, image: str) -> list[str]:
        """The classes that an image is known not to show."""
        there = self.shown[image]
        return [] if None in there else [name for name in self.names if name.casefold() not in there]


def classes_of(scenes: Sequence[Scene]) -> Classes:
    """The classes of all scenes of a file."""
    shown: dict[str, set[str | None]] = defaultdict(set)
    for scene in scenes:
        labels = scene.objects.labels if scene.objects else (None,) if scene.problem else ()
        shown[scene.image] |= {label and label.casefold() for label in labels}
    names = {label for scene in scenes if scene.objects for label in scene.objects.labels if label}
    return Classes(tuple(sorted(names)), shown)


def class_questions(objects: Objects, mode: ClassMode) -> Iterator[Asked]:
    """The questions about what an image shows, by class; none where it shows nothing."""
    shown, unnamed = list(dict.fromkeys(label for label in objects.labels if label)), None in objects.labels
    chosen = shown if mode == "each" else [commonest(objects.labels)] if mode == "primary" and shown else []
    for name in chosen:
        places = [place for place, label in enumerate(objects.labels) if label == name]
        yield _boxes(_LOCATE.format(name, ""), objects.chosen(places))
    # What has no name is one of "objects", as all others are.
    if objects and (mode == "all" or (unnamed and (mode == "each" or not shown))):
        names = ("; " if any("," in name for name in shown) else ", ").join(shown)
        yield _boxes(_LOCATE.format("objects", f": {names}" if names and not unnamed else ""), objects)


def negative_questions(absent: Sequence[str], count: int, draw: random.Random) -> Iterator[Asked]:
    """Questions about classes that an image does not show; the answer is an empty list."""
    nothing = Objects(np.zeros((0, 4)), (), Frame.PIXEL)
    for name in draw.sample(absent, min(len(absent), count)):
        yield _boxes(_LOCATE.format(name, ""), nothing)


def referring_questions(objects: Objects, size: Size | None) -> Iterator[Asked]:
    """A question for each object that its class, size and place tell from all others of the image.

    Args:
        objects: What it shows.
        size: (width, height) of the image, pixels, where boxes are in pixels; nothing is asked without it.
    """
    if objects.frame == Frame.PIXEL and size is None:
        return
    shares = from_frame(objects.boxes, (1, 1), objects.frame)
    if objects.frame == Frame.PIXEL and size:
        shares = shares / np.array([*size, *size])
    alone, large = unique(shares), sizes(shares)
    said = [(label, large[place], position(shares[place].tolist())) for place, label in enumerate(objects.labels)]
    for place, (label, how_large, where) in enumerate(said):
        if label and alone[place] and said.count(said[place]) == 1:
            at = f" at the {where} of the image" if where else " in the middle of the image"
            yield _boxes(f"Locate the {how_large} {label}{at}.", objects.chosen([place]))


def _boxes(question: str, objects: Objects) -> Asked:
    return Asked(question, Task.DETECTION, boxes=objects)


def position(box: Sequence[float]) -> str:
    """Where the centre of a box (0-1) lies, in thirds: "top-left", "right", "" for the middle.

    >>> position([0.0, 0.0, 0.2, 0.2]), position([0.4, 0.4, 0.6, 0.6])
    ('top-left', '')
    """
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    vertical = "top" if y < _THIRDS[0] else "bottom" if y > _THIRDS[1] else ""
    horizontal = "left" if x < _THIRDS[0] else "right" if x > _THIRDS[1] else ""
    return "-".join(filter(None, (vertical, horizontal)))


def sizes(boxes: Boxes) -> list[str]:
    """ "small", "medium" or "large", by the area of each box (0-1)."""
    return ["small" if size < _SMALL else "medium" if size < _MEDIUM else "large" for size in area(boxes)]


def unique(boxes: Boxes) -> list[bool]:
    """Whether no other box has an IoU above 0.2 with it."""
    overlaps = iou(boxes, boxes)
    np.fill_diagonal(overlaps, 0.0)
    return [bool(row.max(initial=0.0) <= _UNIQUE_IOU) for row in overlaps]


def commonest(labels: Sequence[str | None]) -> str | None:
    """The class that most objects with a name are of; of equals the one listed first."""
    named = Counter(label for label in labels if label)
    return named.most_common(1)[0][0] if named else None
