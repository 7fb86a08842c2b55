"""Other numbers in a box answer, everything else of its text as it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvl.box_text import REFUSED, parse_boxes
from medvl.boxes import Boxes
from medvl.losses.structure import read_structure


@dataclass(frozen=True)
class BoxAnswer:
    """An answer whose boxes can be replaced.

    Attributes:
        text: The answer, one character per byte, so that places are byte offsets.
        boxes: Shape (n, 4), n may be 0; the numbers of the text.
        places: (start, end) of every number, four per box.
        decimals: How many decimals the text writes at most.
        padded: Whether it fills them up with zeros.
    """

    text: str
    boxes: Boxes
    places: tuple[tuple[int, int], ...]
    decimals: int
    padded: bool

    def rounded(self, boxes: Boxes) -> Boxes:
        """Boxes as this answer would write them."""
        return np.round(boxes, self.decimals)

    def rewrite(self, boxes: Boxes) -> str:
        """The answer with these boxes, (n, 4), in place of its own, in its spelling and with its decimals."""
        pieces, position = [], 0
        for (start, end), value in zip(self.places, self.rounded(boxes).ravel(), strict=True):
            number = f"{value + 0.0:.{self.decimals}f}"  # + 0.0: no "-0"
            if self.decimals and not self.padded:
                number = number.rstrip("0").rstrip(".")
            pieces += [self.text[position:start], number]
            position = end
        return _from_bytes("".join(pieces) + self.text[position:])


def read_box_answer(answer: str) -> BoxAnswer | None:
    """The boxes of an answer with their places; None if it is no box answer, or not one that can be rewritten.

    It can if the strict reader and the tolerant parser see the same boxes and nothing was refused: what only a tolerant
    parser reads (corners under keys, half a list) is better left alone.
    """
    parsed = parse_boxes(answer, keep_noise=True)
    if not parsed.parsed or parsed.frame or any(code in REFUSED for code in parsed.notes):
        return None
    text = answer.encode().decode("latin-1")
    places = tuple(place for box in read_structure(text, "").numbers for place in box)
    numbers = [text[start:end] for start, end in places]
    if len(numbers) != 4 * len(parsed.boxes) or not np.array_equal(np.array(numbers, float), parsed.boxes.ravel()):
        return None
    decimals = max((len(number.partition(".")[2]) for number in numbers), default=0)
    padded = any("." in number and number.endswith("0") for number in numbers)
    return BoxAnswer(text, parsed.boxes, places, decimals, padded)


def _from_bytes(text: str) -> str:
    return text.encode("latin-1").decode()
