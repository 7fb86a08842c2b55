"""How right an answer to one of the eight ultrasound questions is: from 0 to 1, by the measure of its question.

    Q1  structures, F2 over groups of synonyms          Q5  bin of weeks: 1, next to it 0.5
    Q2  orientation: same words 1, same keyword 0.5     Q6  tier: 1, next to it 0.5
    Q3  plane: the same                                 Q7  same words 1, same of normal and abnormal 0.5
    Q4  measurements, F1 over keywords                  Q8  ROUGE-L

The measures are FADA's (ElyasAmri/fada-pub, evaluation/question_scorer.py); Q8 there is BERTScore, which the extra
`radiology` adds. Different here, since there an answer could be right by saying nothing:

- keywords are looked for in the whole text, not at its start;
- where the reference has no keyword or tier, only its own words are right; there, two empty sets were equal;
- "not good" is low, and "not measurable" is part of what is measured.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from medvl.sources.ultrasound_labels import (
    LABELS,
    QUESTIONS,
    Normality,
    Question,
    age_bin,
    age_bins,
    facts,
    normalise_answer,
    normality,
)
from medvl.yaml_files import read_yaml

_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s+", re.MULTILINE)
_SAYS_UNCLEAR = re.compile(
    r"\bunclear\b|\bindeterminate\b|\binconclusive\b"
    r"|\b(?:not|cannot) (?:be )?(?:well )?(?:assess|determin|evaluat)",
    re.IGNORECASE,
)
_NOT = re.compile(r"\b(?:not|no|non|without)(?:\s+\w+)?\s*$", re.IGNORECASE)


class Scored(NamedTuple):
    """A score with its parts, where the question has them; equal to the score where it has none."""

    score: float
    precision: float
    recall: float


@cache
def words() -> dict[str, Any]:
    """The content of `ultrasound.yaml`."""
    return read_yaml(Path(__file__).with_name("ultrasound.yaml"))


@lru_cache(maxsize=65536)  # most references are among a few
def score_answer(question: Question, said: str, truth: str) -> Scored:
    """How right an answer is.

    Args:
        question: Which of the eight.
        said: The model's words.
        truth: The reference's, not blank.
    """
    said, truth = _plain(question, said), _plain(question, truth)
    if not said:
        return Scored(0.0, 0.0, 0.0)
    if said.casefold() == truth.casefold():
        return Scored(1.0, 1.0, 1.0)
    return _MEASURES[question](said, truth)


def _plain(question: Question, text: str) -> str:
    """Canonical words, without the question's own heading before them."""
    asked = facts()["questions"][question]
    heads = "|".join(re.escape(asked[name]) for name in ("heading", "section"))
    text = re.sub(rf"^\W*(?:{heads})\W*:\W*", "", text.strip(), flags=re.IGNORECASE)
    return normalise_answer(question, _BULLET.sub(", ", text) if question == "q1" else text).text


def _single(score: float) -> Scored:
    return Scored(score, score, score)


def _f_score(precision: float, recall: float, beta: float) -> Scored:
    weighted = beta**2 * precision + recall
    return Scored((1 + beta**2) * precision * recall / weighted if weighted else 0.0, precision, recall)


@cache
def _groups() -> dict[str, frozenset[int]]:
    """Structure to the numbers of its groups."""
    lines = words()["structures"]
    return {name: frozenset(n for n, line in enumerate(lines) if name in line) for line in lines for name in line}


def structures(text: str) -> list[str]:
    """The structures that a list names, in one spelling each."""
    parts = re.split(r"[,;\n]|\.\s", text)
    names = (re.sub(r"^(?:and|the) ", "", " ".join(part.split()).strip(" .*:").casefold()) for part in parts)
    return [name for name in dict.fromkeys(names) if name]


def _same_structure(one: str, other: str) -> bool:
    groups = _groups()
    return one == other or bool(groups.get(one, frozenset()) & groups.get(other, frozenset()))


def _structures(said: str, truth: str) -> Scored:
    named, expected = structures(said), structures(truth)
    if not named or not expected:
        return _single(0.0)
    right = sum(any(_same_structure(name, other) for other in expected) for name in named)
    found = sum(any(_same_structure(name, other) for other in named) for name in expected)
    return _f_score(right / len(named), found / len(expected), 2.0)


def keyword(kind: str, text: str) -> str | None:
    """The keyword of an orientation or a plane."""
    patterns: Mapping[str, str] = words()[kind]
    return next((name for name, pattern in patterns.items() if re.search(pattern, text, re.IGNORECASE)), None)


def _by_keyword(kind: str) -> Callable[[str, str], Scored]:
    def measure(said: str, truth: str) -> Scored:
        expected = keyword(kind, truth)
        return _single(0.5 if expected and keyword(kind, said) == expected else 0.0)

    return measure


def measurements(text: str) -> frozenset[str]:
    """The measurements that a text names."""
    patterns: Mapping[str, str] = words()["measurements"]
    found = (name for name, pattern in patterns.items() if re.search(pattern, text, _case(name)))
    return frozenset(found)


def _case(name: str) -> re.RegexFlag:
    """The abbreviation IT is a word in lower case."""
    return re.NOFLAG if name == "IT" else re.IGNORECASE


def _measurements(said: str, truth: str) -> Scored:
    named, expected = measurements(said), measurements(truth)
    if not named or not expected:
        return _single(0.0)
    right = len(named & expected)
    return _f_score(right / len(named), right / len(expected), 1.0)


def _age(said: str, truth: str) -> Scored:
    named, expected = age_bin(said), age_bin(truth)
    if named is None or expected is None:
        return _single(0.0)
    return _single(_near(age_bins().index(named), age_bins().index(expected)))


def _near(one: int, other: int) -> float:
    return {0: 1.0, 1: 0.5}.get(abs(one - other), 0.0)


def tier(text: str) -> str | None:
    """The tier of an image's quality: good, medium or low."""
    matches = ((match, name) for name, pattern in words()["tiers"].items()
               if (match := re.search(pattern, text, re.IGNORECASE)))  # fmt: skip
    first, name = min(matches, key=lambda found: found[0].start(), default=(None, None))
    return "low" if first and name != "low" and _NOT.search(text[: first.start()]) else name


def _quality(said: str, truth: str) -> Scored:
    tiers = list(words()["tiers"])
    named, expected = tier(said), tier(truth)
    return _single(_near(tiers.index(named), tiers.index(expected)) if named and expected else 0.0)


def label(text: str) -> Normality | None:
    """What a text says about normality; None where it says nothing of it, which is not the same as `unclear`.

    >>> label("Abnormal NT thickening"), label("It is unclear"), label("CUDA out of memory")
    ('abnormal', 'unclear', None)
    """
    said = normality(text)
    return said if said != "unclear" or _SAYS_UNCLEAR.search(text) else None


def truth_label(text: str) -> Normality:
    """What a reference says; an annotator who says nothing of it is unclear."""
    return normality(text)


def _normality(said: str, truth: str) -> Scored:
    """A reference that is a bare label has no words to meet, so that its label is all of it."""
    same = label(said) == truth_label(truth)
    if truth.casefold() in LABELS:
        return _single(float(same))
    return _single(0.5 if same and truth_label(truth) != "unclear" else 0.0)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds to import

    return RougeScorer(["rougeL"])


def _recommendation(said: str, truth: str) -> Scored:
    found = _rouge().score(truth, said)["rougeL"]
    return Scored(found.fmeasure, found.precision, found.recall)


_MEASURES: Mapping[Question, Callable[[str, str], Scored]] = {
    "q1": _structures,
    "q2": _by_keyword("orientation"),
    "q3": _by_keyword("plane"),
    "q4": _measurements,
    "q5": _age,
    "q6": _quality,
    "q7": _normality,
    "q8": _recommendation,
}


def sections(report: str) -> dict[Question, str]:
    """The sections of a combined report that are there and not blank, by question; headings in any Markdown.

    >>> sections("## Image Quality\\nGood image quality\\n\\n**Gestational Age:** 20-25 weeks")
    {'q6': 'Good image quality', 'q5': '20-25 weeks'}
    """
    asked = facts()["questions"]
    named: dict[str, Question] = {
        asked[question][name].casefold(): question for question in QUESTIONS for name in ("section", "heading")
    }
    heads = "|".join(map(re.escape, sorted(named, key=len, reverse=True)))
    head = re.compile(rf"^[\s#*\d.)]*({heads})\s*(?::|\*|$)[:*]*[^\S\n]*", re.MULTILINE | re.IGNORECASE)
    marks = list(head.finditer(report))
    ends = [*(mark.start() for mark in marks[1:]), len(report)]
    found: dict[Question, str] = {}
    for mark, end in zip(marks, ends, strict=False):  # without a mark there is an end too many
        text = report[mark.end() : end].strip()
        if text:  # of a section that stands twice the first counts
            found.setdefault(named[mark[1].casefold()], text)
    return found


def is_blank(text: str) -> bool:
    """Whether a section says that its question was not answered."""
    blank: str = facts()["blank"]
    return text.strip().casefold() == blank.casefold()
