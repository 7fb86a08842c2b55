"""The files of a grounding set, read as scenes: JSON lists, JSON lines, a folder with a file per image, COCO."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from medvl.boxes import Frame, as_boxes
from medvl.errors import DataError
from medvl.sources.grounding_scenes import Objects, Scene, read_scene
from medvl.sources.tables import coco
from medvl.sources.tables.annotation_files import read_json, read_text
from medvl.sources.tables.image_files import visible

_LINES = ".jsonl"


def json_files(folder: Path) -> list[Path]:
    """The JSON files in a folder, sorted, without what tools leave behind."""
    return [path for path in visible(folder) if path.suffix.lower() in (".json", _LINES) and path.is_file()]


def read_scenes(path: Path, frame: Frame) -> list[Scene]:
    """The scenes of a file in its order, or of all files in a folder of files of one image each.

    Args:
        path: The file or folder.
        frame: Frame of the boxes. Those of COCO are in pixels.

    Raises:
        DataError: files that are no JSON, or neither a list of rows nor COCO; a line for each.
    """
    scenes, refused = list[Scene](), list[str]()
    for file in json_files(path) if path.is_dir() else [path]:
        try:
            scenes += _scenes(file, frame, len(scenes))
        except DataError as error:
            refused.append(str(error))
    if refused:
        raise DataError("\n".join(refused))
    return scenes


def is_of_one_image(path: Path) -> bool:
    """Whether a file is in the form of the challenge, which has one per image; not where it cannot be read."""
    try:
        content = read_json(path)
    except DataError:  # said when it is read
        return False
    return isinstance(content, dict) and "input_image" in content


def _scenes(file: Path, frame: Frame, before: int) -> Iterator[Scene]:
    """The scenes of one file, of which so many stand before it."""
    content = _lines(file) if file.suffix.lower() == _LINES else read_json(file)
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        yield from _of_coco(file, content, before)
        return
    rows = [content] if isinstance(content, dict) else content  # the challenge has a file per image
    if not isinstance(rows, list):
        raise DataError(f"{file}: expected a list of rows, a row of the GeoNLI challenge, or a COCO file")
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{file}: row {place} is {str(row)[:80]!r}; expected an object")
        yield read_scene(before + place, row, frame)


def _lines(file: Path) -> list[Any]:
    """The values of JSON lines; raises `DataError` with a line for each that is none."""
    values, refused = list[Any](), list[str]()
    for number, line in enumerate(read_text(file).split("\n"), 1):
        try:
            values += [msgspec.json.decode(line)] if line.strip() else []
        except (msgspec.DecodeError, RecursionError) as error:
            refused.append(f"{file}, line {number}: not JSON: {error}")
    if refused:
        raise DataError("\n".join(refused))
    return values


def _of_coco(file: Path, content: dict[str, Any], before: int) -> Iterator[Scene]:
    """A scene per image. Images without objects have none, which is an answer."""
    refused: list[str] = []
    rows = list(coco.image_rows(file, content | {"categories": content.get("categories", [])}, refused))
    if refused:
        raise DataError("\n".join(refused))
    for line, row in enumerate(rows, before):
        crowds = len(row["iscrowd"])
        try:
            boxes = as_boxes([[float(number) for number in box or ()] for box in row["boxes"]])
            if not np.isfinite(boxes).all():
                raise ValueError("a number that is not finite")
        except (ValueError, TypeError, OverflowError) as error:
            said = f"a box that is not x, y, width, height: {str(row['boxes'])[:120]} ({error})"
            yield Scene(row, line, row["file_name"], problem=said)
            continue
        boxes[:, 2:] += boxes[:, :2]
        notes = (("BOX_CROWD", f"{crowds} of the annotations of the image"),) if crowds else ()
        yield Scene(row, line, row["file_name"], Objects(boxes, tuple(row["label"]), Frame.PIXEL), notes=notes)
