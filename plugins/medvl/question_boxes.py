"""Boxes that a question gives ("Given the nucleus box [68, 315, 286, 480], …"), in the frame that answers are in.

Training, prediction and serving all ask through `rewrite`, so that a model is asked in the numbers it was trained on. A
text is changed only where there is no doubt: else it stays as it is, and whoever asks is told.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medvl.boxes import DECIMALS, Boxes, Frame, Size, as_boxes, from_frame, to_frame
from medvl.images import shown_size_of

_N = r"[-+]?[0-9]{1,9}(?:\.[0-9]{1,9})?"
_COMMA = r"\s?,\s?"
_PAIR = rf"[\[(]\s?{_N}{_COMMA}{_N}\s?[\])]"
_BOX_NAME = r"(?:bounding box|bbox|box|roi)"
# The forms of a box: a list, two corners, keyed corners, and numbers right behind a word for a box.
_CANDIDATE = re.compile(
    rf"[\[(]\s?{_N}(?:{_COMMA}{_N}){{3}}\s?[\])]"
    rf"|{_PAIR}\s?(?:,|-|\u2013|to|and)?\s?{_PAIR}"
    rf"|\bx_?(?:min|1)\s?[=:]\s?{_N}{_COMMA}y_?(?:min|1)\s?[=:]\s?{_N}{_COMMA}"
    rf"x_?(?:max|2)\s?[=:]\s?{_N}{_COMMA}y_?(?:max|2)\s?[=:]\s?{_N}"
    rf"|\b{_BOX_NAME}\s?(?:at|is|of|=|:)?\s?{_N}(?:{_COMMA}{_N}){{3}}(?![,.]?[0-9])",
    re.IGNORECASE,
)
# What every candidate holds, four numbers near to each other; questions without are read twenty times as fast.
_FOUR_NUMBERS = re.compile(r"[0-9](?:[^0-9\n]{1,12}[0-9][0-9.]*){3}")
_NUMBER = re.compile(rf"(?<![\w.]){_N}(?!\w)")
_SPOKEN_OF = re.compile(
    r"\b(?:bounding|b?box(?:es)?|bbox_2d|regions?|roi|rectangles?|coordinates?|locat(?:ed|ion)|crop|patch|window|areas?)\b"
    r"|<box>|box_start",
    re.IGNORECASE,
)
_NEAR = 60  # characters around a box within which a word says that it is one
# Why numbers may be no box of the image in the expected form.
_DOUBTS = {
    "the question states a frame of its own": re.compile(
        r"\bpixels?\b|\bnormali[sz]ed\b|\brelative\b|\bpercent|%|\b0(?:\.0)?\s?(?:-|\u2013|to)\s?1(?:\.0|000)?\b|\bbox_?2d\b",
        re.IGNORECASE,
    ),
    "the question speaks of width and height": re.compile(
        r"\bw\s?,\s?h\b|\bwidth\b|\bheight\b|\bxywh\b|\bcent(?:er|re)\b", re.IGNORECASE
    ),
    "the question tells images apart": re.compile(
        r"\b(?:image|image|photo|frame|view|slice)[\s_#-]?[0-9]|\b(?:second|third|fourth|last|other) "
        r"(?:image|image|photo|frame|view|slice)",
        re.IGNORECASE,
    ),
}
_EXAMPLE = re.compile(
    r"(?:e\.g\.,?|example|format|such as|like|as in)\s?[:,(]?\s?(?:an? |the )?(?:b?box(?:es)?)?\s?[:(]?\s?\[?$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rewritten:
    """A question as it is asked.

    Attributes:
        text: The question; unchanged if there is a doubt about any of its boxes.
        boxes: What was found to be boxes, as the source writes them.
        doubt: Why numbers that may be a box stayed as they are; None if there are none.
    """

    text: str
    boxes: tuple[str, ...] = ()
    doubt: str | None = None


def may_hold_boxes(question: str) -> bool:
    """Whether there is anything to look at the images' sizes for."""
    return _FOUR_NUMBERS.search(question) is not None and _CANDIDATE.search(question) is not None


def rewrite(question: str, sizes: Sequence[Size | None], source: Frame, frame: Frame, *, said: str = "") -> Rewritten:
    """The question with its boxes in `frame`.

    Args:
        question: As its source asks it.
        sizes: (width, height) of every image, pixels; None where it cannot be read.
        source: Frame of its boxes.
        frame: Frame that the model's answers are in.
        said: What the model has said before. A box that stands there is in the model's frame already.

    >>> rewrite("What is in the box [64, 48, 320, 240]?", [(640, 480)], Frame.PIXEL, Frame.NORM1000).text
    'What is in the box [100, 100, 500, 500]?'
    """
    if not _FOUR_NUMBERS.search(question):
        return Rewritten(question)
    found = [match for match in _CANDIDATE.finditer(question) if match[0] not in said]
    if not found:
        return Rewritten(question)
    size = _one_size(sizes)
    if size is None:
        return Rewritten(question, doubt=f"{found[0][0]}: the sizes of its images are not known, or differ")
    doubt = next(filter(None, (_doubt(question, match, size, source) for match in found)), None)
    if doubt:
        return Rewritten(question, doubt=doubt)
    pieces, position = [], 0
    for match in found:
        pieces += [question[position : match.start()], _written(match[0], size, source, frame)]
        position = match.end()
    return Rewritten("".join(pieces) + question[position:], tuple(match[0] for match in found))


def _one_size(sizes: Sequence[Size | None]) -> Size | None:
    """The size of all images: whichever of them a box lies on, it is converted the same."""
    return sizes[0] if len(set(sizes)) == 1 else None


def _doubt(question: str, match: re.Match[str], size: Size, source: Frame) -> str | None:
    """Why the numbers of a match may not be a box of the image in the expected form."""
    around = question[max(match.start() - _NEAR, 0) : match.end() + _NEAR]
    if not _SPOKEN_OF.search(around):
        return f"{match[0]}: nothing says that this is a box"
    if _EXAMPLE.search(question[: match.start()]):
        return f"{match[0]}: it may be an example"
    for reason, words in _DOUBTS.items():
        if words.search(question):
            return f"{match[0]}: {reason}"
    x_min, y_min, x_max, y_max = from_frame(_box(match[0]), size, source)[0]
    if not (0 <= x_min < x_max <= size[0] and 0 <= y_min < y_max <= size[1]):
        return f"{match[0]}: no box in an image of {size[0]} x {size[1]} in {source}"
    return None


def _box(text: str) -> Boxes:
    return as_boxes([float(number) for number in _NUMBER.findall(text)])


def _written(text: str, size: Size, source: Frame, frame: Frame) -> str:
    """A box in its own spelling with the numbers of another frame."""
    if source == frame:
        return text
    values = iter(to_frame(from_frame(_box(text), size, source), size, frame)[0].tolist())
    return _NUMBER.sub(lambda _: _number(next(values), frame), text)


def _number(value: float, frame: Frame) -> str:
    written = f"{value:.{DECIMALS[frame]}f}"
    return written.rstrip("0").rstrip(".") if DECIMALS[frame] else written


def in_frame(question: str, images: Sequence[Path], source: Frame, frame: Frame) -> Rewritten:
    """`rewrite` for image files; they are opened only where the question gives boxes."""
    sizes = [shown_size_of(path) for path in images] if may_hold_boxes(question) else []
    return rewrite(question, sizes, source, frame)
