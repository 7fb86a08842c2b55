"""The forms in which grounding sets are written, read as scenes: images with named boxes, questions with answers.

Made-up rows, as each form looks (TerraQuery and other entries to the GeoNLI challenge, whose numbers are from 0 to 1):

    objects     {"image": "6_0.png", "image_path": "Images_train/6_0.png", "caption": "Two ships.", "objects": [
                 {"class": "ship", "bbox_aabb": [0.55, 0.36, 0.7, 0.56], "obj_id": 0, "is_unique": true}, …]}
                 also bbox_aabb_computed (of full precision), bbox_obb or obbox (4 corners); is_sar
    turns       {"image": "a.png", "conversations": [{"from": "human", "value": "<image>\\nDetect all ships."},
                 {"from": "gpt", "value": "[0.1,0.2,0.3,0.4;0.5,0.5,0.6,0.7]"}]}
    question    {"image": "a.png", "task_type": "caption", "question": "Describe it.", "answer": "A harbor."}
    challenge   {"input_image": {"image_id": "a.png", "metadata": {…}}, "queries": {
                 "caption_query": {"instruction": "…", "response": "…"},
                 "grounding_query": {"instruction": "Locate ships", "response": [
                  {"object-id": "1", "obbox": [0.1, 0.1, 0.2, 0.1, 0.2, 0.3, 0.1, 0.3]}]},
                 "attribute_query": {"binary": {"instruction": "…", "response": "yes"}, …}}}
    COCO        {"images": […], "annotations": […], "categories": […]}      (pixels, x, y, width, height)
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from medvl.boxes import Boxes, Frame, as_boxes
from medvl.errors import DataError
from medvl.sources.base import Row
from medvl.tasks import Task

_CAPTION = re.compile(r"caption|describ|report", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """A question that a row holds, with its answer: text, or boxes of one name."""

    question: str
    task: Task
    answer: str = ""
    boxes: "Objects | None" = None


@dataclass(frozen=True)
class Objects:
    """What an image shows.

    Attributes:
        boxes: Shape (n, 4), `x_min, y_min, x_max, y_max`.
        labels: One per box; None where it has no name.
        frame: Frame of the numbers.
        corners: Shape (n, 8), `x1, y1, …, x4, y4` of oriented boxes; None where there are none.
    """

    boxes: Boxes
    labels: tuple[str | None, ...]
    frame: Frame
    corners: Boxes | None = None

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.boxes)

    def chosen(self, places: Sequence[int]) -> "Objects":
        """Some of them, in this order."""
        rows = np.array(places, dtype=np.intp)
        corners = None if self.corners is None else self.corners[rows]
        return Objects(self.boxes[rows], tuple(self.labels[place] for place in places), self.frame, corners)


@dataclass(frozen=True)
class Scene:
    """One image with what is known of it.

    Attributes:
        row: As it stands in the file.
        line: Its place there.
        image: Name of the image; empty if the row has none.
        objects: What it shows; None if the row does not say.
        asked: Questions of the row itself.
        problem: Why its objects or questions cannot be used.
    """

    row: Row
    line: int
    image: str
    objects: Objects | None = None
    asked: tuple[Asked, ...] = ()
    problem: str | None = field(default=None)


def read_scenes(path: Path) -> list[Scene]:
    """The scenes of a file in its order, or of all files in a folder of files of one image each.

    Raises:
        DataError: it is not JSON, or neither a list of rows nor a COCO file.
    """
    if path.is_dir():
        return [
            _scene(line, row)
            for line, row in enumerate(row for file in sorted(path.glob("*.json")) for row in _rows(file))
        ]
    return [_scene(line, row) for line, row in enumerate(_rows(path))]


def is_of_one_image(path: Path) -> bool:
    """Whether a file is in the form of the challenge, which has one per image."""
    content = _json(path)
    return isinstance(content, dict) and "input_image" in content


def _json(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error


def _rows(path: Path) -> list[dict[str, Any]]:
    content = _json(path)
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        content = list(_from_coco(content, path))
    if isinstance(content, dict):  # the challenge has a file per image
        content = [content]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise DataError(f"{path}: expected a list of rows, a row of the GeoNLI challenge, or a COCO file")
    return content


def _scene(line: int, row: Row) -> Scene:
    image = _image(row)
    try:
        if "objects" in row:
            asked = _asked(row) if {"question", "answer"} <= row.keys() else ()
            return Scene(row, line, image, _objects(row["objects"]), (*asked, *_caption(row)))
        return Scene(row, line, image, None, tuple(_asked(row)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return Scene(row, line, image, problem=f"{type(error).__name__}: {error}"[:200])


def _image(row: Row) -> str:
    """The longest name that a row gives its image: `image_path` has the folder too."""
    inside = row.get("input_image") if isinstance(row.get("input_image"), dict) else {}
    names = [row.get("image_path"), row.get("image"), row.get("file_name"), dict(inside or {}).get("image_id")]
    return next((name for name in names if isinstance(name, str) and name.strip()), "")


def _objects(listed: Any, default: str | None = None) -> Objects:
    """The boxes of a list of objects: axis-aligned ones where they are given, else those around oriented ones."""
    boxes, labels, corners = [], [], []
    frames = {str(item.get("frame", "norm1")) for item in listed}
    for item in listed:
        oriented = item.get("bbox_obb") or item.get("obbox")
        turned = None if oriented is None else np.asarray(oriented, dtype=np.float64).reshape(8)
        straight = item.get("bbox_aabb_computed") or item.get("bbox_aabb") or item.get("bbox")
        if straight is None and turned is None:
            raise ValueError(f"an object without a box: {str(item)[:80]}")
        around = (
            [] if turned is None else [turned[::2].min(), turned[1::2].min(), turned[::2].max(), turned[1::2].max()]
        )
        boxes.append([float(value) for value in (around if straight is None else straight)])
        name = str(item.get("class") or item.get("label") or item.get("category") or default or "").strip()
        labels.append(name or None)
        corners.append(turned)
    known = [turned for turned in corners if turned is not None]
    frame = Frame.PIXEL if frames == {"pixel"} else Frame.NORM1
    return Objects(
        as_boxes(boxes), tuple(labels), frame, np.array(known) if known and len(known) == len(boxes) else None
    )


def _asked(row: Row) -> Iterator[Asked]:
    if isinstance(queries := row.get("queries"), dict):
        yield from _of_challenge(queries)
    elif {"question", "answer"} <= row.keys():
        yield _answered(str(row["question"]), row["answer"], str(row.get("task_type", "")))
    elif isinstance(turns := row.get("conversations"), list):
        said = [(str(turn["from"]), str(turn["value"])) for turn in turns]
        if [speaker for speaker, _ in said] != ["human", "gpt"]:
            raise ValueError(f"expected a human turn and a gpt turn, found {[speaker for speaker, _ in said]}")
        yield _answered(said[0][1].replace("<image>", "").strip(), said[1][1], str(row.get("task_type", "")), row)
    else:
        raise ValueError(f"neither objects nor a question in it: {', '.join(row)}")


def _answered(question: str, answer: Any, kind: str, row: Row | None = None) -> Asked:
    """A question with its answer, whose text may be boxes: `[x1,y1,x2,y2;x1,y1,x2,y2]`."""
    text = str(answer).strip()
    if re.fullmatch(r"\[[\d\s.,;eE+-]*\]", text):
        rows = [[float(value) for value in part.split(",")] for part in text.strip("[]").split(";") if part.strip()]
        label = str((row or {}).get("class") or "").strip() or None
        return Asked(question, Task.DETECTION, boxes=Objects(as_boxes(rows), (label,) * len(rows), Frame.NORM1))
    return Asked(question, Task.REPORT if _CAPTION.search(kind) else Task.VQA, text)


def _of_challenge(queries: Mapping[str, Any]) -> Iterator[Asked]:
    if caption := queries.get("caption_query"):
        yield Asked(str(caption["instruction"]), Task.REPORT, str(caption.get("response") or ""))
    if grounding := queries.get("grounding_query"):
        yield Asked(str(grounding["instruction"]), Task.DETECTION, boxes=_objects(grounding.get("response") or []))
    for kind, attribute in (queries.get("attribute_query") or {}).items():
        response = attribute.get("response")
        task = Task.COUNTING if kind == "numeric" and isinstance(response, int) else Task.VQA
        yield Asked(str(attribute["instruction"]), task, "" if response is None else str(response))


def _caption(row: Row) -> Iterator[Asked]:
    if isinstance(row.get("caption"), str) and row["caption"].strip():
        yield Asked("Describe this image.", Task.REPORT, str(row["caption"]).strip())


def _from_coco(content: Mapping[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """A row per image of a COCO file. Images without objects have none, which is an answer."""
    names = {category["id"]: category["name"] for category in content.get("categories", [])}
    objects: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    images = {image["id"] for image in content["images"]}
    for annotation in content["annotations"]:
        if annotation["image_id"] not in images:
            raise DataError(
                f"{path}: annotation {annotation.get('id')} is of image {annotation['image_id']}, not listed"
            )
        x, y, width, height = annotation["bbox"]
        label = names.get(annotation.get("category_id"))
        box = {"class": label, "bbox_aabb": [x, y, x + width, y + height], "frame": "pixel"}
        objects[annotation["image_id"]].append(box)
    for image in content["images"]:
        yield {"image": image["file_name"], "objects": objects[image["id"]]} | (
            {"is_sar": image["is_sar"]} if "is_sar" in image else {}
        )
