"""Corrects typos in the words that the rules read. Every other word stays as it is."""

import re
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz.distance import OSA

from medvl.router.patterns import FOLDER, read_patterns, read_words


@dataclass(frozen=True)
class _Words:
    known: tuple[str, ...]
    right: tuple[str, ...]


@dataclass(frozen=True)
class _Spelling:
    ending: re.Pattern[str]
    word: re.Pattern[str]


_FILE = FOLDER / "spelling.yaml"
_WORDS, _SHOWS = read_words(_FILE, _Words), read_patterns(_FILE, _Spelling)
_RIGHT = frozenset(_WORDS.known + _WORDS.right)


@lru_cache(maxsize=4096)
def corrected(text: str) -> str:
    """The text with misspelt known words corrected: one typo in a word (a letter changed, lost, doubled or swapped),
    two in words of nine letters and more."""
    # A capital inside a sentence is a name: "the Lauge-Hansen categories" are not large.
    return _SHOWS.word.sub(
        lambda match: match[0] if match.start() and match[0].istitle() else _corrected_word(match[0]), text
    )


@lru_cache(maxsize=16384)
def _corrected_word(word: str) -> str:
    folded = word.casefold()
    if {folded, f"{folded}s", folded.removesuffix("s")} & _RIGHT or _is_form_of_a_known_word(folded):
        return word
    allowed = 2 if len(folded) >= 9 else 1
    starts = (folded[0], folded[1::-1])  # the first letter is right, or swapped with the second
    near = [
        (typos, known)
        for known in _WORDS.known
        if known.startswith(starts) and (typos := OSA.distance(folded, known, score_cutoff=allowed)) <= allowed
    ]
    return min(near)[1] if near else word


def _is_form_of_a_known_word(word: str) -> bool:
    """Whether both are one stem with an ending: located, locates, located; diagnosed, diagnostic."""
    return any(
        len(stem) >= 5 and any(known.startswith(stem) and len(known) - len(stem) <= 3 for known in _WORDS.known)
        for stem in (word, _SHOWS.ending.sub("", word))
    )
