"""The challenge's predictions.json: every question's own row, untouched but for its `Answer`."""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from PIL import Image

from medvl.answers import challenge_text
from medvl.boxes import Frame, Size
from medvl.errors import DataError, UsageError
from medvl.images import FORMATS, shown_size
from medvl.instructions import GENERAL
from medvl.postprocessing import to_hand_in
from medvl.predict.questions import Question, source_rows
from medvl.predict.writer import Row
from medvl.profiles import Profiles
from medvl.sharegpt import write_atomic
from medvl.sources import label_separator


def check_challenge(path: Path, questions: Sequence[Question]) -> None:
    """Raise what would keep `write_challenge` from writing these questions to `path`, before they are answered.

    Raises:
        DataError: a question's row is not where its record says; several questions come from one row; or `path` is a
            question file.
        UsageError: no file can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(f"{path}: cannot be written to ({error.strerror}); choose another --challenge") from error
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; --challenge names a file")
    for _ in source_rows(questions):
        pass
    places = Counter((question.file, question.index) for question in questions)
    (file, index), count = places.most_common(1)[0]
    if count > 1:
        raise DataError(
            f"{file}, row {index}: {count} records come from it (copies, or one per image), and the challenge takes "
            "one answer per row; give the tree as --data"
        )
    if path.resolve() in {file.resolve() for file, _ in places}:
        raise DataError(f"{path}: it is a file of questions, which would be overwritten; choose another --challenge")


def write_challenge(path: Path, questions: Sequence[Question], rows: Mapping[str, Row], profiles: Profiles) -> None:
    """Write the rows of all questions, in their order; `Answer` is empty where there is no prediction.

    Raises:
        DataError: a question's row is not where its record says.
    """
    answered = [
        row | {"Answer": answer_for(question, rows, profiles)}
        for question, row in zip(questions, source_rows(questions), strict=True)
    ]
    write_atomic(path, msgspec.json.format(msgspec.json.encode(answered), indent=2) + b"\n")


def answer_for(question: Question, rows: Mapping[str, Row], profiles: Profiles) -> str:
    """The text to hand in: tidied as the question's profile says, boxes in pixels of the original image."""
    row = rows.get(question.id)
    if row is None or row.error is not None:
        return ""
    text, boxes = to_hand_in(
        row.prediction,
        profiles[row.task].postprocess,
        general=row.task == GENERAL,
        question=question.text,
        separator=label_separator(question.dataset),
    )
    if boxes is None or not question.images:
        return text
    return challenge_text(boxes, row.prediction, size=_size(question), frame=_frame(row))


def _frame(row: Row) -> Frame:
    try:
        return Frame(row.frame)
    except ValueError as error:
        raise DataError(f"{row.id}: {error}") from error


def _size(question: Question) -> Size:
    """(width, height) of the first image as the model was shown it, pixels."""
    if question.size is not None:
        return question.size
    with Image.open(question.images[0], formats=FORMATS) as image:
        return shown_size(image)
