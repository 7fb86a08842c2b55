"""What prediction does to a model's text before it is handed on: it checks and tidies, and never destroys.

A text that is not a valid answer stays as it is and is marked; the raw text is kept beside every tidied one. Public
systems drop first lines, or write `0` where they find no number: a failure then looks like an answer.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from medvl.answers import Answer, Value, challenge_text, parse_answer
from medvl.box_text import ParsedBoxes
from medvl.choices import options
from medvl.tasks import Task
from medvl.unwrapping import unwrap

# choice: the option letter, or a label. labels: labels joined as the dataset does. boxes, instance_boxes: checked only,
# their frame is not touched. count: a whole number of things. number: a number. text: anything but nothing.
Postprocessor = Literal["text", "choice", "labels", "boxes", "instance_boxes", "count", "number"]
TASKS: dict[Postprocessor, Task] = {
    "text": Task.REPORT,
    "choice": Task.CLASSIFICATION,
    "labels": Task.MULTI_LABEL,
    "boxes": Task.DETECTION,
    "instance_boxes": Task.INSTANCE_DETECTION,
    "count": Task.COUNTING,
    "number": Task.REGRESSION,
}


@dataclass(frozen=True)
class Processed:
    """A model's text, checked.

    Attributes:
        text: The tidied answer; the raw text where it is not a valid one.
        answer: The answer as it was understood; boxes in the frame of the text.
    """

    text: str
    answer: Answer

    @property
    def valid(self) -> bool:
        """Whether the text answers the question in the form that its profile expects."""
        return self.answer.parsed


def postprocess(text: str, by: Postprocessor, *, question: str = "", separator: str | None = None) -> Processed:
    """Check and tidy a model's text. Labels are spelled as the question lists them, else as the model wrote them.

    Args:
        text: The model's output.
        by: What kind of answer the profile expects.
        question: The question as its source asks it; lettered options and offered labels are read from it.
        separator: Label separator of the dataset, if known; `;` is written otherwise.

    >>> postprocess("The answer is B.", "choice", question="Is it normal? A: No, B: Yes").text
    'B'
    >>> postprocess("I cannot tell", "count").text
    'I cannot tell'
    """
    task = TASKS[by]
    answer = parse_answer(text, task, question=question, separator=separator)
    if by == "text" and answer.parsed:
        return Processed(unwrap(text), answer)
    if not answer.parsed or task.has_boxes or answer.value == ():  # (): "none", which is an answer
        return Processed(text, answer)
    tidied = replace(answer, value=_spelled(answer, question, text))
    return Processed(challenge_text(tidied, text, size=None, frame="pixel", separator=separator or ";"), answer)


def to_hand_in(
    text: str, by: Postprocessor, *, general: bool = False, question: str = "", separator: str | None = None
) -> tuple[str, Answer | None]:
    """A model's text as the challenge gets it, and the boxes to write there instead, None where it holds none.

    Prediction writes predictions.json by this, and the official rules score a model's own texts by it, so that every
    file of one run has the same numbers.

    Args:
        text: The model's output.
        by: What kind of answer the profile expects.
        general: Whether the general profile was asked, which leaves everything but bare boxes as it is.
        question: As for `postprocess`.
        separator: As for `postprocess`.
    """
    done = postprocess(text, by, question=question, separator=separator)
    boxes = _boxes_only(text) if general else done.answer
    return done.text.strip(), boxes if boxes is not None and isinstance(boxes.value, ParsedBoxes) else None


def _boxes_only(text: str) -> Answer | None:
    """The boxes of a text that is nothing else. Their frame would be lost if `general` handed them in as they are."""
    stripped = re.sub(r"\A```\w*\n(.*)\n```\Z", r"\1", unwrap(text).strip(), flags=re.DOTALL).strip()
    if not (stripped.startswith(("[", "{", "<ref>", "<box>")) and stripped.endswith(("]", "}", "</box>"))):
        return None
    maps = stripped.startswith("{") and "box" not in stripped  # {"1": [[…]]}, not {"bbox_2d": […]}
    answer = parse_answer(stripped, Task.INSTANCE_DETECTION if maps else Task.DETECTION)
    return answer if answer.parsed else None


def _spelled(answer: Answer, question: str, text: str) -> Value | None:
    """The value with its labels in the question's spelling; understanding them folded their case, scorers do not."""
    match answer.value:
        case tuple() as labels:
            return tuple(dict.fromkeys(_as_listed(label, question) or _as_written(label, text) for label in labels))
        case str() as label if label not in options(question):
            return _as_written(label, text)
        case value:
            return value


def _as_listed(label: str, question: str) -> str | None:
    """An item of a list in the question, which says "normal" elsewhere without meaning the label."""
    before, after = r"(?:[;,:(\n]|\bor\b|\band\b|\b[A-Z][.)])", r"(?:[;,.?)\n]|$|or\b|and\b|\(?[A-Z][:.)])"
    match = re.search(rf"{before}\s*({_any_case(label)})(?!\w)(?=\s*{after})", question)
    return " ".join(match[1].split()) if match else None


def _as_written(label: str, text: str) -> str:
    match = re.search(rf"(?<!\w){_any_case(label)}(?!\w)", text)
    return " ".join(match[0].split()) if match else label


def _any_case(label: str) -> str:
    words = r"\s+".join(map(re.escape, label.split()))
    bracket = r"\)?" if label.count("(") > label.count(")") else ""  # understanding the label cut it off
    return f"(?i:{words}){bracket}"
