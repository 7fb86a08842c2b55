"""Box answers to questions about several images: whether they say which image a box lies on."""

import re
from collections.abc import Sequence

from medvl.box_text import ParsedBoxes
from medvl.tasks import Task

_IMAGE_WORD = re.compile(
    r"\b(?:image|img|image|photo|frame|view|slice|panel|scan)(?:_?(?:id|index|idx|no|number|name|path))?"
    r"[\"']?[\s_#:-]*[0-9]|[\"'](?:image|img|image|frame|view|slice)(?:_?(?:id|index|idx|name|path))?[\"']\s*:"
    r"|\b(?:first|second|third|fourth|fifth|last|other|left|right|1st|2nd|3rd|4th) "
    r"(?:image|image|photo|frame|view|scan)",
    re.IGNORECASE,
)


def tells_images_apart(parsed: ParsedBoxes, text: str, names: Sequence[str], task: Task) -> bool:
    """Whether an answer about the images of these names puts boxes on others than the first, or may do so.

    It does by a list per image, by numbers as names where names are not asked for, by file names, or in words. Training
    and scoring know boxes on the first image only.

    >>> from medvl.box_text import parse_boxes
    >>> text = "[[], [[10, 20, 30, 40]]]"
    >>> tells_images_apart(parse_boxes(text), text, ["a.png", "b.png"], Task.DETECTION)
    True
    """
    if len(names) < 2 or not len(parsed.boxes):
        return False
    numbered = task is Task.DETECTION and all((label or "").isdecimal() for label in parsed.labels)
    named = any(_is_named(name, text) for name in names)
    return "grouped" in parsed.notes or numbered or named or _IMAGE_WORD.search(text) is not None


def _is_named(name: str, text: str) -> bool:
    """Whether a file name stands in a text, with or without its ending. Digits alone are a coordinate."""
    file = name.replace("\\", "/").rpartition("/")[2]
    stem = file.rpartition(".")[0] or file
    written = re.search(rf"(?<![\w-]){re.escape(stem)}(?![\w-])", text)
    return written is not None and (file in text or re.search(r"[^\W\d]", stem) is not None)
