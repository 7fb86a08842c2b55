"""What may be done to a record's image so that its answer stays true, told from question and answer alone.

Nothing moves (rotation, scale, shift, crop, elastic) if
- the record has several images or turns: they are compared with each other;
- the question holds boxes: they name a place of the image;
- an answer without boxes holds a digit, or an option of its question does: counts, angles, percentages, sizes, ages
  in weeks and grades can depend on scale or on what is still inside the image;
- a box answer gives a measure beside the boxes, or boxes that cannot be rewritten (see rewriting.py), or that have no
  area;
- question or answer speaks of tilt, rotation, angles or orientation (`_TURNED`): a turn of some degrees may decide.
Nothing is mirrored that may not move, a number alone excepted, nor what speaks of sides, quadrants, teeth, eyes or
orientation in question or answer (`_ORIENTED`, `_SIDE_CODES`). What a text does not say no rule can know (a mirrored
chest film shows the heart on the right), so mirroring is off unless a recipe asks for it.
Tones (brightness, contrast, gamma, noise, blur, compression) stay if question or answer speaks of image quality or
colour (`_APPEARANCE`).
Speckle and elastic deformation are for records whose prompt speaks of ultrasound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from medvl.augment.rewriting import BoxAnswer, read_box_answer
from medvl.box_text import parse_boxes
from medvl.boxes import area
from medvl.choices import options

_ORIENTED = re.compile(
    r"""\b(?: left | right(?!\s+(?:answer|option|choice|one)) | sides? | sided | lateral(?:ity|i[sz]ed)?
          | (?:bi|uni)lateral(?:ly)? | (?:ipsi|contra)lateral | medial(?:ly)? | mesial | distal | proximal | nasal
          | temporal | quadrants? | upper | lower | top | bottom | above | below | beneath | superior | inferior
          | anterior(?:ly)? | posterior(?:ly)? | dorsal(?:ly)? | ventral(?:ly)? | palmar | volar | plantar | apical
          | basal | (?:up|down)wards? | horizontal(?:ly)? | vertical(?:ly)? | cranial | caudal | cephalic | breech
          | vertex | occiput | transverse | longitudinal | sagittal | presentation | orientation | oriented | direction
          | facing | situs
          | (?:dextro|laevo|levo)\w+ | (?:counter|anti)?-?clockwise | o'?\s?clock | tooth | teeth | dental
          | (?:pre)?molars? | incisors? | canines? | FDI | mirror(?:ed)? | flipped | rotat\w+ | tilt\w*
        )\b | [左右上下]""",
    re.VERBOSE | re.IGNORECASE,
)
# Long-axis and short-axis views are cuts, and turn with the image.
_TURNED = re.compile(
    r"""\b(?: tilt\w* | rotat\w* | angl(?:e|es|ed|ing) | (?:mesio|disto)?angula\w* | (?:mal|mis)?(?:re)?align\w*
          | (?:dis)?orient\w* | inclin(?:e|es|ed|ation|ations) | slant\w* | skew\w* | crooked\w* | upright | oblique\w*
          | deviat\w+ | horizontal\w* | vertical\w* | parallel\w* | perpendicular\w* | cobb | scolio\w+
          | (?<!long[ -])(?<!short[ -])ax[ei]s
        )\b | 倾斜 | 旋转 | 角度 | 夹角 | 方向""",
    re.VERBOSE | re.IGNORECASE,
)
# Codes, only in capitals: eyes, quadrants of the breast, lobes of the lung, views of the breast, chambers of the heart;
# L and R unless they mark an option.
_SIDE_CODES = re.compile(
    r"""\b(?: O[DSU] | [UL][IO]Q | [RL][UL]Q | [RL][UML]L | [RL]-?(?:CC|MLO|ML|LM) | [LR][AV] | [LR](?![\s)]*[:.)])
        )\b""",
    re.VERBOSE,
)
_APPEARANCE = re.compile(
    r"\b(?:quality|artifacts?|artefacts?|nois[ey]\w*|blur\w*|sharp\w*|expos\w+|contrast\w*|brightness|gain|resolution"
    r"|colou?r\w*|jaundice\w*|bilirubin|pallor|pale|erythema\w*|redness|yellow\w*|stain\w*|icter\w+)\b",
    re.IGNORECASE,
)
_ULTRASOUND = re.compile(r"\b(?:ultraso\w+|sonogra\w+|echogra\w+|echocardio\w+|doppler)\b", re.IGNORECASE)
_MEASURE = re.compile(
    r"[0-9]\s?(?:%|°|(?:degrees?|percent|[mcµ]?m|[mcµ]m[²³23]|m[lg]|px|pixels?|weeks?|wks?|days?|months?|years?)\b)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\s*[-+]?[0-9][0-9.,]*\s*(?:%|°)?\s*")
# Names of classes are often written so: left_kidney, LeftLung, tooth36.
_JOINT = re.compile(r"_|(?<=[a-z])(?=[A-Z0-9])")


@dataclass(frozen=True)
class Permission:
    """What may be done to one record.

    Attributes:
        photometric: Whether brightness and the like may change.
        geometric: Whether the image may be turned, scaled, shifted and cropped.
        mirror: Whether it may be mirrored.
        ultrasound: Whether speckle and elastic deformation fit.
        boxes: The answer's boxes, None if it has none; they move with the image.
        reason: Why the image may not move, in a few words; empty if it may.
    """

    photometric: bool
    geometric: bool
    mirror: bool
    ultrasound: bool
    boxes: BoxAnswer | None = None
    reason: str = ""


def permission(question: str, answer: str | None, *, images: int, prompt: str = "") -> Permission:
    """What may be done to a record.

    Args:
        question: Without the template's own text.
        answer: None if it is not known in whole (cut off, several turns).
        images: How many the record has.
        prompt: All that is said before the answer, system prompt included.
    """
    if images == 0:
        return Permission(False, False, False, False, reason="no picture")
    # A letter stands for its option; by itself, L is no side.
    text = f"{question}\n{options(question).get((answer or '').strip(' .)'), answer or '')}"
    text = _JOINT.sub(" ", text)
    ultrasound = _ULTRASOUND.search(f"{prompt}\n{text}") is not None
    photometric = _APPEARANCE.search(text) is None
    boxes = read_box_answer(answer) if answer is not None else None
    reason = _why_still(question, answer, boxes, images) or (_TILT if _TURNED.search(text) else "")
    number_alone = reason == _DIGITS and answer is not None and _NUMBER.fullmatch(answer) is not None
    oriented = _ORIENTED.search(text) or _SIDE_CODES.search(text)
    mirror = (not reason or number_alone) and not oriented
    return Permission(photometric, not reason, mirror, ultrasound, None if reason else boxes, reason)


_DIGITS = "a number in the answer or its options"
_TILT = "a tilt, an angle or an orientation"


def _why_still(question: str, answer: str | None, boxes: BoxAnswer | None, images: int) -> str:
    if images > 1:
        return "several pictures"
    if answer is None:
        return "several turns, or an answer cut off"
    if len(parse_boxes(question).boxes):
        return "boxes in the question"
    if boxes is None:
        if len(parse_boxes(answer).boxes):
            return "boxes in a spelling that is not rewritten"
        stated = " ".join([answer, *options(question).values()])
        return _DIGITS if re.search(r"[0-9]", stated) else ""
    if _MEASURE.search(answer):
        return "a measure beside the boxes"
    if (area(boxes.boxes) <= 0).any():
        return "a box without area"
    return ""
