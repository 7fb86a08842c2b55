"""Model text to structured answer, and back to the text that is trained on or handed in, as `medvl.tasks` says.

An answer either parsed or has a coded reason why not. Nothing here raises on a model's text, whatever it holds.
"""

import json
from collections.abc import Iterable, Sequence

from medvl.box_text import BoxStyle
from medvl.boxes import Frame, Size
from medvl.choices import offered_labels
from medvl.tasks import TASKS, Answer, Context, Task, Writing


def parse_answer(
    text: str | None, task: Task, *, question: str = "", labels: Iterable[str] = (), separator: str | None = None
) -> Answer:
    """What a model's `text` answers to `question`.

    Args:
        text: The model's output; None stands for no answer.
        task: Decides what is looked for.
        question: Lettered options and offered labels are read from it.
        labels: Labels that occur in the dataset, used for a classification whose question has no lettered options.
        separator: Label separator of the dataset, if known (`medvl.sources.label_separator`).

    >>> parse_answer("about 1,664 cells", Task.COUNTING).value
    1664.0
    """
    return TASKS[task].read(text, Context(question, labels, separator))


class WrittenNumber(float):
    """A number that remembers how its file writes it: 1.10, and 0.00001 rather than 1e-05."""

    text: str

    def __new__(cls, text: str) -> "WrittenNumber":
        """The number that a text says."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def answer_text(answer: object) -> str:
    """A dataset's answer as text: strings verbatim, numbers as the file or else Python writes them, the rest as JSON.

    `str` of a dict would put single quotes, which every JSON reader refuses.
    """
    if isinstance(answer, str):
        return answer
    if isinstance(answer, WrittenNumber):
        return answer.text
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return str(answer)
    return json.dumps(answer, ensure_ascii=False)


def target_text(answer: Answer, text: str, *, size: Size, frame: Frame, style: BoxStyle, label: str | None) -> str:
    """The text to train on: boxes rewritten in `frame` and `style`, every other answer as it stands.

    Pixels in the style of FLARE are what the dataset holds, so its text is not touched then.

    Args:
        answer: The dataset's answer, parsed; boxes in pixels.
        text: The dataset's answer as text.
        size: (width, height) of the image, pixels.
        frame: Frame to write boxes in.
        style: Style to write boxes in. Instance answers name their objects, so `json` and `flare` become `map` there.
        label: Name for boxes that have none; None leaves them unnamed.
    """
    return TASKS[answer.task].target(answer, text, Writing(size, frame, style, label))


def challenge_text(answer: Answer, text: str, *, size: Size | None, frame: Frame, separator: str = ";") -> str:
    """The text to hand in to the challenge: letters bare, labels joined, boxes nested lists of whole pixels.

    Args:
        answer: A model's answer, parsed.
        text: The model's output, handed in as it is if it did not parse.
        size: (width, height) of the image the boxes lie on, pixels; needed for boxes only.
        frame: Frame of the model's boxes.
        separator: Label separator of the dataset.

    Raises:
        ValueError: boxes, but no size.
    """
    if not answer.parsed:
        return text.strip()
    return TASKS[answer.task].hand_in(answer, Writing(size, frame, separator=separator))


def unoffered(labels: Sequence[str], question: str) -> list[str]:
    """Labels that a select-all question does not offer; empty if the question lists none."""
    offered = offered_labels(question)
    return [label for label in labels if offered and label not in offered]
