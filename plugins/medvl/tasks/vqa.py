"""Open questions (VQA-RAD, SLAKE, PathVQA, PMC-VQA): a word or phrase, or yes or no.

"Which lobe is affected?"     ->  "right upper lobe"
"Is there a pneumothorax?"    ->  "yes"

Which answers are right is not known beforehand, so any words are one: they are compared with the reference.
"""

import re
from collections.abc import Iterator

from medvl.choices import options
from medvl.conclusions import conclusions, is_refusal
from medvl.picking import pick_one
from medvl.structured import plain_words
from medvl.tasks.base import Answer, Context, Issue, Row, Task, TaskSpec, Writing, unexpected_boxes

_YES_NO = {"yes": "yes", "no": "no"}
_SHORT = 10  # words: a longer answer may argue first, and then its conclusion is the answer
# "The fracture cannot be excluded" is an answer, "I cannot tell" is none.
_SPEAKS = re.compile(
    r"\W*(?:(?:i|i'?m|sorry|unfortunately|unable|as an? (?:ai|language|medical))\b|无法|無法|抱歉|对不起|對不起)",
    re.IGNORECASE,
)


def parse(text: str, _: Context) -> Answer:
    """The words of a text, of a long one its conclusion; neither a refusal nor a text without words is an answer."""
    said = plain_words(text, Task.VQA).strip()
    if _SPEAKS.match(said) and is_refusal(said):
        return Answer(Task.VQA, None, "refusal")
    if len(said.split()) > _SHORT:
        said = next(iter(conclusions(said)), said)
    if not any(map(str.isalnum, said)):
        return Answer(Task.VQA, None, "no_words")
    return Answer(Task.VQA, " ".join(said.split()).strip(" *_`\"'").rstrip(". "))


def yes_or_no(text: str) -> str | None:
    """The "yes" or "no" that a text says; None where it says neither.

    >>> yes_or_no("No, the lungs are clear."), yes_or_no("the left lung")
    ('no', None)
    """
    return pick_one(text, _YES_NO)[0]


def tidy(_: str, answer: Answer, __: Context) -> str:
    """The words alone, as the model wrote them."""
    return str(answer.value)


def hand_in(answer: Answer, _: Writing) -> str:
    """The words alone."""
    return str(answer.value)


def audit(row: Row) -> Iterator[Issue]:
    """A question that offers options is a classification, boxes."""
    if offered := options(row.question):
        yield "OPTIONS_OFFERED", f"the question offers {''.join(offered)}; its TaskType says that it is open"
    yield from unexpected_boxes(row.said)


TASK = TaskSpec(
    task=Task.VQA,
    spellings=("vqa", "open ended", "visual question answering", "open vqa"),
    label="answer an open question in a few words: what, why, who, how",
    max_new_tokens=64,
    postprocess="phrase",
    headline="exact_match",
    quantity="token_f1",
    parse=parse,
    tidy=tidy,
    hand_in=hand_in,
    audit=audit,
)
