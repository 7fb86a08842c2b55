"""Where the numbers of an answer stand in its text, and where it could have gone on or stopped instead.

The text is handled as one character per byte (UTF-8 read as Latin-1), so that every offset is a byte offset and tokens
that hold half a character shift nothing. Read are the styles of `medvl.box_text`, with any spacing, in code fences or
prose, closed or cut off. Answers spelled otherwise (flat lists, keyed corners) have no boxes here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

from medvl.box_text import BOX_STYLES, BoxStyle, format_boxes
from medvl.boxes import Frame, as_boxes

CONTEXT = 24  # bytes taken of what follows a decision, enough for every token that starts in it

_N = r"[-+]?(?:[0-9]++(?>(?:\.[0-9]*+)?)|\.[0-9]++)"
_FOUR = rf"{_N}\s*,\s*{_N}\s*,\s*{_N}\s*,\s*{_N}"
_PAIR = rf"{_N}\s*,\s*{_N}"
_TOKEN = re.compile(
    rf"""(?P<string>"(?>(?:[^"\\\n]++|\\.)*)")
      | (?P<box>\[\s*{_FOUR}\s*\] | \(\s*{_FOUR}\s*\) | (?<=<box>){_FOUR}(?=</box>)
          | \(\s*{_PAIR}\s*\)\s*,\s*\(\s*{_PAIR}\s*\) | \[\s*{_PAIR}\s*\]\s*,\s*\[\s*{_PAIR}\s*\])
      | (?P<name><ref>[^<]*</ref>|<\|object_ref_start\|>[^<]*<\|object_ref_end\|>)
      | (?P<tag><box>|<\|box_start\|>) | (?P<untag></box>|<\|box_end\|>)
      | (?P<open>[\[{{]) | (?P<close>[\]}}]) | (?P<comma>,)""",
    re.VERBOSE,
)
_NUMBER = re.compile(_N)
_BOX_INSIDE = re.compile(rf"[\[(]\s*(?:{_FOUR}|{_PAIR})\s*[\])]")
_LABEL_BEFORE = re.compile(r"""["'](?:label|name|class|category|type)["']\s*:\s*$""")
_BOX_KEY = re.compile(r'"(?:b?box|bounding|coord|location|position)', re.IGNORECASE)
_WRAPPING = re.compile(r"<think>.*?</think>|\s*```\w*\s*|<\|[^|<>]*\|>\s*|\s+", re.DOTALL)
_DEPTH = 32  # brackets in brackets; no answer has more, and damaged text must not take for ever
_CLOSER = {"[": "]", "{": "}"}


@dataclass(frozen=True)
class Decision:
    """A place where the answer could have gone another way.

    Attributes:
        anchor: Where to start reading for the tokens around `at`: just behind a box's last digit, or 0.
        at: Where the other way branches off.
        other: The text of the other way from `at` on.
        more: Whether the other way holds more objects than the truth (a false positive) or fewer (a miss).
    """

    anchor: int
    at: int
    other: str
    more: bool


@dataclass(frozen=True)
class Structure:
    """Numbers and decisions of one answer.

    Attributes:
        numbers: Four (start, end) of digits, sign and point per box.
        decisions: Where it could have gone another way.
        cut: Whether it is a list, perhaps still without a box, that has no end token: `cutoff_len` cut it off.
    """

    numbers: list[tuple[tuple[int, int], ...]]
    decisions: list[Decision]
    cut: bool


@dataclass(slots=True)
class _Item:
    """An element of a list, an entry of an object, or one tagged object."""

    start: int
    end: int
    box: int  # index of its first box, if it has any
    boxes: int = 0
    value: _Container | None = None  # the last bracket directly inside
    comma: bool = False  # whether one follows


@dataclass(slots=True)
class _Container:
    """A bracket that is open or was closed; `end` is the offset of its closing bracket, None if cut off."""

    kind: str
    start: int
    parent: _Container | None
    depth: int = 0
    items: list[_Item] = field(default_factory=list)
    item: _Item | None = None
    end: int | None = None

    @property
    def boxes(self) -> int:
        return sum(item.boxes for item in self.items)


class _Reader:
    """One pass over the text."""

    def __init__(self, text: str, stop: str) -> None:
        self.text, self.stop = text, stop
        self.boxes: list[tuple[int, int]] = []
        self.containers: list[_Container] = []
        self.tagged: list[_Item] = []
        self.tag: int | None = None  # start of the tagged object that is open
        self.tag_box = 0  # index of its first box
        self.name: tuple[int, int] | None = None
        self.root = _Container("", 0, None)
        self.top = self.root
        position = 0
        while token := _TOKEN.search(text, position):
            position = self.read(str(token.lastgroup), token)
        self.numbers = [tuple(n.span() for n in _NUMBER.finditer(text, *box)) for box in self.boxes]
        self.digit_ends = [numbers[-1][1] for numbers in self.numbers]
        for container in reversed(self.containers):  # cut off: what is open holds what was found in it
            if container.end is None:
                if container.item is not None and container.item.boxes:
                    container.items.append(container.item)
                if container.parent is not None and container.parent.item is not None:
                    container.parent.item.boxes += container.boxes
        self.maps = {container.start for container in self.containers if container.boxes and self.is_map(container)}

    def read(self, kind: str, token: re.Match[str]) -> int:
        start, end = token.span()
        if kind == "string":
            inside = _BOX_INSIDE.search(token[0]) is not None
            if inside and not _LABEL_BEFORE.search(self.text, max(0, start - CONTEXT), start):
                return start + 1  # an answer given as a string, or a quote that belongs to the prose
            self.place(start, end)
        elif kind == "box":
            self.place(start, end).boxes += 1
            self.boxes.append((start, end))
        elif kind == "open" and self.top.depth < _DEPTH:
            container = _Container(token[0], start, self.top, self.top.depth + 1)
            self.place(start, end).value = container
            self.containers.append(container)
            self.top = container
        elif kind == "close" and _CLOSER.get(self.top.kind) == token[0] and self.top.parent is not None:
            self.close(start)
        elif kind == "comma" and self.top.item is not None:
            self.top.item.comma = True
            self.top.items.append(self.top.item)
            self.top.item = None
        elif kind == "name":
            self.name = (start, end)
        elif kind == "tag":
            named = self.name is not None and not self.text[self.name[1] : start].strip()
            self.tag = self.name[0] if named and self.name is not None else start
            self.tag_box = len(self.boxes)
        elif kind == "untag" and self.tag is not None:
            self.tagged.append(_Item(self.tag, end, self.tag_box, len(self.boxes) - self.tag_box))
            self.tag = None
        return end

    def place(self, start: int, end: int) -> _Item:
        """The element of the innermost bracket that the token at (start, end) belongs to."""
        if self.top.item is None:
            self.top.item = _Item(start, end, len(self.boxes))
        self.top.item.end = end
        return self.top.item

    def close(self, end: int) -> None:
        closed, parent = self.top, self.top.parent
        assert parent is not None
        if closed.item is not None:
            closed.items.append(closed.item)
        closed.end = end
        self.top = parent
        self.place(closed.start, end + 1).boxes += closed.boxes

    def is_open(self) -> bool:
        """Whether a bracket or a tag still waits for its end."""
        return self.tag is not None or any(container.end is None for container in self.containers)

    # What the answer could have said instead

    def decisions(self) -> Iterator[Decision]:
        """All decisions."""
        outermost: _Container | None = None
        for container in self.containers:
            if not container.boxes:
                if outermost is not None and container.parent is outermost and outermost.start in self.maps:
                    yield from self.empty_list(container)
            elif container.kind == "[" or container.start in self.maps:
                if outermost is None and not self.tagged:
                    outermost = container
                    yield Decision(0, container.start, container.kind + _CLOSER[container.kind] + self.stop, False)
                yield from self.bracket(container)
        yield from self.tags([item for item in self.tagged if item.boxes])
        if not self.boxes:
            yield from self.nothing()

    def bracket(self, container: _Container) -> Iterator[Decision]:
        """Each comma of a list of objects or of a map, and its end."""
        for item in container.items:
            if item.comma and item.boxes:
                for ending in self.endings(container):
                    yield Decision(self.anchor(item.end), item.end, ending, False)
        last = container.items[-1]
        if container.end is not None and last.boxes:
            yield Decision(self.anchor(last.end), last.end, self.continuation(container), True)

    def tags(self, items: list[_Item]) -> Iterator[Decision]:
        """The objects between tags, as far as one directly follows the other."""
        if not items:
            return
        style: BoxStyle = "qwen_vl1" if self.text[self.boxes[items[0].box][0]] == "(" else "internvl"
        yield Decision(0, items[0].start, _template(style, 0) + self.stop, False)
        last = items[-1]
        tail = self.text[last.end :][:CONTEXT]
        for item, following in pairwise(items):
            if not self.text[item.end : following.start].strip(" \n,;"):
                yield Decision(self.anchor(item.end), item.end, tail or self.stop, False)
        if tail:  # else cut off here
            yield Decision(self.anchor(last.end), last.end, self.opening(last), True)

    def nothing(self) -> Iterator[Decision]:
        """The whole answer says that there is no object: against answers with one, in each style that says so."""
        said = _WRAPPING.sub("", self.text.replace(self.stop, ""))
        for style in BOX_STYLES:
            if said == _template(style, 0) and (at := self.text.find(said)) >= 0:
                for other in _one_object(style):
                    yield Decision(0, at, other, True)

    def empty_list(self, container: _Container) -> Iterator[Decision]:
        """A class of a map that has no objects."""
        if container.kind == "[" and container.end is not None and not container.items:
            yield Decision(self.anchor(container.start), container.start, "[[1", True)

    def endings(self, container: _Container) -> list[str]:
        """The ways to close a bracket now, each with what may follow."""
        parent, closer = container.parent, _CLOSER[container.kind]
        if parent is not None and parent.kind and parent.start in self.maps:
            return [closer + text for text in (*self.endings(parent), self.continuation(parent))]
        if container.end is not None:
            return [self.text[container.items[-1].end : container.end + 1 + CONTEXT]]
        line = "\n" if "\n" in self.gap(container) else ""
        outer = self.endings(parent)[0] if parent is not None and parent.boxes else self.stop
        return [line + closer + outer]

    def continuation(self, container: _Container) -> str:
        """One more element, written as the others are."""
        items = container.items
        example = next(item for item in reversed(items) if item.boxes)
        if len(items) > 1:
            separator = self.text[items[-2].end : items[-1].start]
        else:  # json.dumps spaces all commas alike, or breaks all lines alike
            box = self.text[slice(*self.boxes[example.box])]
            separator = "," + (self.gap(container) or (" " if ", " in box else ""))
        return separator + self.opening(example)

    def opening(self, item: _Item) -> str:
        """How an object begins, up to its first digit."""
        return self.text[item.start : self.numbers[item.box][0][0]] + "1"

    def gap(self, container: _Container) -> str:
        """The space between an opening bracket and what it holds."""
        return self.text[container.start + 1 : container.items[0].start]

    def is_map(self, container: _Container) -> bool:
        """Whether the keys name objects and every value is a list of boxes; at the outermost level also one box."""
        alone = container.parent is self.root
        return container.kind == "{" and all(
            not _BOX_KEY.match(self.text, item.start)
            and (alone and item.boxes == 1 if item.value is None else self.is_flat(item.value))
            for item in container.items
        )

    def is_flat(self, container: _Container) -> bool:
        return container.kind == "[" and not any(item.value for item in container.items)

    def anchor(self, at: int) -> int:
        """The end of the last number before `at`."""
        index = bisect_right(self.digit_ends, at)
        return self.digit_ends[index - 1] if index else 0


@cache
def _template(style: BoxStyle, objects: int, name: str | None = "a") -> str:
    boxes = as_boxes([[1, 2, 3, 4]] * objects)
    return format_boxes(boxes, [name] * objects, style, Frame.NORM1000)


@cache
def _one_object(style: BoxStyle) -> tuple[str, ...]:
    """Answers with one object: named or not, tight or spaced."""
    names = ("a",) if style == "map" else ("a", None)
    tight = [_template(style, 1, name) for name in names]
    return tuple(dict.fromkeys([*tight, *(text.replace(":", ": ").replace(",", ", ") for text in tight)]))


def read_structure(text: str, stop: str) -> Structure:
    """Boxes and decisions of one answer.

    Args:
        text: The answer with one character per byte, end token included where the answer has one.
        stop: The text of the end token, for places where the answer does not show how it would end.
    """
    reader = _Reader(text, stop)
    ended = not stop or text.rstrip().endswith(stop)
    return Structure(reader.numbers, list(reader.decisions()), not ended and (bool(reader.boxes) or reader.is_open()))
