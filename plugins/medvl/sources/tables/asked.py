"""Questions with what may be answered to them: options of a row, or the labels of a set, in the form that is read.

Is it normal?          Which of these are there? Choose all that apply from the following: edema; mass
A: yes
B: no
"""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from medvl.choices import normal, offered_labels, options
from medvl.errors import DataError
from medvl.normalisation import normalise
from medvl.sources.tables import cells
from medvl.sources.tables.header import is_blank

_MARK = re.compile(r"\(?([A-Z])\s?[:.)]\s*")
_AROUND = " \n\t,;("  # what `options` takes off


def offered(values: Sequence[Any]) -> dict[str, str]:
    """The options that the cells of a row offer, letter -> text; a cell each, or one with all of them.

    >>> offered(['["yes", "no"]']), offered(["A: left", "B: right"]), offered(["cat | dog"])
    ({'A': 'yes', 'B': 'no'}, {'A': 'left', 'B': 'right'}, {'A': 'cat', 'B': 'dog'})
    """
    value = cells.data(values[0]) if len(values) == 1 else list(values)
    if isinstance(value, Mapping):
        return {str(key).strip().upper(): cells.text(text).strip() for key, text in value.items() if not is_blank(text)}
    if isinstance(value, str):
        if lettered := options(value):
            return lettered
        separator = next((mark for mark in ("\n", "|", ";", ",") if mark in value), ";")
        value = value.split(separator)
    if not isinstance(value, list | tuple):
        return {}
    texts = [cells.text(item).strip() for item in value]
    while texts and not texts[-1]:  # a question with fewer options than columns
        texts.pop()
    marks = [_MARK.match(text) for text in texts]
    if all(marks) and [mark[1] for mark in marks if mark] == list(string.ascii_uppercase[: len(marks)]):
        texts = [text[mark.end() :] for text, mark in zip(texts, marks, strict=True) if mark]
    return dict(zip(string.ascii_uppercase, texts, strict=False))


def with_options(question: str, texts: Mapping[str, str]) -> str:
    """A question with lettered options, unless it has them already.

    Raises:
        DataError: an option would not be read again as it stands.
    """
    if not texts or options(question):
        return question
    asked = "\n".join([question.strip(), *(f"{letter}: {text}" for letter, text in texts.items())])
    if options(asked) != {letter: normalise(text).strip(_AROUND) for letter, text in texts.items()}:
        raise DataError(f"the options {', '.join(map(repr, texts.values()))} cannot be told apart in one question")
    return asked


def with_labels(question: str, labels: Sequence[str], *, several: bool) -> str:
    """A question that offers the labels of a set: lettered where one is asked for and the letters suffice, else listed.

    Raises:
        DataError: a label cannot be offered, since it holds what stands between them.
    """
    if options(question) or offered_labels(question) or len(labels) < 2:
        return question
    if not several and len(labels) <= len(string.ascii_uppercase):
        return with_options(question, dict(zip(string.ascii_uppercase, labels, strict=False)))
    asked = (
        f"{question.strip()} Choose {'all that apply' if several else 'one'} from the following: {'; '.join(labels)}"
    )
    if offered_labels(asked) != tuple(labels):
        odd = next((label for label in labels if ";" in label), labels[-1])
        raise DataError(f"the label {odd!r} cannot stand in a list; give it another name with --labels {odd!r}=NAME")
    return asked


def letter_of(answer: str, texts: Mapping[str, str]) -> str | None:
    """The letter of an answer that is an option's letter or text; None if it is neither, or the two differ.

    >>> letter_of("no", {"A": "yes", "B": "no"}), letter_of("(b)", {"A": "yes", "B": "no"})
    ('B', 'B')
    """
    said = normal(answer)
    by_text = [letter for letter, text in texts.items() if normal(text) == said]
    match = re.fullmatch(r"\W*([A-Za-z])\W*", answer)
    marked = _MARK.match(answer.strip())
    by_letter = match[1].upper() if match and match[1].upper() in texts else None
    if marked and marked[1] in texts and normal(answer.strip()[marked.end() :]) == normal(texts[marked[1]]):
        by_letter = marked[1]
    found = {*by_text, *([by_letter] if by_letter else [])}
    return found.pop() if len(found) == 1 else None


def labels_of(answer: Any, separator: str | None) -> list[str]:
    """The labels that an answer lists, as a list or as a text; the one that it is, where nothing separates any."""
    value = cells.data(answer)
    text = cells.text(answer)
    parts = map(cells.text, value) if isinstance(value, list) else text.split(separator) if separator else [text]
    return [part.strip() for part in parts if part.strip()]
