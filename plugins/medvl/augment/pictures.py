"""One picture changed, with the boxes of its answer.

The picture keeps its size: LLaMA-Factory has already written as many picture tokens as it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torchvision.transforms.v2 import functional as transform
from torchvision.tv_tensors import Image as Picture

from medvl.augment.motion import Step, draw_motion, mirror_boxes, move_boxes, stays_inside
from medvl.augment.tones import OFTEN, change_tones
from medvl.boxes import Boxes, clip

DRAWS = 8  # each gentler than the one before; after the last the picture stays where it is


@dataclass(frozen=True)
class Changes:
    """What to draw from.

    Attributes:
        advanced: With crops around boxes, noise, blur, compression, and speckle and elasticity for ultrasound.
        tones: Whether brightness and the like may change.
        motion: Whether the picture may move.
        mirror_x: Whether left and right may change places.
        mirror_y: Whether top and bottom may.
        ultrasound: Whether this is an ultrasound picture.
    """

    advanced: bool = False
    tones: bool = True
    motion: bool = True
    mirror_x: bool = False
    mirror_y: bool = False
    ultrasound: bool = False


@dataclass(frozen=True)
class Drawn:
    """A changed picture and its boxes, clipped to it; `moved` tells whether they may have moved at all."""

    picture: Image.Image
    boxes: Boxes | None
    moved: bool


def _any(_boxes: Boxes) -> bool:
    return True


def augment(
    picture: Image.Image,
    boxes: Boxes | None,
    random: Generator,
    changes: Changes,
    writable: Callable[[Boxes], bool] = _any,
) -> Drawn:
    """One draw.

    Args:
        picture: RGB.
        boxes: (n, 4) pixels of this picture, inside it; None if its answer has none.
        random: The only source of randomness: the same state gives the same picture.
        changes: What may be done.
        writable: Whether moved boxes can be written, that is, do not vanish when they are rounded.
    """
    image = Picture(torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous())
    steps, moved = _motion(image, boxes, random, changes, writable)
    for step in steps:
        image = step(image)
    if changes.tones:
        image = change_tones(image, random, advanced=changes.advanced, ultrasound=changes.ultrasound)
    return Drawn(transform.to_pil_image(image), moved, bool(steps))


def _motion(
    image: Picture, boxes: Boxes | None, random: Generator, changes: Changes, writable: Callable[[Boxes], bool]
) -> tuple[list[Step], Boxes | None]:
    """Steps that keep every box, and the boxes after them; no steps if none of `DRAWS` does."""
    height, width = image.shape[-2:]
    size, fill = (width, height), _border(image)
    mirrored: list[Step] = []
    if changes.mirror_x and random.random() < 0.5:
        mirrored.append(transform.horizontal_flip)
    if changes.mirror_y and random.random() < 0.5:
        mirrored.append(transform.vertical_flip)
    draw = partial(
        draw_motion,
        bent=changes.advanced and changes.ultrasound and random.random() < OFTEN,
        cropped=changes.advanced and random.random() < OFTEN,
        fill=fill,
    )
    start = boxes if boxes is None else mirror_boxes(boxes, mirrored, size)
    for attempt in range(DRAWS if changes.motion else 0):
        steps = draw(size, start, random, strength=1 - attempt / DRAWS)
        if start is None:
            return [*mirrored, *steps], None
        moved = move_boxes(start, steps, size)
        if stays_inside(moved, size) and writable(clip(moved, size)):
            return [*mirrored, *steps], clip(moved, size)
    return mirrored, start


def _border(image: Picture) -> list[float]:
    """The median colour along the picture's border: black for ultrasound, bright for a smear."""
    edges = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], dim=1)
    return [float(value) for value in edges.median(dim=1).values]
