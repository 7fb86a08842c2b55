"""What the annotators of a fetal ultrasound set mean: canonical words, the three labels of Q7, the bins of Q5.

The words are data, `ultrasound.yaml` beside this file; here is what is done with them.
"""

import re
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from medvl.yaml_files import read_yaml

Question = Literal["q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8"]
QUESTIONS: tuple[Question, ...] = get_args(Question)
Normality = Literal["normal", "abnormal", "unclear"]
LABELS: tuple[Normality, ...] = get_args(Normality)
_GUARDED = re.compile(r"\bguarded prognosis\b", re.IGNORECASE)
_NUMBER = r"(\d+(?:[.,]\d+)?)"
_RANGE = re.compile(rf"{_NUMBER}\s*(?:weeks?|wks?|w)?\s*(?:-|\u2013|\u2014|\bto\b|\band\b)\s*{_NUMBER}")
_WEEK = re.compile(rf"{_NUMBER}(?:\s*(?:\+|weeks?\s*(?:and\s*|,\s*)?|wks?\s*|w\s*)\s*([0-6])(?!\d)\s*(?:/7|d\w*)?)?")


class Normalised(NamedTuple):
    """An answer in canonical words, and by which rules it got them; without rules it stands as it was."""

    text: str
    rules: tuple[str, ...] = ()


@cache
def facts() -> dict[str, Any]:
    """The content of `ultrasound.yaml`."""
    return read_yaml(Path(__file__).with_suffix("").with_name("ultrasound.yaml"))


@lru_cache(maxsize=65536)  # 18,936 rows have some 2,000 different answers
def normalise_answer(question: Question, answer: str) -> Normalised:
    """An answer in the words that the annotators mostly use; blank where nothing is said.

    >>> normalise_answer("q7", "the visible structures are wwithin normal")
    Normalised(text='Within normal limits', rules=('canonical',))
    >>> normalise_answer("q5", "13+1d")
    Normalised(text='13-15 weeks', rules=('bin',))
    """
    steps = (
        ("list", _listed if question == "q1" else _same),
        ("cleaned", _cleaned),
        ("placeholder", lambda text: "" if text.casefold() in facts()["placeholders"] else text),
        ("spelling", _spelled),
        ("bin", (lambda text: age_bin(text) or text) if question == "q5" else _same),
        ("canonical", lambda text: _canonical(question, text)),
    )
    text, rules = answer, []
    for rule, step in steps:
        before, text = text, step(text)
        if text != before:
            rules.append(rule)
    return Normalised(text, tuple(rules))


def _same(text: str) -> str:
    return text


def _cleaned(text: str) -> str:
    """Single spaces, no spaces before commas, nothing around it but a closing bracket."""
    return re.sub(r" +([,;])", r"\1", " ".join(text.split())).strip(" .,;")


@cache
def _spelling() -> tuple[re.Pattern[str], dict[str, str]]:
    fixes = {wrong: right for right, spellings in facts()["spelling"].items() for wrong in spellings}
    words = "|".join(map(re.escape, sorted(fixes, key=len, reverse=True)))
    return re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE), fixes


def _spelled(text: str) -> str:
    pattern, fixes = _spelling()

    def fixed(match: re.Match[str]) -> str:
        right = fixes[match[0].lower()]
        return right[0].upper() + right[1:] if match[0][0].isupper() else right

    return pattern.sub(fixed, text)


def _listed(text: str) -> str:
    """Structures between commas, each once."""
    parts = [part.strip() for part in re.split(r"[,;\n]", text)]
    return ", ".join(dict.fromkeys(part for part in parts if part))


@cache
def _canonicals(question: Question) -> tuple[tuple[re.Pattern[str], str], ...]:
    pairs = facts()["canonical"].get(question, ())
    return tuple((re.compile(pattern, re.IGNORECASE), words) for pattern, words in pairs)


def _canonical(question: Question, text: str) -> str:
    found = ((match, words) for pattern, words in _canonicals(question) if (match := pattern.fullmatch(text)))
    match, words = next(found, (None, ""))
    return match.expand(words) if match else text


@cache
def _signs() -> dict[str, re.Pattern[str]]:
    return {name: re.compile(pattern, re.IGNORECASE) for name, pattern in facts()["normality"].items()}


@lru_cache(maxsize=65536)
def normality(answer: str, guarded: Normality = "normal") -> Normality:
    """What an answer to Q7 says, whoever wrote it.

    Args:
        answer: The words.
        guarded: The label of a normal finding with a guarded prognosis.

    >>> normality("Abnormal NT thickening"), normality("No abnormality"), normality("Notmal")
    ('abnormal', 'normal', 'unclear')
    """
    signs, said = _signs(), set[str]()
    if signs["undecided"].search(answer):
        return "unclear"
    for clause in filter(None, signs["clause"].split(_spelled(answer))):
        for sign, contrary in (("abnormal", "normal"), ("normal", "abnormal")):
            for match in signs[sign].finditer(clause):
                denied = signs["negation"].search(clause[: match.start()]) is not None
                said.add(contrary if denied else sign)
    if "abnormal" in said:
        return "abnormal"
    if "normal" in said:
        return guarded if _GUARDED.search(answer) else "normal"
    return "unclear"


def age_bins() -> tuple[str, ...]:
    """The bins of Q5, youngest first.

    >>> age_bins()[0], age_bins()[-1]
    ('8-13 weeks', '38+ weeks')
    """
    edges = facts()["age_bins"]
    return (*(f"{low}-{high} weeks" for low, high in pairwise(edges)), f"{edges[-1]}+ weeks")


def age_bin(answer: str) -> str | None:
    """The bin that an age lies in, a range by its middle; None where there is no age, or none from the first bin on.

    >>> age_bin("about 24 to 28 weeks"), age_bin("14w3d"), age_bin("38+ weeks"), age_bin("third trimester")
    ('25-30 weeks', '13-15 weeks', '38+ weeks', None)
    """
    edges: list[int] = facts()["age_bins"]
    weeks = _weeks(answer)
    if weeks is None or weeks < edges[0] or weeks > 45:  # no pregnancy is as long: another number
        return None
    return age_bins()[sum(weeks >= edge for edge in edges) - 1]


def _weeks(answer: str) -> float | None:
    if spread := _RANGE.search(answer):
        low, high = (float(number.replace(",", ".")) for number in spread.groups())
        return (low + high) / 2
    if week := _WEEK.search(answer):
        return float(week[1].replace(",", ".")) + int(week[2] or 0) / 7
    return None
