"""The drawn datasets: what is on each image, what is asked about it, and the answer in FLARE's own spelling.

A one-million-parameter model trained for minutes sees little detail, so every answer is decided by something that fills
the image: a tint, a texture, which quadrants are bright. The spellings are varied as they are in FLARE (option
delimiters, `TaskType` case, `Split` names, separators), because those are what the pipeline is meant to try out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

ImageInfo = npt.NDArray[np.uint8]
Canvas = npt.NDArray[np.float64]
Answer = str | int | float


@dataclass(frozen=True)
class Scene:
    """One question about one or more images, each `(height, width, 3)`."""

    images: list[ImageInfo]
    question: str
    answer: Answer


@dataclass(frozen=True)
class Dataset:
    """A drawn dataset: where it lies in the tree, how its records spell their fields, and what draws it."""

    name: str
    category: str
    task_type: str
    modality: str
    suffix: str
    split_names: tuple[str, str]
    draw: Callable[[np.random.Generator], Scene]


# Width, height in pixels. More than one, so that boxes in original pixels and boxes in 0-1000 are never the same.
_SIZES = ((96, 96), (112, 96), (96, 112))
_TISSUES = {"A": (205, 95, 130), "B": (75, 95, 180), "C": (170, 125, 55), "D": (70, 150, 100)}
_CHROMOSOMES = {"1": (-200, -200, -60), "2": (-40, -190, -190)}
_FINDINGS = ("Diffuse Haze", "Linear Streaks", "Dark Margin")
_REPORTS = (
    "Heart size is normal.",
    "The heart is moderately enlarged.",
    "No focal consolidation or pleural effusion.",
    "There is a large right pleural effusion.",
)


def _canvas(rng: np.random.Generator, tint: tuple[float, ...], noise: float = 10.0) -> Canvas:
    width, height = _SIZES[rng.integers(len(_SIZES))]
    grain = rng.normal(0.0, noise, (height, width, 1))
    return np.asarray(tint) + rng.uniform(-8, 8) + grain


def _image(canvas: Canvas) -> ImageInfo:
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _pick(rng: np.random.Generator, *choices: str) -> str:
    return choices[int(rng.integers(len(choices)))]


def _tissue(rng: np.random.Generator) -> Scene:
    letter = _pick(rng, *_TISSUES)
    canvas = _canvas(rng, _TISSUES[letter], noise=18)
    options = "A: Muscle, B: Nerve, C: Cartilage, D: Gland"
    question = _pick(rng, "Which tissue does this stained section show?", "What is the tissue type in this section?")
    return Scene([_image(canvas)], f"{question} {options}", letter)


def _plane(rng: np.random.Generator) -> Scene:
    letter = _pick(rng, "A", "B", "C")
    canvas = _canvas(rng, (60, 60, 65))
    height, width = canvas.shape[:2]
    if letter == "A":
        canvas[: height // 2] += 130
    elif letter == "B":
        canvas[:, : width // 2] += 130
    ask = _pick(rng, "Which scan plane is shown?", "What is the acquisition plane of this scan?")
    return Scene([_image(canvas)], f"Question: {ask} Options: A) Transverse B) Sagittal C) No standard plane", letter)


def _newborn(rng: np.random.Generator) -> Scene:
    letter = _pick(rng, "A", "B")
    tint = (225, 165, 150) if letter == "A" else (215, 195, 70)
    images = [_image(_canvas(rng, tint)) for _ in range(2)]
    question = _pick(rng, "Does this newborn need treatment?", "Is therapy required for this newborn?")
    return Scene(images, f"{question} A. No Treatment, B. Treatment Required", letter)


def _findings(rng: np.random.Generator) -> Scene:
    subsets = [subset for size in (1, 2, 3) for subset in combinations(_FINDINGS, size)]
    present = subsets[int(rng.integers(len(subsets)))]
    canvas = _canvas(rng, (95, 95, 95))
    height, width = canvas.shape[:2]
    if "Diffuse Haze" in present:
        canvas += (65, 65, 90)
    if "Linear Streaks" in present:
        canvas[:, (np.arange(width) // 8) % 2 == 0] += 60
    if "Dark Margin" in present:
        margin = height // 5
        canvas[:margin] = canvas[-margin:] = 10
    question = _pick(rng, "Which findings are present on this film?", "What would you report for this film?")
    hint = "Select all that apply from the following, separate multiple selections with a semicolon"
    return Scene([_image(canvas)], f"{question} {hint}: {'; '.join(_FINDINGS)}.", "; ".join(present))


def _quadrant_box(rng: np.random.Generator, quadrant: int, width: int, height: int) -> list[int]:
    """A box well inside one quadrant (0 to 3, row by row), `[x_min, y_min, x_max, y_max]` in pixels.

    The inset keeps every coordinate between 100 and 900 of 1000, three digits, which is what lets so small a model
    learn the form of the answer before it learns the places.
    """
    inset = rng.choice([0.11, 0.13])
    left, top = quadrant % 2 / 2 + inset, quadrant // 2 / 2 + inset
    right, bottom = left + 0.5 - 2 * inset, top + 0.5 - 2 * inset
    return [round(left * width), round(top * height), round(right * width), round(bottom * height)]


def _paint(canvas: Canvas, box: list[int], change: tuple[float, float, float]) -> None:
    left, top, right, bottom = box
    canvas[top:bottom, left:right] += change


def _lesions(rng: np.random.Generator) -> Scene:
    canvas = _canvas(rng, (80, 70, 70))
    height, width = canvas.shape[:2]
    quadrants = np.sort(rng.permutation(4)[: rng.integers(4)])
    boxes = [_quadrant_box(rng, int(quadrant), width, height) for quadrant in quadrants]
    for box in boxes:
        _paint(canvas, box, (130, 110, 60))
    where = "bounding box coordinates ([x_min, y_min, x_max, y_max])"
    question = _pick(rng, f"Determine the {where} of all lesions.", f"Extract the {where} of every lesion.")
    return Scene([_image(canvas)], question, json.dumps(boxes))


def _chromosomes(rng: np.random.Generator) -> Scene:
    canvas = _canvas(rng, (230, 230, 230))
    height, width = canvas.shape[:2]
    boxes: dict[str, list[list[int]]] = {}
    for quadrant, (name, ink) in zip(rng.permutation(4), _CHROMOSOMES.items(), strict=False):
        box = _quadrant_box(rng, int(quadrant), width, height)
        boxes[name] = [box]
        _paint(canvas, box, ink)
    question = _pick(rng, "Locate all chromosomes in this image.", "List every chromosome with its location.")
    hint = "Return a JSON mapping chromosome identifiers to [x_min, y_min, x_max, y_max] coordinates."
    return Scene([_image(canvas)], f"{question} {hint}", json.dumps(boxes))


def _cells(rng: np.random.Generator) -> Scene:
    count = int(rng.integers(1, 10))
    canvas = _canvas(rng, (35, 35, 60))
    height, width = canvas.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    for place in rng.permutation(9)[:count]:
        x, y = (int(place) % 3 + 0.5) * width / 3, (int(place) // 3 + 0.5) * height / 3
        canvas[(columns - x) ** 2 + (rows - y) ** 2 < (0.14 * height) ** 2] += (80, 150, 60)
    question = _pick(rng, "How many cells are in this image?", "Count the cells shown in this field.")
    return Scene([_image(canvas)], question, count)


def _resorption(rng: np.random.Generator) -> Scene:
    percentage = 10.0 * int(rng.integers(0, 10)) + 2.5
    canvas = _canvas(rng, (190, 190, 185))
    canvas[: round(canvas.shape[0] * percentage / 100)] -= 130
    question = _pick(rng, "Determine the bone resorption percentage.", "What percentage of bone has been resorbed?")
    return Scene([_image(canvas)], question, percentage)


def _chest(rng: np.random.Generator) -> Scene:
    finding = int(rng.integers(len(_REPORTS)))
    canvas = _canvas(rng, (120, 120, 120))
    height, width = canvas.shape[:2]
    centre = slice(width // 3, 2 * width // 3) if finding == 0 else slice(width // 6, 5 * width // 6)
    if finding < 2:
        canvas[:, centre] += 110
    elif finding == 2:
        canvas -= 90
    else:
        canvas[height // 2 :] -= 100
    question = _pick(rng, "Describe this chest radiograph.", "Write the finding of this chest radiograph.")
    return Scene([_image(canvas)], question, _REPORTS[finding])


_T = ("train", "val")
DATASETS = (
    Dataset("demo-tissue", "Microscopy", "Classification", "microscopy", "png", _T, _tissue),
    Dataset("demo-plane", "Ultrasound", "classification", "Ultrasound", "jpg", ("train", "validation"), _plane),
    Dataset("demo-newborn", "Clinical", "Classification", "Photo", "jpg", _T, _newborn),
    Dataset("demo-film", "Xray", "multi-label classification", "X-ray", "png", _T, _findings),
    Dataset("demo-lesion", "Ultrasound", "Detection", "Ultrasound", "png", _T, _lesions),
    Dataset("demo-chromosome", "Microscopy", "instance_detection", "Microscopy", "png", _T, _chromosomes),
    Dataset("demo-cell", "Microscopy", "Cell Counting", "Microscopy", "jpg", _T, _cells),
    Dataset("demo-bone", "Xray", "regression", "X-Ray", "png", _T, _resorption),
    Dataset("demo-chest", "Xray", "Report_Generation", "X-Ray", "jpg", _T, _chest),
)
