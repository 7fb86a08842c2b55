"""Classification: one option or label, or yes or no.

"Is the left ventricle visible? A: No, B: Yes"   ->  "B"
"Which molecular subtype is it?"                 ->  "Luminal A"
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache

from medvl.choices import normal, options
from medvl.label_spelling import as_written
from medvl.picking import pick_one
from medvl.structured import plain_words
from medvl.tasks.base import Answer, Context, Issue, Row, Task, TaskSpec, Writing, unexpected_boxes

_LETTERS = re.compile(r"[A-Z](?:[ ,;/&]+[A-Z])*")
_CLASSES_FROM = 10  # rows: in fewer, an answer that occurs once says nothing

# Questions are templates, 120 of them in 4,206 rows of dental, and answers letters.
_options = lru_cache(maxsize=4096)(options)
_normal = lru_cache(maxsize=4096)(normal)


def parse(text: str, context: Context) -> Answer:
    """The letter of the option that a text picks, or the label where the question has no letters."""
    text = plain_words(text, Task.CLASSIFICATION)
    choices = options(context.question) or {label: label for label in context.labels}
    if choices:
        picked, reason = pick_one(text, choices)
        return Answer(Task.CLASSIFICATION, picked, reason)
    label = normal(text)
    if len(label.split()) <= 10:
        return Answer(Task.CLASSIFICATION, label)
    return Answer(Task.CLASSIFICATION, None, "prose")


def tidy(text: str, answer: Answer, context: Context) -> str:
    """The letter, or the label as the model spells it."""
    choice = str(answer.value)
    return choice if choice in options(context.question) else as_written(choice, text)


def hand_in(answer: Answer, _: Writing) -> str:
    """The bare letter or label."""
    return str(answer.value)


def audit(row: Row) -> Iterator[Issue]:
    """Options in words instead of letters, letters where none are offered, boxes."""
    choices = _options(row.question)
    if choices and row.said not in choices:
        picked = TASK.read(row.said, Context(row.question)).value
        if picked and normal(row.said) != normal(str(picked)):
            yield "OPTION_TEXT", f"{row.said[:80]!r} instead of the letter {picked}"
    elif not choices and _LETTERS.fullmatch(row.said):
        code = "LETTER_WITHOUT_OPTIONS" if len(row.said) == 1 else "SEVERAL_LETTERS"
        yield code, f"answer {row.said!r}, but the question offers no letters"
    yield from unexpected_boxes(row.said)


def singletons(rows: Sequence[Row]) -> Iterator[tuple[int, Issue]]:
    """Answers that only one row gives, among the rows with the same options."""
    groups: dict[tuple[str, ...], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, row in enumerate(rows):
        if row.given:
            groups[tuple(_options(row.question).values())][_normal(row.said)].append(place)
    for answers in groups.values():
        total = sum(map(len, answers.values()))
        for places in answers.values():
            if len(places) == 1 and total >= _CLASSES_FROM:
                words = f"the only one of {total} rows that answers {rows[places[0]].given[:80]!r}"
                yield places[0], ("CLASS_SINGLETON", words)


TASK = TaskSpec(
    task=Task.CLASSIFICATION,
    spellings=("classification", "binary classification", "disease diagnosis", "disease diagnosis classification"),
    label="choose one option, answer yes or no, name the class or diagnosis",
    max_new_tokens=64,
    postprocess="choice",
    headline="balanced_accuracy",
    quantity="accuracy",
    parse=parse,
    tidy=tidy,
    hand_in=hand_in,
    audit=audit,
    audit_dataset=singletons,
)
