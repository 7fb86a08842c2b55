"""Answers in the form of data (JSON, or a Python literal) in the plain form of their task.

`["A"]` is the letter A, `{"RBC": 1, "WBC": 0}` the label RBC, `{"count": 17}` the number 17, `{"findings": "Clear."}` a
report. Data that has no plain form for its task (scores, boxes, a tree) is not guessed at. Box answers have a parser of
their own (`medvl.box_text`).
"""

import ast
import json
import re
import warnings
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from medvl.box_text import MAX_CHARACTERS
from medvl.normalisation import normalise

if TYPE_CHECKING:
    from medvl.tasks import Task  # tasks read answers with this module

_DATA = ("{", "[", '"')
_MAX_LITERAL = 20_000  # characters; Python's own parser takes many times a text's length in memory
_FENCE = re.compile(r"```[\w-]*\n(.*)```", re.DOTALL)
# Keys under which an answer stands, perhaps beside other things such as an explanation.
_ANSWER_KEYS = ("answer", "final_answer", "prediction", "response", "output", "result", "choice", "option", "letter")
_LABEL_KEYS = ("label", "labels", "name", "class", "diagnosis", "diagnoses", "finding", "findings", "category")
_YES = frozenset({"1", "1.0", "true", "yes", "present", "positive"})
_NO = frozenset({"0", "0.0", "false", "no", "absent", "negative"})


def plain_text(text: str, task: "Task", separator: str | None = None) -> str | None:
    """The text of an answer in the plain form of its task: a text that is no data as it is.

    Args:
        text: An answer, of a dataset or a model.
        task: Not one with boxes.
        separator: Of labels; `;` if not known.

    Returns:
        None where data has no plain form: several letters for one choice, labels that hold the separator, scores. An
        empty text where it says that there is no label.

    >>> from medvl.tasks import Task
    >>> plain_text('{"RBC": 1, "WBC": 0}', Task.MULTI_LABEL)
    'RBC'
    >>> plain_text("Heart size is normal.", Task.REPORT)
    'Heart size is normal.'
    """
    value = _data(text)
    if value is None:
        return text
    if task.form != "labels":
        return _WRITERS[task.form](value)
    labels, mark = _labels(value), separator or ";"
    if labels is None:
        return value if isinstance(value, str) else None
    return None if any(mark in label for label in labels) else f"{mark} ".join(labels)


def bare_text(text: str) -> str:
    """The text of an answer in one width and without a fence around it, as far as it is read at all."""
    text = normalise(text[:MAX_CHARACTERS])
    fenced = _FENCE.fullmatch(text.strip())
    return fenced[1] if fenced and "```" not in fenced[1] else text


def plain_words(text: str, task: "Task") -> str:
    """The text of a model's answer, bare and in the plain form of its task; data that has none as its labels, or as
    it is."""
    text = bare_text(text)
    return plain_text(text, task) or ", ".join(label_list(text) or [text])


def label_list(text: str) -> list[str] | None:
    """The labels of an answer that lists them as data, as they are spelled there; None for any other text.

    >>> label_list("['Edema', 'Mass']")
    ['Edema', 'Mass']
    """
    value = _data(text)
    return None if value is None else _labels(value)


def plain_number(text: str) -> str:
    """A number with an exponent in plain digits, any other text as it is.

    >>> plain_number("1e-05")
    '0.00001'
    """
    if len(text) > 32 or not re.fullmatch(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]{1,2}", text):
        return text
    number = Decimal(text)
    return f"{number:f}" if -15 <= number.adjusted() <= 15 else text


def _data(text: str) -> object | None:
    """What a text says as data; None if it is no data."""
    text = text.strip()
    if not text.startswith((*_DATA, "`")):  # nearly every text
        return None
    fenced = _FENCE.fullmatch(text)
    text = fenced[1].strip() if fenced and "```" not in fenced[1] else text
    if not text.startswith(_DATA) or text[-1] not in '}]"':
        return None
    try:
        return _unwrapped(json.loads(text, parse_float=Decimal))  # 1.10 stays 1.10
    except (ValueError, RecursionError):
        pass
    if text[0] == '"' or len(text) > _MAX_LITERAL:
        return None
    try:
        with warnings.catch_warnings():  # of escapes that Python does not know
            warnings.simplefilter("ignore")
            return _unwrapped(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _unwrapped(value: object) -> object:
    """The answer inside an object that holds it under a key of that meaning, and in a string that is data again."""
    if isinstance(value, Mapping):
        named = [key for key in value if str(key).lower() in _ANSWER_KEYS]
        if len(named) == 1:
            return _unwrapped(value[named[0]])
        if len(value) == 1 and str(next(iter(value))).lower() in _LABEL_KEYS:
            (inner,) = value.values()
            return _unwrapped(inner) if isinstance(inner, str | list | Mapping) else value
        return value
    if isinstance(value, str) and value.strip().startswith(_DATA) and (inner := _data(value)) is not None:
        return inner
    return value


def _labels(value: object) -> list[str] | None:
    """Labels in a list, one by one or each in an object, or with a mark for present or absent; each once."""
    if isinstance(value, Mapping):
        if len(value) == 1 and isinstance(listed := next(iter(value.values())), list):
            return _labels(listed)
        marks = {str(label): str(mark).strip().lower() for label, mark in value.items()}
        if not marks or not set(marks.values()) <= _YES | _NO:
            return None
        return [label.strip() for label, mark in marks.items() if mark in _YES]
    if not isinstance(value, list | tuple):
        return None
    found: list[str] = []
    for item in value:
        one = _label(item)
        if one is None:
            return None
        found.append(one)
    return list(dict.fromkeys(found))


def _label(item: object) -> str | None:
    if isinstance(item, Mapping):
        named = [value for key, value in item.items() if str(key).lower() in _LABEL_KEYS]
        item = named[0] if len(named) == len(item) == 1 else None
    return item.strip() or None if isinstance(item, str) else None


def _choice(value: object) -> str | None:
    """The one label or letter; of marked labels the one that is marked."""
    value = _alone(value)
    if isinstance(value, str):
        return value
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    labels = _labels(value)
    return labels[0] if labels and len(labels) == 1 else None


def _number(value: object) -> str | None:
    value = _alone(value)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return plain_number(str(value))
    return value if isinstance(value, str) else None


def _report(value: object) -> str | None:
    """Sentences of a list one after the other, sections of an object each under its title."""
    value = _alone(value)
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, Mapping):
        parts = [(str(title).replace("_", " ").strip(), _report(text)) for title, text in value.items()]
        if not parts or any(text is None for _, text in parts):
            return None
        return "\n".join(f"{title[:1].upper()}{title[1:]}: {text}" for title, text in parts)
    if isinstance(value, list | tuple):
        sentences = [item.strip() if isinstance(item, str) else "" for item in value]
        return " ".join(sentences) if sentences and all(sentences) else None
    return None


def _alone(value: object) -> object:
    """The one value in a list or object of one; marks such as {"Edema": 1} stay."""
    while isinstance(value, Mapping | list | tuple) and len(value) == 1:
        value = next(iter(value.values())) if isinstance(value, Mapping) else value[0]
    return value


_WRITERS = {"choice": _choice, "number": _number, "text": _report}  # by the form of a task's answers
