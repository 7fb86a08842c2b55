"""What must hold for a single record so that LLaMA-Factory trains on what the source says."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from medvl.answers import parse_answer
from medvl.box_text import ParsedBoxes, parse_boxes
from medvl.boxes import DECIMALS, Frame, Size, clip, from_frame, to_frame
from medvl.control_tokens import BOX_MARKUP, control_tokens
from medvl.files import read_file
from medvl.images import UPRIGHT, orientation
from medvl.sharegpt import IMAGE_TAG, MEDIA_TAGS, Record
from medvl.sources import SOURCES, label_separator
from medvl.tasks import Answer, Task
from medvl.tasks.base import Issue

_BOX_TASKS = {str(task) for task in Task if task.has_boxes}
# Folders of the splits that have answers.
_ANSWERED = {split.folder for source in SOURCES.values() for split in source.splits.values() if split.role != "hidden"}


class ImageFiles:
    """Image files, each looked at once."""

    def __init__(self, converted: Mapping[str, bytes] | None = None) -> None:
        """Nothing has been looked at yet.

        Args:
            converted: Image -> SHA-256 of its file when it was converted, as far as that is known.
        """
        self._converted = converted or {}
        self._checked: dict[str, tuple[Size | None, Issue | None]] = {}
        self._contents: dict[str, bytes] = {}

    def look(self, path: str) -> tuple[Size | None, Issue | None]:
        """Size by the file's header, and what is wrong with it."""
        if path not in self._checked:
            self._checked[path] = _look(path)
            size, found = self._checked[path]
            if found is None and self.content(path) != self._converted.get(path, self.content(path)):
                self._checked[path] = size, ("IMAGE_CHANGED", f"{path} is another file than the one converted")
        return self._checked[path]

    def content(self, path: str) -> bytes:
        """Hash of the file; its name if it cannot be read."""
        if path not in self._contents:
            try:
                self._contents[path] = hashlib.sha256(read_file(path)[1]).digest()
            except OSError:
                self._contents[path] = path.encode()
        return self._contents[path]


def _look(path: str) -> tuple[Size | None, Issue | None]:
    if not Path(path).is_file():
        return None, ("IMAGE_MISSING", f"{path} is not there")
    try:
        with Image.open(path) as image:
            rotated = orientation(image) not in UPRIGHT
            return image.size, ("IMAGE_ROTATED", f"{path} has an EXIF orientation") if rotated else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow's readers raise
        return None, ("IMAGE_UNREADABLE", f"{path}: {error}")


def check_record(
    record: Record, frame: Frame, images: ImageFiles, known_tokens: frozenset[str], *, compare: bool
) -> Iterator[Issue]:
    """Codes and details of everything that is wrong with a record.

    Args:
        record: The record.
        frame: Frame of the boxes in its answer.
        images: Looks at image files.
        known_tokens: Control tokens, which no text may hold.
        compare: Whether its boxes should be those of the source's answer; not so if that was mended.
    """
    if [turn.speaker for turn in record.conversations] != ["human", "gpt"]:
        yield (
            "TURNS",
            f"turns are {', '.join(turn.speaker for turn in record.conversations) or 'none'}; expected human, gpt",
        )
        return
    prompt, target = (turn.value for turn in record.conversations)
    if prompt.count(IMAGE_TAG) != len(record.images):
        yield "TAG_COUNT", f"{prompt.count(IMAGE_TAG)} <image> tags but {len(record.images)} images"
    if any(tag in target for tag in MEDIA_TAGS) or any(tag in prompt for tag in MEDIA_TAGS[1:]):
        yield "LITERAL_TAG", "LLaMA-Factory would count the tag as an image, video or sound"
    yield from _check_tokens(record, known_tokens)
    yield from _check_images(record, images)
    yield from _check_answer(record, target, frame, compare=compare)


def _check_tokens(record: Record, known: frozenset[str]) -> Iterator[Issue]:
    answer = control_tokens(record.target, known)
    if record.task in _BOX_TASKS:
        parsed = parse_boxes(record.target)
        names = (*parsed.labels, *parsed.empty_labels)
        answer = [token for token in answer if token not in BOX_MARKUP] + [
            token for name in names if name for token in control_tokens(name, known)
        ]
    if found := [*control_tokens(record.conversations[0].value.replace(IMAGE_TAG, ""), known), *answer]:
        yield "CONTROL_TOKEN", f"{', '.join(dict.fromkeys(found))} would not be read as text"


def _check_images(record: Record, images: ImageFiles) -> Iterator[Issue]:
    if len(record.source.sizes) != len(record.images):
        yield "SIZE_COUNT", f"{len(record.source.sizes)} sizes for {len(record.images)} images"
        return
    for path, stated in zip(record.images, record.source.sizes, strict=True):
        size, found = images.look(path)
        if found:
            yield found
        if size and size != stated:
            yield "IMAGE_SIZE", f"{path} has {size[0]} x {size[1]} pixels, not {stated[0]} x {stated[1]}"


def _check_answer(record: Record, target: str, frame: Frame, *, compare: bool) -> Iterator[Issue]:
    try:
        task = Task(record.task)
    except ValueError:
        yield "TASK_UNKNOWN", f"{record.task!r}"
        return
    if not target.strip():
        if record.source.split in _ANSWERED:
            yield "ANSWER_EMPTY", f"no answer in {record.source.split}"
        return
    answer = _parse(record, target, task)
    if not answer.parsed:
        strict = task.has_boxes or task.is_number
        yield "ANSWER_UNUSABLE" if strict else "ANSWER_UNUSUAL", f"{answer.reason}: {target[:120]!r}"
    elif isinstance(answer.value, ParsedBoxes) and record.source.sizes:
        yield from _check_boxes(record, answer.value, task, frame, compare=compare)


def _parse(record: Record, text: str, task: Task) -> Answer:
    return parse_answer(text, task, question=record.question, separator=label_separator(record.dataset))


def _check_boxes(record: Record, target: ParsedBoxes, task: Task, frame: Frame, *, compare: bool) -> Iterator[Issue]:
    size = record.source.sizes[0]  # boxes refer to the first image
    source = _parse(record, record.source.answer, task).value
    if compare and isinstance(source, ParsedBoxes):
        expected = to_frame(source.boxes, size, frame)
        # Maps may order their boxes anew, by name.
        ours, theirs = (np.array(sorted(boxes.tolist())).reshape(-1, 4) for boxes in (target.boxes, expected))
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=1.5 * 10.0 ** -DECIMALS[frame]):
            yield "BOX_FRAME", f"{target.boxes[:2].tolist()} … should be {expected[:2].tolist()} … in {frame}"
    pixels = from_frame(target.boxes, size, frame)
    beyond = (np.abs(clip(pixels, size) - pixels) > 1.0).any(axis=1)
    if beyond.any():
        yield "BOX_OUTSIDE", f"{beyond.sum()} of {len(pixels)} boxes"
