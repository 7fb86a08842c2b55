"""The two sets of images: drawn ones without end, and the blood smears of BCCD at a low resolution."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from medvl.box_text import format_boxes, parse_boxes
from medvl.boxes import Boxes, Frame, as_boxes, to_frame

Pixels = npt.NDArray[np.float32]
SIDE = 128
CHANNELS = 3
# Share of images with 0, 1, … 6 objects: most have few, as findings do.
COUNTS = (0.10, 0.25, 0.22, 0.17, 0.12, 0.08, 0.06)
LABELS = ("cell", "WBC", "Platelets")
# First number of every random seed: what is drawn for one purpose is never drawn for another.
START, COMPARED, TEST, FAMILIES = range(4)
# BCCD: what is asked for. Red cells, up to 30 in an image, would be nearly all of the boxes.
_BCCD_LABELS = LABELS[1:]
# BCCD lies in a folder per split; the blank hidden file has a twin with answers.
_BCCD_TEST = (
    "validation-public/Microscopy/bccd/bccd_questions_val.json",
    "validation-hidden/Microscopy/bccd/bccd_questions_val_withGT.json",
)
_BCCD_TRAIN = ("training/Microscopy/bccd/bccd_questions_train.json",)


@dataclass(frozen=True)
class Scene:
    """An image `(channels, 128, 128)` of about zero mean, and its boxes in norm1000, top to bottom."""

    image: Pixels
    boxes: Boxes
    labels: tuple[str, ...]

    @property
    def text(self) -> str:
        """The answer a model is to give, Qwen3-VL's JSON."""
        return format_boxes(self.boxes, self.labels, "json", Frame.NORM1000)


def draw(rng: np.random.Generator, counts: Sequence[float] = COUNTS) -> Scene:
    """0 to 6 ellipses to be found (as likely as `counts` says) among 0 to 3 fainter ones that are not, in noise.

    How bright an object is overlaps with how bright a distractor is, so that some cannot be told: finding more true
    ones costs false alarms, whatever the model.
    """
    objects, others = int(rng.choice(len(counts), p=counts)), int(rng.integers(0, 4))
    canvas = rng.standard_normal((SIDE, SIDE), dtype=np.float32) * np.float32(0.35)
    taken: list[tuple[int, int, int, int]] = []
    found: list[tuple[int, int, int, int]] = []
    for number in range(objects + others):
        box = _free_place(rng, taken)
        if box is None:
            continue
        taken.append(box)
        contrast = rng.normal(1.1, 0.25) if number < objects else rng.normal(0.55, 0.25)
        _paint(canvas, box, max(0.15, float(contrast)))
        if number < objects:
            found.append(box)
    boxes = to_frame(as_boxes(found), (SIDE, SIDE), Frame.NORM1000)
    return _scene(np.broadcast_to(canvas, (CHANNELS, SIDE, SIDE)), boxes, [LABELS[0]] * len(boxes))


def test_scenes(count: int) -> list[Scene]:
    """The drawn images that every model is tested on."""
    return [draw(np.random.default_rng((TEST, 0, index))) for index in range(count)]


def _free_place(rng: np.random.Generator, taken: list[tuple[int, int, int, int]]) -> tuple[int, int, int, int] | None:
    for _ in range(20):
        width, height = rng.integers(SIDE * 10 // 64, SIDE * 23 // 64, 2)
        x, y = int(rng.integers(0, SIDE - width + 1)), int(rng.integers(0, SIDE - height + 1))
        box = (x, y, x + int(width), y + int(height))
        if all(box[2] <= o[0] or o[2] <= box[0] or box[3] <= o[1] or o[3] <= box[1] for o in taken):
            return box
    return None


def _paint(canvas: Pixels, box: tuple[int, int, int, int], contrast: float) -> None:
    x1, y1, x2, y2 = box
    rows, columns = np.mgrid[y1:y2, x1:x2] + 0.5
    inside = ((columns - (x1 + x2) / 2) * 2 / (x2 - x1)) ** 2 + ((rows - (y1 + y2) / 2) * 2 / (y2 - y1)) ** 2 <= 1
    canvas[y1:y2, x1:x2] += contrast * inside


def _scene(image: Pixels, boxes: Boxes, labels: list[str]) -> Scene:
    order = np.lexsort((boxes[:, 0], boxes[:, 1]))
    return Scene(image, boxes[order], tuple(labels[i] for i in order))


def read_bccd(root: Path, *, train: bool) -> list[Scene]:
    """White cells and platelets of the BCCD tree: the training split, or both validation splits.

    Raises:
        FileNotFoundError: `root` holds no such tree.
    """
    return [
        _smear((root / name).parent / row["ImageName"], row["Answer"])
        for name in (_BCCD_TRAIN if train else _BCCD_TEST)
        for row in json.loads((root / name).read_text(encoding="utf-8"))
        if row["TaskType"] == "instance_detection"
    ]


def _smear(path: Path, answer: str) -> Scene:
    with Image.open(path) as image:
        size = image.size
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    parsed = parse_boxes(answer)
    wanted = [i for i, label in enumerate(parsed.labels) if label in _BCCD_LABELS]
    boxes = to_frame(parsed.boxes[wanted], size, Frame.NORM1000)
    return _scene(pixels.transpose(2, 0, 1) / 64 - 3, boxes, [str(parsed.labels[i]) for i in wanted])


def turned(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene in one of the eight ways a square lies on a table; a smear has no up."""
    image, boxes = scene.image, scene.boxes.copy()
    if rng.random() < 0.5:
        image, boxes = image[:, :, ::-1], _mirrored(boxes)
    if rng.random() < 0.5:
        image, boxes = image[:, ::-1], _mirrored(boxes[:, [1, 0, 3, 2]])[:, [1, 0, 3, 2]]
    if rng.random() < 0.5:
        image, boxes = image.transpose(0, 2, 1), boxes[:, [1, 0, 3, 2]]
    return _scene(np.ascontiguousarray(image), boxes, list(scene.labels))


def reordered(scene: Scene, order: str, rng: np.random.Generator) -> Scene:
    """The scene with its boxes top to bottom (`raster`, as they are), at random, or the largest first (`size`)."""
    if order == "raster":
        return scene
    sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
    places = rng.permutation(len(sides)) if order == "random" else np.argsort(-sides.prod(1), kind="stable")
    return Scene(scene.image, scene.boxes[places], tuple(scene.labels[i] for i in places))


def _mirrored(boxes: Boxes) -> Boxes:
    return np.stack([1000 - boxes[:, 2], boxes[:, 1], 1000 - boxes[:, 0], boxes[:, 3]], 1)


def stream(
    source: list[Scene] | None, seed: tuple[int, ...], batch: int, counts: Sequence[float] = COUNTS
) -> Iterator[list[Scene]]:
    """Batches without end, the same ones for the same seed; `source` None draws new images.

    Answers of like length come together (a pool of eight batches is sorted by it), since padding costs time.
    """
    for round_ in itertools.count():
        rng = np.random.default_rng((*seed, round_))
        if source is None:
            pool = [draw(rng, counts) for _ in range(8 * batch)]
        else:
            pool = [turned(source[i], rng) for i in rng.integers(0, len(source), 8 * batch)]
        pool.sort(key=lambda scene: len(scene.boxes))
        for start in rng.permutation(8):
            yield pool[start * batch : (start + 1) * batch]
