"""Whether a prompt is about a medical image at all: a rule on mere wording needs that, a chat prompt has it not."""

import re
from dataclasses import dataclass
from functools import lru_cache

from medvl.router.patterns import FOLDER, read_patterns


@dataclass(frozen=True)
class _Scope:
    at_hand: re.Pattern[str]
    knowledge: re.Pattern[str]
    medical: re.Pattern[str]
    writing: re.Pattern[str]


_SHOWS = read_patterns(FOLDER / "scope.yaml", _Scope)


def asks_for_writing(text: str) -> bool:
    """Whether it wants code, verse, letters, translations: never a task of the router, whatever else it says."""
    return _SHOWS.writing.search(text) is not None


def asks_for_knowledge(text: str) -> bool:
    """Whether it wants knowledge or advice, and speaks of no image at hand."""
    return _SHOWS.knowledge.search(text) is not None and _SHOWS.at_hand.search(text) is None


@lru_cache(maxsize=4096)
def is_medical_image(text: str) -> bool:
    """Whether it speaks of a medical image, or of what such an image shows, rather than asks for knowledge."""
    about_an_image = _SHOWS.medical.search(text) or _SHOWS.at_hand.search(text)
    return about_an_image is not None and not asks_for_knowledge(text)
