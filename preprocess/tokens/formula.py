"""Tokens of a record by a formula, without a model: the published resize and tiling rules, and an estimate of text.

Image tokens are exact for checkpoints with the published image processors. Text errs on the high side.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

from medvl.boxes import Size
from medvl.sharegpt import Record, question_of

Family = Literal["qwen3_vl", "intern_vl"]


@dataclass(frozen=True)
class TokenRules:
    """What in a recipe decides how many tokens a record has; defaults are LLaMA-Factory's.

    Attributes:
        template: Name of the template.
        image_max_pixels: Larger images are shrunk to that area first.
        image_min_pixels: Smaller ones are enlarged.
        crop_to_patches: Whether InternVL cuts an image into tiles.
        default_system: System prompt; None leaves the template's own.
        cutoff_len: Longer records are cut; None if that is not known.
    """

    template: str
    image_max_pixels: int = 768 * 768
    image_min_pixels: int = 32 * 32
    crop_to_patches: bool = False
    default_system: str | None = None
    cutoff_len: int | None = None

    @property
    def family(self) -> Family | None:
        """The family that the formula knows for this template, or None."""
        if self.template.startswith("qwen3_vl"):
            return "qwen3_vl"
        return "intern_vl" if self.template == "intern_vl" else None


def read_rules(recipe: Mapping[str, Any]) -> TokenRules:
    """What a recipe says of it; keys it lacks have LLaMA-Factory's defaults."""
    known = {name: recipe[name] for name in TokenRules.__dataclass_fields__ if name in recipe}
    return TokenRules(**({"cutoff_len": 2048} | known))


# <|im_start|>user\n … <|im_end|>\n<|im_start|>assistant\n … <|im_end|>\n
_FRAME = 10
_SYSTEM_FRAME = 5
_INTERN_SYSTEM = 50  # the Chinese system prompt that the template intern_vl brings, about a token per character

_ONE = "0123456789\n"  # characters that are tokens
_PIECE = re.compile(r"[A-Za-z]{1,4}|[!-/:-@\[-`{-~]{1,2}|[^\s\x00-\x7f]")  # and what else is one


@lru_cache(maxsize=16384)  # questions are templates, answers letters
def text_tokens(text: str) -> int:
    """Tokens of text: every digit one, a word one per 4 letters, marks one per 2, other characters one each.

    Both families split numbers into digits. English prose has longer tokens than that, rare medical words have not.
    """
    return sum(map(text.count, _ONE)) + len(_PIECE.findall(text))


def record_text_tokens(record: Record) -> int:
    """Tokens of the question and the answer of a record. They are remembered, so that no formula counts them again."""
    return _turns_tokens(record.conversations[0].value, record.target)


@lru_cache(maxsize=1 << 17)
def _turns_tokens(prompt: str, answer: str) -> int:
    return text_tokens(question_of(prompt)) + text_tokens(answer)


def formula(rules: TokenRules) -> Callable[[Record], tuple[int, int]]:
    """What counts the tokens of a record: those of text, and those that stand for pixels; marks around images are text.

    Raises:
        ValueError: a family that the formula does not know.
    """
    if rules.family is None:
        raise ValueError(f"no token formula for template {rules.template!r}")
    frame = _FRAME
    if rules.default_system is None and rules.family == "intern_vl":
        frame += _SYSTEM_FRAME + _INTERN_SYSTEM
    elif rules.default_system:
        frame += _SYSTEM_FRAME + text_tokens(rules.default_system)
    image = lru_cache(maxsize=65536)(partial(image_tokens, rules=rules))

    def count(record: Record) -> tuple[int, int]:
        marks = 3 * len(record.images)  # two around an image, and a new line
        return frame + marks + record_text_tokens(record), sum(map(image, record.source.sizes))

    return count


def image_tokens(size: Size, rules: TokenRules) -> int:
    """Tokens of an image of (width, height) pixels: LLaMA-Factory's resize, then the family's own rule."""
    size = _limit(size, rules.image_max_pixels, rules.image_min_pixels)
    if rules.family == "qwen3_vl":
        return _qwen_tokens(size)
    return 256 * (_tiles(size) if rules.crop_to_patches else 1)


def _limit(size: Size, most: int, least: int) -> Size:
    """LLaMA-Factory's `_preprocess_image`: to the area, sides truncated to whole pixels."""
    width, height = size
    for limit, beyond in ((most, width * height > most), (least, width * height < least)):
        if beyond:
            factor = math.sqrt(limit / (width * height))
            width, height = int(width * factor), int(height * factor)
    return width, height


def _qwen_tokens(size: Size, unit: int = 32, least: int = 256 * 256, most: int = 4096 * 4096) -> int:
    """Qwen3-VL: sides rounded to 32 pixels within its own limits of area, a token per 32 x 32."""
    width, height = max(size[0], 28), max(size[1], 28)  # LLaMA-Factory enlarges slivers
    if max(width, height) > 200 * min(width, height):
        width, height = min(width, 180 * height), min(height, 180 * width)
    columns, rows = round(width / unit), round(height / unit)
    if columns * rows * unit**2 > most:
        factor = math.sqrt(width * height / most)
        columns, rows = (max(1, math.floor(side / factor / unit)) for side in (width, height))
    elif columns * rows * unit**2 < least:
        factor = math.sqrt(least / (width * height))
        columns, rows = (math.ceil(side * factor / unit) for side in (width, height))
    return columns * rows


def _tiles(size: Size, most: int = 12, side: int = 448) -> int:
    """InternVL: the grid of at most 12 tiles whose shape is nearest, and a thumbnail if it is more than one.

    Of equally near grids the one with more tiles, unless the tiles would be more than twice the image.
    """
    width, height = size
    grids = [(x, y) for x in range(1, most + 1) for y in range(1, most + 1) if x * y <= most]
    best, nearest = (1, 1), math.inf
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        difference = abs(width / height - columns / rows)
        enough = width * height > 0.5 * side * side * columns * rows
        if difference < nearest or (difference == nearest and enough):
            best, nearest = (columns, rows), difference
    count = best[0] * best[1]
    return count + 1 if count > 1 else 1
