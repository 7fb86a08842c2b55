"""Turning, scaling, shifting, mirroring, cropping and bending an image, and its boxes with it.

Where boxes say what must be kept, the image may be shifted and cropped as long as every box keeps `VISIBLE` of its
area inside. Where nothing says so, all of the image stays inside: it is made smaller until it fits.

A box travels as points on its outline, and is at last the smallest box around them: a box around a box around a box
would grow with each step, and torchvision maps no more than two corners under elastic deformation, while the edges
between them bend (measured: 9 pixels off at shifts of 10). Boxes are (n, 4) float pixels, half-open.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from numpy.random import Generator
from torch.nn.functional import grid_sample, interpolate
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform
from torchvision.tv_tensors import BoundingBoxes, KeyPoints

from medvl.boxes import Boxes, Size, area, clip

VISIBLE = 0.75  # share of a box that must stay inside; half a cell is another cell
ANGLE = 5.0  # degrees
# A turned box is enclosed by a larger one: for a round object by 5 % per side at 3 degrees, by 9 % at 5.
ANGLE_WITH_BOXES = 3.0
SCALE, SHIFT = 0.15, 0.05  # with boxes: 1 +- SCALE, +- SHIFT of the side
SMALLEST = 0.85  # without boxes: how much smaller than what fits
CROP = 0.7  # smallest side of a crop, as a share of the image's
BEND, CELLS = 0.01, 5  # standard deviation of the elastic shift, as a share of the shorter side; knots per side

ALONG = torch.linspace(0, 1, 33, dtype=torch.float64)  # points on each edge of a box

# Works on an image (torchvision Image, channels first) and on points (KeyPoints) alike.
Step = Callable[[Any], Any]


def draw_geometric(
    size: Size, boxes: Boxes | None, random: Generator, *, strength: float, bent: bool, cropped: bool, fill: list[float]
) -> list[Step]:
    """Steps that together move an image of `size` (width, height), of its own size afterwards.

    Args:
        size: Of the image.
        boxes: What must stay inside, or None: everything.
        random: Source of randomness.
        strength: 0 (none) to 1.
        bent: Whether with elastic deformation.
        cropped: Whether with a crop that holds all boxes; without boxes there is none.
        fill: Colour of what lies beyond the image's border, one value per channel.
    """
    width, height = size
    if boxes is None:
        angle = random.uniform(-ANGLE, ANGLE) * strength
        sine, cosine = abs(math.sin(math.radians(angle))), math.cos(math.radians(angle))
        across, down = width * cosine + height * sine, width * sine + height * cosine
        scale = min(width / across, height / down) * (1 - random.uniform(0, 1 - SMALLEST) * strength)
        room = ((width - across * scale) / 2, (height - down * scale) / 2)
    else:
        angle = random.uniform(-ANGLE_WITH_BOXES, ANGLE_WITH_BOXES) * strength
        scale = 1 + random.uniform(-SCALE, SCALE) * strength
        room = (width * SHIFT * strength, height * SHIFT * strength)
    shift = [random.uniform(-1, 1) * most for most in room]
    steps: list[Step] = [
        partial(transform.affine, angle=angle, translate=shift, scale=scale, shear=[0.0, 0.0],
                interpolation=InterpolationMode.BILINEAR, fill=fill)
    ]  # fmt: skip
    if cropped and boxes is not None:
        window = _window(size, move_boxes(boxes, steps, size), 1 - random.uniform(0, 1 - CROP) * strength, random)
        if window is not None:
            top, left, rows, columns = window
            steps.append(partial(transform.resized_crop, top=top, left=left, height=rows, width=columns,
                                 size=[height, width]))  # fmt: skip
    if bent:
        steps.append(partial(_bend, displacement=_displacement(size, random, strength), fill=fill))
    return steps


def mirror_boxes(boxes: Boxes, steps: list[Step], size: Size) -> Boxes:
    """Boxes after flips, which are no steps for points: torchvision's count pixels there, not the lines between."""
    mirrored = BoundingBoxes(boxes, format="XYXY", canvas_size=size[::-1], clamping_mode=None, dtype=torch.float64)
    for step in steps:
        mirrored = step(mirrored)
    return mirrored.numpy().reshape(-1, 4)  # type: ignore[no-any-return]


def move_boxes(boxes: Boxes, steps: list[Step], size: Size) -> Boxes:
    """Boxes after the steps of `draw_geometric`; not clipped, so they may reach out of the image."""
    if not len(boxes):
        return boxes
    points = KeyPoints(_outlines(torch.from_numpy(boxes)), canvas_size=size[::-1])
    for step in steps:
        points = step(points)
    edges: Boxes = torch.cat([points.amin(dim=1), points.amax(dim=1)], dim=1).numpy()
    return edges


def stays_inside(boxes: Boxes, size: Size) -> bool:
    """Whether every box has `VISIBLE` of its area in the image."""
    return bool((area(clip(boxes, size)) >= VISIBLE * area(boxes)).all())


def _window(size: Size, boxes: Boxes, share: float, random: Generator) -> tuple[int, int, int, int] | None:
    """(top, left, height, width) of a crop with all boxes in it, None if there is no such crop of that share."""
    sides, starts = [], []
    for axis, side in enumerate(size):
        length = round(side * share)
        edges = clip(boxes, size)[:, axis::2]
        first = math.ceil(max(0.0, edges[:, 1].max(initial=0.0) - length))
        last = math.floor(min(float(side - length), edges[:, 0].min(initial=float(side))))
        place = random.random()
        if first > last:
            return None
        sides.append(length)
        starts.append(first + int(place * (last - first + 1)))
    return starts[1], starts[0], sides[1], sides[0]


def _displacement(size: Size, random: Generator, strength: float) -> torch.Tensor:
    """A smooth field of shape (1, height, width, 2): where each pixel is taken from, in halves of width and height."""
    width, height = size
    knots = torch.from_numpy(random.standard_normal((1, 2, CELLS, CELLS)))
    smooth = interpolate(knots, (height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    pixels = smooth.clamp(-2, 2) * BEND * min(size) * strength
    return pixels * torch.tensor([2 / width, 2 / height], dtype=torch.float64)


def _bend(item: Any, displacement: torch.Tensor, fill: list[float]) -> Any:
    if not isinstance(item, KeyPoints):
        return transform.elastic(item, displacement=displacement, fill=fill)
    # A point p of the image goes to q with q + displacement(q) = p, found by iteration: the field is gentle.
    size = torch.tensor(item.canvas_size[::-1], dtype=torch.float64)
    goal = points = 2 * item.as_subclass(torch.Tensor) / size - 1
    field = displacement.permute(0, 3, 1, 2)
    for _ in range(4):
        shift = grid_sample(field, points[None], padding_mode="border", align_corners=False)
        points = goal - shift[0].permute(1, 2, 0)
    return KeyPoints((points + 1) / 2 * size, canvas_size=item.canvas_size)


def _outlines(boxes: torch.Tensor) -> torch.Tensor:
    """Points on the four edges of each box, shape (n, points, 2)."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    x, y = (low + (high - low) * ALONG[None, :, None]).split(1, dim=2)
    (left, top), (right, bottom) = (corner.expand(-1, len(ALONG), -1).split(1, dim=2) for corner in (low, high))
    edges = [torch.cat(pair, dim=2) for pair in ((x, top), (x, bottom), (left, y), (right, y))]
    return torch.cat(edges, dim=1)
