"""CVAT for images 1.1: one XML file, or a folder with those of several jobs or tasks.

    <annotations><version>1.1</version>
      <image id="0" name="a.png" subset="train" width="640" height="480">
        <box label="RBC" occluded="0" xtl="10.00" ytl="20.00" xbr="40.00" ybr="60.00" z_order="0"/>
        <polygon label="WBC" points="68.0,315.0;286.0,320.0;180.0,480.0" z_order="0"/></image></annotations>

Numbers are pixels, half-open. A box may have a `rotation`. The boxes around polygons, polylines, masks, ellipses,
cuboids, skeletons and rotated boxes are used, with a finding. A single point has no box: the image is set aside, since
the others alone would say that nothing is there. Tags of an image and attributes stay in the row; tags are its answer
where no image has a shape. An image without shapes is a negative. The subset is the split.

An image that several jobs annotate is one row with the shapes of all; conversion takes equal ones for one object.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from medvl.boxes import Frame
from medvl.errors import DataError
from medvl.sources.base import Problem
from medvl.sources.tables.annotation_files import read_bytes, read_xml
from medvl.sources.tables.base import Table, columns_called
from medvl.sources.tables.image_files import find_images, relative_to_all, visible
from medvl.sources.tables.outlines import Box, around, around_ellipse, around_rotated
from medvl.sources.tables.splits import split_in


def holds(path: Path) -> bool:
    """Whether a file is of this form, or a folder has such files, or folders with them."""
    return bool(_files(path))


def read(path: Path, images: Path | None = None) -> Table:
    """A row per image. Refused: files that are no XML, videos, shapes without a label or place.

    Args:
        path: The file or folder.
        images: Where the images lie; beside the file, or in `images` there, if None.
    """
    rows: dict[str, dict[str, Any]] = {}
    root_folder = path if path.is_dir() else path.parent
    classes: set[str] = set()
    refused, homes = list[str](), [root_folder / "images", root_folder]
    for file in _files(path):
        homes += [file.parent / "images", file.parent]
        try:
            root = read_xml(file)
            if root.find("track") is not None:
                raise DataError(f"{file}: tracks of a video; export it as CVAT for images 1.1")
            classes |= {(label.findtext("name") or "").strip() for label in root.iterfind("meta//labels/label")}
            for image in root.findall("image"):
                _add(rows, image, file, refused)
        except DataError as error:
            refused.append(str(error))
    paths = find_images(list(rows), [images] if images else homes)
    folder, names = relative_to_all(paths, images or root_folder)
    listed = [{"image": name, **row} for name, row in zip(names, rows.values(), strict=True)]
    shaped = any(row["boxes"] or row["points"] for row in listed)
    tagged = not shaped and any(row["tags"] for row in listed)
    columns = columns_called(listed, "image", "width", "height", *(() if tagged else ("boxes", "label")))
    return Table(
        path=path,
        rows=listed,
        columns=columns | {"answer": "tags"} if tagged else columns,
        folder=folder,
        box_format="xyxy",
        frame=Frame.PIXEL,
        classes=() if tagged else tuple(sorted(filter(None, classes))),
        row_notes={place: notes for place, row in enumerate(listed) if (notes := _notes(row))},
        row_problems={place: problem for place, row in enumerate(listed) if (problem := _problem(row))},
        refused=tuple(refused),
    )


def _files(path: Path) -> list[Path]:
    """The file; those of a folder and of the folders in it, one per job."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".xml" and b"<annotations" in read_bytes(path) else []
    if not path.is_dir():
        return []
    inside = visible(path)
    return [file for part in inside for file in (visible(part) if part.is_dir() else [part]) if file.is_file()
            and file.suffix.lower() == ".xml" and b"<annotations" in read_bytes(file)]  # fmt: skip


def _add(rows: dict[str, dict[str, Any]], image: Element, file: Path, refused: list[str]) -> None:
    """Add an image to the rows, or its shapes to the row of another job."""
    name, size = image.get("name", ""), [_whole(image.get(side)) for side in ("width", "height")]
    if not name:
        refused.append(f"{file}: image {image.get('id')} has no name")
        return
    row = rows.setdefault(
        name,
        {"id": image.get("id"), "name": name, "file": str(file), "width": size[0], "height": size[1],
         "split": split_in(image.get("subset") or ""), "subset": image.get("subset"), "boxes": [], "label": [],
         "shapes": [], "points": [], "tags": []},
    )  # fmt: skip
    if [row["width"], row["height"]] != size:
        refused.append(
            f"{file}: {name} is {size[0]} x {size[1]}, and {row['width']} x {row['height']} in {row['file']}"
        )
    for shape in image:
        label, kind = shape.get("label"), shape.tag
        if not label:
            refused.append(f"{file}: a {kind} in {name} has no label")
        elif kind == "tag":
            row["tags"] += [label] if label not in row["tags"] else []
        else:
            _add_shape(row, shape, label, file, refused)


def _add_shape(row: dict[str, Any], shape: Element, label: str, file: Path, refused: list[str]) -> None:
    if shape.tag not in _SHAPES:
        refused.append(f"{file}: {shape.tag} {label!r} in {row['name']}: known are {', '.join(_SHAPES)}")
        return
    try:
        box = _SHAPES[shape.tag](shape)
    except (TypeError, ValueError) as error:
        refused.append(f"{file}: {shape.tag} {label!r} in {row['name']}: {error}; expected its place in pixels")
        return
    if box is None:
        row["points"].append(label)
        return
    row["boxes"].append(box)
    row["label"].append(label)
    row["shapes"].append("rotated box" if _rotation(shape) and shape.tag == "box" else shape.tag)


def _number(shape: Element, name: str) -> float:
    value = shape.get(name)
    if value is None:
        raise ValueError(f"no {name}")
    return float(value)


def _rotation(shape: Element) -> float:
    return float(shape.get("rotation") or 0)


def _of_box(shape: Element) -> Box:
    box = [_number(shape, name) for name in ("xtl", "ytl", "xbr", "ybr")]
    return around_rotated(box, _rotation(shape)) if _rotation(shape) else box


def _points(shape: Element) -> list[tuple[float, float]]:
    written = shape.get("points") or ""
    points = [point.split(",") for point in written.split(";") if point]
    return [(float(x), float(y)) for x, y in points]


def _of_points(shape: Element) -> Box | None:
    """The box around points; None for a single one, which has no extent."""
    points = _points(shape)
    if not points:
        raise ValueError("no points")
    return around(points) if len(points) > 1 else None


def _of_mask(shape: Element) -> Box:
    left, top, width, height = (_number(shape, name) for name in ("left", "top", "width", "height"))
    return [left, top, left + width, top + height]


def _of_ellipse(shape: Element) -> Box:
    x, y, radius_x, radius_y = (_number(shape, name) for name in ("cx", "cy", "rx", "ry"))
    return around_ellipse(x, y, radius_x, radius_y, _rotation(shape))


def _of_cuboid(shape: Element) -> Box:
    corners = [f"{corner}{face}" for corner in ("tl", "tr", "bl", "br") for face in (1, 2)]
    return around([(_number(shape, f"x{corner}"), _number(shape, f"y{corner}")) for corner in corners])


def _of_skeleton(shape: Element) -> Box | None:
    points = [point for part in shape.findall("points") if part.get("outside") != "1" for point in _points(part)]
    return around(points) if len(points) > 1 else None


_SHAPES: Mapping[str, Callable[[Element], Box | None]] = {
    "box": _of_box,
    "polygon": _of_points,
    "polyline": _of_points,
    "points": _of_points,
    "mask": _of_mask,
    "ellipse": _of_ellipse,
    "cuboid": _of_cuboid,
    "skeleton": _of_skeleton,
}


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _notes(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    drawn = sorted({shape for shape in row["shapes"] if shape != "box"})
    return (("BOX_OUTLINE", f"boxes around {', '.join(drawn)}"),) if drawn else ()


def _problem(row: Mapping[str, Any]) -> Problem | None:
    if not row["points"]:
        return None
    return Problem("answer", "ANSWER_UNUSABLE", f"a single point has no box: {', '.join(row['points'])}")
