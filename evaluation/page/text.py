"""Text that models wrote, made fit to be shown: bounded, and without characters that hide or reorder others."""

import json
import re
from typing import Any

from markupsafe import Markup

# Controls other than tab and line feed, marks that reorder text (bidi) or cannot be seen, halves of surrogate pairs.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
# A letter may carry a few combining marks; hundreds ("Zalgo") would paint over the lines around.
_MARK = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_PILED = re.compile(f"({_MARK}{{4}}){_MARK}+")


def shortened(text: str, limit: int) -> str:
    """The start and the end of a text longer than `limit` characters, and how much is left out between them.

    The end is kept since it tells whether an answer was cut off.

    >>> shortened("a" * 30 + "b" * 30, 20)
    'aaaaaaaaaaaaaaa […40 characters…] bbbbb'
    """
    if len(text) <= limit:
        return text
    end = limit // 4
    start = limit - end
    return f"{text[:start]} […{len(text) - limit:,} characters…] {text[-end:]}"


def visible(text: str, limit: int = 600) -> str:
    r"""A text shortened, its invisible characters written out.

    >>> visible("safe\u202eexe.txt")
    'safe⟨U+202E⟩exe.txt'
    """
    text = shortened(text.replace("\r\n", "\n"), limit)
    return _PILED.sub(r"\1", _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text))


def script_json(value: Any) -> Markup:
    """JSON that may stand in a `<script>` element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
