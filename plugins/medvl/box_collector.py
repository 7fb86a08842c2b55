"""What the brackets of a text hold, turned into boxes as they close (`medvl.box_scanner` opens them)."""

import math
import re
from collections import Counter

from medvl.box_brackets import Bracket, Found
from medvl.box_words import (
    CENTRE_BOX_KEYS,
    CENTRE_KEYS,
    CORNER_KEYS,
    MASK_KEYS,
    OPENING,
    OUTLINE_KEYS,
    SIDE_KEYS,
    XYWH_KEYS,
    Y_FIRST_KEYS,
)

# Coordinates beyond this are typing errors, and cut to it: their squares stay finite, and every cast to an integer is
# exact.
LARGEST = 1e9


class Collector:
    """The boxes found so far, and what there is to know about them."""

    def __init__(self, text: str, root: Bracket) -> None:
        """The text, and the bracket around all of it."""
        self.text = text
        self.root = root
        self.stack = [root]
        self.found: list[Found] = []
        self.nothing: list[tuple[Bracket, str | None, str | None]] = []  # empty lists: scope, key, reference
        self.notes: Counter[str] = Counter()
        self.explicit_empty = False
        self.reference: str | None = None  # the last <ref>…</ref>
        self.loose = 0  # numbers that belong to no box

    def close_nothing(self, bracket: Bracket) -> None:
        """Note what an empty list or map stands for: no object of a name, or an element of a list."""
        above = self.stack[-1]
        if above.kind == "[":
            above.blanks += 1
        else:
            self.nothing.append((bracket.parent or self.root, bracket.parent_key, self.reference))

    def close_list(self, bracket: Bracket, end: int) -> None:
        """Turn what a list or a pair of parentheses holds into boxes."""
        above, numbers = self.stack[-1], bracket.numbers
        if bracket.outline_of is not None:
            self.close_outline(bracket.outline_of, numbers)
            return
        if len(numbers) == 2:
            self.close_pair(bracket, above)
        elif numbers:
            self.close_numbers(bracket)
        elif bracket.pairs:
            self.close_points(bracket)
        elif bracket.kind == "[":
            self.close_elements(bracket, above, end)

    def close_outline(self, owner: Bracket, numbers: list[float]) -> None:
        """Add points to the outline of an object."""
        self.notes["number_count"] += len(numbers) % 2
        owner.numbers += numbers

    def close_pair(self, bracket: Bracket, above: Bracket) -> None:
        """Add a point to what it stands in. Two make a box at once, except where more may follow."""
        above.pairs += bracket.numbers
        above.square |= bracket.kind == "["
        if len(above.pairs) == 4 and above.kind not in ("[", "q"):
            self.add(list(above.pairs), bracket.parent or self.root)
            self.notes["corner_pairs"] += above.square
            above.pairs.clear()
            above.square = False

    def close_numbers(self, bracket: Bracket) -> None:
        """A box, several in one list, or numbers that are none."""
        numbers, scope = bracket.numbers, bracket.parent or self.root
        # One outline in a row has pairs that run backwards; which of the two it is cannot be told then.
        ordered = all(numbers[n] <= numbers[n + 2] and numbers[n + 1] <= numbers[n + 3]
                      for n in range(0, len(numbers) - 3, 4))  # fmt: skip
        if len(numbers) == 4 or (len(numbers) % 4 == 0 and ordered):
            word = bracket.words.pop() if len(numbers) == 4 and len(bracket.words) == 1 else None
            for start in range(0, len(numbers), 4):
                self.add(numbers[start : start + 4], scope, word=word)
            self.notes["flattened"] += len(numbers) > 4
            self.notes["words_unread"] += len(bracket.words)
        elif bracket.kind == "[":
            self.notes["number_count"] += 1
        else:
            self.loose += len(numbers)

    def close_points(self, bracket: Bracket) -> None:
        """The points in a list or a quad: one box of two corners, several of these, or the hull of one outline."""
        points, scope = bracket.pairs + bracket.numbers, bracket.parent or self.root
        corners = [points[start : start + 4] for start in range(0, len(points), 4)]
        ordered = len(points) % 4 == 0 and all(box[0] < box[2] and box[1] < box[3] for box in corners)
        if len(points) == 4 or (ordered and bracket.kind != "q"):
            for box in corners:
                self.add(box, scope)
            self.notes["corner_pairs"] += len(corners) if bracket.square else 0
        elif len(points) < 6 or len(points) % 2:
            self.notes["lone_corner"] += 1
        else:
            self.add(_hull(points), scope)
            self.notes["polygon"] += 1

    def close_elements(self, bracket: Bracket, above: Bracket, end: int) -> None:
        """What a list of boxes holds besides them: empty lists, words, lists of their own."""
        holds_boxes = len(self.found) > bracket.first
        if holds_boxes:
            self.notes["empty_beside"] += bracket.blanks
            self.notes["words_unread"] += len(bracket.words)
            self.notes["grouped"] += bracket.groups > 1 or (bracket.groups == 1 and bracket.blanks > 0)
            above.groups += above.kind == "["
        elif above.kind == "[":
            above.blanks += bracket.blanks > 0
            inside = bracket.start + 1
            # A list among lists that holds words instead of numbers: the box of an object that is not understood.
            self.notes["number_count"] += (
                not OPENING.search(self.text, inside, end) and self.text[inside:end].strip() != ""
            )

    def close_object(self, bracket: Bracket) -> None:
        """What the keys of an object hold: corners, an outline, a mask, names for its boxes."""
        above = bracket.parent
        if bracket.outline_of is not None and bracket.keyed.keys() == {"x", "y"}:
            self.close_outline(bracket.outline_of, [bracket.keyed["x"], bracket.keyed["y"]])
            return
        self.notes["lone_corner"] += len(bracket.pairs) > 0
        self.close_keyed(bracket)
        holds_boxes = len(self.found) > bracket.first
        key = (bracket.parent_key or "").lower()
        if not holds_boxes and above is not None and key in OUTLINE_KEYS | MASK_KEYS:
            above.numbers += bracket.numbers
            above.mask |= bracket.mask
        elif not holds_boxes and bracket.numbers:
            self.close_own_outline(bracket)
        elif not holds_boxes:
            self.notes["mask"] += bracket.mask
        elif not bracket.structural:  # {"RBC": [[…]], "WBC": null}
            self.notes["empty_beside"] += bracket.blanks
        while bracket.rotated and self.found and self.found[-1].scope is bracket:
            self.notes["rotated"] += 1
            self.found.pop()
        if bracket.words:
            self.close_names(bracket)
        self.notes["coco_sides"] += bracket.coco and len(self.found) > bracket.first

    def close_own_outline(self, bracket: Bracket) -> None:
        """The box around the outline of an object that has no box beside it."""
        points = bracket.numbers
        if len(points) < 4:
            self.notes["lone_corner"] += 1
            return
        self.add(_hull(points), bracket, own_keys=True)
        self.notes["corner_pairs" if len(points) == 4 else "polygon"] += 1

    def close_keyed(self, bracket: Bracket) -> None:
        """A box whose numbers have keys of their own."""
        if not bracket.keyed:
            return
        by_corner, by_side, by_centre = (
            {keys[key]: value for key, value in bracket.keyed.items() if key in keys}
            for keys in (CORNER_KEYS, SIDE_KEYS, CENTRE_KEYS)
        )
        if len(by_corner) == 4:
            self.add([by_corner[i] for i in range(4)], bracket, own_keys=True)
        elif len(by_side) == 4:
            x, y, width, height = (by_side[i] for i in range(4))
            self.add([x, y, x + width, y + height], bracket, own_keys=True)
            self.notes["xywh"] += 1
        elif len(by_centre) == 2 and {2, 3} <= by_side.keys():
            x, y, width, height = by_centre[0], by_centre[1], by_side[2], by_side[3]
            self.add([x - width / 2, y - height / 2, x + width / 2, y + height / 2], bracket, own_keys=True)
            self.notes["xywh"] += 1
        elif len(self.found) == bracket.first and not bracket.numbers:
            self.notes["number_count"] += 1

    def close_names(self, bracket: Bracket) -> None:
        """Give the names in a list to the boxes beside it, one each."""
        if len(self.found) - bracket.first != len(bracket.words):
            self.notes["label_count"] += 1
            return
        for found, name in zip(self.found[bracket.first :], bracket.words, strict=True):
            found.word = found.word or name

    def add(self, box: list[float], scope: Bracket, *, own_keys: bool = False, word: str | None = None) -> None:
        """Keep a box found in `scope`, under its present key unless that belongs to the box's own numbers."""
        if not all(map(math.isfinite, box)):
            self.notes["not_finite"] += 1
            return
        key = None if own_keys else scope.key
        y_first = key is not None and key.lower() in Y_FIRST_KEYS
        box = self.corners(box, (key or "").lower())
        if max(map(abs, box)) > LARGEST:
            self.notes["too_large"] += 1
            box = [min(max(value, -LARGEST), LARGEST) for value in box]
        self.notes["inverted"] += box[0] > box[2] or box[1] > box[3]
        self.found.append(Found(box, scope, key, self.reference, y_first, word))

    def corners(self, box: list[float], key: str) -> list[float]:
        """The corners that four numbers under a key mean, x first."""
        a, b, c, d = box
        if key in Y_FIRST_KEYS:
            return [b, a, d, c]
        if key in XYWH_KEYS:
            self.notes["xywh"] += 1
            return [a, b, a + c, b + d]
        if key in CENTRE_BOX_KEYS:
            self.notes["xywh"] += 1
            return [a - c / 2, b - d / 2, a + c / 2, b + d / 2]
        return box

    def add_bare(self, bare: re.Match[str], scope: Bracket) -> None:
        """Four numbers that are a whole string."""
        self.add([float(number) for number in bare.groups()], scope)
        self.notes["bare_numbers"] += 1


def _hull(points: list[float]) -> list[float]:
    """The box around points given as x and y by turns."""
    return [min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])]
