"""What becomes of an answer: other values, other texts, other boxes."""

import ast
import json
import random
from collections.abc import Callable
from typing import Any

Change = Callable[[random.Random, Any], Any]
# In place of an answer: no key for it, one value for all rows of a perturbation, another question's answer.
ABSENT, FIXED, ANOTHER = object(), object(), object()

NO_ANSWERS = [
    "", " ", "None", "null", "nan", "inf", "-inf", "1e308", "-1.7e308", "1e999", "1_000", "1,664", "\u0663", "True",
    "0", "-0", "[]", "{}", "[", "{", "()", ";", " ; ,", "'A'", '"A"', "b'A'", "\u0131", "\u0130", "A\x00", "{1, 2}",
    "Error: CUDA out of memory", "[" * 4000, '["abcd"]', "[[1,2,30,null]]", "[[1, 2, 30, None]]", "[[1, 2, 3]]",
    "[[1e999, 0, 5, 5]]", "[[nan, 0, 1, 1]]", "[[1, 2, 3, 4]", "((1, 2, 3, 4),)", "[(1, 2, 3, 4)]", "[[True, 0, 5, 5]]",
    "[[1j, 0, 5, 5]]", f"[[0, 0, {10**400}, 9]]", "[{0: 0, 90: 0, 99: 0, 120: 0}]",
    '[{"bbox_2d": [1, 2, 3, 4], "label": "x"}]', '{"1": 7}', '{"1": null, "2": [[1, 2, 3, 4]]}',
    '{"1": "[[1, 2, 3, 4]]"}', '{"1": [1, 2, 3, 4]}', '{"1": [[NaN, 0, 1, 1]]}', '{"1": [], "1": [[1, 2, 3, 4]]}',
]  # fmt: skip
VALUES = [
    None, ABSENT, True, False, 0, 1, -3, 2.5, 10**400, [], {}, [None], ["A"], ["A", "B"], {"answer": "A"}, [True],
    [[1, 2, 30, None]], [1, 2, 3, 4], [[1, 2, 3, 4]], [[[1, 2, 3, 4]]], {"1": [[1, 2, 3, 4]]}, {"1": 7}, {"1": None},
    {"bbox_2d": [1, 2, 3, 4]},
]  # fmt: skip


def typed(draw: random.Random, answer: Any) -> Any:
    """The value that a text spells, the text that a value is spelled as, or either in a list."""
    if draw.random() < 0.3:
        return [answer]
    if not isinstance(answer, str):
        return str(answer)
    try:
        value = json.loads(answer)
        json.dumps(value, allow_nan=False)  # a file with NaN in it is no JSON
    except (ValueError, RecursionError):
        return answer.split("; ")
    return value


def _always(value: Any) -> Change:
    return lambda draw, answer: value  # noqa: ARG005


def _one_of(values: list[Any]) -> Change:
    return lambda draw, answer: draw.choice(values)  # noqa: ARG005


def _text(change: Callable[[str], str]) -> Change:
    return lambda draw, answer: change(str(answer))  # noqa: ARG005


def _padded(draw: random.Random, answer: Any) -> str:
    before, after = draw.choice(["", " ", "  ", "\t", "\n", "\xa0"]), draw.choice(["", " ", "\n", "."])
    return f"{before}{answer}{after}"


def _boxes(change: Callable[[random.Random, list[Any]], Any]) -> Change:
    """A change of a list of boxes, or of the boxes of every name; anything else stays as it is."""

    def apply(draw: random.Random, answer: Any) -> Any:
        try:
            value = ast.literal_eval(answer) if isinstance(answer, str) else answer
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return answer
        if isinstance(value, dict) and value:
            value = {name: change(draw, boxes) if isinstance(boxes, list) and boxes else boxes
                     for name, boxes in value.items()}  # fmt: skip
        elif isinstance(value, list) and value:
            value = change(draw, value)
        try:
            return json.dumps(value)
        except TypeError:  # a complex number, a set
            return answer

    return apply


def _each(change: Callable[[random.Random, list[int]], list[Any]]) -> Change:
    """A change of every box of whole numbers."""

    def apply(draw: random.Random, boxes: list[Any]) -> list[Any]:
        whole = [
            isinstance(box, list) and len(box) == 4 and all(isinstance(part, int) for part in box) for box in boxes
        ]
        return [change(draw, box) if usable else box for box, usable in zip(boxes, whole, strict=True)]

    return _boxes(apply)


def _moved(draw: random.Random, box: list[int]) -> list[Any]:
    return [part + draw.randint(-12, 12) for part in box]


def _half(draw: random.Random, box: list[int]) -> list[Any]:
    """IoU of exactly one half, or just more."""
    return [box[0], box[1], box[2], (box[1] + box[3]) / 2 + draw.choice([0, 1])]


CHANGES: list[Change] = [
    *[_always(FIXED)] * 6, *[_always(ANOTHER)] * 2, *[typed] * 2, *[_one_of(NO_ANSWERS)] * 2, *[_one_of(VALUES)] * 2,
    _text(lambda answer: f"The answer is {answer}."),
    _text(lambda answer: f"```json\n{answer}\n```"),
    _text(str.swapcase),
    _text(lambda answer: answer.replace('"', "'")),
    _padded,
    lambda draw, answer: str(answer)[: draw.randrange(1, 40)],
    lambda draw, answer: str(answer).replace(";", draw.choice([",", " ;", "\uff1b", "|", "\n"])),
    lambda draw, answer: f"{answer}; {draw.choice(['Normal', 'dental caries', answer])}",
    _each(_moved), _each(_moved), _each(_half),
    _each(lambda draw, box: [float(part) for part in box]),  # noqa: ARG005
    _each(lambda draw, box: box[::-1]),  # noqa: ARG005
    _each(lambda draw, box: [*box[:3], None]),  # noqa: ARG005
    _boxes(lambda draw, boxes: boxes[0]),  # noqa: ARG005
    _boxes(lambda draw, boxes: boxes[:-1]),  # noqa: ARG005
    _boxes(lambda draw, boxes: draw.sample(boxes, len(boxes))),
    _boxes(lambda draw, boxes: [*boxes, draw.choice(boxes)]),
]  # fmt: skip
