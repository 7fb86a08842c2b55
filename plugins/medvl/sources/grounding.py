"""Grounding sets: images with named boxes as questions about where things are. TerraQuery's forms, GeoNLI's, COCO.

`medvl.sources.grounding_scenes` has a made-up row of each form. What is asked of an image with objects:

    primary     Locate and output bounding boxes for all ship in the image.      (its commonest class; TerraQuery)
    all         Locate and output bounding boxes for all objects in the image: ship, harbor.
    each        a question per class
    refer       Locate the small ship at the top-left of the image.              (objects that stand alone)
    negatives   a question about a class of the set that the image does not show; the answer is an empty list

Rows that hold questions (captions, attributes, boxes) are asked as they stand.
"""

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from medvl.box_words import NOISE_LABEL
from medvl.boxes import Boxes, area, iou
from medvl.errors import DataError, UsageError
from medvl.sources.base import SPLITS, BoxAnswer, Contents, Found, GivenSource, Problem, Row, Sample, SourceFile, Split
from medvl.sources.grounding_scenes import Asked, Objects, Scene, is_of_one_image, read_scenes
from medvl.tasks import Task

ClassMode = Literal["primary", "all", "each"]
Order = Literal["raster", "random", "given"]
_THIRDS = (0.33, 0.66)  # of TerraQuery's eval/evaluate_iou.py, as are the areas and the IoU below
_SMALL, _MEDIUM = 0.01, 0.05
_UNIQUE_IOU = 0.2
_ROWS = 40.0  # lines of the raster: boxes whose top edges are nearer than 1/40 of the image are in one


_NOTHING = Asked("", Task.DETECTION)  # of an image that nothing can be asked about


@dataclass(frozen=True)
class Grounding(GivenSource):
    """Grounding sets, under the options of a command line."""

    name = "grounding"
    title = "grounding"
    layout = "a JSON file of one of the forms, or a folder of them (train.json, val.json, …, or a file per image)"
    licence = "What the terms of the set say of its images and annotations holds for these files too."
    data: Path = Path()
    images: Path | None = None
    class_mode: ClassMode = "primary"
    order: Order = "given"
    negatives: int = 0
    refer: bool = False
    noise_objects: int = 0
    seed: int = 0
    stated: dict[str, Any] = field(default_factory=dict)

    def add_arguments(self, arguments: argparse.ArgumentParser) -> None:
        """See `GivenSource`."""
        add = arguments.add_argument_group("what is asked").add_argument
        add("--images", type=Path, metavar="DIR", help="folder of the images (default: that of the file)")
        add(
            "--class-mode",
            choices=get_args(ClassMode),
            default="primary",
            help="ask an image for its commonest class (primary, the default), for all, or for each in turn",
        )
        add("--order", choices=get_args(Order), default="given",
            help="order of boxes in an answer: as given (default), raster (line by line), random")  # fmt: skip
        add("--negatives", type=int, default=0, metavar="N",
            help="ask each image for N classes of the set that it does not show (default: 0)")  # fmt: skip
        add("--refer", action="store_true", help="also ask for objects that stand alone by size and place")
        add("--noise-objects", type=int, default=0, metavar="N",
            help=f"append N drawn boxes named {NOISE_LABEL} to each box answer of the split train, so that a model "
            "lists more before it ends; predictions and scores leave them out (default: 0)")  # fmt: skip

    def configured(self, args: argparse.Namespace) -> "Grounding":
        """See `GivenSource`."""
        if args.noise_objects < 0:
            raise UsageError(f"--noise-objects {args.noise_objects}: 0 or more")
        if args.noise_objects and args.box_style == "flare":
            raise UsageError("--noise-objects needs names, and --box-style flare has no place for them")
        options = {name: getattr(args, name) for name in ("class_mode", "order", "negatives", "refer")}
        options |= {"noise_objects": args.noise_objects} if args.noise_objects else {}
        return Grounding(data=args.root, images=args.images, seed=args.seed, stated=options, **options)

    def find(self, root: Path, splits: Sequence[str] = (), datasets: Sequence[str] = ()) -> Found:
        """See `Source`. A name says the split: val, test, else train. A folder of files of one image each is a set."""
        if not root.exists():
            return Found((), (f"{root}: there is no such file or folder",))
        paths = [root] if root.is_file() else sorted(root.glob("*.json"))
        if not paths:
            return Found((), (f"{root}: no .json file in it",))
        paths = [root] if root.is_dir() and is_of_one_image(paths[0]) else paths
        files = [SourceFile(_split(path), "grounding", path.stem, path) for path in paths]
        chosen = [file for file in files if (not splits or file.split.name in splits)
                  and (not datasets or file.dataset in datasets)]  # fmt: skip
        return Found(
            tuple(chosen), () if chosen else (f"{root}: none of its files is of what --splits or --datasets name",)
        )

    def read(self, file: SourceFile) -> Contents:
        """See `Source`."""
        return Contents(list(self._samples(file, read_scenes(file.path))))

    def samples(self, file: SourceFile, rows: Sequence[Row]) -> list[Sample]:
        """See `Source`; rows outside a file are of none of the forms."""
        raise DataError(f"{file.path}: {len(rows)} rows of a grounding set are read from its file alone")

    def places(self, file: SourceFile, name: str) -> Sequence[str]:
        """As in TerraQuery: absolute, below the folder of images, there by the bare name, below the working folder."""
        folder = self.images or file.path.parent
        bare = name.replace("\\", "/").rpartition("/")[2]
        return [str(place) for place in (folder / name, folder / bare, Path(name))]

    def _samples(self, file: SourceFile, scenes: Sequence[Scene]) -> Iterator[Sample]:
        classes = sorted({label for scene in scenes if scene.objects for label in scene.objects.labels if label})
        if NOISE_LABEL in classes:
            raise DataError(
                f"{file.path}: a class is named {NOISE_LABEL}, which boxes that are no objects have; rename it"
            )
        index = 0
        for scene in scenes:
            questions = [*self._of_objects(scene, classes), *scene.asked]
            for asked in questions or [_NOTHING]:
                yield self._sample(file, scene, index, asked)
                index += 1

    def _of_objects(self, scene: Scene, classes: Sequence[str]) -> Iterator[Asked]:
        """The questions about the objects of an image."""
        objects = scene.objects
        if objects is None:
            return
        shown = list(dict.fromkeys(label for label in objects.labels if label))
        chosen: list[str | None] = [*shown] if self.class_mode == "each" else []
        if self.class_mode == "primary" and objects:
            chosen = [commonest(objects.labels)]
        elif self.class_mode == "each" and None in objects.labels:
            chosen.append(None)
        elif self.class_mode == "all" and objects:
            names = ", ".join(shown)
            yield _boxes(
                f"Locate and output bounding boxes for all objects in the image{': ' * bool(names)}{names}.", objects
            )
        for label in chosen:
            of_class = [place for place, name in enumerate(objects.labels) if name == label]
            yield _boxes(
                f"Locate and output bounding boxes for all {label or 'objects'} in the image.", objects.chosen(of_class)
            )
        absent = [label for label in classes if label not in shown]
        draw = random.Random(f"{self.seed}/{scene.line}/{scene.image}")
        # An image without any object is asked for one class at least, or it would teach nothing.
        for label in draw.sample(absent, min(len(absent), max(self.negatives, not objects))):
            yield _boxes(f"Locate and output bounding boxes for all {label} in the image.", objects.chosen([]))
        if self.refer:
            yield from _referring(objects)

    def _sample(self, file: SourceFile, scene: Scene, index: int, asked: Asked) -> Sample:
        problems: list[Problem] = []
        if not scene.image:
            problems.append(Problem("images", "IMAGE_NAME", f"no image in the row: {', '.join(scene.row)}"))
        if scene.problem:
            problems.append(Problem("answer", "ANSWER_UNUSABLE", scene.problem))
        elif not asked.question.strip():
            problems.append(Problem("question", "QUESTION_EMPTY", "no object, and no class of the set to ask for"))
        boxes = asked.boxes
        if boxes is not None:
            boxes = boxes.chosen(self._ordered(boxes, f"{file.home}/{index}"))
        return Sample(
            file=file,
            index=index,
            line=scene.line,
            row=scene.row,
            task=asked.task,
            question=asked.question,
            images=(scene.image,) if scene.image else (),
            answer=asked.answer,
            boxes=None if boxes is None else BoxAnswer(boxes.boxes, boxes.labels, boxes.frame, boxes.corners),
            problems=tuple(problems),
        )

    def _ordered(self, objects: Objects, where: str) -> list[int]:
        places = list(range(len(objects)))
        if self.order == "random":
            random.Random(f"{self.seed}/{where}").shuffle(places)
        elif self.order == "raster":
            height = 1.0 if objects.frame == "norm1" else max(objects.boxes[:, 3].max(initial=1.0), 1.0)
            places.sort(key=lambda place: (int(objects.boxes[place, 1] / height * _ROWS), objects.boxes[place, 0]))
        return places


def _boxes(question: str, objects: Objects) -> Asked:
    return Asked(question, Task.DETECTION, boxes=objects)


def _referring(objects: Objects) -> Iterator[Asked]:
    """A question for each object that its class, size and place tell from all others of the image."""
    if objects.frame != "norm1":  # size and place are shares of the image
        return
    alone, size = unique(objects.boxes), sizes(objects.boxes)
    said = [(label, size[place], position(objects.boxes[place].tolist())) for place, label in enumerate(objects.labels)]
    for place, (label, how_large, where) in enumerate(said):
        if label and alone[place] and said.count(said[place]) == 1:
            at = f" at the {where} of the image" if where else " in the middle of the image"
            yield _boxes(f"Locate the {how_large} {label}{at}.", objects.chosen([place]))


@lru_cache
def _split(path: Path) -> Split:
    stem = path.stem.lower()
    return SPLITS["val" if "val" in stem or "dev" in stem else "test" if "test" in stem else "train"]


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
    """The class that most objects are of; of equals the one listed first."""
    return Counter(labels).most_common(1)[0][0] if labels else None


SOURCE = Grounding()
