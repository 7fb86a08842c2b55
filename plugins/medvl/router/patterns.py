"""What the rules are written in: words and phrases, as regular expressions that a person can read.

Texts come in with single spaces, so a space in a phrase is a space. Case never counts.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from medvl.tasks import Task


@dataclass(frozen=True)
class Rule:
    """One cue: what it is called, the task it tells, and whether a text shows it."""

    name: str
    task: Task
    matches: Callable[[str], bool]


def any_of(words: str) -> str:
    """One of several words, given with blanks between them; `_` stands for the space in a phrase."""
    return f"(?:{'|'.join(words.split())})".replace("_", " ")


def pattern(*phrases: str) -> re.Pattern[str]:
    """Any of the phrases, each as whole words."""
    return re.compile("|".join(rf"(?<!\w)(?:{phrase})(?!\w)" for phrase in phrases), re.IGNORECASE)


def pattern_of(*phrases: str) -> Callable[[str], bool]:
    """Whether a text has any of the phrases."""
    compiled = pattern(*phrases)
    return lambda text: compiled.search(text) is not None
