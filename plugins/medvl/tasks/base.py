"""What a task is: its name, and everything that the other parts of the system ask it for."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, Self

from medvl.box_text import BoxStyle, ParsedBoxes, parse_boxes
from medvl.boxes import Frame, Size
from medvl.unwrapping import only_thoughts, unwrap

# What an answer is: a letter or label, several labels, boxes, a number, or words.
Form = Literal["choice", "labels", "boxes", "number", "text"]
Value = str | float | tuple[str, ...] | ParsedBoxes
Issue = tuple[str, str]  # code, words
# Producers of prediction files write failures as answers ("Error: …", spec of ME-VLIP).
_ERROR = re.compile(r"\s*(?:error\s*:|traceback \(most recent call last\)|cuda (?:error|out of memory))", re.IGNORECASE)


class Task(StrEnum):
    """What a question asks for; decides how its answer is read, written and scored.

    Attributes:
        form: What its answers are.
    """

    form: Form

    def __new__(cls, name: str, form: Form = "text") -> Self:
        """A task of that canonical name."""
        task = str.__new__(cls, name)
        task._value_, task.form = name, form
        return task

    CLASSIFICATION = "classification", "choice"
    MULTI_LABEL = "multi_label_classification", "labels"
    DETECTION = "detection", "boxes"
    INSTANCE_DETECTION = "instance_detection", "boxes"
    COUNTING = "counting", "number"
    REGRESSION = "regression", "number"
    REPORT = "report_generation"
    VQA = "vqa"

    @property
    def has_boxes(self) -> bool:
        """Whether answers of this task hold boxes."""
        return self.form == "boxes"

    @property
    def is_number(self) -> bool:
        """Whether answers of this task are one number."""
        return self.form == "number"


@dataclass(frozen=True)
class Answer:
    """A model's text, understood.

    Attributes:
        task: What the question asked for.
        value: Classification: the option letter, or the label where there are no letters. Multi-label: the labels.
            Detection and instance detection: the boxes, in the frame of the text. Counting and regression: a number.
            Report and VQA: the text. None if it did not parse.
        reason: Why it did not parse, as a code; None if it did.
        notes: What a tolerant parser repaired or refused on the way, code -> how often.
    """

    task: Task
    value: Value | None
    reason: str | None = None
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def parsed(self) -> bool:
        """Whether there is a value."""
        return self.reason is None

    @property
    def missing(self) -> bool:
        """Whether there was no answer at all: nothing, or a producer's error message in its place."""
        return self.reason in ("empty", "error")


@dataclass(frozen=True)
class Context:
    """What helps to understand an answer.

    Attributes:
        question: Lettered options and offered labels are read from it.
        labels: Labels that occur in the dataset, for a classification whose question has no lettered options.
        separator: Label separator of the dataset; None if not known.
    """

    question: str = ""
    labels: Iterable[str] = ()
    separator: str | None = None


@dataclass(frozen=True)
class Writing:
    """How an answer is written.

    Attributes:
        size: (width, height) of the image the boxes lie on, pixels; needed for boxes only.
        frame: Frame of boxes: to write them in for training, of the model's own where they are handed in.
        style: Style to train boxes in.
        label: Name for boxes that have none; None leaves them unnamed.
        separator: What stands between labels.
    """

    size: Size | None = None
    frame: Frame = Frame.PIXEL
    style: BoxStyle = "flare"
    label: str | None = None
    separator: str = ";"


@dataclass(frozen=True)
class Row:
    """A row of training data, as its answer is checked.

    Attributes:
        question: The question.
        said: The answer as it is trained on, in one width; of boxes the source's own, which has them in pixels.
        given: The source's answer; empty where it is hidden.
        separator: Label separator of the dataset; None if not known.
    """

    question: str
    said: str
    given: str
    separator: str | None


def as_it_stands(answer: Answer, text: str, writing: Writing) -> str:  # noqa: ARG001 (one signature for all tasks)
    """The text of a dataset's answer, which is trained on as it is."""
    return text


def unexpected_boxes(answer: str) -> Iterator[Issue]:
    """Boxes in the answer to a question that asks for none."""
    if "[" in answer and len(boxes := parse_boxes(answer).boxes):
        yield "BOXES_UNEXPECTED", f"{len(boxes)} boxes in the answer to a question that asks for none"


def nothing_odd(rows: Sequence[Row]) -> Iterator[tuple[int, Issue]]:  # noqa: ARG001 (one signature for all tasks)
    """No check that looks at all rows of a dataset."""
    yield from ()


@dataclass(frozen=True)
class TaskSpec:
    """Everything about a task; `medvl.tasks.TASKS` has one of each.

    Attributes:
        task: Its name.
        spellings: How datasets write it, in lower case with single spaces for hyphens and underscores.
        label: What the router's label encoder reads for it: the form of the answer in words.
        max_new_tokens: Longest answer, tokens. A trained model stops by itself, so that room costs time only where a
            model babbles.
        postprocess: What a profile calls the check of its answers.
        headline: The metric that it is judged by.
        quantity: What the score of one sample is.
        parse: (text, context) -> what a text says that `read` has looked at. Never raises. May be another task's.
        tidy: (text, answer, context) -> a parsed answer in its plain form, spelled as the question or the model does.
        hand_in: (answer, writing) -> a parsed answer as the challenge wants it.
        audit: Row -> what is odd about its answer.
        target: (answer, text, writing) -> the text to train on for a dataset's answer.
        audit_dataset: The rows of a dataset -> place and issue of what is odd beside the others.
        higher_is_better: Direction of the headline.
    """

    task: Task
    spellings: tuple[str, ...]
    label: str
    max_new_tokens: int
    postprocess: str
    headline: str
    quantity: str
    parse: Callable[[str, Context], Answer]
    tidy: Callable[[str, Answer, Context], str]
    hand_in: Callable[[Answer, Writing], str]
    audit: Callable[[Row], Iterator[Issue]]
    target: Callable[[Answer, str, Writing], str] = as_it_stands
    audit_dataset: Callable[[Sequence[Row]], Iterator[tuple[int, Issue]]] = nothing_odd
    higher_is_better: bool = True

    def read(self, text: str | None, context: Context) -> Answer:
        """What a model's text answers: whatever the task, thoughts are no answer, and neither is an error message.

        Args:
            text: The model's output; None stands for no answer.
            context: The question and what is known of its dataset.
        """
        if text is None or not text.strip():
            return Answer(self.task, None, "empty")
        whole, text = text, unwrap(text)
        if not text.strip():
            return Answer(self.task, None, "only_thoughts" if only_thoughts(whole) else "empty")
        if _ERROR.match(text):
            return Answer(self.task, None, "error")
        answer = self.parse(text, context)
        return answer if answer.task is self.task else replace(answer, task=self.task)  # another task's parser
