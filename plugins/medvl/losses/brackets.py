"""Boxes, brackets and tags in the text of an answer, whole or cut off; every offset is a byte's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from medvl.box_words import NOISE_LABEL

_N = r"[-+]?(?:[0-9]++(?>(?:\.[0-9]*+)?)|\.[0-9]++)"
_FOUR = rf"{_N}\s*,\s*{_N}\s*,\s*{_N}\s*,\s*{_N}"
_PAIR = rf"{_N}\s*,\s*{_N}"
_TOKEN = re.compile(
    rf"""(?P<string>"(?>(?:[^"\\\n]++|\\.)*)(?:"|\\?\Z))
      | (?P<box>\[\s*{_FOUR}\s*\] | \(\s*{_FOUR}\s*\) | (?<=<box>){_FOUR}(?=</box>)
          | \(\s*{_PAIR}\s*\)\s*,\s*\(\s*{_PAIR}\s*\) | \[\s*{_PAIR}\s*\]\s*,\s*\[\s*{_PAIR}\s*\])
      | (?P<name><ref>[^<]*(?:</ref>|(?:<[^<>]*)?\Z)
          |<\|object_ref_start\|>[^<]*(?:<\|object_ref_end\|>|(?:<[^<>]*)?\Z))
      | (?P<tag><box>|<\|box_start\|>) | (?P<untag></box>|<\|box_end\|>)
      | (?P<open>[\[{{]) | (?P<close>[\]}}]) | (?P<comma>,)""",
    re.VERBOSE,
)
_NUMBER = re.compile(_N)
_BOX_INSIDE = re.compile(rf"[\[(]\s*(?:{_FOUR}|{_PAIR})\s*[\])]")
_LABEL_BEFORE = re.compile(r"""["'](?:label|name|class|category|type)["']\s*:\s*$""")
_COLON_BEFORE = re.compile(r":\s*$")
_BOX_KEY = re.compile(r'"(?:b?box|bounding|coord|location|position)', re.IGNORECASE)
_STRINGS_READ = re.compile(_BOX_KEY.pattern + r'|"(?:final_?)?answer"', re.IGNORECASE)  # boxes given as a string
_NOISE_KEY = re.compile(rf'"{NOISE_LABEL}"\s*:')
_NOISE_VALUE = re.compile(rf'"label"\s*:\s*"{NOISE_LABEL}"')
_NOISE_NAME = re.compile(rf"<(?:ref|\|object_ref_start\|)>{NOISE_LABEL}<")
_DEPTH = 32  # brackets in brackets; no answer has more, and damaged text must not take for ever
CLOSER = {"[": "]", "{": "}"}
_REACH = 24  # bytes before a string that are looked through for the key it belongs to


@dataclass(slots=True)
class Item:
    """An element of a list, an entry of an object, or one tagged object."""

    start: int
    end: int
    box: int  # index of its first box, if it has any
    boxes: int = 0
    value: Container | None = None  # the last bracket directly inside
    comma: bool = False  # whether one follows


@dataclass(slots=True)
class Container:
    """A bracket that is open or was closed.

    `end` is the offset of its closing bracket, None if cut off; `under` the key it stands under, itself or the lists
    around it, and `key` the last key in it; with their quotes, "" where there is none.
    """

    kind: str
    start: int
    parent: Container | None
    depth: int = 0
    items: list[Item] = field(default_factory=list)
    item: Item | None = None
    end: int | None = None
    under: str = ""
    key: str = ""

    @property
    def boxes(self) -> int:
        """Number of boxes in it."""
        return sum(item.boxes for item in self.items)


class Brackets:
    """What stands in which bracket of an answer, read in one pass.

    Attributes:
        text: The answer.
        boxes: (start, end) of every box.
        numbers: The same of its four numbers.
        containers: Every bracket, in the order in which they open.
        tagged: Objects between tags that end.
        maps: Starts of the brackets whose keys name objects.
    """

    def __init__(self, text: str) -> None:
        """text: one character per byte."""
        self.text = text
        self.boxes: list[tuple[int, int]] = []
        self.containers: list[Container] = []
        self.tagged: list[Item] = []
        self.tag: int | None = None  # start of the tagged object that is open
        self.tag_box = 0  # index of its first box
        self.name: tuple[int, int] | None = None
        self.root = Container("", 0, None)
        self.top = self.root
        position = 0
        while token := _TOKEN.search(text, position):
            position = self._read(str(token.lastgroup), token)
        self.numbers: list[tuple[tuple[int, int], ...]] = [
            tuple(n.span() for n in _NUMBER.finditer(text, *box)) for box in self.boxes
        ]
        for container in reversed(self.containers):  # cut off: what is open holds what was found in it
            if container.end is None:
                if container.item is not None and container.item.boxes:
                    container.items.append(container.item)
                if container.parent is not None and container.parent.item is not None:
                    container.parent.item.boxes += container.boxes
        self.maps = {container.start for container in self.containers if container.boxes and self._is_map(container)}

    def _read(self, kind: str, token: re.Match[str]) -> int:
        """Take in one token; where to read on."""
        start, end = token.span()
        if kind == "string":
            return self._read_string(token)
        if kind == "open":
            self._open(token[0], start)
        elif kind == "box":
            self._place(start, end).boxes += 1
            self.boxes.append((start, end))
        elif kind == "close" and CLOSER.get(self.top.kind) == token[0] and self.top.parent is not None:
            self._close(start)
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
            self.tagged.append(Item(self.tag, end, self.tag_box, len(self.boxes) - self.tag_box))
            self.tag = None
        return end

    def _read_string(self, token: re.Match[str]) -> int:
        """Take in a key, a label or another value, or what stands in quotes; where to read on."""
        start, end = token.span()
        if _BOX_INSIDE.search(token[0]) and self._holds_boxes(start):
            return start + 1
        if self.top.kind == "{" and not self._is_value(start):
            self.top.key = token[0]
        if token[0][1:].endswith('"'):  # else cut off in it
            self._place(start, end)
        return end

    def _open(self, kind: str, start: int) -> None:
        above = self.top
        if above.depth == _DEPTH:
            return
        under = above.under if above.kind != "{" else above.key if self._is_value(start) else ""
        container = Container(kind, start, above, above.depth + 1, under=under)
        self._place(start, start + 1).value = container
        self.containers.append(container)
        self.top = container

    def _holds_boxes(self, start: int) -> bool:
        """Whether the box-like text of a string is boxes: an answer given as a string, or a quote of the prose.

        That of keys, of labels and of values under keys that name no boxes is none.
        """
        if self.top is self.root:
            return not _LABEL_BEFORE.search(self.text, max(0, start - _REACH), start)
        if self.top.kind == "{":
            return self._is_value(start) and _STRINGS_READ.match(self.top.key) is not None
        return not self.top.under or _STRINGS_READ.match(self.top.under) is not None

    def _is_value(self, start: int) -> bool:
        """Whether what begins there follows a colon."""
        return _COLON_BEFORE.search(self.text, max(0, start - _REACH), start) is not None

    def _place(self, start: int, end: int) -> Item:
        """The element of the innermost bracket that the token at (start, end) belongs to."""
        if self.top.item is None:
            self.top.item = Item(start, end, len(self.boxes))
        self.top.item.end = end
        return self.top.item

    def _close(self, end: int) -> None:
        closed, parent = self.top, self.top.parent
        assert parent is not None
        if closed.item is not None:
            closed.items.append(closed.item)
        closed.end = end
        self.top = parent
        self._place(closed.start, end + 1).boxes += closed.boxes

    def noise(self) -> set[int]:
        """Indices of the boxes that were drawn as noise; not of one that is cut off before its name."""
        named = [item for item in self.tagged if _NOISE_NAME.match(self.text, item.start)]
        if self.tag is not None and _NOISE_NAME.match(self.text, self.tag):  # cut off in it
            named.append(Item(self.tag, len(self.text), self.tag_box, len(self.boxes) - self.tag_box))
        for container in self.containers:
            if container.kind == "{":
                items = [*container.items, *filter(None, [container.item])]
                named += [item for item in items if _NOISE_KEY.match(self.text, item.start)]
                if any(_NOISE_VALUE.match(self.text, item.start) for item in items):
                    named += items
        return {index for item in named for index in range(item.box, item.box + item.boxes)}

    def is_open(self) -> bool:
        """Whether a bracket or a tag still waits for its end."""
        return self.tag is not None or any(container.end is None for container in self.containers)

    def _is_map(self, container: Container) -> bool:
        """Whether the keys name objects and every value is a list of boxes; at the outermost level also one box."""
        alone = container.parent is self.root
        return container.kind == "{" and all(
            not _BOX_KEY.match(self.text, item.start)
            and (alone and item.boxes == 1 if item.value is None else self._is_flat(item.value))
            for item in container.items
        )

    def _is_flat(self, container: Container) -> bool:
        return container.kind == "[" and not any(item.value for item in container.items)
