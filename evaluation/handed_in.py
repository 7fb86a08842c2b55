"""What the challenge's scorer reads of a prediction file: the row it takes for a question, and the answer in it.

The rows are joined through two dicts keyed by `ImageName||Question` as written, so of equal keys the last reference
and the last prediction count, and neither a space behind a question nor another folder before a name is forgiven.
Files of a model's own texts are read as `medvl predict --challenge` would hand them in.
"""

from collections.abc import Hashable
from functools import cache
from typing import Any

import msgspec

from evaluation.samples import Joined, Prediction, Reference
from medvl.answers import challenge_text, parse_answer
from medvl.boxes import Frame, Size
from medvl.instructions import GENERAL
from medvl.postprocessing import to_hand_in
from medvl.profiles import read_profiles
from medvl.sources import label_separator
from medvl.tasks import Answer, Task

# Stands for the size of an image that is not known: pixel boxes need none but to be cut off at the image's edges.
_BOUNDLESS: Size = (1_000_000_000, 1_000_000_000)
_PROFILES = frozenset([*(task.value for task in Task), GENERAL])


def rows_taken(joined: Joined) -> list[Prediction | None]:
    """The row that the scorer takes for each reference, None for those that it does not see.

    Converted references and files of a model's own texts have no such key: their pairs are those of the strict rules,
    of several predictions the last.
    """
    rows = sorted(
        [*(row for _, row in joined.pairs if row is not None), *joined.duplicates, *joined.extra],
        key=lambda row: row.row,
    )
    by_key = {row.scorer_key: row for row in rows if row.scorer_key is not None}
    repeated = {(row.id, row.images, row.question): row for row in joined.duplicates}
    last = {_key(reference): place for place, (reference, _) in enumerate(joined.pairs)}
    taken: list[Prediction | None] = []
    for place, (reference, paired) in enumerate(joined.pairs):
        if by_key and reference.scorer_key is not None:
            row = by_key.get(reference.scorer_key)
        else:
            row = paired and repeated.get((paired.id, paired.images, paired.question), paired)
        taken.append(row if last[_key(reference)] == place else None)
    return taken


def _key(reference: Reference) -> Hashable:
    """What makes references one to the scorer, which reads one split at a time."""
    if reference.scorer_key is not None:
        return reference.split, reference.scorer_key
    names = tuple("/".join(name.replace("\\", "/").split("/")[-2:]) for name in reference.key_names)
    return reference.split, names, reference.question


def handed_in(reference: Reference, prediction: Prediction, frame: Frame | None) -> Any:
    """The answer that stands in the file handed in, any JSON value.

    Args:
        reference: Its question.
        prediction: A row of a prediction file.
        frame: Frame of its boxes; None if nothing tells, and there are none then.
    """
    text = prediction.text
    if prediction.generated and text is not None:
        name = prediction.profile if prediction.profile in _PROFILES else reference.task.value
        text, boxes = to_hand_in(
            text,
            _postprocessor(name),
            general=name == GENERAL,
            question=reference.question,
            separator=label_separator(reference.dataset),
        )
        return text if boxes is None else _in_pixels(boxes, text, reference, frame)
    if text is not None and reference.task.has_boxes and frame not in (None, Frame.PIXEL):
        boxes = parse_answer(text, reference.task)
        return _in_pixels(boxes, text, reference, frame) if boxes.parsed else text
    return text if prediction.value is msgspec.UNSET else prediction.value


@cache
def _postprocessor(name: str) -> str:
    """What the answers of a profile are checked for; a profiles file seldom has another one than the default."""
    return read_profiles(None)[name].postprocess


def _in_pixels(boxes: Answer, text: str, reference: Reference, frame: Frame | None) -> str:
    size = reference.image_size() or (_BOUNDLESS if frame == Frame.PIXEL else None)
    if frame is None or size is None:  # strict rules refuse such boxes; a text of another task is no box answer to them
        return text
    return challenge_text(boxes, text, size=size, frame=frame)
