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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from medvl.argument_types import natural
from medvl.box_words import NOISE_LABEL
from medvl.boxes import Frame
from medvl.errors import DataError, UsageError
from medvl.images import shown_size_of
from medvl.sources.base import BoxAnswer, Contents, Found, Problem, Row, Sample, SourceFile, Split, image_path
from medvl.sources.folders import split_named
from medvl.sources.given import SPLITS, GivenSource
from medvl.sources.grounding_files import is_of_one_image, json_files, read_scenes
from medvl.sources.grounding_questions import (
    Classes,
    ClassMode,
    class_questions,
    classes_of,
    negative_questions,
    referring_questions,
)
from medvl.sources.grounding_scenes import Asked, Objects, Scene
from medvl.sources.places import OutsideError
from medvl.sources.tables.splits import split_in
from medvl.tasks import Task, unknown_name

Order = Literal["raster", "random", "given"]
_ROWS = 40.0  # lines of the raster: boxes whose top edges are nearer than 1/40 of the image are in one
_NOTHING = Asked("", Task.DETECTION)  # of an image that nothing can be asked about


@dataclass(frozen=True)
class Grounding(GivenSource):
    """Grounding sets, under the options of a command line."""

    name = "grounding"
    title = "grounding"
    layout = "a JSON file of one of the forms, or a folder of them (train.json, val.json, …, or a file per image)"
    licence = "What the terms of the set say of its images and annotations holds for these files too."
    source_frame = Frame.NORM1
    data: Path = Path()
    images: Path | None = None
    class_mode: ClassMode = "primary"
    order: Order = "given"
    negatives: int = 0
    refer: bool = False
    noise_objects: int = 0
    seed: int = 0
    frame: Frame = Frame.NORM1
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
        add("--negatives", type=natural, default=0, metavar="N",
            help="ask each image for N classes of the set that it does not show (default: 0)")  # fmt: skip
        add("--refer", action="store_true", help="also ask for objects that stand alone by size and place")
        add("--noise-objects", type=natural, default=0, metavar="N",
            help=f"append N drawn boxes named {NOISE_LABEL} to each box answer of the split train, so that a model "
            "lists more before it ends; predictions and scores leave them out (default: 0)")  # fmt: skip

    def configured(self, args: argparse.Namespace) -> "Grounding":
        """See `GivenSource`."""
        if args.source_frame == "auto":
            raise UsageError(
                "--source-frame auto: say norm1, norm1000 or pixel; a wrong one is told by COORDINATE_RANGE"
            )
        if args.images and not args.images.is_dir():
            raise UsageError(f"--images {args.images}: no such folder")
        if args.noise_objects and args.box_style == "flare":
            raise UsageError("--noise-objects needs names, and --box-style flare has no place for them")
        options = {name: getattr(args, name) for name in ("class_mode", "order", "negatives", "refer")}
        options |= {"noise_objects": args.noise_objects} if args.noise_objects else {}
        frame = Frame(args.source_frame)
        return Grounding(data=args.root, images=args.images, seed=args.seed, frame=frame, stated=options, **options)

    def overview(self) -> Sequence[tuple[str, str, str]]:
        """See `GivenSource`."""
        return [(str(file.path), file.split.name, "split, by its name") for file in _files(self.data)]

    def find(self, root: Path, splits: Sequence[str] = (), datasets: Sequence[str] = ()) -> Found:
        """See `Source`. A word of the name says the split: val, test, else train."""
        if not root.exists():
            return Found((), (f"{root}: there is no such file or folder",))
        files = _files(root)
        if not files:
            return Found((), (f"{root}: no .json or .jsonl file in it",))
        named = [split_named(self, name) for name in splits]
        for kind, asked, there in (("split", [split.name for split in named], {file.split.name for file in files}),
                                   ("dataset", datasets, {file.dataset for file in files})):  # fmt: skip
            for name in asked:
                if name not in there:
                    raise unknown_name(kind, name, sorted(there))
        chosen = [file for file in files if (not named or file.split in named)
                  and (not datasets or file.dataset in datasets)]  # fmt: skip
        nothing = f"{root}: none of its files is of what --splits and --datasets name"
        return Found(tuple(chosen), () if chosen else (nothing,))

    def read(self, file: SourceFile) -> Contents:
        """See `Source`."""
        return Contents(list(self._samples(file, read_scenes(file.path, self.frame))))

    def samples(self, file: SourceFile, rows: Sequence[Row]) -> list[Sample]:
        """See `Source`; rows outside a file are of none of the forms."""
        raise DataError(f"{file.path}: {len(rows)} rows of a grounding set are read from its file alone")

    def places(self, file: SourceFile, name: str) -> Sequence[str]:
        """As in TerraQuery: absolute, below the folder of images, there by the bare name, below the working folder."""
        folder, written = self.images or file.path.parent, name.replace("\\", "/")
        if "\0" in name:
            raise OutsideError(f"{name!r} is no name of a file")
        bare = written.rpartition("/")[2]
        return [str(place) for place in (folder / name, folder / written, folder / bare, Path(name))]

    def _samples(self, file: SourceFile, scenes: Sequence[Scene]) -> Iterator[Sample]:
        classes, index = classes_of(scenes), 0
        if NOISE_LABEL in classes.names:
            raise DataError(
                f"{file.path}: a class is named {NOISE_LABEL}, which boxes that are no objects have; rename it"
            )
        for scene in scenes:
            questions = [*self._of_objects(file, scene, classes), *scene.asked]
            for asked in questions or [_NOTHING]:
                yield self._sample(file, scene, index, asked)
                index += 1

    def _of_objects(self, file: SourceFile, scene: Scene, classes: Classes) -> Iterator[Asked]:
        """The questions about the objects of an image."""
        objects = scene.objects
        if objects is None:
            return
        yield from class_questions(objects, self.class_mode)
        draw = random.Random(f"{self.seed}/{scene.line}/{scene.image}")
        # An image without any object is asked for one class at least, or it would teach nothing.
        yield from negative_questions(classes.absent(scene.image), max(self.negatives, not objects), draw)
        if self.refer and objects and scene.image:
            in_pixels = objects.frame == Frame.PIXEL
            yield from referring_questions(
                objects, shown_size_of(image_path(self, file, scene.image)) if in_pixels else None
            )

    def _sample(self, file: SourceFile, scene: Scene, index: int, asked: Asked) -> Sample:
        problems: list[Problem] = []
        if not scene.image:
            problems.append(Problem("images", "IMAGE_NAME", f"no image in the row: {', '.join(scene.row)}"))
        if scene.problem:
            problems.append(Problem("answer", "ANSWER_UNUSABLE", scene.problem))
        elif not asked.question.strip():
            why = "no object, and no class of the set to ask for" if asked is _NOTHING else "the question is blank"
            problems.append(Problem("question", "QUESTION_EMPTY", why))
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
            notes=scene.notes,
            problems=tuple(problems),
        )

    def _ordered(self, objects: Objects, where: str) -> list[int]:
        places = list(range(len(objects)))
        if self.order == "random":
            random.Random(f"{self.seed}/{where}").shuffle(places)
        elif self.order == "raster":
            height = 1.0 if objects.frame == Frame.NORM1 else max(objects.boxes[:, 3].max(initial=1.0), 1.0)
            places.sort(key=lambda place: (int(objects.boxes[place, 1] / height * _ROWS), objects.boxes[place, 0]))
        return places


def _files(data: Path) -> list[SourceFile]:
    """The files with rows. A name says the split; a folder of files of one image each is a set."""
    paths = [data] if data.is_file() else json_files(data) if data.is_dir() else []
    paths = [data] if data.is_dir() and paths and is_of_one_image(paths[0]) else paths
    return [SourceFile(_split(path), "grounding", path.stem, path) for path in paths]


def _split(path: Path) -> Split:
    return SPLITS[split_in(path.stem) or "train"]


SOURCE = Grounding()
