"""Multi-label classification: every label of a list that applies.

"Which findings? Select all that apply from the following: Caries; Cyst; Normal."   ->  "Caries; Cyst"
"""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from medvl.choices import normal, offered_labels
from medvl.label_spelling import as_listed, as_written
from medvl.picking import pick_labels
from medvl.structured import bare_text, label_list, plain_text
from medvl.tasks.base import Answer, Context, Issue, Row, Task, TaskSpec, Writing, unexpected_boxes

_normal = lru_cache(maxsize=4096)(normal)


def parse(text: str, context: Context) -> Answer:
    """The labels that a text lists, those of the question in its spelling; none for "none"."""
    text = bare_text(text)
    offered, listed = offered_labels(context.question), label_list(text)
    if listed == []:
        return Answer(Task.MULTI_LABEL, ())
    if listed:  # one a line: a label may hold commas then
        return Answer(Task.MULTI_LABEL, *pick_labels("".join(f"{label}\n" for label in listed), offered, ";"))
    plain = plain_text(text, Task.MULTI_LABEL)
    if plain is None:
        return Answer(Task.MULTI_LABEL, None, "structured")
    return Answer(Task.MULTI_LABEL, *pick_labels(plain, offered, context.separator))


def tidy(text: str, answer: Answer, context: Context) -> str:
    """The labels as the question lists them, else as the model wrote them; "none" is an answer and stays."""
    if not isinstance(answer.value, tuple) or not answer.value:
        return text
    spelled = [as_listed(label, context.question) or as_written(label, text) for label in answer.value]
    return f"{context.separator or ';'} ".join(dict.fromkeys(spelled))


def hand_in(answer: Answer, writing: Writing) -> str:
    """The labels, joined as the dataset does."""
    return f"{writing.separator} ".join(answer.value) if isinstance(answer.value, tuple) else ""


def audit(row: Row) -> Iterator[Issue]:
    """Labels that stand twice, normal beside findings, boxes."""
    separator = row.separator or (";" if ";" in row.said else ",")
    labels = [label for label in map(_normal, row.said.split(separator)) if label]
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        yield "LABEL_REPEATED", f"{', '.join(repeated)} more than once"
    if len(labels) > 1 and any(label in ("normal", "no finding", "no findings") for label in labels):
        yield "NORMAL_WITH_FINDINGS", f"normal beside findings: {row.said[:200]!r}"
    yield from unexpected_boxes(row.said)


TASK = TaskSpec(
    task=Task.MULTI_LABEL,
    spellings=("multi label classification", "multilabel classification", "multi label", "multilabel"),
    label="select all labels that apply, several answers",
    max_new_tokens=128,
    postprocess="labels",
    headline="f1_micro",
    quantity="f1",
    parse=parse,
    tidy=tidy,
    hand_in=hand_in,
    audit=audit,
)
