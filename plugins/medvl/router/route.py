"""The router's decision about one question, and the form in which every stage reads questions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from medvl.instructions import GENERAL
from medvl.normalisation import normalise as one_form
from medvl.sharegpt import MEDIA_TAGS

Source = Literal["metadata", "wording", "gliclass", "rules", "none", "error"]

_TAGS = re.compile(rf"(?:Image-[0-9]+:\s*)?(?:{'|'.join(map(re.escape, MEDIA_TAGS))})")
_SPECIAL = re.compile(r"<<[^<>]*>>|<\|[^<>|]*\|>")  # GLiClass's and chat templates' own tokens, in a user's text
_HEAD, _TAIL = 1_000, 3_000  # characters; a prompt asks at its beginning or, more often, at its end


@dataclass(frozen=True)
class Route:
    """The task of one question.

    Attributes:
        task: A canonical task name, or `general` where the router abstains.
        confidence: 0 to 1, of the stage that decided; of the best guess where it abstains.
        source: The stage that decided: wording is the words alone, gliclass both classifiers; none where no stage did,
            error where one failed.
        scores: Task -> score of the deciding stage; only the tasks it considered.
        abstained: Whether no stage was sure enough. `task` is then `general`.
        margin: The best score minus the second best.
        reason: Why, in words.
    """

    task: str
    confidence: float
    source: Source
    scores: Mapping[str, float] = field(default_factory=dict)
    abstained: bool = False
    margin: float = 0.0
    reason: str = ""


def abstain(reason: str, *, source: Source = "none", scores: Mapping[str, float] | None = None) -> Route:
    """The route to `general`."""
    known = dict(scores or {})
    best, _ = best_two(known)
    return Route(GENERAL, best, source, known, True, margin(known), reason)


def best_two(scores: Mapping[str, float]) -> tuple[float, float]:
    """The best and the second best score; 0 where there is none."""
    best, second = [*sorted(scores.values(), reverse=True), 0.0, 0.0][:2]
    return best, second


def margin(scores: Mapping[str, float]) -> float:
    """How far the best score is from the second best."""
    best, second = best_two(scores)
    return best - second


def normalise(question: str) -> str:
    """The question as the stages read it: one form of width, single spaces, no media tags, no special tokens.

    Case stays, since option letters depend on it. Tokens of GLiClass (`<<LABEL>>`) in a user's text would corrupt its
    scores, so they go too. Of more than 4,000 characters the middle goes.
    """
    text = " ".join(_SPECIAL.sub(" ", _TAGS.sub(" ", one_form(question))).split())
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} {text[-_TAIL:]}"
