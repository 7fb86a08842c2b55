"""Answers that choose from a list: what a question offers, and which of it a model's text picks.

Rules were settled on 3,918 real outputs of two models (long prose with fenced and boxed conclusions; bare letters).
A text that names several options without saying which is meant is not an answer: guessing would score luck.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from medvl.normalisation import UNSPACED, normalise

# What a text picked: the choice or labels, or None and the reason why not.
Picked = tuple[str | None, str | None]
PickedLabels = tuple[tuple[str, ...] | None, str | None]

# Behind the mark stands a space, or a letter of a script that is written without; such a letter may stand before it.
_OPTION_MARK = re.compile(rf"(?<![^\W{UNSPACED}])(?<!')\(?([A-Z])\s?[:.)](?:\s+|(?=[^\W\x00-\x7f]))")
# An option after the first, on a line of its own: there the mark needs no space, and no letter within a text is one.
_LINE_MARK = re.compile(r"^[^\S\n]*\(?([B-Z])\s?([.:)])", re.MULTILINE)
_OFFER = re.compile(r"(?:\bfollowing\b|以下|下列)[^:;\uff1a\uff1b]*[:\uff1a]\s*(.+)", re.DOTALL | re.IGNORECASE)
_CONCLUDES = r"""\bfinal\s(?:answer|output)\b(?:\sshould\sbe|\sis)?
            | \b(?:answers?|findings|option|choice|classification|category)\s(?:is|are)\b
            | \bI\s(?:choose|select|pick)\b
            | \bmost\s(?:likely|appropriate|accurate|plausible|probable|suitable)\b[^.\n*]{0,80}?\b(?:is|be)\b
            | \banswer\s*+(?:\**+\s*+)[:=]
            | \b(?:antwort|r(?:espuesta|esposta|isposta|[eé]ponse))\b[^:\n]{0,20}:"""
# In other alphabets; looked for only in texts that have such letters.
_CONCLUDES_ELSEWHERE = r"""(?:答案|诊断|診斷|结论|結論)(?:应该?|應該?)?(?:是|为|為|选|選|:)
            | [选選](?:择|擇|项|項)?(?=[\s:*(]{0,4}[A-Z](?![A-Z]))
            | (?:答え|正解|回答|解答|정답|답)\s?(?:は|은|:)
            | \b(?:ответ|відповідь|الإجابة|الجواب|उत्तर)\b[^:\n]{0,20}:"""


def _conclusion(concludes: str) -> re.Pattern[str]:
    return re.compile(
        rf"""(?: \\boxed\{{(?:\\text\{{)?(?P<boxed>[^{{}}\n]{{1,1000}})\}}
            | (?: {concludes} )[*:\s]*(?P<stated>[^\n]{{1,1000}}) )""",
        re.VERBOSE | re.IGNORECASE,
    )


_CONCLUSION, _CONCLUSION_ELSEWHERE = _conclusion(_CONCLUDES), _conclusion(f"{_CONCLUDES}|{_CONCLUDES_ELSEWHERE}")
_OTHER_ALPHABET = re.compile(rf"[\u0400-\u0dff{UNSPACED}]")
_ASSERTION = r"(?:\b(?:is|be|as|are|(?P<within>(?:in|to) the))\b|:)[\s*]*"
# "in the Edentulous category" asserts, "in the edentulous arch" does not.
_AS_A_GROUP = r"(?(within)(?=\W*(?:$|[*.,;)]|(?:age|group|category|class|range|stage|grade)\b)))"
_DECORATION = " \t\n*_`$\"'.,;:()[]{}"
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
_REFUSAL = re.compile(r"\b(?:cannot|can't|can not|unable to|not possible to|i'm sorry)\b"
                      r"|无法|無法|抱歉|对不起|對不起|できません", re.IGNORECASE)  # fmt: skip
_CONCLUSIONS = 20  # a model caught in a loop concludes thousands of times; the last ones are read
_PROSE_WORDS = 10  # a label is shorter; the longest of FLARE's has seven words


def normal(text: str) -> str:
    """Case-folded text in one width, with single spaces and without quotes, emphasis and punctuation around it."""
    return " ".join(normalise(text).split()).strip(_DECORATION).casefold()


def is_refusal(text: str) -> bool:
    """Whether the text says that the model cannot answer."""
    return _REFUSAL.search(text.replace("\u2019", "'")) is not None


def options(question: str) -> dict[str, str]:
    """Lettered options of a question, letter -> text, in order; empty if it has none. Texts in the form of `normalise`.

    >>> options("Is it normal? A: No, B: Yes")
    {'A': 'No', 'B': 'Yes'}
    """
    return dict(_options(question))


@lru_cache(maxsize=4096)  # a dataset asks a handful of questions, thousands of times
def _options(question: str) -> tuple[tuple[str, str], ...]:
    question = normalise(question)
    best = _on_lines(question) or _in_a_run(question)
    if len(best) < 2:
        return ()
    ends = [mark.start() for mark in best[1:]] + [len(question)]
    return tuple((mark[1], question[mark.end() : end].strip(" \n\t,;(")) for mark, end in zip(best, ends, strict=True))


def _on_lines(question: str) -> list[re.Match[str]]:
    """Marks of options with a line each, whose texts may hold letters too: "A. Panel (A) is …\\nB. Both (A) and (B)".

    The first option may stand behind the question: its mark is the first that looks like theirs.
    """
    marks = list(_LINE_MARK.finditer(question))
    if "".join(mark[1] for mark in marks) != "BCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(marks)]:
        return []
    first = _first_mark(marks[0][2]).search(question, 0, marks[0].start()) if marks else None
    return [first, *marks] if first else []


@lru_cache
def _first_mark(sign: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W{UNSPACED}])(?<![('])(A)\s?{re.escape(sign)}")


def _in_a_run(question: str) -> list[re.Match[str]]:
    """The longest run of marks from A on, the last of equals."""
    run: list[re.Match[str]] = []
    best: list[re.Match[str]] = []
    for mark in _OPTION_MARK.finditer(question):
        if mark[1] == "A":
            run = [mark]
        elif run and ord(mark[1]) == ord(run[-1][1]) + 1:
            run.append(mark)
        best = run if len(run) >= len(best) else best
    return best


@lru_cache(maxsize=4096)
def offered_labels(question: str) -> tuple[str, ...]:
    """Labels a select-all question lists after "following … :", separated by semicolons; empty if it lists none.

    In the question's own spelling, since they are handed in so.
    """
    match = _OFFER.search(question)
    labels = [label.strip().rstrip(".\u3002").strip() for label in re.split("[;\uff1b]", match[1])] if match else []
    return tuple(label for label in labels if label) if len(labels) > 1 else ()


def conclusions(text: str) -> list[str]:
    """What the text presents as its answer (`\\boxed{…}`, "Final answer: …", "the answer is …"), the last one first."""
    elsewhere = not text.isascii() and _OTHER_ALPHABET.search(text)
    pattern = _CONCLUSION_ELSEWHERE if elsewhere else _CONCLUSION
    found, position = [], 0
    while match := pattern.search(text, position):
        position = match.start(match.lastgroup or 0)  # one may hold another: "Final answer: it is \boxed{C}"
        found.append(match[match.lastgroup or 0])
    return found[: -_CONCLUSIONS - 1 : -1]


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
