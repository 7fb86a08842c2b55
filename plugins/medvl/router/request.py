"""What a prompt really asks: its requests, without roles, case histories and claims about its own task."""

import re
from dataclasses import dataclass
from functools import lru_cache

from medvl.router.forms import option_marks
from medvl.router.patterns import FOLDER, read_patterns
from medvl.router.spelling import corrected


@dataclass(frozen=True)
class _Parts:
    asks: re.Pattern[str]
    claim: re.Pattern[str]
    joint: re.Pattern[str]
    option_start: re.Pattern[str]
    order_to_router: re.Pattern[str]
    polite: re.Pattern[str]
    question_marker: re.Pattern[str]
    refused: re.Pattern[str]
    refused_clause: re.Pattern[str]
    role: re.Pattern[str]
    sentence_end: re.Pattern[str]
    told: re.Pattern[str]


_PARTS = read_patterns(FOLDER / "request.yaml", _Parts)


@lru_cache(maxsize=4096)
def focus(question: str) -> str:
    """The part of a normalised question that asks for something; all of it where nothing else would be left.

    Dropped are claims about the task ("task: detection"), what is refused, orders to a router, roles ("You are a
    radiologist"), greetings, told case histories, and what stands before the last "Question:".
    """
    text = _PARTS.claim.sub(" ", question)
    if not option_marks(text):  # an option may well begin with "no"
        text = _PARTS.refused_clause.sub("", text).strip() or text
    text = _PARTS.refused.sub("", text).strip() or text
    *_, last = _PARTS.question_marker.split(text)
    text = last if len(last.split()) > 2 else text
    sentences = [part for part in _PARTS.sentence_end.split(text.strip()) if part]
    sentences = [
        part for part in sentences if not _PARTS.order_to_router.search(part) or _PARTS.option_start.search(part)
    ]
    asking = [part for part in sentences if not _is_told(part)]
    return " ".join(" ".join(asking or sentences).split()) or question


def _is_told(sentence: str) -> bool:
    if sentence.endswith(("?", "\uff1f")) or _PARTS.option_start.search(sentence):
        return False
    if _PARTS.role.search(sentence):
        return True
    return bool(_PARTS.told.search(sentence)) and not _PARTS.asks.search(_PARTS.polite.sub("", sentence))


def requests(text: str) -> list[str]:
    """The single requests of a focused text, without politeness: "Could you please count the cells?" is "count …"."""
    parts = [part for sentence in _PARTS.sentence_end.split(text) for part in _PARTS.joint.split(sentence)]
    return [stripped for part in parts if (stripped := _PARTS.polite.sub("", part.strip()))]


@lru_cache(maxsize=4096)
def asked(question: str) -> str:
    """What rules and classifier read of a normalised question: its focus, typos corrected."""
    return corrected(focus(question))


@lru_cache(maxsize=4096)
def brief(question: str) -> str:
    """What the classifier reads: of lettered or numbered options only the marks, since their texts are mere topic.

    >>> brief("What is it? A: a benign lesion, B: a malignant lesion")
    'What is it? A: B:'
    """
    text = asked(question)
    marks = option_marks(text)
    return f"{text[: marks[0].start()]}{' '.join(mark[0].strip() for mark in marks)}" if marks else text
