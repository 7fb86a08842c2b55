"""Which answers are classes, and what each weighs.

A record has a class if its answer is one label. Told from question and answer alone, so that mixed datasets work:

- The name of a class is the answer in lower case; of a letter, the option it stands for.
- Answers are compared among records with the same options in any order, or with the same question where there are none:
  "A" of one dataset has nothing to do with "A" of another.
- No class have box answers, numbers (counts and measures), answers to select-all questions or with a `;`, and
  answers of more than `MAX_WORDS` words.
- Answers of a question are classes only if there are at most `MAX_CLASSES` of them and each stands, on average, in
  `MIN_REPEATS` records; free text is not. An answer that stands in one record only has no class.

Weights are inverse frequencies. `SMOOTHING` keeps a handful of records (often spelling mistakes) from dominating, `CAP`
bounds the ratio of the largest to the smallest. They are scaled so that the mean over all answer tokens of the question
is 1: the loss keeps its scale, and no task gains on another.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from medvl.box_text import parse_boxes
from medvl.choices import normal, offered_labels, options
from medvl.picking import pick_one
from medvl.tasks import unknown_name

MAX_WORDS = 12  # FLARE's labels have up to 7 words, FADA's normality answers up to 10
MAX_CLASSES = 128
MIN_REPEATS = 5
SMOOTHING = 0.01  # of a question's records, added to every class
CAP = 20.0

_NUMBER = re.compile(r"[-+]?[0-9][0-9.,]*\s*%?")


@dataclass(frozen=True)
class AnswerClass:
    """`group` tells which answers it is compared with: the options, or the question."""

    group: Hashable
    name: str


@dataclass
class _Count:
    records: int = 0
    tokens: int = 0


def answer_class(question: str, answer: str) -> AnswerClass | None:
    """The class of one answer; None for an answer that is not one label."""
    name, choices = normal(answer), options(question)
    if not name or len(name.split()) > MAX_WORDS:
        return None
    if choices:
        letter, _ = pick_one(answer, choices)
        return AnswerClass(tuple(sorted(map(normal, choices.values()))), normal(choices[letter])) if letter else None
    if ";" in name or _NUMBER.fullmatch(name) or offered_labels(question) or parse_boxes(answer).parsed:
        return None
    return AnswerClass(normal(question), name)


def weigh(
    answers: Iterable[tuple[AnswerClass | None, int]], given: Mapping[str, float] | None = None
) -> dict[AnswerClass, float]:
    """The weight of every class; an answer that is not in the result weighs 1 and has no focal factor.

    Args:
        answers: Per record of the training set, its class and its number of supervised tokens.
        given: Label -> weight, instead of frequencies. Only ratios count. Every question with at least one of these
            labels is weighted; its other labels count as 1.

    Raises:
        ValueError: a given weight is not positive, or its label is the answer of no record.
    """
    groups: dict[Hashable, dict[AnswerClass, _Count]] = {}
    for answer, tokens in answers:
        if answer is not None:
            count = groups.setdefault(answer.group, {}).setdefault(answer, _Count())
            count.records += 1
            count.tokens += tokens
    if given is None:
        found = [_scaled(counts, _inverse(counts)) for counts in groups.values() if _are_classes(counts)]
    else:
        wanted = _checked(given, {answer.name for counts in groups.values() for answer in counts})
        found = [
            _scaled(counts, {answer: wanted.get(answer.name, 1.0) for answer in counts})
            for counts in groups.values()
            if any(answer.name in wanted for answer in counts)
        ]
    return {answer: weight for weights in found for answer, weight in weights.items()}


def _are_classes(counts: Mapping[AnswerClass, _Count]) -> bool:
    records = sum(count.records for count in counts.values())
    return 2 <= len(counts) <= MAX_CLASSES and records >= MIN_REPEATS * len(counts)


def _inverse(counts: Mapping[AnswerClass, _Count]) -> dict[AnswerClass, float]:
    smoothing = SMOOTHING * sum(count.records for count in counts.values())
    most = max(count.records for count in counts.values()) + smoothing
    return {
        answer: min(CAP, most / (count.records + smoothing)) for answer, count in counts.items() if count.records > 1
    }


def _scaled(counts: Mapping[AnswerClass, _Count], weights: Mapping[AnswerClass, float]) -> dict[AnswerClass, float]:
    tokens = sum(counts[answer].tokens for answer in weights)
    mean = sum(weight * counts[answer].tokens for answer, weight in weights.items()) / max(tokens, 1)
    return {answer: weight / mean for answer, weight in weights.items()}


def _checked(given: Mapping[str, float], known: set[str]) -> dict[str, float]:
    weights = {}
    for label, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise ValueError(f"the weight of {label!r} must be a positive number, not {weight!r}")
        if normal(str(label)) not in known:
            raise unknown_name("label", normal(str(label)), sorted(known))
        weights[normal(str(label))] = float(weight)
    return weights
