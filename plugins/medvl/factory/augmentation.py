"""Changes images, and the boxes in their answers, each time a training record is batched.

The training set gets a column with the row's number. Records with it are augmented; evaluation sets have none, so
evaluation and prediction see images as they are. Row, epoch and `augment_seed` alone decide a draw: the number of
workers and devices, the batch size and a resume change nothing.

LLaMA-Factory 0.9.5 expands image tokens by image size when it tokenises, so a changed image keeps its size. Needs
of its collator: `template.mm_plugin._regularize_images`, `processor`; of the trainer: `train_dataset` as a keyword.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import TrainerCallback

from medvl.augment.images import Changes, augment
from medvl.augment.rewriting import BoxAnswer
from medvl.augment.rules import Permission, permission
from medvl.boxes import Boxes, Frame, Size, area, as_boxes, clip, from_frame, to_frame
from medvl.factory.collator import WrappedCollator
from medvl.factory.data.frames import stated_frames
from medvl.factory.data.rows import RowReader, read_rows, row_reader

ROW = "medvl_row"
_LIMIT = {Frame.NORM1000: 1000.0, Frame.NORM1: 1.0, Frame.PIXEL: np.inf}


@dataclass(frozen=True)
class AugmentSettings:
    """What the recipe asks for; `frame` is the one of the boxes in the training answers, None if nothing tells it."""

    level: str
    seed: int
    probability: float
    mirror: str
    frame: Frame | None


def settings(arguments: Any) -> AugmentSettings:
    """The `augment` keys of a recipe; ValueError for training data with boxes in different frames."""
    return AugmentSettings(
        level=arguments.augment,
        seed=arguments.augment_seed,
        probability=arguments.augment_probability,
        mirror=arguments.augment_mirror,
        frame=find_frame(arguments) if arguments.augment_frame == "auto" else Frame(arguments.augment_frame),
    )


def find_frame(arguments: Any) -> Frame | None:
    """The frame that the manifest beside every training file states, or `grounding_frame` if the recipe sets it.

    None if a file has no manifest. Raises ValueError if they do not agree.
    """
    stated = stated_frames(arguments)
    if "grounding_frame" in arguments.medvl_recipe.keys:
        stated.pop(None, None)
        stated.setdefault(arguments.grounding_frame, "grounding_frame")
    if len(stated) > 1 and None not in stated:
        said = ", ".join(f"{frame} ({place})" for frame, place in sorted(stated.items(), key=str))
        raise ValueError(f"augment: the boxes of this recipe are in different frames: {said}; convert them to one")
    return next((frame for frame in Frame if set(stated) == {frame}), None)


def augment_training(keywords: dict[str, Any]) -> TrainerCallback:
    """Numbers the training set among a trainer's keywords and wraps its collator; the callback tells it the epoch."""
    collator, wanted = keywords["data_collator"], settings(keywords["finetuning_args"])
    reader = row_reader(collator, keywords["tokenizer"], keywords["model"])
    epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
    keywords["train_dataset"] = number_rows(keywords["train_dataset"], reader, wanted)
    keywords["data_collator"] = AugmentedCollator(collator, reader, wanted, epoch)
    return TellEpoch(epoch)


def number_rows(dataset: Any, reader: RowReader, wanted: AugmentSettings) -> Any:
    """The tokenised training set with the column `medvl_row`; logs how many records may be changed in what way.

    Raises:
        ValueError: boxes in an unknown frame, or one that is not in the frame of the settings.
    """
    from llamafactory.extras.logging import get_logger

    counts: Counter[str] = Counter()
    for number, row in enumerate(read_rows(dataset, "input_ids", "labels", "images", "videos")):
        allowed, _ = read_permission(row, reader)
        _check_frame(allowed.boxes, wanted.frame, number)
        counts["tones"] += allowed.photometric
        counts["motion"] += allowed.geometric
        counts["mirror"] += allowed.mirror and wanted.mirror != "none"
        counts["boxes"] += allowed.boxes is not None
        if allowed.reason:
            counts[f"not moved: {allowed.reason}"] += 1
    told = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    get_logger("llamafactory.medvl").info_rank0(f"augment: of {len(dataset)} records, {told}; frame {wanted.frame}")
    return dataset.add_column(ROW, range(len(dataset)))


def _check_frame(boxes: BoxAnswer | None, frame: Frame | None, number: int) -> None:
    if boxes is None or len(boxes.boxes) == 0:
        return
    where = f"{boxes.text[:200]!r} (row {number} of the training data)"
    if frame is None:
        raise ValueError(
            f"augment: the answer {where} has boxes and nothing tells their frame: not every training file has a "
            "manifest.json beside it. Set `augment_frame` to norm1000, norm1 or pixel"
        )
    if (boxes.boxes > _LIMIT[frame]).any():
        raise ValueError(f"augment: the answer {where} has a box that is not in the frame {frame}; set `augment_frame`")


def read_permission(feature: dict[str, Any], reader: RowReader) -> tuple[Permission, tuple[int, int]]:
    """What may be done to a tokenised record, and where its answer starts and stops.

    An answer that would not become the same tokens again when it is written is treated like one cut off.
    """
    images = len(feature.get("images") or []) + len(feature.get("videos") or [])
    row = reader.read(feature["input_ids"], feature["labels"])
    if row is None or reader.answer_tokens(row.answer) != list(feature["input_ids"][row.start : row.stop]):
        return permission(reader.text(feature["input_ids"]), None, images=images), (0, 0)
    return permission(row.question, row.answer, images=images, prompt=row.prompt), (row.start, row.stop)


@dataclass(frozen=True)
class AugmentedCollator(WrappedCollator):
    """A collator that changes numbered records first.

    Attributes:
        reader: Reads and writes answers.
        wanted: What the recipe asks for.
        epoch: Shape (1,), in shared memory: workers that outlive an epoch see the next one.
    """

    reader: RowReader
    wanted: AugmentSettings
    epoch: torch.Tensor

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """The collator's batch of changed records."""
        return super().__call__([self.change(feature) for feature in features])

    def change(self, feature: dict[str, Any]) -> dict[str, Any]:
        """A record with other images, and other tokens where its boxes moved; unnumbered ones as they are."""
        if ROW not in feature:
            return feature
        feature = dict(feature)
        random = [self.wanted.seed, int(self.epoch[0]), feature.pop(ROW)]
        if not feature.get("images") or np.random.default_rng(random).random() >= self.wanted.probability:
            return feature
        allowed, (start, stop) = read_permission(feature, self.reader)
        opened = [self._open(image) for image in feature["images"]]
        changes = Changes(
            advanced=self.wanted.level == "advanced",
            photometric=allowed.photometric,
            geometric=allowed.geometric,
            mirror_x=allowed.mirror and self.wanted.mirror != "none",
            mirror_y=allowed.mirror and self.wanted.mirror == "both",
            ultrasound=allowed.ultrasound,
        )
        moving = None
        if allowed.boxes is not None:
            moving = _Moving(allowed.boxes, *opened[0], self.wanted.frame or Frame.NORM1000)
            if not moving.inside():
                changes, moving = replace(changes, geometric=False, mirror_x=False, mirror_y=False), None
        # The same draw for every image of a record: they may be compared with each other.
        drawn = [
            augment(image, moving.pixels() if moving else None, np.random.default_rng([*random, 1]), changes,
                    moving.writable if moving else lambda _: True)
            for image, _ in opened
        ]  # fmt: skip
        feature["images"] = [draw.image for draw in drawn]
        if moving and drawn[0].moved and drawn[0].boxes is not None:
            answer = self.reader.answer_tokens(moving.text(drawn[0].boxes))
            for name, values in (("input_ids", answer), ("labels", answer), ("attention_mask", [1] * len(answer))):
                feature[name] = [*feature[name][:start], *values, *feature[name][stop:]]
        return feature

    def _open(self, image: Any) -> tuple[Image.Image, Size]:
        """An image as the model will see it, RGB, and the size it has on disk.

        It is reduced as LLaMA-Factory's collator will do it, since fewer pixels are faster to change; but only if that
        collator will not resize it once more.
        """
        plugin, processor = self.collator.template.mm_plugin, self.collator.processor
        limits = {
            "image_max_pixels": getattr(processor, "image_max_pixels", 768 * 768),
            "image_min_pixels": getattr(processor, "image_min_pixels", 32 * 32),
        }
        whole = _opened(image)
        (reduced,) = plugin._regularize_images([whole], **limits)["images"]
        (again,) = plugin._regularize_images([reduced], **limits)["images"]
        return (reduced if again.size == reduced.size else whole.convert("RGB")), whole.size


def _opened(image: Any) -> Image.Image:
    """An image in any form in which LLaMA-Factory keeps it; not turned by EXIF, as there."""
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, dict):
        image = image["path"] if image["bytes"] is None else image["bytes"]
    return Image.open(BytesIO(image) if isinstance(image, bytes) else image)


@dataclass(frozen=True)
class _Moving:
    """The boxes of an answer between its text and the pixels of the image that is changed.

    Attributes:
        answer: The answer.
        image: The image that is changed; perhaps reduced.
        size: What the frame `pixel` counts in: the image's size on disk.
        frame: Frame of the answer.
    """

    answer: BoxAnswer
    image: Any
    size: Size
    frame: Frame

    def pixels(self) -> Boxes:
        return self._onto(from_frame(self.answer.boxes, self.size, self.frame), self.size, self.image.size)

    def inside(self) -> bool:
        """Whether all boxes lie in the image, but for the rounding of the frame."""
        pixels = from_frame(self.answer.boxes, self.size, self.frame)
        return bool((np.abs(clip(pixels, self.size) - pixels) <= 1.0).all())

    def written(self, boxes: Boxes) -> Boxes:
        return self.answer.rounded(to_frame(self._onto(boxes, self.image.size, self.size), self.size, self.frame))

    def writable(self, boxes: Boxes) -> bool:
        return bool((area(self.written(boxes)) > 0).all())

    def text(self, boxes: Boxes) -> str:
        return self.answer.rewrite(self.written(boxes))

    @staticmethod
    def _onto(boxes: Boxes, size: Size, other: Size) -> Boxes:
        return as_boxes(boxes * (np.array(other) / np.array(size))[[0, 1, 0, 1]])


class TellEpoch(TrainerCallback):  # type: ignore[misc]
    """Writes the number of the epoch where collators read it."""

    def __init__(self, epoch: torch.Tensor) -> None:
        """epoch: shape (1,), in shared memory."""
        self.epoch = epoch

    def on_epoch_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Called before the epoch's first batch is drawn; after a resume inside of an epoch too."""
        self.epoch[0] = int((state.epoch or 0.0) + 1e-6)
