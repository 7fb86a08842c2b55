"""Pascal VOC: a folder with an XML file per image, beside the images or in `Annotations/` beside `JPEGImages/`.

    <annotation><filename>a.jpg</filename><size><width>640</width><height>480</height><depth>3</depth></size>
      <object><name>RBC</name><truncated>0</truncated><difficult>0</difficult>
        <bndbox><xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object></annotation>

VOC counts pixels from 1, and both corners are inside: `xmin=11, xmax=40` are 30 pixels. Half-open from 0 that is 10 to
40: one is taken off xmin and ymin, and nothing off xmax and ymax. Some tools count from 0. Where any xmin or ymin of
the data is 0 none can be 1-based, and all boxes are taken as they stand, with a finding; `--pixels-from 0` says it of
others. A box without area has no place in this form: tools write one pixel for it.

Objects that are difficult or truncated are kept, with a finding. No object is a negative. An image without an XML file
is a row without an answer, which conversion drops and reports. `ImageSets/Main/train.txt` and folders named train,
valid or test say the split.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from medvl.boxes import Frame
from medvl.errors import DataError
from medvl.sources.tables.annotation_files import read_bytes, read_text, read_xml, split_below
from medvl.sources.tables.base import Table, columns_called, without_answer
from medvl.sources.tables.image_files import find_images, images_below, relative_to_all, visible

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_IMAGES = ("JPEGImages", "images", "Images", "imgs")
_MARKS = ("difficult", "truncated")


def holds(path: Path) -> bool:
    """Whether a file is of this form, or a folder has such files somewhere below."""
    return any(b"<annotation" in read_bytes(file) and b"<annotations" not in read_bytes(file) for file in _files(path))


def read(path: Path, images: Path | None = None, pixels_from: str | None = None) -> Table:
    """A row per XML file, and one per image that has none. Refused: files that are no XML, or no annotation.

    Args:
        path: A folder, or one XML file.
        images: Where the images lie; the usual places are looked at if None.
        pixels_from: What the files call the first pixel, `0` or `1`; told by all boxes if None.
    """
    root, refused, rows = path if path.is_dir() else path.parent, list[str](), list[dict[str, Any]]()
    splits = _listed_splits(root, refused)
    for file in _files(path):
        try:
            rows.append(_row(file, read_xml(file), splits.get(file.stem) or split_below(file, root)))
        except DataError as error:
            refused.append(str(error))
    folders = [images] if images else _image_folders(rows, root)
    paths = find_images([row["filename"] for row in rows], folders, [Path(row["file"]).stem for row in rows])
    if path.is_dir():
        for lonely in _without_file(paths, folders):
            rows.append(
                {"filename": lonely.name, "boxes": None, "label": None, "split": split_below(lonely, root.absolute())}
            )
            paths.append(lonely)
    folder, names = relative_to_all(paths, images or root)
    found_zero = any(0 in box[:2] for row in rows for box in row["boxes"] or () if isinstance(box, list))
    zero_based = pixels_from == "0" or (pixels_from is None and found_zero)
    rows = [
        {"image": name, **row, "boxes": row["boxes"] and [_half_open(box, zero_based) for box in row["boxes"]]}
        for name, row in zip(names, rows, strict=True)
    ]
    note = ("BOXES_FROM_ZERO", "an xmin or ymin is 0, so that all boxes are taken as half-open pixels from 0")
    return Table(
        path=path,
        rows=rows,
        columns=columns_called(rows, "image", "boxes", "label", "width", "height"),
        folder=folder,
        box_format="xyxy",
        frame=Frame.PIXEL,
        notes=(note,) if zero_based and not pixels_from else (),
        row_notes={place: notes for place, row in enumerate(rows) if (notes := _notes(row))},
        row_problems=without_answer(rows, "no XML file tells of this image"),
        refused=tuple(refused),
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".xml" else []
    return list(_xml_below(path)) if path.is_dir() else []


def _xml_below(folder: Path) -> Iterator[Path]:
    for path in visible(folder):
        if path.is_dir():
            yield from _xml_below(path)
        elif path.suffix.lower() == ".xml":
            yield path


def _listed_splits(root: Path, refused: list[str]) -> Mapping[str, str]:
    """File stem -> split, by `ImageSets/Main`; `trainval.txt` is two of them, and lists of a class say no split."""
    found: dict[str, str] = {}
    for split in ("train", "val", "test"):
        file = root / "ImageSets" / "Main" / f"{split}.txt"
        if not file.is_file():
            continue
        for line in read_text(file).splitlines():
            stem = line.strip()
            if stem and found.setdefault(stem, split) != split:
                refused.append(f"{file}: {stem} is listed in {found[stem]}.txt too; an image has one split")
            found.setdefault(re.sub(r"\s+-?[01]$", "", stem), split)  # some lists say whether a class is there
    return found


def _image_folders(rows: Sequence[Mapping[str, Any]], root: Path) -> list[Path]:
    """Beside each XML file; in a folder of images beside its folder; below the data."""
    homes = dict.fromkeys(Path(row["file"]).parent for row in rows)
    above = [folder for home in homes for folder in (home, home.parent)]
    return list(dict.fromkeys([*homes, *(folder / name for folder in above for name in _IMAGES), *above, root]))


def _without_file(paths: Sequence[Path], folders: Sequence[Path]) -> Iterator[Path]:
    """Images in the folders in which others lie that no XML file tells of."""
    known = {path.absolute() for path in paths}
    homes = {path.parent for path in paths if path.is_file()} & {folder.absolute() for folder in folders}
    for folder in sorted(homes):
        yield from (image for image in images_below(folder) if image.absolute() not in known)


def _row(file: Path, root: Element, split: str | None) -> dict[str, Any]:
    if root.tag != "annotation":
        raise DataError(f"{file}: expected <annotation>, as Pascal VOC has it, not <{root.tag}>")
    objects = root.findall("object")
    marks = {mark: [place for place, found in enumerate(objects) if _text(found, mark) not in ("", "0", "Unspecified")]
             for mark in _MARKS}  # fmt: skip
    return {
        "file": str(file),
        "filename": _text(root, "filename") or _text(root, "path") or file.stem,
        "width": _side(root, "width"),
        "height": _side(root, "height"),
        "boxes": [_corners(found) for found in objects],
        "label": [_text(found, "name") for found in objects],
        "split": split,
        **marks,
    }


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _side(root: Element, side: str) -> int | None:
    """A side of the image in pixels; tools that do not know it write 0."""
    text = _text(root, f"size/{side}")
    return (int(float(text)) or None) if text.replace(".", "", 1).isdigit() else None


def _corners(found: Element) -> Any:
    """The numbers of a box as they stand; the words where they are none."""
    words = [_text(found, f"bndbox/{corner}") for corner in _CORNERS]
    try:
        return [float(word) for word in words]
    except ValueError:
        return f"bndbox of {' '.join(words).strip() or 'nothing'}"


def _half_open(box: Any, zero_based: bool) -> Any:
    """Pixels from 0, half-open."""
    if zero_based or not isinstance(box, list):
        return box
    return [box[0] - 1, box[1] - 1, box[2], box[3]]


def _notes(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    marked = [f"{mark}: object {', '.join(map(str, row[mark]))}" for mark in _MARKS if row.get(mark)]
    return (("BOX_MARKED", "; ".join(marked)),) if marked else ()
