"""Boxes as text: writing them in the styles models are trained on, and one tolerant parser for all of them.

Numbers are written and read in the frame of the text (`medvl.boxes.Frame`); this module does not convert.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from medvl.box_brackets import Found
from medvl.box_scanner import Scanner
from medvl.box_words import NOISE_LABEL
from medvl.boxes import DECIMALS, Boxes, Frame, Size, as_boxes, from_frame

BoxStyle = Literal["json", "internvl", "flare", "qwen_vl1", "map"]
BOX_STYLES: tuple[BoxStyle, ...] = get_args(BoxStyle)

# An answer longer than this is a model gone wrong; what lies behind is not read, and noted as `overlong`.
MAX_CHARACTERS = 1_000_000

# Notes of the parser that stand for a box it refused or cut to size.
REFUSED = ("truncated", "number_count", "not_finite", "lone_corner", "too_large", "mask", "rotated", "mixed_frames")
# Notes for what stands beside the boxes and is in none of them, or makes them doubtful: a model's answer is read
# all the same, a dataset's is set aside. All other notes are repairs.
UNREAD = ("label_count", "words_unread", "empty_beside", "numbers_unread", "coco_sides")


def format_boxes(
    boxes: Boxes, labels: Sequence[str | None], style: BoxStyle, frame: Frame, *, empty_labels: Sequence[str] = ()
) -> str:
    """Boxes as one line of text.

    Args:
        boxes: Shape (n, 4), already in `frame`.
        labels: One per box; None where the object has no name. To be read back, a label must hold no `<` in the two
            tagged styles, and in `map` be no word that names boxes, labels or outlines themselves
            (`medvl.box_words.STRUCTURAL_KEYS`).
        style: `json` is Qwen3-VL's `[{"bbox_2d":[…],"label":"…"}]`; `internvl` `<ref>…</ref><box>[[…]]</box>`; `flare`
            the challenge's nested list; `qwen_vl1` `<ref>…</ref><box>(x1,y1),(x2,y2)</box>`; `map` the challenge's
            instance answers, `{"label": [[…], …]}`.
        frame: Decides how many decimals are written.
        empty_labels: Names of which there is no box; `json` and `flare` have no place for them.

    Raises:
        ValueError: labels and boxes differ in number, `map` has a box without a label, or a number is not finite.
    """
    if len(labels) != len(boxes):
        raise ValueError(f"{len(boxes)} boxes but {len(labels)} labels")
    rows = _rows(boxes, DECIMALS[frame])
    groups: dict[str | None, list[list[float]]] = {}
    for row, label in zip(rows, labels, strict=True):
        groups.setdefault(label, []).append(row)
    for name in empty_labels:
        groups.setdefault(name, [])
    if style == "json":
        objects = [{"bbox_2d": row} | ({} if label is None else {"label": label})
                   for row, label in zip(rows, labels, strict=True)]  # fmt: skip
        return _dump(objects)
    if style == "flare":
        return json.dumps(rows)
    if style == "map":
        if None in groups:
            raise ValueError("style 'map' needs a label for every box")
        return _dump(groups)
    if not groups:
        return "<box>[]</box>" if style == "internvl" else "<box></box>"
    # Boxes without a name come first: after a name they would be read as its own.
    ordered = sorted(groups.items(), key=lambda item: item[0] is not None)
    return "".join(_tagged(label, group, style) for label, group in ordered)


def _tagged(label: str | None, rows: list[list[float]], style: BoxStyle) -> str:
    name = "" if label is None else f"<ref>{label}</ref>"
    if style == "internvl":
        return f"{name}<box>{_dump(rows)}</box>"
    if not rows:
        return f"{name}<box></box>"
    return "".join(f"{name}<box>({x1},{y1}),({x2},{y2})</box>" for x1, y1, x2, y2 in rows)


# No space after comma or colon: it would be a token of its own between any two numbers.
_dump = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _rows(boxes: Boxes, decimals: int) -> list[list[float]]:
    """Numbers as they are written: rounded, whole ones without a decimal point."""
    if not np.isfinite(boxes).all():
        raise ValueError(f"a box has a number that is not finite: {boxes.tolist()}")
    return [[_number(value, decimals) for value in box] for box in boxes.tolist()]


def _number(value: float, decimals: int) -> float:
    rounded = round(value, decimals)
    return int(rounded) if math.isfinite(rounded) and rounded == int(rounded) else rounded


@dataclass(frozen=True)
class ParsedBoxes:
    """Boxes found in a text.

    Attributes:
        boxes: Shape (n, 4), in the order and with the numbers of the text (nothing clipped, nothing reordered).
        labels: One per box, None where the text names none.
        notes: How often something was repaired, refused or left unread, by code; `REFUSED` and `UNREAD` list the codes
            that are no repairs.
        explicit_empty: Whether the text held an empty list or map.
        frame: The frame that the text itself states (`box_2d` means 0-1000), whatever its file is said to be in; None
            where it states none.
        empty_labels: Names of which the text says that there is no box.
    """

    boxes: Boxes
    labels: tuple[str | None, ...]
    notes: dict[str, int] = field(default_factory=dict)
    explicit_empty: bool = False
    frame: Frame | None = None
    empty_labels: tuple[str, ...] = ()

    def pixels(self, size: Size, frame: Frame) -> Boxes:
        """The boxes in pixels of an image, shape (n, 4), not clipped; `frame` is that of a text that states none."""
        return from_frame(self.boxes, size, self.frame or frame)

    @property
    def parsed(self) -> bool:
        """Whether the text is a box answer: it has boxes, or says that there are none."""
        return len(self.boxes) > 0 or (self.explicit_empty and not any(code in self.notes for code in REFUSED))


def in_pixels(parsed: ParsedBoxes, size: Size, frame: Frame, *, maps: bool) -> tuple[ParsedBoxes, str]:
    """Boxes of a dataset in pixels, and as text: in the nested lists of FLARE where these have a place for their names.

    Args:
        parsed: As the dataset has them.
        size: (width, height) of their image, pixels.
        frame: Their frame, unless their text states one.
        maps: Whether they answer an instance detection, which names every object.
    """
    pixels = replace(parsed, boxes=parsed.pixels(size, frame), frame=None)
    named = [label for label in pixels.labels if label is not None]
    plain = not (named or maps or pixels.empty_labels)
    style: BoxStyle = "flare" if plain else "map" if len(named) == len(pixels.labels) else "json"
    return pixels, format_boxes(pixels.boxes, pixels.labels, style, Frame.PIXEL, empty_labels=pixels.empty_labels)


def parse_boxes(text: str, *, keep_noise: bool = False) -> ParsedBoxes:
    """All boxes in a model's text, whatever its style: fenced, quoted, truncated, keyed, tagged or in prose.

    Reads every style that `format_boxes` writes, corner pairs, keyed corners and sides, flat lists, and four bare
    numbers that are the whole answer. Time is linear in the text's length. Never raises.

    Boxes of `medvl.box_words.NOISE_LABEL` are left out, and counted in the note `noise`; `keep_noise` for who rewrites
    the text itself.

    >>> parse_boxes('Sure: [{"bbox_2d": [1, 2, 3, 4], "label": "lesion"}, {"bbox_2d": [5, 6').notes
    {'truncated': 1}
    """
    if len(text) <= MAX_CHARACTERS and (plain := _parse_plain(text)):
        return plain
    scanner = Scanner(_unquote(text[:MAX_CHARACTERS]))
    scanner.run()
    found, frame = _in_one_frame(scanner)
    notes = {code: count for code, count in sorted(scanner.notes.items()) if count}
    if len(text) > MAX_CHARACTERS:
        notes["overlong"] = 1
    labels = tuple(item.label for item in found)
    nothing = [scope.name_of_nothing(key) or reference for scope, key, reference in scanner.nothing]
    empty = tuple(name for name in dict.fromkeys(nothing) if name is not None and name not in labels)
    boxes = as_boxes([item.numbers for item in found])
    parsed = ParsedBoxes(boxes, labels, notes, scanner.explicit_empty, frame, empty)
    return parsed if keep_noise else _without_noise(parsed)


def _without_noise(parsed: ParsedBoxes) -> ParsedBoxes:
    """The answer without what it calls noise; with nothing else in it, it says that there is nothing."""
    objects = [place for place, label in enumerate(parsed.labels) if label is None or label.strip() != NOISE_LABEL]
    drawn = len(parsed.labels) - len(objects)
    empty = tuple(name for name in parsed.empty_labels if name.strip() != NOISE_LABEL)
    if not drawn and empty == parsed.empty_labels:
        return parsed
    return replace(
        parsed,
        boxes=parsed.boxes[objects],
        labels=tuple(parsed.labels[place] for place in objects),
        notes=parsed.notes | ({"noise": drawn} if drawn else {}),
        explicit_empty=parsed.explicit_empty or not objects,
        empty_labels=empty,
    )


def _in_one_frame(scanner: Scanner) -> tuple[list[Found], Frame | None]:
    """The boxes, and their frame if the text states one; of both kinds in one text, those whose frame is certain."""
    stated = [item for item in scanner.found if item.y_first]
    if 0 < len(stated) < len(scanner.found):
        scanner.notes["mixed_frames"] += len(scanner.found) - len(stated)
    return (stated, Frame.NORM1000) if stated else (scanner.found, None)


_DIGITS = r"-?(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,9})?"
_ROW = r"\[" + r",\s?".join([_DIGITS] * 4) + r"\]"
_ROWS = rf"\[{_ROW}(?>(?:,\s?{_ROW})*)\]"
_KEYED_ROWS = rf'"(?:[0-9]{{1,2}}|[A-Z])":\s?{_ROWS}'
_PLAIN = re.compile(rf"(?:{_ROWS}|\{{{_KEYED_ROWS}(?>(?:,\s?{_KEYED_ROWS})*)\}})")


def _parse_plain(text: str) -> ParsedBoxes | None:
    """What the scanner finds in answers as FLARE's own are written, forty times as fast; None for any other text."""
    if not _PLAIN.fullmatch(text):
        return None
    value = json.loads(text, object_pairs_hook=list)  # a key may come twice
    groups: list[tuple[str | None, list[list[float]]]] = value if text[0] == "{" else [(None, value)]
    boxes = as_boxes([row for _, rows in groups for row in rows])
    inverted = int((boxes[:, :2] > boxes[:, 2:]).any(axis=1).sum())
    labels = tuple(label for label, rows in groups for _ in rows)
    return ParsedBoxes(boxes, labels, {"inverted": inverted} if inverted else {})


def _unquote(text: str) -> str:
    """The content of an answer that is one JSON string."""
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] == '"':
        try:
            return str(json.loads(stripped))
        except json.JSONDecodeError:
            return text
    return text
