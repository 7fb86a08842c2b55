"""Rules on the form of the answer that a question asks for. They know no topic, so they hold on unseen datasets."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from medvl.choices import options
from medvl.tasks import Task


@dataclass(frozen=True)
class Rule:
    """One cue: what it is called, the task it tells, and whether a normalised question shows it."""

    name: str
    task: Task
    matches: Callable[[str], object]


@dataclass(frozen=True)
class Evidence:
    """The rule that fired."""

    task: Task
    rule: str
    confidence: float


def _pattern(expression: str) -> Callable[[str], object]:
    return re.compile(expression, re.IGNORECASE).search


# In this order: what fixes the answer's form beats what merely names a request.
RULES = (
    Rule("select all", Task.MULTI_LABEL, _pattern(r"\b(?:select|choose|mark|tick|check|pick) (?:all|every)|\ball that apply|\bsemicolon|following apply")),  # noqa: E501
    Rule("lettered options", Task.CLASSIFICATION, options),
    Rule("map of boxes", Task.INSTANCE_DETECTION, _pattern(r"\bjson\b.*\bmapping|\b(?:dictionary|map)\b.*\b(?:box|coord)")),
    Rule("boxes", Task.DETECTION, _pattern(r"x_?min|bounding box|\bbbox|\bcoordinates?\b|\blocat(?:e|ion)|\blocali[sz]e")),
    Rule("percentage or measure", Task.REGRESSION, _pattern(r"percent|%|\bmm\b|\bcm\b|\bdegrees?\b|\bangle\b|\bhow old\b")),
    Rule("count", Task.COUNTING, _pattern(r"\bhow many\b|\bnumber of\b|\bcount\b|\bquantity of\b|\bquantify\b|\btally\b")),
    Rule("report", Task.REPORT, _pattern(r"\breport\b|\bfindings\b|\bimpression\b|\bdescribe\b|\bsummari[sz]e\b")),
    Rule("yes or no", Task.CLASSIFICATION, _pattern(r"^(?:is|are|does|do|has|have|can)\b.*\b(?:image|scan|x-ray)\b")),
)  # fmt: skip


def match_rules(question: str) -> Evidence | None:
    """The first rule that a normalised question shows, None if none does."""
    for rule in RULES:
        if rule.matches(question):
            return Evidence(rule.task, rule.name, 1.0)
    return None
