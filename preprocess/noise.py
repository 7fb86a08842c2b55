"""Noise objects: boxes drawn into the answers that are trained on, after Pix2Seq (arXiv 2109.10852).

Under a name of their own they put off the end of a list: a model learns to name what it sees where it would have
stopped, and to tell that it is nothing. Whoever reads answers leaves them out (`medvl.box_text.parse_boxes`).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from medvl.box_text import BoxStyle, format_boxes, parse_boxes
from medvl.box_words import NOISE_LABEL
from medvl.boxes import Boxes, Frame, Size, as_boxes, clip, order_corners, to_frame
from medvl.sharegpt import Record, Turn
from medvl.tasks import Task
from preprocess.results import DatasetResult

_JITTER = 0.05, 0.25  # how far a side of a jittered copy moves at least and at most, in sides
_LEAST = 0.01  # of the image's side: no drawn box is narrower


@dataclass(frozen=True)
class NoiseOptions:
    """How many boxes are drawn for an answer, by which seed, and how its boxes are written."""

    count: int
    seed: int
    frame: Frame
    style: BoxStyle


def add_noise(part: DatasetResult, options: NoiseOptions, chosen: Callable[[Record], bool]) -> DatasetResult:
    """The part with noise objects behind the boxes of each chosen detection record; their `source` stays as it is."""
    records = [_noisy(record, options) if chosen(record) else record for record in part.records]
    return msgspec.structs.replace(part, records=records)


def _noisy(record: Record, options: NoiseOptions) -> Record:
    parsed = parse_boxes(record.target)
    if record.task != Task.DETECTION or not parsed.parsed or not record.source.sizes:
        return record
    size = record.source.sizes[0]  # boxes lie on the first image
    draw = random.Random(f"{options.seed}/noise/{record.id}")
    drawn = draw_noise(parsed.pixels(size, options.frame), size, options.count, draw)
    answer = format_boxes(
        np.concatenate([parsed.boxes, to_frame(drawn, size, options.frame)]),
        [*parsed.labels, *[NOISE_LABEL] * options.count],
        options.style,
        options.frame,
        empty_labels=parsed.empty_labels,
    )
    question, _ = record.conversations
    return msgspec.structs.replace(record, conversations=[question, Turn("gpt", answer)])


def draw_noise(boxes: Boxes, size: Size, count: int, draw: random.Random) -> Boxes:
    """Jittered copies, shifted copies and random boxes, shape (count, 4), inside the image; random alone without boxes.

    Args:
        boxes: The objects, shape (n, 4), pixels.
        size: (width, height) of the image, pixels.
        count: How many to draw.
        draw: Decides all.
    """
    true = clip(order_corners(boxes), size).tolist()
    kinds = (_jittered, _shifted, _random)
    made = [
        draw.choice(kinds)(draw.choice(true), size, draw) if true else _random([], size, draw) for _ in range(count)
    ]
    return _wide(as_boxes(made), size)


def _jittered(box: Sequence[float], _: Size, draw: random.Random) -> list[float]:
    sides = [box[2] - box[0], box[3] - box[1]] * 2
    return [
        value + draw.choice((-1, 1)) * draw.uniform(*_JITTER) * side for value, side in zip(box, sides, strict=True)
    ]


def _shifted(box: Sequence[float], size: Size, draw: random.Random) -> list[float]:
    sides = box[2] - box[0], box[3] - box[1]
    x, y = (draw.uniform(0, whole - side) for whole, side in zip(size, sides, strict=True))
    return [x, y, x + sides[0], y + sides[1]]


def _random(_: Sequence[float], size: Size, draw: random.Random) -> list[float]:
    x, y = (sorted(draw.uniform(0, whole) for _ in range(2)) for whole in size)
    return [x[0], y[0], x[1], y[1]]


def _wide(boxes: Boxes, size: Size) -> Boxes:
    """Boxes inside the image, each with a width and a height that are still there when they are rounded."""
    least = np.maximum(np.array(size) * _LEAST, 1.0)
    low = np.minimum(clip(order_corners(boxes), size)[:, :2], np.array(size) - least)
    return np.concatenate([low, np.maximum(clip(order_corners(boxes), size)[:, 2:], low + least)], axis=1)
