"""The choices that a question offers, lettered or as labels, and the form in which they are compared."""

import re
from functools import lru_cache

from medvl.normalisation import UNSPACED, normalise

# Behind the mark stands a space, or a letter of a script that is written without; such a letter may stand before it.
_OPTION_MARK = re.compile(rf"(?<![^\W{UNSPACED}])(?<!')\(?([A-Z])\s?[:.)](?:\s+|(?=[^\W\x00-\x7f]))")
# An option after the first, on a line of its own: there the mark needs no space, and no letter within a text is one.
_LINE_MARK = re.compile(r"^[^\S\n]*\(?([B-Z])\s?([.:)])", re.MULTILINE)
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
