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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvl.answers import answer_text
from medvl.boxes import Boxes, Frame, as_boxes
from medvl.sources.base import Row
from medvl.tasks import Task

_CAPTION = re.compile(r"caption|describ|report", re.IGNORECASE)
# [x1,y1,x2,y2;x1,y1,x2,y2], or a list of lists.
_BOXES = re.compile(r"\[[\d\s.,;eE+\-\[\]]*\]")


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
        notes: Codes and details of what is odd about it.
    """

    row: Row
    line: int
    image: str
    objects: Objects | None = None
    asked: tuple[Asked, ...] = ()
    problem: str | None = None
    notes: tuple[tuple[str, str], ...] = ()


def read_scene(line: int, row: Row, frame: Frame) -> Scene:
    """A row as a scene; what cannot be used is its problem. `frame` is that of its boxes."""
    image = _image(row)
    try:
        objects = _objects(row["objects"], frame) if "objects" in row else None
        asked = (*_asked(row, frame), *_captions(row))
        if objects is None and not asked:
            raise ValueError(f"neither objects nor a question in it: {', '.join(row)}")
        return Scene(row, line, image, objects, asked)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        return Scene(row, line, image, problem=f"{type(error).__name__}: {error}"[:200])


def _image(row: Row) -> str:
    """The longest name that a row gives its image: `image_path` has the folder too."""
    inside = row.get("input_image") if isinstance(row.get("input_image"), dict) else {}
    names = [row.get("image_path"), row.get("image"), row.get("file_name"), dict(inside or {}).get("image_id")]
    return next((name for name in names if isinstance(name, str) and name.strip()), "")


def _objects(listed: Any, frame: Frame) -> Objects:
    """The boxes of a list of objects: axis-aligned ones where they are given, else those around oriented ones."""
    boxes, labels, corners = [], [], []
    for item in listed:
        oriented = item.get("bbox_obb") or item.get("obbox")
        turned = None if oriented is None else np.asarray(oriented, dtype=np.float64).reshape(8)
        straight = item.get("bbox_aabb_computed") or item.get("bbox_aabb") or item.get("bbox")
        if straight is None and turned is None:
            raise ValueError(f"an object without a box: {str(item)[:80]}")
        around = (
            [] if turned is None else [turned[::2].min(), turned[1::2].min(), turned[::2].max(), turned[1::2].max()]
        )
        boxes.append([_number(value) for value in (around if straight is None else straight)])
        labels.append(_class(item))
        corners.append(turned)
    known = [turned for turned in corners if turned is not None]
    return Objects(
        as_boxes(boxes), tuple(labels), frame, np.array(known) if known and len(known) == len(boxes) else None
    )


def _class(item: Mapping[str, Any]) -> str | None:
    """The name of an object; a number where classes have no other. None where there is nothing."""
    given = next((item[key] for key in ("class", "label", "category") if item.get(key) not in (None, "")), "")
    if not isinstance(given, str | int) or isinstance(given, bool):
        raise ValueError(f"a class that is no name: {str(given)[:80]}")
    return " ".join(str(given).split()) or None


def _number(value: Any) -> float:
    """A coordinate; what JSON writers make of missing numbers is none."""
    number = float(value)
    if isinstance(value, bool) or not np.isfinite(number):
        raise ValueError(f"{value!r} among the numbers of a box")
    return number


def _asked(row: Row, frame: Frame) -> Iterator[Asked]:
    """The questions that stand in a row."""
    if "queries" in row:
        yield from _of_challenge(row["queries"], frame)
    if "question" in row:
        yield _answered(_text(row["question"]), row.get("answer"), row, frame)
    if "conversations" in row:
        said = [(str(turn["from"]), _text(turn["value"])) for turn in row["conversations"]]
        if [speaker for speaker, _ in said] != ["human", "gpt"]:
            raise ValueError(f"expected a human turn and a gpt turn, found {[speaker for speaker, _ in said]}")
        yield _answered(said[0][1].replace("<image>", "").strip(), said[1][1], row, frame)


def _text(value: Any) -> str:
    """A value as text; nothing for null."""
    return "" if value is None else answer_text(value).strip()


def _answered(question: str, answer: Any, row: Row, frame: Frame) -> Asked:
    """A question with its answer, whose text may be boxes."""
    text = _text(answer)
    if _BOXES.fullmatch(text):
        parts = [part.strip("[], \t\n") for part in re.split(r"[;\]]", text)]
        rows = [[_number(value) for value in part.split(",")] for part in parts if part]
        return Asked(question, Task.DETECTION, boxes=Objects(as_boxes(rows), (_class(row),) * len(rows), frame))
    return Asked(question, Task.REPORT if _CAPTION.search(str(row.get("task_type", ""))) else Task.VQA, text)


def _of_challenge(queries: Mapping[str, Any], frame: Frame) -> Iterator[Asked]:
    if caption := queries.get("caption_query"):
        yield Asked(_text(caption["instruction"]), Task.REPORT, _text(caption.get("response")))
    if grounding := queries.get("grounding_query"):
        response = grounding.get("response")  # null where the answer is held back; an empty list is an answer
        boxes = None if response is None else _objects(response, frame)
        yield Asked(_text(grounding["instruction"]), Task.DETECTION, boxes=boxes)
    for kind, attribute in (queries.get("attribute_query") or {}).items():
        response = attribute.get("response")
        counted = kind == "numeric" and isinstance(response, int) and not isinstance(response, bool)
        yield Asked(_text(attribute["instruction"]), Task.COUNTING if counted else Task.VQA, _text(response))


def _captions(row: Row) -> Iterator[Asked]:
    """A caption, or each of several."""
    given = row.get("caption") or []
    for caption in [given] if isinstance(given, str) else given:
        if not isinstance(caption, str):
            raise ValueError(f"a caption that is no text: {str(caption)[:80]}")
        if caption.strip():
            yield Asked("Describe this image.", Task.REPORT, caption.strip())
