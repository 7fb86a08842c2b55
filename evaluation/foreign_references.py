"""References from chat files that another tool made: read as they are, ids given, boxes in the frame that they tell."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from evaluation.frames import size_on_disk
from evaluation.rows import other_fields, refuse
from evaluation.samples import Reference, References
from medvl.box_text import ParsedBoxes, in_pixels, parse_boxes
from medvl.boxes import Frame, Size
from medvl.errors import DataError
from medvl.sharegpt import file_sha256
from medvl.source_frames import likely_frame
from medvl.sources.foreign_records import ForeignRecord, said_of_tasks
from medvl.tasks import Task


def foreign_references(path: Path, records: Sequence[ForeignRecord]) -> References:
    """The questions of a chat file that have answers.

    Raises:
        DataError: one cannot be used, or the frame of the boxes is open.
    """
    refuse([f"{record.id}: {record.problem}" for record in records if record.problem])
    answered = [record for record in records if record.answer.strip()]
    sizes = {record.id: cache(partial(size_on_disk, record.images[0])) for record in answered if record.images}
    boxed = [record for record in answered if record.task.has_boxes and record.id in sizes]
    frame = _frame_of_all(path, [(parse_boxes(record.answer), sizes[record.id]) for record in boxed])
    said = said_of_tasks(path, answered)
    return References(
        path=path,
        kind="records",
        items=tuple(_reference(path, record, sizes.get(record.id, lambda: None), frame) for record in answered),
        files={path: file_sha256(path)},
        frame=frame,
        unanswered=len(records) - len(answered),
        notes=(said,) if said else (),
    )


def _reference(path: Path, record: ForeignRecord, size: Callable[[], Size | None], frame: Frame | None) -> Reference:
    answer = record.answer
    if frame and record.task.has_boxes and (shown := size()):
        maps = record.task is Task.INSTANCE_DETECTION
        answer = in_pixels(parse_boxes(answer), shown, frame, maps=maps)[1]
    return Reference(
        id=record.id,
        task=record.task,
        dataset=path.stem,
        question=record.question,
        images=tuple(map(str, record.images)),
        answer=answer,
        target=record.answer,
        image_size=size,
        row=record.index,
        fields=other_fields(record.row),
        image=lambda: record.images[0] if record.images else None,
    )


def _frame_of_all(path: Path, answers: Sequence[tuple[ParsedBoxes, Callable[[], Size | None]]]) -> Frame | None:
    """The frame of all boxes of a file; None where there are none. Raises `DataError` if their numbers do not tell."""
    boxed = [(parsed, size()) for parsed, size in answers if len(parsed.boxes)]
    if not boxed:
        return None
    stated = {parsed.frame for parsed, _ in boxed}
    silent = [(parsed.boxes, size) for parsed, size in boxed if size and parsed.frame is None]
    frame = stated.pop() if len(stated) == 1 and None not in stated else likely_frame(silent)
    if frame is None:
        raise DataError(
            f"{path}: the frame of its boxes is unclear, and scores depend on it; convert the file with "
            "preprocess/table.py --source-frame pixel, norm1 or norm1000, then predict and score what that writes"
        )
    return frame
