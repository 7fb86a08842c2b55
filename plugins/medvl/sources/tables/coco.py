"""COCO: one JSON file, or a folder with one per split, with images, annotations and categories.

    {"images": [{"id": 7, "file_name": "a.png", "width": 640, "height": 480}, {"id": 8, "file_name": "b.png", …}],
     "categories": [{"id": 1, "name": "RBC"}],
     "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40], "iscrowd": 0},
                     {"id": 2, "image_id": 7, "category_id": 1, "segmentation": [[5, 5, 25, 5, 25, 30]]}]}

`bbox` is x, y, width, height in pixels. Where there is none, the box is drawn around the segmentation: polygons, or a
mask in either run-length form. An image without annotations is a negative. A crowd (`iscrowd`) is kept as the one box
that it is, with a finding: it encloses several objects.

A folder is read as the tools leave it: `annotations/instances_train2017.json` beside `train2017/` (COCO, CVAT,
FiftyOne), `train/_annotations.coco.json` among its images (Roboflow), or one file beside `images/`. Beside
`instances_*.json` the captions and keypoints of the same images are not read, with a finding.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvl.boxes import Frame
from medvl.errors import DataError
from medvl.sources.tables.annotation_files import read_bytes, read_json, several
from medvl.sources.tables.base import Table, columns_called
from medvl.sources.tables.image_files import find_images, relative_to_all, visible
from medvl.sources.tables.outlines import around_segmentation
from medvl.sources.tables.splits import split_in

_KEYS = ("images", "annotations", "categories")


def holds(path: Path) -> bool:
    """Whether a file is of this form, or a folder has some that are."""
    return bool(_files(path))


def read(path: Path, images: Path | None = None) -> Table:
    """A row per image. Refused: what has no image, category or name, by its id.

    Args:
        path: The file or folder.
        images: Where the images lie; the usual places are looked at if None.
    """
    files, refused, notes = _files(path), list[str](), list[tuple[str, str]]()
    if chosen := [file for file in files if file.name.startswith("instances_")]:
        notes += [("FILE_UNREAD", f"{file}: of the same images as instances_*.json") for file in files
                  if file not in chosen]  # fmt: skip
        files = chosen
    rows: list[dict[str, Any]] = []
    paths, classes = list[Path](), set[str]()
    row_notes: dict[int, tuple[tuple[str, str], ...]] = {}
    for file in files:
        try:
            content = read_json(file)
            found = list(image_rows(file, content, refused))
        except DataError as error:
            refused.append(str(error))
            continue
        classes |= _classes(content)
        split = split_in(file.stem) or (split_in(file.parent.name) if path.is_dir() and file.parent != path else None)
        folders = [images] if images else _image_folders(file, split)
        paths += find_images([row["file_name"] for row in found], folders)
        for row in found:
            if row["iscrowd"]:
                row_notes[len(rows)] = (("BOX_CROWD", f"{several(row['iscrowd'])} of the annotations of the image"),)
            rows.append(row | ({"split": split} if split else {}))
    folder, names = relative_to_all(paths, images or (path if path.is_dir() else path.parent))
    return Table(
        path=path,
        rows=[{"image": name, **row} for name, row in zip(names, rows, strict=True)],
        columns=columns_called(rows, "image", "boxes", "label", "width", "height"),
        folder=folder,
        box_format="xywh",
        frame=Frame.PIXEL,
        classes=tuple(sorted(classes)),
        notes=tuple(notes),
        row_notes=row_notes,
        refused=tuple(refused),
    )


def _files(path: Path) -> list[Path]:
    """The files of this form: the file itself; those in a folder, in its `annotations` and in those of its splits."""
    if path.is_file():
        return [path] if _looks_so(path) else []
    if not path.is_dir():
        return []
    folders = [path, *(folder for folder in visible(path) if folder.is_dir()
                       and (folder.name.lower() == "annotations" or split_in(folder.name)))]  # fmt: skip
    return [file for folder in folders for file in visible(folder) if _looks_so(file)]


def _looks_so(file: Path) -> bool:
    """Whether the keys are there; the file may be large, and is read in full only once."""
    if file.suffix.lower() != ".json" or not file.is_file():
        return False
    content = read_bytes(file)
    return all(f'"{key}"'.encode() in content for key in _KEYS) and content.lstrip()[:1] == b"{"


def _image_folders(file: Path, split: str | None) -> list[Path]:
    """Where images lie: among the annotations, in a folder `images`, or in one that is named like the split."""
    homes = [file.parent, file.parent.parent] if file.parent.name.lower() == "annotations" else [file.parent]
    own = file.stem.removeprefix("instances_")
    places = []
    for home in homes:
        beside = [folder for folder in visible(home) if folder.is_dir() and split_in(folder.name) == split and split]
        places += [home / own, home / "images" / own, *beside]
        places += [home / "images" / folder.name for folder in beside]
        places += [home / "images" / (split or ""), home / "images", home]
    return places


def image_rows(file: Path, content: Any, refused: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file, one per image; what belongs to none of them is refused."""
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _KEYS):
        raise DataError(f"{file}: expected an object with the lists {', '.join(_KEYS)}, as COCO has them")
    images = _by_id(file, "images", content["images"], "file_name", refused)
    categories = _by_id(file, "categories", content["categories"], "name", refused)
    of_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    unknown: dict[tuple[str, Any], list[Any]] = defaultdict(list)
    for place, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation, dict):
            refused.append(f"{file}: annotation {place} is {str(annotation)[:80]!r}; expected an object")
            continue
        image, category = annotation.get("image_id"), annotation.get("category_id")
        for key, value, known in (("image", image, images), ("category", category, categories)):
            if not isinstance(value, int | str) or value not in known:
                unknown[key, str(value)].append(annotation.get("id", f"at place {place}"))
                break
        else:
            of_image[image].append(annotation)
    refused += [
        f"{file}: no {key} has the id {value}, which {len(ids)} annotations name ({several(ids)}); "
        "add it, or remove them"
        for (key, value), ids in unknown.items()
    ]
    for name, image in images.items():
        yield _row(image, of_image[name], categories)


def _classes(content: Mapping[str, Any]) -> set[str]:
    """Names of the categories. Roboflow adds one above the others that nothing is of."""
    used = {annotation.get("category_id") for annotation in content["annotations"] if isinstance(annotation, dict)}
    known = [category for category in content["categories"] if isinstance(category, dict) and category.get("name")]
    above = {category.get("supercategory") for category in known}
    return {str(found["name"]) for found in known if found.get("id") in used or found["name"] not in above}


def _by_id(file: Path, kind: str, items: Sequence[Any], name: str, refused: list[str]) -> dict[Any, Mapping[str, Any]]:
    """Images or categories by their id."""
    found: dict[Any, Mapping[str, Any]] = {}
    for place, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("id"), int | str) or not item.get(name):
            refused.append(f"{file}: {kind}[{place}] is {str(item)[:80]!r}; expected an id and a {name}")
        elif item["id"] in found:
            refused.append(f"{file}: {kind} have the id {item['id']} twice: {found[item['id']][name]} and {item[name]}")
        else:
            found[item["id"]] = item
    return found


def _row(
    image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], categories: Mapping[Any, Any]
) -> dict[str, Any]:
    return {
        "file_name": str(image["file_name"]),
        "id": image["id"],
        "width": image.get("width"),
        "height": image.get("height"),
        "boxes": [_box(annotation, image) for annotation in annotations],
        "label": [str(categories[annotation["category_id"]]["name"]) for annotation in annotations],
        "iscrowd": [annotation.get("id") for annotation in annotations if annotation.get("iscrowd")],
    }


def _box(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> Any:
    """x, y, width, height; as it stands where it is something else, and None where there is nothing."""
    if annotation.get("bbox"):
        return annotation["bbox"]
    if not annotation.get("segmentation"):
        return None
    try:
        x1, y1, x2, y2 = around_segmentation(annotation["segmentation"], image["width"], image["height"])
    except (ValueError, KeyError, TypeError) as error:
        return f"{error}"
    return [x1, y1, x2 - x1, y2 - y1]
