"""Which of the choices that a question offers a model's text picks.

Rules were settled on 3,918 real outputs of two models (long prose with fenced and boxed conclusions; bare letters).
A text that names several options without saying which is meant is not an answer: guessing would score luck.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from medvl.choices import normal
from medvl.conclusions import conclusions, is_refusal
from medvl.normalisation import UNSPACED, normalise

# What a text picked: the choice or labels, or None and the reason why not.
Picked = tuple[str | None, str | None]
PickedLabels = tuple[tuple[str, ...] | None, str | None]

_ASSERTION = r"(?:\b(?:is|be|as|are|(?P<within>(?:in|to) the))\b|:)[\s*]*"
# "in the Edentulous category" asserts, "in the edentulous arch" does not.
_AS_A_GROUP = r"(?(within)(?=\W*(?:$|[*.,;)]|(?:age|group|category|class|range|stage|grade)\b)))"
_SEVERAL = re.compile(r"[A-Z](?:(?:\s*[,/&;和与與及或]\s*|\s+and\s+|\s+)[A-Z])+", re.IGNORECASE)
_BULLET = re.compile(r"^[^\S\n]*(?:[-*•·・●▪]|\(?\d+[.)])[^\S\n]+(.+)$", re.MULTILINE)
_LETTER = re.compile(
    r"(?:(?:option|choice|answer)[\s:]+|(?:我|应该?|應該?)?(?:选项|選項|选择|選擇|选|選|答案|回答)[\s:是为為]*)?"
    r"([a-z])\s?(?:选项|選項|项|項|です|입니다)?"
)
# What follows a marked letter explains it ("C: because …"); after a bare one ("I see …") only the option may follow.
_LETTER_AND_MORE = re.compile(
    rf"""(?:(?:option|choice|answer)\s)? (?P<letter>[a-z])
        (?: (?P<mark>\s?[:.)](?:\s|(?=[{UNSPACED}])) | \s?[-\u2013\u2014]\s) | \s?[:.)-] | \s ) \s* (?P<more>.+)""",
    re.VERBOSE | re.DOTALL,
)
_LISTED = re.compile(rf"^\W{{0,4}}[A-Z][:.)](?:\s|(?=[{UNSPACED}])).*$", re.MULTILINE)
# Up to two words between: "not a standard plane", "non standard plane", "no clearly visible mass", "unlikely to be".
_NEGATION = re.compile(r"\b(?:not|no|non|without|never|cannot|unlikely|doubt|\w{1,9}n't)(?:[\s-]\w+){0,2}[\s-]$")
_DENIED_AFTER = re.compile(r"\W{0,3}\b(?:is|are|was|were)\s(?:ruled\sout|excluded|absent|unlikely|not)\b")
_YES_NO = re.compile(r"\W*(yes|no)\b(?:\W+([a-z])(?=\W*$|[.:)]))?")  # with a letter behind it, but not "yes, a mass"
_NONE = re.compile(r"none(?: of the (?:above|following|listed|options|provided options))?|no findings?"
                   r"|无|無|没有|沒有|以上都不是|以上皆非|なし|없음", re.IGNORECASE)  # fmt: skip
_PROSE_WORDS = 10  # a label is shorter; the longest of FLARE's has seven words


def _last_line(text: str) -> list[str]:
    """The last line, unless it is one of a list, which is often cut off: a bullet, or an option after another."""
    lines = text.strip().rsplit("\n", 2)[-2:]
    one_of_a_list = _BULLET.match(lines[-1]) or (len(lines) == 2 and all(map(_LISTED.match, lines)))
    return [] if one_of_a_list else lines[-1:]


class _Matcher:
    """Finds the choices a piece of text names."""

    def __init__(self, choices: Mapping[str, str]) -> None:
        self.choices = choices
        self.lettered = bool(choices) and all(
            len(key) == 1 and "A" <= key <= "Z" and text for key, text in choices.items()
        )
        self.key_of: dict[str, str] = {}
        for key, text in choices.items():
            short = re.sub(r"\s*\(.*?\)", "", text)  # "Middle-aged (40-64)" is also named "Middle-aged"
            for name in (text, short):
                self.key_of.setdefault(normal(name), key)
        self.key_without_hyphens = {name.replace("-", " "): key for name, key in self.key_of.items()}
        names = sorted((name for name in self.key_of if name), key=len, reverse=True)
        # A short word such as "no" or "mass" is part of ordinary prose: there only a long name counts as named.
        self.any_name = _names_pattern(names)
        self.long_name = _names_pattern([name for name in names if len(name) > 5])
        letter = f"(?P<letter>[{''.join(choices).lower()}])\\s?[:.)](?!\\w)" if self.lettered else "(?P<letter>(?!))"
        long_names = "|".join(re.escape(name) for name in names if len(name) > 5) or "(?!)"
        self.assertion = re.compile(
            rf"{_ASSERTION}(?:{letter}|(?:class\s)?(?P<name>{long_names})(?![\w-]){_AS_A_GROUP})"
        )

    def exact(self, text: str) -> Picked:
        """The choice that `text` is, apart from decoration: a letter, its text, or both."""
        cleaned = normal(text)
        if not cleaned:
            return None, "empty"
        if cleaned in self.key_of:
            return self.key_of[cleaned], None
        if cleaned.replace("-", " ") in self.key_without_hyphens:
            return self.key_without_hyphens[cleaned.replace("-", " ")], None
        if not self.lettered:
            return None, "not_an_option"
        if match := _LETTER.fullmatch(cleaned):
            return self._letter(match[1])
        if _SEVERAL.fullmatch(cleaned):
            return None, "several_letters"
        match = _LETTER_AND_MORE.fullmatch(cleaned)
        if match is None:
            return None, "not_an_option"
        letter, reason = self._letter(match["letter"])
        named = self.named(match["more"], self.any_name)
        if not match["mark"] and letter not in named:
            return None, "not_an_option"  # "I see", "A patient", "T-cell", "e.g.": a letter, but not a choice
        if letter and len(match["more"].split()) <= 2 * _PROSE_WORDS:
            return (None, "contradiction") if named - {letter} else (letter, reason)
        return None, reason or "prose"

    def _letter(self, letter: str) -> Picked:
        key = letter.upper()
        return (key, None) if key in self.choices else (None, "letter_not_an_option")

    def named(self, text: str, pattern: re.Pattern[str] | None) -> set[str]:
        """Keys of all choices whose text occurs and is not denied."""
        folded = " ".join(text.split()).casefold()
        return {
            self.key_of[match[1]]
            for match in (pattern.finditer(folded) if pattern else ())
            if not _denied(folded, match.start(), match.end())
        }

    def asserted(self, text: str) -> set[str]:
        """Keys of the choices that the text says something "is"; those it gives by letter, if there are any."""
        text = _BULLET.sub("", text)  # bullets discuss, they do not conclude
        if len(_LISTED.findall(text)) > 1:  # so do the options one by one
            text = _LISTED.sub("", text)
        folded = " ".join(text.split()).casefold()
        matches = [
            match
            for match in self.assertion.finditer(folded)
            if not _denied(folded, match.start(match.lastgroup or 0), match.end())
        ]
        letters = {match["letter"].upper() for match in matches if match["letter"]}
        return letters or {self.key_of[match["name"]] for match in matches}


def _denied(folded: str, start: int, end: int) -> bool:
    """Whether what stands at `start` to `end` of a case-folded text is denied there."""
    before = _NEGATION.search(folded, max(0, start - 40), start)
    return before is not None or _DENIED_AFTER.match(folded, end) is not None


@lru_cache(maxsize=256)
def _matcher(choices: tuple[tuple[str, str], ...]) -> _Matcher:
    return _Matcher(dict(choices))


def _names_pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?![\w-])") if names else None


def pick_one(text: str, choices: Mapping[str, str]) -> Picked:
    """The one choice that a text makes.

    Tried in this order: the whole text, each conclusion from the last, the last line, the first line, "Yes, …" or
    "No, …" where the choices are yes and no, the one choice the text asserts, and in a short text the one it names.

    Args:
        text: A model's answer.
        choices: Key -> text. Keys are the letters of `options`, or the labels themselves where there are no letters.

    Returns:
        (key, None), or (None, reason): `empty`, `several_letters`, `letter_not_an_option`, `not_an_option`,
        `contradiction`, `ambiguous`, `refusal`, `prose`.
    """
    text = normalise(text)
    matcher = _matcher(tuple(choices.items()))
    picked, reason = matcher.exact(text)
    if picked or reason in ("empty", "several_letters", "contradiction"):
        return picked, reason
    said = _YES_NO.match(text.casefold()) if {"yes", "no"} <= matcher.key_of.keys() else None
    if said and said[2] and said[2].upper() in matcher.choices and said[2].upper() != matcher.key_of[said[1]]:
        return None, "contradiction"
    picked, why = _concluded(text, matcher)
    if picked or why:
        return picked, why
    if said:
        return matcher.key_of[said[1]], None
    short = len(text.split()) <= _PROSE_WORDS
    named = matcher.asserted(text) or (matcher.named(text, matcher.long_name) if short else set())
    if len(named) == 1:
        return named.pop(), None
    if named:
        return None, "ambiguous"
    if is_refusal(text):
        return None, "refusal"
    return None, reason if short else "prose"


def _concluded(text: str, matcher: _Matcher) -> Picked:
    """The choice of a conclusion, the last line or the first; (None, None) where none of them is about a choice."""
    for stated in [*conclusions(text), *_last_line(text)]:
        candidate = re.split(r"(?<=[.!])[*]*\s", stated, maxsplit=1)[0]
        picked, why = matcher.exact(candidate)
        if picked or why in ("several_letters", "letter_not_an_option", "contradiction"):
            return picked, why
        named = matcher.named(candidate, matcher.long_name) if len(candidate.split()) <= _PROSE_WORDS else set()
        if len(named) == 1:
            return named.pop(), None
    return matcher.exact(text.strip().split("\n", 1)[0])[0], None


def pick_labels(text: str, offered: Sequence[str], separator: str | None) -> PickedLabels:
    """The labels that a text lists, in its order and each once; offered labels in the question's spelling.

    A label that was not offered stays in the list (and will count as wrong). A comma inside an offered label does not
    split it: FLARE's periapical set has "Endodontic Treatment, Restorative Treatment, and Complications".

    Args:
        text: A model's answer.
        offered: The labels the question lists, if it does.
        separator: `;` or `,` where the dataset's is known; otherwise `;` or new lines if there are any, else commas.

    Returns:
        (labels, None), empty for "none"; or (None, reason): `empty`, `refusal`, `prose`.
    """
    text = normalise(text)
    reason = "empty"
    for candidate in [*conclusions(text), text, *_bulleted(text)]:
        labels, reason = _split(candidate, offered, separator)
        if labels is not None:
            return labels, None
    return None, "refusal" if is_refusal(text) else reason


def _bulleted(text: str) -> list[str]:
    """The bulleted lines of a text as one list, each up to its colon (the rest is explanation)."""
    items = [re.split(r":\**\s|:\**$", line.strip(), maxsplit=1)[0] for line in _BULLET.findall(text)]
    return ["\n".join(items)] if items else []


def _split(text: str, offered: Sequence[str], separator: str | None) -> tuple[tuple[str, ...] | None, str]:
    if not normal(text):
        return None, "empty"
    if _NONE.fullmatch(normal(text)):
        return (), ""
    spelling = {normal(label): label for label in offered}
    found: list[tuple[int, str | None]] = []  # None: an offered label that is denied
    rest = re.sub(r"[^\S\n]+", " ", text).casefold()
    rest = re.sub(r"^\W*(?:findings?|labels?|diagnos[ei]s|诊断|所见|标签)\W*:", lambda match: " " * len(match[0]), rest)
    for name in sorted(spelling, key=len, reverse=True):
        pattern = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        for match in pattern.finditer(rest):
            denied = _denied(rest, match.start(), match.end())
            found.append((match.start(), None if denied else spelling[name]))
        rest = pattern.sub(lambda match: "\0" * len(match[0]), rest)
    divider = r"[;\n]" if (separator or ";") == ";" and re.search(r"[;\n]", rest) else r"[;,\n]"
    position = 0
    for piece in re.split(divider, rest):
        label = normal(re.sub(r"^\s*(?:[-*•·・●▪]|\(?\d+[.)]|and\b)\s*", "", piece.replace("\0", " ")))
        if len(label.split()) > _PROSE_WORDS or (label and piece.rstrip(" *").endswith(":")):
            return None, "prose"
        # Words around an offered label explain it: "Edema (mild)", "there is no evidence of edema".
        if label and label not in ("and", "or", "&") and "\0" not in piece:
            found.append((position, label))
        position += len(piece) + 1
    labels = dict.fromkeys(label for _, label in sorted(found, key=lambda item: item[0]) if label is not None)
    return (tuple(labels), "") if found else (None, "empty")
