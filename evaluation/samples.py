"""Samples: references and what was predicted for them, both understood, boxes in pixels."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from evaluation.frames import to_pixels
from evaluation.join import Joined
from evaluation.predictions import DataError
from evaluation.references import Reference
from medvl.answers import Answer, parse_answer
from medvl.box_text import ParsedBoxes
from medvl.boxes import Frame, Size
from medvl.choices import normal, options
from medvl.per_image import tells_images_apart
from medvl.tasks import Task, label_separator


@dataclass(frozen=True)
class Sample:
    """One reference and its prediction.

    Attributes:
        reference: The question and its right answer.
        truth: The right answer, parsed; not parsed where the reference is dirty (FLARE's endo holds `T` and `A B`).
        text: The model's text, None if there is none.
        answer: The model's answer, parsed.
        exact: Whether the text is the reference's own, apart from case and spaces, and means the same.
        later: Text of the last further prediction for the same question, None if there is none. Strict rules take the
            first; scorers that join through a dict take the last.
        null: Whether there is a prediction whose answer is null, which strict rules call missing.
        judged: Report metric -> score by a model (`evaluation.judges`), NaN where the judge could not be understood.
        in_pixels: Whether boxes in `text` are pixels, so that a scorer that takes texts as they are can read them.
    """

    reference: Reference
    truth: Answer
    text: str | None
    answer: Answer
    exact: bool
    later: str | None = None
    in_pixels: bool = True
    null: bool = False
    judged: Mapping[str, float] = field(default_factory=dict)

    @property
    def invalid(self) -> bool:
        """Whether there is no answer that can be scored. The reference's own text always can."""
        return not (self.exact or self.answer.parsed)

    @property
    def scorable(self) -> bool:
        """Whether an error can be measured: not against a number that cannot be read. Other answers are just wrong."""
        return self.truth.parsed or not self.reference.task.is_number


def make_samples(joined: Joined, frame: Frame | None) -> list[Sample]:
    """Parse both sides of every pair.

    Args:
        joined: References with predictions.
        frame: Frame of predicted boxes; None if nothing tells.

    Raises:
        DataError: boxes were predicted and their frame, or a size it needs, is not known.
    """
    labels = _free_labels(reference for reference, _ in joined.pairs)
    later = {(row.id, row.images, row.question): row.text for row in joined.duplicates}
    samples = []
    for reference, prediction in joined.pairs:
        truth = _known_image(_parse(reference.answer, reference, labels), reference)
        truth = to_pixels(truth, "pixel", _size_if_needed(truth, reference), reference.id)
        text = prediction.text if prediction else None
        answer = _predicted(_parse(text, reference, labels), reference, frame)
        exact = text is not None and _squeezed(text) == _squeezed(reference.answer)
        if reference.task.has_boxes and truth.parsed and frame != "pixel":
            exact = False  # the reference is in pixels: the same numbers in another frame are other boxes
        if exact and not answer.parsed and truth.parsed:
            answer = truth
        again = later.get((prediction.id, prediction.images, prediction.question)) if prediction else None
        null = prediction is not None and text is None
        samples.append(Sample(reference, truth, text, answer, exact, again, frame in (None, "pixel"), null))
    return samples


def _known_image(truth: Answer, reference: Reference) -> Answer:
    """The right answer, unless it has boxes on several images: as those of the first they would be other boxes."""
    boxes = truth.value
    if isinstance(boxes, ParsedBoxes) and tells_images_apart(boxes, reference.answer, reference.images, reference.task):
        return Answer(truth.task, None, "boxes_per_image")
    return truth


def _size_if_needed(truth: Answer, reference: Reference) -> Size | None:
    """The size of the picture where a reference is in other numbers than pixels; it may mean to open a file."""
    stated = isinstance(truth.value, ParsedBoxes) and truth.value.frame is not None
    return reference.picture_size() if stated else None


def _predicted(answer: Answer, reference: Reference, frame: Frame | None) -> Answer:
    if isinstance(answer.value, float) and not math.isfinite(answer.value):
        return Answer(answer.task, None, "not_finite")
    if not (reference.task.has_boxes and answer.parsed):
        return answer
    stated = answer.value.frame if isinstance(answer.value, ParsedBoxes) else None
    if frame is None and stated is None:
        raise DataError(
            f"{reference.id}: the frame of its predicted boxes is not known, there is no manifest.json beside the "
            "references; name it with --frame norm1000, --frame norm1 or --frame pixel"
        )
    return to_pixels(answer, frame or "pixel", reference.picture_size(), reference.id)


def _parse(text: str | None, reference: Reference, labels: dict[str, tuple[str, ...]]) -> Answer:
    return parse_answer(
        text,
        reference.task,
        question=reference.question,
        labels=labels.get(reference.dataset, ()),
        separator=label_separator(reference.dataset),
    )


def _free_labels(references: Iterable[Reference]) -> dict[str, tuple[str, ...]]:
    """Labels of classifications without lettered options (FLARE's CMMD), by dataset, as its references have them."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for reference in references:
        if reference.task is Task.CLASSIFICATION and not options(reference.question):
            found[reference.dataset][normal(reference.answer)] = None
    return {dataset: tuple(sorted(labels)) for dataset, labels in found.items()}


def _squeezed(text: str) -> str:
    return " ".join(text.split()).casefold()
