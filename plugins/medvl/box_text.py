"""Boxes as text: writing them in the styles models are trained on, and one tolerant parser for all of them.

Numbers are written and read in the frame of the text (`medvl.boxes.Frame`); this module does not convert.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from medvl.boxes import DECIMALS, Boxes, Frame, as_boxes

BoxStyle = Literal["json", "internvl", "flare", "qwen_vl1", "map"]
BOX_STYLES: tuple[BoxStyle, ...] = get_args(BoxStyle)

# An answer longer than this is a model gone wrong; what lies behind is not read, and noted as `overlong`.
MAX_CHARACTERS = 1_000_000

# Notes of the parser that stand for a box it refused; all others are repairs.
REFUSED = ("truncated", "number_count", "not_finite", "lone_corner")


def format_boxes(boxes: Boxes, labels: Sequence[str | None], style: BoxStyle, frame: Frame) -> str:
    """Boxes as one line of text.

    Args:
        boxes: Shape (n, 4), already in `frame`.
        labels: One per box; None where the object has no name. To be read back, a label must hold no `<` in the two
            tagged styles, and in `map` be no word that names boxes or labels themselves ("bbox", "label").
        style: `json` is Qwen3-VL's `[{"bbox_2d":[…],"label":"…"}]`; `internvl` `<ref>…</ref><box>[[…]]</box>`; `flare`
            the challenge's nested list; `qwen_vl1` `<ref>…</ref><box>(x1,y1),(x2,y2)</box>`; `map` the challenge's
            instance answers, `{"label": [[…], …]}`.
        frame: Decides how many decimals are written.

    Raises:
        ValueError: labels and boxes differ in number, or `map` has a box without a label.
    """
    if len(labels) != len(boxes):
        raise ValueError(f"{len(boxes)} boxes but {len(labels)} labels")
    rows = _rows(boxes, DECIMALS[frame])
    groups: dict[str | None, list[list[float]]] = {}
    for row, label in zip(rows, labels, strict=True):
        groups.setdefault(label, []).append(row)
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
    return "".join(f"{name}<box>({x1},{y1}),({x2},{y2})</box>" for x1, y1, x2, y2 in rows)


# No space after comma or colon: it would be a token of its own between any two numbers.
_dump = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _rows(boxes: Boxes, decimals: int) -> list[list[float]]:
    """Numbers as they are written: rounded, whole ones without a decimal point."""
    if decimals == 0:
        whole: list[list[float]] = np.rint(boxes).astype(np.int64).tolist()
        return whole
    return [[_number(value, decimals) for value in box] for box in boxes.tolist()]


def _number(value: float, decimals: int) -> float:
    rounded = round(value, decimals)
    return int(rounded) if rounded == int(rounded) else rounded


@dataclass(frozen=True)
class ParsedBoxes:
    """Boxes found in a text.

    Attributes:
        boxes: Shape (n, 4), in the order and with the numbers of the text (nothing clipped, nothing reordered).
        labels: One per box, None where the text names none.
        notes: How often something was repaired or refused, by code; `REFUSED` lists the codes of refusals.
        explicit_empty: Whether the text held an empty list or map.
    """

    boxes: Boxes
    labels: tuple[str | None, ...]
    notes: dict[str, int] = field(default_factory=dict)
    explicit_empty: bool = False

    @property
    def parsed(self) -> bool:
        """Whether the text is a box answer: it has boxes, or says that there are none."""
        return len(self.boxes) > 0 or (self.explicit_empty and not any(code in self.notes for code in REFUSED))


_TOKEN = re.compile(
    r"""(?P<ref><ref>[^<]*</ref>|<\|object_ref_start\|>[^<]*<\|object_ref_end\|>)
      | (?P<nothing><box></box>|<\|box_start\|><\|box_end\|>)
      | (?P<tag><box>|<\|box_start\|>)
      | (?P<open>[\[({]) | (?P<close>[\])}])
      | (?P<number>(?<![\w.])[-+]?(?:[0-9]++(?>(?:\.[0-9]*+)?)|\.[0-9]++)(?>(?:[eE][-+]?[0-9]++)?)(?!\w))
      | (?P<quote>"|(?<!\w)')""",
    re.VERBOSE,
)  # atomic everywhere: a failing match costs its own length only. `(...)*+` errs before Python 3.11.5
_STRING = {
    '"': re.compile(r'"((?>(?:[^"\\\n]++|\\.)*))"'),
    "'": re.compile(r"'((?>(?:[^'\\\n]++|\\.|(?<=\w)'(?=\w))*))'(?!\w)"),  # an apostrophe inside a word closes nothing
}
_KEY_FOLLOWS = re.compile(r"\s*:")
_OPENING = re.compile(r"[\[({]")
_BOXES_INSIDE = re.compile(r"""[\[({]\s*[\[({"'0-9.-]""")
_BARE = re.compile(r"\s*" + r"[,;\s]+".join([r"([-+]?[0-9]+(?:\.[0-9]+)?)"] * 4) + r"\.?\s*")

_BOX_KEYS = {"bbox_2d", "bbox", "bboxes", "box", "boxes", "box_2d", "coordinates", "coordinate", "bounding_box",
             "bounding_boxes", "location", "locations", "position", "positions"}  # fmt: skip
_LABEL_KEYS = {"label", "name", "class", "class_name", "category", "type", "cell_type", "object", "structure", "id",
               "identifier", "chromosome", "chromosome_id", "chromosome_number", "chromosome_type"}  # fmt: skip
_CORNER_KEYS = {"x1": 0, "y1": 1, "x2": 2, "y2": 3, "x_min": 0, "y_min": 1, "x_max": 2, "y_max": 3, "xmin": 0,
                "ymin": 1, "xmax": 2, "ymax": 3, "left": 0, "top": 1, "right": 2, "bottom": 3}  # fmt: skip
_SIDE_KEYS = {"x": 0, "y": 1, "width": 2, "height": 3, "w": 2, "h": 3}
_STRUCTURAL_KEYS = _BOX_KEYS | _LABEL_KEYS  # these name no object; "x" and "y" may: they are chromosomes
_DEPTH = 3  # strings in strings that are looked into


@dataclass(eq=False, slots=True)
class _Bracket:
    """An open bracket, or the text outside of all (`kind` "")."""

    kind: str
    start: int
    parent: "_Bracket | None" = None  # the nearest bracket that can hold keys
    parent_key: str | None = None  # its key when this one was opened
    key: str | None = None
    label: str | None = None
    numbers: list[float] = field(default_factory=list)
    keyed: dict[str, float] = field(default_factory=dict)
    corners: list[float] = field(default_factory=list)
    empty: bool = True

    def name(self, key: str | None) -> str | None:
        """The label of a box under `key`: an explicit label, else the key unless it is a structural word."""
        scope: _Bracket | None = self
        for _ in range(8):  # nobody nests labels deeper; bounded so that hostile nesting stays linear
            if scope is None:
                return None
            if scope.label is not None:
                return scope.label
            if key is not None and key.lower() not in _STRUCTURAL_KEYS:
                return key
            key, scope = scope.parent_key, scope.parent
        return None


class _Scanner:
    """One pass over the text; every character is looked at a bounded number of times."""

    def __init__(self, text: str, root: _Bracket | None = None, depth: int = 0) -> None:
        self.text = text
        self.depth = depth
        self.root = root or _Bracket("", 0)
        self.stack = [self.root]
        self.found: list[tuple[list[float], _Bracket, str | None, str | None]] = []
        self.notes: Counter[str] = Counter()
        self.explicit_empty = False
        self.reference: str | None = None  # the last <ref>…</ref>
        self.no_string_before = {'"': 0, "'": 0}

    def run(self) -> None:
        position = 0
        while token := _TOKEN.search(self.text, position):
            position = token.end()
            kind = token.lastgroup
            if kind == "quote":
                position = self.on_quote(token[0], token.start())
                continue
            if kind != "close":
                self.stack[-1].empty = False
            if kind == "open":
                self.on_open(token[0], token.start())
            elif kind == "close":
                self.on_close(token.start())
            elif kind == "number":
                position = self.on_number(token[0], position)
            elif kind == "ref":
                self.reference = re.sub(r"^<[^>]*>|<[^>]*>$", "", token[0]).strip()
            elif kind == "nothing":
                self.explicit_empty = True
            elif kind == "tag":
                self.stack[-1].corners.clear()
        self.finish()

    def scope(self) -> _Bracket:
        """The innermost bracket that can hold keys."""
        top = self.stack[-1]
        return top if top.kind in ("{", "") else top.parent or self.root

    def on_quote(self, quote: str, start: int) -> int:
        """Read a key or a value; returns where to go on. An unpaired quote is skipped, as are others on its line."""
        if start < self.no_string_before[quote]:
            return start + 1
        match = _STRING[quote].match(self.text, start)
        if match is None:
            line_end = self.text.find("\n", start)
            self.no_string_before[quote] = len(self.text) if line_end < 0 else line_end
            return start + 1
        value, scope = _unescape(match[1]), self.scope()
        if _KEY_FOLLOWS.match(self.text, match.end()):
            scope.key = value
        elif scope.key is not None and scope.key.lower() in _LABEL_KEYS and self.stack[-1] is scope:
            scope.label = value
        elif self.depth < _DEPTH and _BOXES_INSIDE.search(value):  # "[[1, 2, 3, 4]]" given as a string
            self.scan_inside(value, scope)
        self.stack[-1].empty = False
        return match.end()

    def scan_inside(self, value: str, scope: _Bracket) -> None:
        """Boxes in a string, under the key that holds it."""
        inner = _Scanner(value, _Bracket("", 0, scope, scope.key), self.depth + 1)
        inner.reference = self.reference
        inner.run()
        if not inner.found and not inner.explicit_empty:
            return  # prose with brackets
        self.found += inner.found
        self.notes += inner.notes
        self.explicit_empty |= inner.explicit_empty

    def on_open(self, kind: str, start: int) -> None:
        scope = self.scope()
        self.stack.append(_Bracket(kind, start, scope, scope.key))

    def on_close(self, end: int) -> None:
        if len(self.stack) == 1:
            self.notes["unbalanced"] += 1
            return
        bracket = self.stack.pop()
        self.close_boxes(bracket)
        if bracket.kind == self.stack[-1].kind == "[" and not bracket.numbers:
            inside = bracket.start + 1
            # A list among lists that holds words instead of numbers: the box of an object that is not understood.
            self.notes["number_count"] += (
                not _OPENING.search(self.text, inside, end) and self.text[inside:end].strip() != ""
            )
        if bracket.empty and bracket.kind != "(" and not self.text[bracket.start + 1 : end].strip():
            self.explicit_empty = True

    def on_number(self, text: str, end: int) -> int:
        value = float(text) if len(text) <= 32 else np.inf
        top = self.stack[-1]
        if top.kind in ("{", "") and (colon := _KEY_FOLLOWS.match(self.text, end)) and top.kind == "{":
            top.key = text  # {1: [[…]]}
            return colon.end()
        key = top.key.lower() if top.key is not None else None
        if top.kind in ("{", "") and key in _LABEL_KEYS:
            top.label = text
        elif top.kind in ("{", "") and key is not None and key in _CORNER_KEYS | _SIDE_KEYS:
            top.keyed[key] = value
        elif top.kind != "":
            top.numbers.append(value)
        return end

    def close_boxes(self, bracket: _Bracket) -> None:
        """Turn what a closing bracket holds into boxes."""
        numbers = bracket.numbers
        if len(numbers) == 2 and bracket.kind in "[(":
            corners = self.stack[-1].corners
            corners += numbers
            if len(corners) == 4:
                self.add(list(corners), bracket.parent or self.root)
                self.notes["corner_pairs"] += bracket.kind == "["
                corners.clear()
        elif numbers and len(numbers) % 4 == 0 and bracket.kind in "[(":
            for start in range(0, len(numbers), 4):
                self.add(numbers[start : start + 4], bracket.parent or self.root)
            self.notes["flattened"] += len(numbers) > 4
        elif numbers and bracket.kind == "[":
            self.notes["number_count"] += 1
        if bracket.keyed:
            self.close_keyed(bracket)
        self.notes["lone_corner"] += len(bracket.corners) > 0

    def close_keyed(self, bracket: _Bracket) -> None:
        by_corner = {_CORNER_KEYS[key]: value for key, value in bracket.keyed.items() if key in _CORNER_KEYS}
        by_side = {_SIDE_KEYS[key]: value for key, value in bracket.keyed.items() if key in _SIDE_KEYS}
        if len(by_corner) == 4:
            self.add([by_corner[i] for i in range(4)], bracket, own_keys=True)
        elif len(by_side) == 4:
            x, y, width, height = (by_side[i] for i in range(4))
            self.add([x, y, x + width, y + height], bracket, own_keys=True)
            self.notes["xywh"] += 1
        else:
            self.notes["number_count"] += 1

    def add(self, box: list[float], scope: _Bracket, *, own_keys: bool = False) -> None:
        """Keep a box found in `scope`, under its present key unless that belongs to the box's own numbers."""
        if not np.isfinite(box).all():
            self.notes["not_finite"] += 1
            return
        self.notes["inverted"] += box[0] > box[2] or box[1] > box[3]
        self.found.append((box, scope, None if own_keys else scope.key, self.reference))

    def finish(self) -> None:
        if len(self.stack) > 1:  # cut off: the last number may have lost digits, so its box is refused
            self.notes["truncated"] += 1
        self.close_boxes(_Bracket("", 0, corners=self.root.corners, keyed=self.root.keyed))
        if not self.found and (bare := _BARE.fullmatch(self.text)):
            self.add([float(number) for number in bare.groups()], self.root)
            self.notes["bare_numbers"] += 1


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        text = str(json.loads(f'"{text}"'))
    except json.JSONDecodeError:  # an escape JSON does not know, as in a Python repr
        return re.sub(r"\\(.)", r"\1", text)
    # Half an escaped pair ("\\ud83d") is no character, and no file could be written with it.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parse_boxes(text: str) -> ParsedBoxes:
    """All boxes in a model's text, whatever its style: fenced, quoted, truncated, keyed, tagged or in prose.

    Reads every style that `format_boxes` writes, corner pairs, keyed corners and sides, flat lists, and four bare
    numbers that are the whole answer. Time is linear in the text's length. Never raises.

    >>> parse_boxes('Sure: [{"bbox_2d": [1, 2, 3, 4], "label": "lesion"}, {"bbox_2d": [5, 6').notes
    {'truncated': 1}
    """
    if len(text) <= MAX_CHARACTERS and (plain := _parse_plain(text)):
        return plain
    scanner = _Scanner(_unquote(text[:MAX_CHARACTERS]))
    scanner.run()
    notes = {code: count for code, count in sorted(scanner.notes.items()) if count}
    if len(text) > MAX_CHARACTERS:
        notes["overlong"] = 1
    labels = tuple(scope.name(key) or reference for _, scope, key, reference in scanner.found)
    boxes = as_boxes([box for box, *_ in scanner.found])
    return ParsedBoxes(boxes, labels, notes, scanner.explicit_empty)


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
