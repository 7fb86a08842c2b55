"""Which frame predicted boxes are in, and from there to pixels of the original image."""

from dataclasses import replace
from pathlib import Path

from PIL import Image

from medvl.box_text import ParsedBoxes
from medvl.boxes import Frame, Size, order_corners
from medvl.errors import DataError
from medvl.images import shown_size
from medvl.sharegpt import MANIFEST, file_sha256, manifest_of
from medvl.tasks import Answer


def read_frame(path: Path) -> tuple[Frame | None, tuple[str, ...]]:
    """The frame that the manifest beside a converted file names, and a note if the file has changed since.

    Raises:
        DataError: the manifest is damaged or names an unknown frame.
    """
    manifest = manifest_of(path)
    if manifest is None:
        # Left by an earlier run, perhaps with another frame.
        note = f"{path} is not listed in {MANIFEST} beside it; the frame of its boxes is not known"
        return None, (note,) if (path.parent / MANIFEST).is_file() else ()
    stated = manifest.options.frame
    try:
        frame = None if stated is None else Frame(stated)
    except ValueError as error:
        raise DataError(f"{path.parent / MANIFEST}: {error}") from error
    changed = manifest.files[path.name].sha256 not in (None, file_sha256(path))
    note = f"{path} has changed since {MANIFEST} was written; its frame may not hold"
    return frame, ((note,) if changed else ())


def size_on_disk(path: Path) -> Size | None:
    """(width, height) of an image as a viewer shows it, from its header; None if it is not there or not an image."""
    try:
        with Image.open(path) as image:
            return shown_size(image)
    except (OSError, Image.DecompressionBombError):  # Pillow's "cannot identify" is an OSError
        return None


def to_pixels(answer: Answer, frame: Frame, size: Size | None, name: str) -> Answer:
    """A box answer in pixels of the first image, corners in order; any other answer as it is.

    Nothing is clipped: a box that leaves its image was predicted so. With several images the boxes lie on the
    first, as in FLARE's own answers.

    Args:
        answer: Parsed, boxes in `frame`.
        frame: Frame of boxes whose text states none itself (`box_2d` does: 0-1000).
        size: (width, height) of the first image, pixels; not needed for pixel boxes.
        name: Names the record in the error.

    Raises:
        DataError: the frame needs a size and there is none.
    """
    if not isinstance(answer.value, ParsedBoxes):
        return answer
    boxes, own = answer.value.boxes, answer.value.frame or frame
    if own != Frame.PIXEL:
        if size is None:
            raise DataError(
                f"{name}: {own} boxes, but the size of its image is not known; score against the converted file "
                "or a tree with its images, or run with --frame pixel if the boxes are pixels"
            )
        boxes = answer.value.pixels(size, frame)
    return replace(answer, value=replace(answer.value, boxes=order_corners(boxes), frame=None))
