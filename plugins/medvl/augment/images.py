"""One image changed, with the boxes of its answer.

The image keeps its size: LLaMA-Factory has already written as many image tokens as it takes.
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
from torchvision.tv_tensors import Image as Tensor

from medvl.augment.geometric import Step, draw_geometric, mirror_boxes, move_boxes, stays_inside
from medvl.augment.photometric import OFTEN, change_photometric
from medvl.boxes import Boxes, clip

DRAWS = 8  # each gentler than the one before; after the last the image stays where it is


@dataclass(frozen=True)
class Changes:
    """What to draw from.

    Attributes:
        advanced: With crops around boxes, noise, blur, compression, and speckle and elasticity for ultrasound.
        photometric: Whether brightness and the like may change.
        geometric: Whether the image may move.
        mirror_x: Whether left and right may change places.
        mirror_y: Whether top and bottom may.
        ultrasound: Whether this is an ultrasound image.
    """

    advanced: bool = False
    photometric: bool = True
    geometric: bool = True
    mirror_x: bool = False
    mirror_y: bool = False
    ultrasound: bool = False


@dataclass(frozen=True)
class Drawn:
    """A changed image and its boxes, clipped to it; `moved` tells whether they may have moved at all."""

    image: Image.Image
    boxes: Boxes | None
    moved: bool


def _any(_boxes: Boxes) -> bool:
    return True


def augment(
    image: Image.Image,
    boxes: Boxes | None,
    random: Generator,
    changes: Changes,
    writable: Callable[[Boxes], bool] = _any,
) -> Drawn:
    """One draw.

    Args:
        tensor: RGB.
        boxes: (n, 4) pixels of this image, inside it; None if its answer has none.
        random: The only source of randomness: the same state gives the same image.
        changes: What may be done.
        writable: Whether moved boxes can be written, that is, do not vanish when they are rounded.
    """
    tensor = Tensor(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous())
    steps, moved = _geometric(tensor, boxes, random, changes, writable)
    for step in steps:
        tensor = step(tensor)
    if changes.photometric:
        tensor = change_photometric(tensor, random, advanced=changes.advanced, ultrasound=changes.ultrasound)
    return Drawn(transform.to_pil_image(tensor), moved, bool(steps))


def _geometric(
    tensor: Tensor, boxes: Boxes | None, random: Generator, changes: Changes, writable: Callable[[Boxes], bool]
) -> tuple[list[Step], Boxes | None]:
    """Steps that keep every box, and the boxes after them; no steps if none of `DRAWS` does."""
    height, width = tensor.shape[-2:]
    size, fill = (width, height), _border(tensor)
    mirrored: list[Step] = []
    if changes.mirror_x and random.random() < 0.5:
        mirrored.append(transform.horizontal_flip)
    if changes.mirror_y and random.random() < 0.5:
        mirrored.append(transform.vertical_flip)
    draw = partial(
        draw_geometric,
        bent=changes.advanced and changes.ultrasound and random.random() < OFTEN,
        cropped=changes.advanced and random.random() < OFTEN,
        fill=fill,
    )
    start = boxes if boxes is None else mirror_boxes(boxes, mirrored, size)
    for attempt in range(DRAWS if changes.geometric else 0):
        steps = draw(size, start, random, strength=1 - attempt / DRAWS)
        if start is None:
            return [*mirrored, *steps], None
        moved = move_boxes(start, steps, size)
        if stays_inside(moved, size) and writable(clip(moved, size)):
            return [*mirrored, *steps], clip(moved, size)
    return mirrored, start


def _border(tensor: Tensor) -> list[float]:
    """The median colour along the image's border: black for ultrasound, bright for a smear."""
    edges = torch.cat([tensor[:, 0], tensor[:, -1], tensor[:, :, 0], tensor[:, :, -1]], dim=1)
    return [float(value) for value in edges.median(dim=1).values]
