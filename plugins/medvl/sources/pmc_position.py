"""Where two panels of a figure lie to each other: by their boxes, and as a sentence says it."""

import re
from collections.abc import Sequence
from typing import Any

# Centres that differ by less of the figure's width or height count as level. The published data was made so.
_LEVEL = 0.02
_WORDS = (("right", r"\bright\b"), ("left", r"\bleft\b"), ("above", r"\b(?:above|over|top)\b"),
          ("below", r"\b(?:below|under|beneath|bottom)\b"))  # fmt: skip
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_FIGURE = re.compile(r"\bFig-\d+")
_ASIDE = re.compile(r"\([^()]*\)")  # "Fig-1 (the right lung) is …"

Point = tuple[float, float]
Relation = frozenset[str]  # of left or right, above or below; empty for the same place


def centre(box: Any, size: tuple[int, int]) -> Point | None:
    """Centre of a panel in pixels of its figure; None where there is no box, which the data writes as "(unknown)".

    Args:
        box: `[x, y]`, the centre in pixels as stage 4 writes it, or YOLO's `[x, y, width, height]` from 0 to 1.
        size: (width, height) of the figure.
    """
    numbers = list(box) if isinstance(box, list | tuple) else []
    if len(numbers) not in (2, 4) or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        return None
    x, y = float(numbers[0]), float(numbers[1])
    if len(numbers) == 4:
        return (x * size[0], y * size[1]) if max(map(float, numbers)) <= 1 else None
    return x, y


def relation_of(first: Point, second: Point, size: tuple[int, int]) -> Relation:
    """Where the first centre lies to the second.

    >>> sorted(relation_of((10, 90), (80, 10), (100, 100)))
    ['below', 'left']
    """
    across, down = first[0] - second[0], first[1] - second[1]
    words = set()
    if abs(across) > _LEVEL * size[0]:
        words.add("right" if across > 0 else "left")
    if abs(down) > _LEVEL * size[1]:
        words.add("below" if down > 0 else "above")
    return frozenset(words)


def relation_said(answer: str, figures: Sequence[str]) -> Relation | None:
    """Where the first of two figures lies to the second, as an answer says it; None if it does not name both in turn.

    >>> sorted(relation_said("Fig-2 (right lung) lies to the left and above Fig-1.", ["Fig-1", "Fig-2"]))
    ['below', 'right']
    """
    plain = _ASIDE.sub(" ", answer)
    named = [match for match in _FIGURE.finditer(plain) if match[0] in figures]
    if len(named) < 2 or named[0][0] == named[1][0]:
        return None
    between = plain[named[0].end() : named[1].start()]
    words = {name for name, pattern in _WORDS if re.search(pattern, between, re.IGNORECASE)}
    if named[0][0] != figures[0]:
        words = {_OPPOSITE[name] for name in words}
    return frozenset(words)


def in_words(relation: Relation) -> str:
    """A relation as a sentence has it.

    >>> in_words(frozenset(["below", "left"])), in_words(frozenset())
    ('to the left of and below', 'at the same position as')
    """
    across = [f"to the {word} of" for word in ("left", "right") if word in relation]
    return " and ".join([*across, *(word for word in ("above", "below") if word in relation)]) or (
        "at the same position as"
    )
