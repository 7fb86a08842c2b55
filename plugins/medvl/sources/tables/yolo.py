"""YOLO: a text file per image, a line per object, with or without a `data.yaml`; sides are shares of the image's.

    images/train/a.jpg      labels/train/a.txt: 0 0.0391 0.0833 0.0469 0.0833       class, centre x and y, width, height
    data.yaml: {path: ., train: images/train, val: images/val, names: {0: RBC, 1: WBC}}

A line of more numbers is an outline: a polygon (class, x1, y1, x2, y2, x3, y3, …), or an oriented box, which is a
polygon of four corners. Its box is the one around it, with a finding. With `kpt_shape` in data.yaml, what follows the
box are keypoints, with a finding. A line of class, box and confidence is a prediction, no label, and refused by name.

An empty text file is a negative. An image without one is a row without an answer, which conversion drops and reports. A
text file without an image is a row whose image is missing. Names come from `data.yaml`, else from `classes.txt` or
`obj.names`; a class without a name is refused: a number is no name.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medvl.boxes import Frame
from medvl.sources.tables.annotation_files import read_bytes, several
from medvl.sources.tables.base import Table, columns_called, without_answer
from medvl.sources.tables.image_files import images_below, relative_to_all, visible
from medvl.sources.tables.splits import split_in
from medvl.sources.tables.yolo_files import (
    YAML,
    class_names,
    is_label,
    labels_of,
    read_yaml_file,
    split_images,
    yaml_in,
)
from medvl.sources.tables.yolo_lines import Labels, read_labels


def holds(path: Path) -> bool:
    """Whether a path is a `data.yaml` of this form, or a folder with one, or with labels beside images."""
    if path.is_file():
        return path.suffix.lower() in YAML and b"names" in read_bytes(path)
    return path.is_dir() and (yaml_in(path) is not None or any(map(is_label, _texts_below(path))))


def read(path: Path, images: Path | None = None) -> Table:
    """A row per image. Refused: classes without a name, and folders that data.yaml names and that are not there.

    Args:
        path: The folder, or its data.yaml.
        images: Where the images lie, in the same folders as the text files; those named above if None.
    """
    refused: list[str] = []
    root = path if path.is_dir() else path.parent
    content = read_yaml_file(path if path.is_file() else yaml_in(path), refused)
    splits = split_images(root, content, images, refused)
    rows, paths, notes = list[dict[str, Any]](), list[Path](), dict[int, tuple[tuple[str, str], ...]]()
    names, unnamed = class_names(content, root), defaultdict[int, list[Path]](list)
    for image, label, split in _pairs(splits, root, images):
        found = read_labels(label, keypoints=bool(content.get("kpt_shape"))) if label else None
        if found and found.notes:
            notes[len(rows)] = found.notes
        refused += found.refused if found else ()
        for kind in found.classes if found else ():
            if kind not in names and label:
                unnamed[kind].append(label)
        rows.append(_row(found, names, split) | ({"file": str(label)} if label else {}))
        paths.append(image)
    unlisted = [] if images else [image for image in images_below(root.absolute()) if image not in splits]
    said = f"{len(unlisted)} images of no split that data.yaml names: {several(unlisted, 3)}"
    known = f"names from {min(names)} to {max(names)}" if names else "no names"
    refused += [
        f"{several(dict.fromkeys(labels))}: the class {kind} has no name; data.yaml or classes.txt has {known}"
        for kind, labels in sorted(unnamed.items())
    ]
    folder, image_names = relative_to_all(paths, images or root)
    return Table(
        path=path,
        rows=[{"image": name, **row} for name, row in zip(image_names, rows, strict=True)],
        columns=columns_called(rows, "image", "boxes", "label"),
        folder=folder,
        box_format="cxcywh",
        frame=Frame.NORM1,
        classes=tuple(names.values()),
        notes=(("FILE_UNREAD", said),) if unlisted else (),
        row_notes=notes,
        row_problems=without_answer(rows, "no text file beside this image"),
        refused=tuple(refused),
    )


def _pairs(
    splits: Mapping[Path, str | None], root: Path, images: Path | None
) -> Iterator[tuple[Path, Path | None, str | None]]:
    """Image, its text file and its split; then the text files that no image has, with an image that is nowhere."""
    used: set[Path] = set()
    for image, split in splits.items():
        label = next((label for label in labels_of(image, root, images) if label.is_file()), None)
        used.update([label] if label else [])
        yield image, label, split
    for home in dict.fromkeys(label.parent for label in sorted(used)) or _label_folders(root):
        for label in visible(home):
            if label.suffix.lower() == ".txt" and label not in used and is_label(label):
                yield label.with_suffix(".jpg"), label, split_in(home.name)


def _label_folders(root: Path) -> list[Path]:
    """Folders with labels below the data."""
    return sorted({text.absolute().parent for text in _texts_below(root) if is_label(text)})


def _texts_below(folder: Path) -> Iterator[Path]:
    for path in visible(folder):
        if path.is_dir():
            yield from _texts_below(path)
        elif path.suffix.lower() == ".txt":
            yield path


def _row(found: Labels | None, names: Mapping[int, str], split: str | None) -> dict[str, Any]:
    if found is None:
        return {"boxes": None, "label": None, "split": split}
    return {"boxes": found.boxes, "label": [names.get(kind, str(kind)) for kind in found.classes], "split": split}
