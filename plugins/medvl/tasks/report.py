"""Report generation: findings in sentences.

"Describe the findings of this chest X-ray."   ->  "The heart is normal in size. The lungs are clear."
"""

from collections.abc import Iterator

from medvl.structured import plain_text
from medvl.tasks.base import Answer, Context, Issue, Row, Task, TaskSpec, Writing, unexpected_boxes
from medvl.unwrapping import unwrap


def parse(text: str, _: Context) -> Answer:
    """The text; data such as {"findings": "Clear."} as it reads."""
    return Answer(Task.REPORT, (plain_text(text, Task.REPORT) or text).strip())


def tidy(text: str, _: Answer, __: Context) -> str:
    """The text without thoughts and what else stands around a report."""
    return unwrap(text)


def hand_in(answer: Answer, _: Writing) -> str:
    """The text."""
    return str(answer.value)


def audit(row: Row) -> Iterator[Issue]:
    """A report of one word, boxes."""
    if len(row.said.split()) < 2:
        yield "REPORT_SHORT", f"a report of one word: {row.said[:80]!r}"
    yield from unexpected_boxes(row.said)


TASK = TaskSpec(
    task=Task.REPORT,
    spellings=("report generation", "reporting"),
    label="write a report, describe the findings in sentences",
    max_new_tokens=512,
    postprocess="text",
    headline="rouge_l",
    quantity="rouge_l",
    parse=parse,
    tidy=tidy,
    hand_in=hand_in,
    audit=audit,
)
