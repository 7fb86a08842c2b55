"""What is wrong with references: records that were edited, and boxes that are no pixels.

A converted record holds its answer twice, as the target of training and as the source's own answer, the truth here.
Whoever changes one of them in the file scores something else than was trained. Boxes of references are read as pixels;
what is scored against those that are none is scored wrongly.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from evaluation.samples import References, Sample
from medvl.answers import parse_answer
from medvl.box_text import ParsedBoxes, parse_boxes
from medvl.boxes import DECIMALS, Boxes, Frame, Size, order_corners, to_frame
from medvl.choices import normal
from medvl.sharegpt import file_sha256, manifest_of
from medvl.source_frames import likely_frame
from medvl.sources import label_separator
from medvl.tasks import Answer, Task

_REPORT = "report.json"
_LOOKED_AT = 200  # references of a dataset: they tell its frame, and their images may have to be opened


def edited_records(references: References, samples: Sequence[Sample]) -> Iterator[str]:
    """Every record whose target says something else than its source's answer, with both.

    A file that is as its manifest says was converted so. What `--clean` changed is listed in report.json beside it, and
    then the changed answer is what the target must say.
    """
    if references.kind != "records" or _is_as_written(references.path):
        return
    cleaned = _cleaned(references.path.parent)
    for sample in samples:
        reference = sample.reference
        target, answer = reference.target or "", cleaned.get(reference.id, reference.answer)
        if not _same(sample, target, answer, references.frame):
            yield f"{reference.id}: its answer is {target[:60]!r}, its source.answer {answer[:60]!r}"


def _is_as_written(path: Path) -> bool:
    """Whether a converted file is the one that the manifest beside it lists, by its SHA-256."""
    manifest = manifest_of(path)
    return manifest is not None and manifest.files[path.name].sha256 == file_sha256(path)


def _cleaned(folder: Path) -> dict[str, str]:
    """Id -> answer as `--clean` left it; empty where there is no report that can be read."""
    try:
        report = msgspec.json.decode((folder / _REPORT).read_bytes(), type=dict[str, Any])
        return {change["id"]: change["after"] for change in report.get("changes", []) if change["after"] is not None}
    except (OSError, msgspec.DecodeError, TypeError, KeyError):
        return {}


def _same(sample: Sample, target: str, answer: str, frame: Frame | None) -> bool:
    """Whether both texts mean the same, boxes to the rounding of the frame; any frame will do where it is not known."""
    trained, truth = (_parsed(sample, text) for text in (target, answer))
    if isinstance(trained.value, ParsedBoxes) and isinstance(truth.value, ParsedBoxes):
        size = sample.reference.image_size()
        frames = tuple(Frame) if frame is None else (frame,)
        named = sample.reference.task is Task.INSTANCE_DETECTION
        return any(_same_boxes(trained.value, truth.value, size, one, named=named) for one in frames)
    if isinstance(trained.value, tuple) and isinstance(truth.value, tuple):
        return {normal(label) for label in trained.value} == {normal(label) for label in truth.value}
    return normal(target) == normal(answer) or (trained.parsed and trained.value == truth.value)


def _parsed(sample: Sample, text: str) -> Answer:
    reference = sample.reference
    separator = label_separator(reference.dataset)
    return parse_answer(text, reference.task, question=reference.question, separator=separator)


def _same_boxes(trained: ParsedBoxes, truth: ParsedBoxes, size: Size | None, frame: Frame, *, named: bool) -> bool:
    """Whether the boxes, in any order, are equal, and their labels where these are scored."""
    if len(trained.boxes) != len(truth.boxes) or (size is None and frame != Frame.PIXEL):
        return False
    pixels = order_corners(truth.boxes)
    boxes = pixels if size is None else to_frame(pixels, size, frame)
    sides = [(order_corners(trained.boxes), trained.labels), (boxes, truth.labels)]
    ours, theirs = (sorted(zip(_names(labels, named), rows.tolist(), strict=True)) for rows, labels in sides)
    if [name for name, _ in ours] != [name for name, _ in theirs]:
        return False
    mine, other = (np.array([row for _, row in side]).reshape(-1, 4) for side in (ours, theirs))
    return bool(np.allclose(mine, other, rtol=0, atol=1.5 * 10.0 ** -DECIMALS[frame]))


def _names(labels: Sequence[str | None], named: bool) -> list[str]:
    return [normal(label or "") if named else "" for label in labels]


def references_elsewhere(samples: Sequence[Sample]) -> Iterator[tuple[str, Frame, list[str]]]:
    """Datasets whose reference boxes, taken together, fit another frame than pixels, with that and their ids."""
    by_dataset: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if isinstance(sample.truth.value, ParsedBoxes) and len(sample.truth.value.boxes):
            by_dataset[sample.reference.dataset].append(sample)
    for dataset, group in by_dataset.items():
        likely = likely_frame(list(_as_written(group[:: max(len(group) // _LOOKED_AT, 1)])))
        if likely not in (None, Frame.PIXEL):
            yield dataset, likely, [sample.reference.id for sample in group]


def _as_written(samples: Sequence[Sample]) -> Iterator[tuple[Boxes, Size]]:
    """Boxes of references that do not state their frame themselves, with the sizes of images that are known."""
    for sample in samples:
        parsed, size = parse_boxes(sample.reference.answer), sample.reference.image_size()
        if parsed.frame is None and size is not None:
            yield parsed.boxes, size
