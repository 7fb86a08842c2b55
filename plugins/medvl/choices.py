"""The choices that a question offers, lettered or as labels, and the form in which they are compared."""

import re
from functools import lru_cache

from medvl.normalisation import UNSPACED, normalise

# Behind the mark stands a space, or a letter of a script that is written without; such a letter may stand before it.
_OPTION_MARK = re.compile(rf"(?<![^\W{UNSPACED}])(?<!')\(?([A-Z])\s?[:.)](?:\s+|(?=[^\W\x00-\x7f]))")
_OFFER = re.compile(r"(?:\bfollowing\b|以下|下列)[^:;\uff1a\uff1b]*[:\uff1a]\s*(.+)", re.DOTALL | re.IGNORECASE)
_DECORATION = " \t\n*_`$\"'.,;:()[]{}"


def normal(text: str) -> str:
    """Case-folded text in one width, with single spaces and without quotes, emphasis and punctuation around it."""
    return " ".join(normalise(text).split()).strip(_DECORATION).casefold()


def options(question: str) -> dict[str, str]:
    """Lettered options of a question, letter -> text, in order; empty if it has none. Texts in the form of `normalise`.

    >>> options("Is it normal? A: No, B: Yes")
    {'A': 'No', 'B': 'Yes'}
    """
    return dict(_options(question))


@lru_cache(maxsize=4096)  # a dataset asks a handful of questions, thousands of times
def _options(question: str) -> tuple[tuple[str, str], ...]:
    question = normalise(question)
    run: list[re.Match[str]] = []
    best: list[re.Match[str]] = []
    for mark in _OPTION_MARK.finditer(question):
        if mark[1] == "A":
            run = [mark]
        elif run and ord(mark[1]) == ord(run[-1][1]) + 1:
            run.append(mark)
        best = run if len(run) >= len(best) else best
    if len(best) < 2:
        return ()
    ends = [mark.start() for mark in best[1:]] + [len(question)]
    return tuple((mark[1], question[mark.end() : end].strip(" \n\t,;(")) for mark, end in zip(best, ends, strict=True))


@lru_cache(maxsize=4096)
def offered_labels(question: str) -> tuple[str, ...]:
    """Labels a select-all question lists after "following … :", separated by semicolons; empty if it lists none.

    In the question's own spelling, since they are handed in so.
    """
    match = _OFFER.search(question)
    labels = [label.strip().rstrip(".\u3002").strip() for label in re.split("[;\uff1b]", match[1])] if match else []
    return tuple(label for label in labels if label) if len(labels) > 1 else ()
