"""`--source-frame`: the frame that the boxes of a question file are in, as stated or, with `auto`, by their numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from medvl.answers import parse_answer
from medvl.box_text import ParsedBoxes, parse_boxes
from medvl.boxes import Boxes, Frame, Size, to_frame
from medvl.images import shown_size_of
from medvl.source_frames import SourceFrame, likely_frame
from medvl.sources.base import Sample, Source, SourceFile, image_path
from medvl.sources.places import OutsideError
from medvl.tasks import Task
from preprocess.options import Options
from preprocess.results import DatasetResult, Finding

_LOOKED_AT = 200  # rows of a file: they tell its frame, and parsing all would take seconds


def stated(options: Options, frame: SourceFrame) -> Options:
    """The options with the frame that the command line states; pixels for `auto`, until the files were looked at."""
    return options if frame == "auto" else replace(options, source_frame=frame)


def found(options: Options, rows: Mapping[SourceFile, Sequence[Sample]]) -> Options:
    """The options with the frame of every file whose numbers tell it; the others are in pixels, as in FLARE."""
    likely = {str(file.path): likely_frame(list(_answers(options.source, samples))) for file, samples in rows.items()}
    return replace(options, source_frames={path: frame for path, frame in likely.items() if frame})


def _answers(source: Source, samples: Sequence[Sample]) -> Iterable[tuple[Boxes, Size]]:
    """Boxes of some rows spread over a file, in its own numbers, with the sizes of the images they lie on."""
    with_boxes = [sample for sample in samples if sample.boxes is None and sample.task and sample.task.has_boxes]
    for sample in with_boxes[:: max(len(with_boxes) // _LOOKED_AT, 1)]:
        assert sample.task
        answer = parse_answer(sample.answer, sample.task).value
        size = _size(source, sample)
        if isinstance(answer, ParsedBoxes) and answer.frame is None and size is not None:
            yield answer.boxes, size


def _size(source: Source, sample: Sample) -> Size | None:
    try:
        return shown_size_of(image_path(source, sample.file, sample.images[0])) if sample.images else None
    except OutsideError:  # `convert` reports it
        return None


def findings(part: DatasetResult, options: Options, *, auto: bool) -> list[Finding]:
    """A finding about a file whose boxes, taken together, fit another frame than the one they were read in.

    With `auto`, one about a file that was read in another frame than pixels, or whose numbers tell nothing.
    """
    frame = options.source_frames.get(part.file, options.source_frame)
    records = [record for record in part.records if Task(record.task).has_boxes and record.source.answer]
    if not records:
        return []
    likely = options.source_frames.get(part.file) if auto else likely_frame(list(_read(part, frame)))
    if auto and likely != Frame.PIXEL:
        said = f"read as {frame}, by their numbers" if likely else "read as pixel: their numbers do not tell the frame"
    elif not auto and likely and likely != frame:
        said = f"read as {frame}, but all together they fit --source-frame {likely}"
    else:
        return []
    where = f"{options.name}/{part.split}/{part.category}/{part.dataset}"
    detail = f"{where}: the boxes of {len(records)} records are {said}"
    return [Finding(id=where, code="COORDINATE_RANGE", action="kept", detail=detail, file=part.file, index=-1)]


def _read(part: DatasetResult, frame: Frame) -> Iterable[tuple[Boxes, Size]]:
    """Boxes of some records in the numbers that their file was read in."""
    records = [record for record in part.records if Task(record.task).has_boxes]
    for record in records[:: max(len(records) // _LOOKED_AT, 1)]:
        size = record.source.sizes[0]
        yield to_frame(parse_boxes(record.source.answer).boxes, size, frame), size
