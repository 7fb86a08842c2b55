"""What prediction does to a model's text before it is handed on: it checks and tidies, and never destroys.

A text that is not a valid answer stays as it is and is marked; the raw text is kept beside every tidied one. Public
systems drop first lines, or write `0` where they find no number: a failure then looks like an answer.
"""

import re
from dataclasses import dataclass

from medvl.answers import parse_answer
from medvl.box_text import ParsedBoxes
from medvl.tasks import POSTPROCESSORS, TASKS, Answer, Context, Task
from medvl.unwrapping import unwrap


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


def postprocess(text: str, by: str, *, question: str = "", separator: str | None = None) -> Processed:
    """Check and tidy a model's text. Labels are spelled as the question lists them, else as the model wrote them.

    Args:
        text: The model's output.
        by: What kind of answer the profile expects, one of `medvl.tasks.POSTPROCESSORS`.
        question: The question as its source asks it; lettered options and offered labels are read from it.
        separator: Label separator of the dataset, if known; `;` is written otherwise.

    >>> postprocess("The answer is B.", "choice", question="Is it normal? A: No, B: Yes").text
    'B'
    >>> postprocess("I cannot tell", "count").text
    'I cannot tell'
    """
    spec, context = TASKS[POSTPROCESSORS[by]], Context(question, separator=separator)
    answer = spec.read(text, context)
    return Processed(spec.tidy(text, answer, context) if answer.parsed else text, answer)


def to_hand_in(
    text: str, by: str, *, general: bool = False, question: str = "", separator: str | None = None
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
