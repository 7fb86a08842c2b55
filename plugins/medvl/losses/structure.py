"""Where the numbers of an answer stand in its text, and where it could have gone on or stopped instead.

The text is handled as one character per byte (UTF-8 read as Latin-1), so that every offset is a byte offset and tokens
that hold half a character shift nothing. Read are the styles of `medvl.box_text`, with any spacing, in code fences or
prose, closed or cut off. Answers spelled otherwise (flat lists, keyed corners) have no boxes here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from medvl.box_text import BOX_STYLES, BoxStyle, format_boxes
from medvl.boxes import Frame, as_boxes
from medvl.losses.brackets import CLOSER, Brackets, Container, Item

CONTEXT = 24  # bytes taken of what follows a decision, enough for every token that starts in it
_BETWEEN = " \n,;"  # between objects in tags
_FENCE_BEFORE = re.compile(r"```\w*\s*$")
_WRAPPING = re.compile(r"<think>.*?</think>|\s*```\w*\s*|<\|[^|<>]*\|>\s*|\s+", re.DOTALL)


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
        noise: Indices of the boxes that conversion drew; their coordinates mean nothing.
    """

    numbers: list[tuple[tuple[int, int], ...]]
    decisions: list[Decision]
    cut: bool
    noise: frozenset[int] = frozenset()


class _Decisions:
    """What the answer could have said instead."""

    def __init__(self, read: Brackets, stop: str, *, ended: bool) -> None:
        self.read, self.text, self.stop, self.ended = read, read.text, stop, ended
        self.digit_ends = [numbers[-1][1] for numbers in read.numbers]

    def all(self) -> Iterator[Decision]:
        """All decisions."""
        outermost: Container | None = None
        for container in self.read.containers:
            if not container.boxes:
                if outermost is not None and container.parent is outermost and outermost.start in self.read.maps:
                    yield from self.empty_list(container)
            elif container.kind == "[" or container.start in self.read.maps:
                if outermost is None and not self.read.tagged:
                    outermost = container
                    nothing = container.kind + CLOSER[container.kind] + self.behind(container)
                    yield Decision(0, container.start, nothing, False)
                yield from self.bracket(container)
        yield from self.tags([item for item in self.read.tagged if item.boxes])
        if not self.read.boxes:
            yield from self.nothing()

    def bracket(self, container: Container) -> Iterator[Decision]:
        """Each comma of a list of objects or of a map, and its end."""
        for item in container.items:
            if item.comma and item.boxes:
                for ending in self.endings(container):
                    yield Decision(self.anchor(item.end), item.end, ending, False)
        last = container.items[-1]
        if container.end is not None and last.boxes:
            yield Decision(self.anchor(last.end), last.end, self.continuation(container), True)

    def tags(self, items: list[Item]) -> Iterator[Decision]:
        """The objects between tags, as far as one directly follows the other."""
        if not items:
            return
        style: BoxStyle = "qwen_vl1" if self.text[self.read.boxes[items[0].box][0]] == "(" else "internvl"
        last = items[-1]
        rest = self.text[last.end :].lstrip(_BETWEEN)
        cut = not self.ended and not rest
        goes_on = not self.ended and rest.startswith("<")  # one more, cut off before its end
        tail = self.stop if cut or goes_on else self.text[last.end :][:CONTEXT]
        yield Decision(0, items[0].start, _template(style, 0) + tail, False)
        for item, following in pairwise(items):
            if not self.text[item.end : following.start].strip(_BETWEEN):
                yield Decision(self.anchor(item.end), item.end, tail, False)
        if goes_on:
            yield Decision(self.anchor(last.end), last.end, tail, False)
        elif not cut:
            yield Decision(self.anchor(last.end), last.end, self.opening(last), True)

    def nothing(self) -> Iterator[Decision]:
        """The whole answer says that there is no object: against answers with one, in each style that says so."""
        said = _WRAPPING.sub("", self.text.replace(self.stop, ""))
        for style in BOX_STYLES:
            if said == _template(style, 0) and (at := self.text.find(said)) >= 0:
                for other in _one_object(style):
                    yield Decision(0, at, other, True)

    def empty_list(self, container: Container) -> Iterator[Decision]:
        """A class of a map that has no objects."""
        if container.kind == "[" and container.end is not None and not container.items:
            yield Decision(self.anchor(container.start), container.start, "[[1", True)

    def endings(self, container: Container) -> list[str]:
        """The ways to close a bracket now, each with what may follow."""
        parent, closer = container.parent, CLOSER[container.kind]
        if parent is not None and parent.kind and parent.start in self.read.maps:
            return [closer + text for text in (*self.endings(parent), self.continuation(parent))]
        if container.end is not None:
            return [self.text[container.items[-1].end : container.end + 1 + CONTEXT]]
        line = "\n" if "\n" in self.gap(container) else ""
        outer = self.endings(parent)[0] if parent is not None and parent.kind and parent.boxes else self.stop
        return [line + closer + outer]

    def behind(self, container: Container) -> str:
        """What follows the whole list, or would: the end of its code fence too."""
        follows = "" if container.end is None else self.text[container.end + 1 :][:CONTEXT]
        if follows.strip():
            return follows
        fenced = _FENCE_BEFORE.search(self.text, max(0, container.start - CONTEXT), container.start)
        return ("\n```" if fenced else "") + self.stop

    def continuation(self, container: Container) -> str:
        """One more element, written as the others are."""
        items = container.items
        example = next(item for item in reversed(items) if item.boxes)
        if len(items) > 1:
            separator = self.text[items[-2].end : items[-1].start]
        else:  # json.dumps spaces all commas alike, or breaks all lines alike
            box = self.text[slice(*self.read.boxes[example.box])]
            separator = "," + (self.gap(container) or (" " if ", " in box else ""))
        return separator + self.opening(example)

    def opening(self, item: Item) -> str:
        """How an object begins, up to its first digit."""
        return self.text[item.start : self.read.numbers[item.box][0][0]] + "1"

    def gap(self, container: Container) -> str:
        """The space between an opening bracket and what it holds."""
        return self.text[container.start + 1 : container.items[0].start]

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
    read = Brackets(text)
    ended = not stop or text.rstrip().endswith(stop)
    cut = not ended and (bool(read.boxes) or read.is_open())
    return Structure(read.numbers, list(_Decisions(read, stop, ended=ended).all()), cut, frozenset(read.noise()))
