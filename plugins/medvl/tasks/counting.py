"""Counting: how many there are, a whole number.

"How many red blood cells are there?"   ->  "17"
"""

from collections.abc import Iterator

from medvl.numbers import pick_number
from medvl.structured import plain_words
from medvl.tasks.base import Answer, Context, Issue, Row, Task, TaskSpec, Writing, unexpected_boxes


def parse(text: str, _: Context) -> Answer:
    """The one number that a text states; a percentage is no count."""
    return Answer(Task.COUNTING, *pick_number(plain_words(text, Task.COUNTING), counts=True))


def number_of(answer: Answer) -> float | None:
    """The number of an answer, None if it did not parse."""
    return answer.value if isinstance(answer.value, float) else None


def written(answer: Answer) -> str:
    """A parsed number, without decimals where it is whole."""
    number = number_of(answer)
    assert number is not None
    return str(int(number)) if number.is_integer() else repr(number)


def tidy(_: str, answer: Answer, __: Context) -> str:
    """The bare number."""
    return written(answer)


def hand_in(answer: Answer, _: Writing) -> str:
    """The bare number."""
    return written(answer)


def audit_number(row: Row, number: float | None) -> Iterator[Issue]:
    """A negative number, boxes."""
    if number is not None and number < 0:
        yield "NEGATIVE_NUMBER", f"{row.said[:80]} is negative"
    yield from unexpected_boxes(row.said)


def audit(row: Row) -> Iterator[Issue]:
    """A negative count or one that is not whole, boxes."""
    number = number_of(TASK.read(row.said, Context(row.question)))
    yield from audit_number(row, number)
    if number is not None and not number.is_integer():
        yield "COUNT_NOT_WHOLE", f"a count of {row.said[:80]}"


TASK = TaskSpec(
    task=Task.COUNTING,
    spellings=("counting", "cell counting"),
    label="how many objects, count their number",
    max_new_tokens=32,
    postprocess="count",
    headline="mae",
    higher_is_better=False,
    quantity="absolute_error",
    parse=parse,
    tidy=tidy,
    hand_in=hand_in,
    audit=audit,
)
