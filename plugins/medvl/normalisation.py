"""Width and punctuation of all scripts in one form, for text that is compared. What is trained on stays as written.

Unicode's NFKC where it is safe: full-width and half-width forms, fonts, ligatures, Roman numerals, spaces. It is not
followed where it changes what is said: "10²" is not 102, "12½" not 121/2. Punctuation that NFKC leaves alone (`。`,
`、`, `【`, `؛`, curly quotes) becomes its ASCII counterpart, and characters without width go. Case stays.
"""

# ruff: noqa: RUF001, RUF002 (characters that look like ASCII are what this file is about)

import re
import unicodedata

# Scripts that put no space between words, as part of a character class.
UNSPACED = "\u0e00-\u0eff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"

_SAFE = {"<wide>", "<narrow>", "<small>", "<vertical>", "<noBreak>", "<font>", "<compat>",
         "<initial>", "<medial>", "<final>", "<isolated>"}  # fmt: skip
_PUNCTUATION = {
    **dict.fromkeys("。۔।።", "."), **dict.fromkeys("،፣", ","), **dict.fromkeys("؛፤", ";"), **dict.fromkeys("∶፦", ":"),
    **dict.fromkeys("【〖", "["), **dict.fromkeys("】〗", "]"), **dict.fromkeys("〔〘", "("),
    **dict.fromkeys("〕〙", ")"),
    **dict.fromkeys("「」『』《》〈〉«»“”„‟", '"'), **dict.fromkeys("‘’‚‛", "'"),
    "‐": "-", "〜": "~", "؟": "?", "٪": "%",
}  # fmt: skip
_INVISIBLE = re.compile(
    r"[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]"
)
_WIDE_MARK = re.compile(r"([：；，）．！？。])(?=[^\W\d_])")  # as wide as a mark and a space
# `、` behind a lone letter marks an option ("A、benign"), unless letters are listed ("A、C").
_OPTION_COMMA = re.compile(rf"(?<![^\W{UNSPACED}])([A-Za-z])、\s*+(?![A-Za-z]\s*(?:[、,;.)]|and\b|or\b|[和与及或]|$))")
_LIST_NUMBER = re.compile(r"^(\s{0,8}[0-9]{1,2})、\s*(?=[^\W\d])", re.MULTILINE)


class _Characters(dict[int, str]):
    """A table for `str.translate` that works out each character when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _written_plainly(chr(code))
        return found


def _written_plainly(character: str) -> str:
    if _INVISIBLE.match(character):
        return ""
    tag = unicodedata.decomposition(character).partition(" ")[0]
    plain = unicodedata.normalize("NFKC", character) if tag in _SAFE else character
    if plain[0] == " " and len(plain) > 1:  # an accent that stands alone would become one on a space
        return character
    return "".join(_PUNCTUATION.get(part, part) for part in plain)


_CHARACTERS = _Characters()


def normalise(text: str) -> str:
    """The text with one form of width and punctuation; ASCII text as it is. Doing it twice changes nothing more.

    >>> normalise("答案：Ｂ。")
    '答案: B.'
    >>> normalise("A、良性；B、恶性")
    'A: 良性; B: 恶性'
    """
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", _WIDE_MARK.sub(r"\1 ", text).translate(_CHARACTERS))
    if "、" not in text:
        return text
    return _OPTION_COMMA.sub(r"\1: ", _LIST_NUMBER.sub(r"\1. ", text)).replace("、", ", ")
