"""Model text to structured answer, per task, and back to the text that is trained on or handed in.

An answer either parsed or has a coded reason why not. Nothing here raises on a model's text, whatever it holds.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from medvl import boxes as box_arrays
from medvl.box_text import MAX_CHARACTERS, REFUSED, BoxStyle, ParsedBoxes, format_boxes, parse_boxes
from medvl.boxes import Frame, Size
from medvl.choices import conclusions, is_refusal, normal, offered_labels, options, pick_labels, pick_one
from medvl.normalisation import UNSPACED, normalise
from medvl.structured import label_list, plain_text
from medvl.tasks import Task
from medvl.unwrapping import only_thoughts, unwrap

Value = str | float | tuple[str, ...] | ParsedBoxes


@dataclass(frozen=True)
class Answer:
    """A model's text, understood.

    Attributes:
        task: What the question asked for.
        value: Classification: the option letter, or the label where there are no letters. Multi-label: the labels.
            Detection and instance detection: the boxes, in the frame of the text. Counting and regression: a number.
            Report: the text. None if it did not parse.
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


# Producers of prediction files write failures as answers ("Error: …", spec of ME-VLIP).
_ERROR = re.compile(r"\s*(?:error\s*:|traceback \(most recent call last\)|cuda (?:error|out of memory))", re.IGNORECASE)
_NUMBER = re.compile(
    rf"(?<![^\W{UNSPACED}])(?<!\.)"  # some scripts put no space before a number
    r"(?<![0-9],)[-+\u2212]?(?:(?:[0-9]{1,3}(?>(?:,[0-9]{3})+)|[0-9]++)(?>(?:\.[0-9]++)?)|\.[0-9]++)"
    r"(?:e[-+]?[0-9]{1,3})?(?!,?[0-9])(?![\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2150-\u215f])(?!(?:st|nd|rd|th)\b)(?:\s?(?P<percent>%))?",
    re.IGNORECASE,
)
_RANGE = re.compile(r"[0-9]\s*+(?>(?:%\s*+)?)(?:-|\u2013|\u2014|~|\bto\b|[至到])\s*[0-9]")
_LIST_MARK = re.compile(r"^[^\S\n]*([0-9]+)[.)][^\S\n]+(?=\S)", re.MULTILINE)
_FENCE = re.compile(r"```[\w-]*\n(.*)```", re.DOTALL)


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
    if text is None or not text.strip():
        return Answer(task, None, "empty")
    whole, text = text, unwrap(text)
    if not text.strip():
        return Answer(task, None, "only_thoughts" if only_thoughts(whole) else "empty")
    if _ERROR.match(text):
        return Answer(task, None, "error")
    if task is Task.REPORT:
        return Answer(task, (plain_text(text, task) or text).strip())
    if task.has_boxes:
        return _boxes(text, task)
    text = normalise(text[:MAX_CHARACTERS])
    fenced = _FENCE.fullmatch(text.strip())
    text = fenced[1] if fenced and "```" not in fenced[1] else text
    if task is Task.MULTI_LABEL:
        return _labels(text, question, separator)
    text = plain_text(text, task) or ", ".join(label_list(text) or [text])
    if task.is_number:
        return _number(text, task)
    choices = options(question) or {label: label for label in labels}
    if choices:
        picked, reason = pick_one(text, choices)
        return Answer(task, picked, reason)
    label = normal(text)
    return Answer(task, label) if len(label.split()) <= 10 else Answer(task, None, "prose")


def _labels(text: str, question: str, separator: str | None) -> Answer:
    offered, listed = offered_labels(question), label_list(text)
    if listed == []:
        return Answer(Task.MULTI_LABEL, ())
    if listed:  # one a line: a label may hold commas then
        return Answer(Task.MULTI_LABEL, *pick_labels("".join(f"{label}\n" for label in listed), offered, ";"))
    plain = plain_text(text, Task.MULTI_LABEL)
    if plain is None:
        return Answer(Task.MULTI_LABEL, None, "structured")
    return Answer(Task.MULTI_LABEL, *pick_labels(plain, offered, separator))


def _boxes(text: str, task: Task) -> Answer:
    parsed = parse_boxes(text)
    if not parsed.parsed and not text.isascii():  # full-width digits and brackets; labels keep their width otherwise
        parsed = parse_boxes(normalise(text))
    if (final := text.lower().rfind("final answer")) > 0 and (stated := parse_boxes(text[final:])).parsed:
        parsed = stated  # the boxes before it are the way there
    if parsed.parsed:
        return Answer(task, parsed, notes=parsed.notes)
    refused = [code for code in REFUSED if code in parsed.notes]
    return Answer(task, None, refused[0] if refused else "refusal" if is_refusal(text) else "no_boxes", parsed.notes)


def _number(text: str, task: Task) -> Answer:
    """The one number a text states: in a conclusion, as its last or first line, as its one percentage, or at all.

    A percentage is no count: "12 cells (95 % sure)" counts twelve.
    """
    if (mark := _LIST_MARK.search(text)) and mark[1] == "1":  # "12. I counted twice" is no list
        text = _LIST_MARK.sub("", text)
    lines = text.strip().split("\n")
    for stated in (*([candidate] for candidate in conclusions(text)), [lines[0], lines[-1]]):
        short = [candidate for candidate in stated if len(candidate.split()) <= 5]
        if any(_RANGE.search(candidate) for candidate in short):
            return Answer(task, None, "range")
        found = [numbers for candidate in short if len(numbers := _numbers(candidate, task)) == 1]
        if found:
            return _one(set().union(*found), task)
    if _RANGE.search(text):
        return Answer(task, None, "range")
    if is_refusal(text):
        return Answer(task, None, "refusal")
    percentages = _numbers(text, task, only_percentages=True)
    return _one(percentages if len(percentages) == 1 else _numbers(text, task), task)


def _one(numbers: set[float], task: Task) -> Answer:
    if len(numbers) == 1:
        return Answer(task, numbers.pop())
    return Answer(task, None, "several_numbers" if numbers else "no_number")


def _numbers(text: str, task: Task, *, only_percentages: bool = False) -> set[float]:
    matches = [match for match in _NUMBER.finditer(text) if len(match[0]) <= 32]
    if task is Task.COUNTING:
        matches = [match for match in matches if not match["percent"]]
    if only_percentages:
        matches = [match for match in matches if match["percent"]]
    written = [match[0].rstrip(" %").replace(",", "").replace("\u2212", "-") for match in matches]
    return {number for number in map(float, written) if math.isfinite(number)}


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
    if not isinstance(answer.value, ParsedBoxes) or (frame, style) == ("pixel", "flare"):
        return text
    parsed = answer.value
    if answer.task is Task.INSTANCE_DETECTION and style in ("json", "flare"):
        style = "map"
    names = [name or label for name in parsed.labels]
    boxes = box_arrays.to_frame(parsed.boxes, size, frame)
    return format_boxes(boxes, names, style, frame, empty_labels=parsed.empty_labels)


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
    match answer.value:
        case None:
            return text.strip()
        case ParsedBoxes() as parsed:
            if size is None:
                raise ValueError("boxes can be handed in only with the size of their picture")
            pixels = box_arrays.clip(box_arrays.order_corners(parsed.pixels(size, frame)), size)
            whole = pixels.round()
            if answer.task is Task.INSTANCE_DETECTION:
                names = [name or "" for name in parsed.labels]
                return format_boxes(whole, names, "map", "pixel", empty_labels=parsed.empty_labels)
            return format_boxes(whole, parsed.labels, "flare", "pixel")
        case float() as number:
            return str(int(number)) if number.is_integer() else repr(number)
        case tuple() as labels:
            return f"{separator} ".join(labels)
        case str() as choice:
            return choice


def unoffered(labels: Sequence[str], question: str) -> list[str]:
    """Labels that a select-all question does not offer; empty if the question lists none."""
    offered = offered_labels(question)
    return [label for label in labels if offered and label not in offered]
