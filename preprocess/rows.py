"""One sample of a source to one record, or to the coded reason why not."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from medvl.boxes import Frame, Size
from medvl.errors import Refused
from medvl.errors import RowRefusedError as _RefusedError
from medvl.question_boxes import Rewritten, rewrite
from medvl.sharegpt import Record, RecordError, make_record
from medvl.sharegpt import Source as RecordSource
from medvl.sources.base import Sample, Source, image_path
from medvl.sources.places import OutsideError
from preprocess import boxes
from preprocess.decoding import ImageInfo
from preprocess.options import Options
from preprocess.results import Action, Finding
from preprocess.targets import refuse, source_answer, target, task_of

Images = Mapping[str, ImageInfo]  # by their names in the row
Item = TypeVar("Item")


def convert(sample: Sample, images: Images, options: Options) -> tuple[Record | None, list[Finding]]:
    """One row as a record, with what there is to know about it.

    Args:
        sample: The row.
        images: What was found where its names lead.
        options: Frame, style and policy.

    Returns:
        The record, or None if it was dropped or quarantined, and its findings.
    """
    findings: list[Finding] = []

    def note(code: str, detail: str, action: Action = "kept") -> None:
        where = f"{options.name}/{sample.id}"
        detail = detail.removeprefix(f"{where}: ").removeprefix(f"{sample.id}: ")  # some errors begin with it
        findings.append(
            Finding(
                id=where,
                code=code,
                action=action,
                detail=f"{where}: {detail}",
                file=str(sample.file.path),
                index=sample.index,
            )
        )

    try:
        usable, titles = [], []
        refuse(sample, "images")
        shown = spread(tuple(zip(sample.images, sample.titles or sample.images, strict=True)), options.max_images)
        names = tuple(name for name, _ in shown)
        if len(names) < len(sample.images):
            note("IMAGES_THINNED", f"{len(names)} of {len(sample.images)} images: {', '.join(names)}")
        for image, (_, title) in zip(_images(sample, names, images, options), shown, strict=True):
            for code, detail in image.notes:
                note(code, detail)
            if image.size:
                usable.append((image.path, image.size))
                titles.append(title)
            else:
                note("IMAGE_DROPPED", image.detail)
        answer, notes = target(sample, usable[0][1] if usable else None, options)
        for code, detail in (*sample.notes, *notes):
            note(code, detail)
        asked = rewrite(sample.question, [size for _, size in usable], options.frame_of(sample), options.frame)
        for code, detail in boxes.question_notes(asked, sample.question, options.frame):
            note(code, detail)
        if not sample.titles:
            numbered = options.number_images and len(usable) > 1
            titles = [f"Image-{place}" for place in range(1, len(usable) + 1)] if numbered else []
        return _record(sample, asked, answer, usable, titles, options), findings
    except _RefusedError as refused:
        note(refused.code, refused.detail, refused.action)
        return None, findings


def spread(names: tuple[Item, ...], count: int | None) -> tuple[Item, ...]:
    """At most `count` of the names, evenly spaced from the first to the last.

    >>> spread(("a", "b", "c", "d", "e"), 3)
    ('a', 'c', 'e')
    """
    if count is None or count >= len(names):
        return names
    if count == 1:  # boxes refer to the first image
        return names[:1]
    return tuple(names[round(place * (len(names) - 1) / (count - 1))] for place in range(count))


def _images(sample: Sample, names: tuple[str, ...], images: Images, options: Options) -> list[ImageInfo]:
    try:
        found = [images[name] for name in names]
    except KeyError:
        raise _no_image(sample, names, options.source) from None
    unusable = [image for image in found if image.size is None]
    if unusable and (options.on_missing != "keep-sample-drop-image" or not _can_stand_in(sample, found)):
        action: Refused = "dropped" if unusable[0].problem == "IMAGE_MISSING" else "quarantined"
        raise _RefusedError(unusable[0].problem or "", action, "; ".join(image.detail for image in unusable))
    return found


def _can_stand_in(sample: Sample, found: list[ImageInfo]) -> bool:
    """Whether the usable images do without the others. Boxes lie on the first: on another they enclose nothing."""
    has_boxes = sample.task is not None and sample.task.has_boxes
    return any(image.size for image in (found[:1] if has_boxes else found))


def _no_image(sample: Sample, names: tuple[str, ...], source: Source) -> _RefusedError:
    """Why a name of an image was not even looked up: it leads out of the dataset's folder."""
    for name in names:
        try:
            image_path(source, sample.file, name)
        except OutsideError as error:
            return _RefusedError("IMAGE_OUTSIDE", "quarantined", str(error))
    raise KeyError(f"{sample.id}: {names} was not looked at")


def _record(
    sample: Sample,
    asked: Rewritten,
    answer: str,
    images: Sequence[tuple[str, Size]],
    titles: Sequence[str],
    options: Options,
) -> Record:
    frame, size = options.frame_of(sample), images[0][1] if images else None
    # Who asks from these records starts from the question as it stands in the source.
    kept = asked.boxes and (asked.text != sample.question or frame != Frame.PIXEL)
    source = RecordSource(
        split=sample.file.split.folder,
        file=str(sample.file.path),
        index=sample.index,
        sizes=[size for _, size in images],
        answer=source_answer(sample, size, options),
        names=list(sample.images),
        question=sample.question if kept else msgspec.UNSET,
        frame=frame if kept and frame != Frame.PIXEL else msgspec.UNSET,
        row=msgspec.UNSET if sample.line is None else sample.line,
        reference=msgspec.UNSET if sample.target is None else sample.target,
        group=sample.group or msgspec.UNSET,
        oriented=boxes.oriented(sample, size),
    )
    try:
        return make_record(
            question=asked.text,
            answer=answer,
            images=[path for path, _ in images],
            id=f"{options.name}/{sample.id}",
            task=str(task_of(sample)),
            dataset=sample.dataset,
            source=source,
            titles=titles,
        )
    except RecordError as error:
        raise _RefusedError("LITERAL_TAG", "quarantined", str(error)) from error
