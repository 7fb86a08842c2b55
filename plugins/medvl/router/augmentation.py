"""Training questions as other hands might have typed them, and as many of each task."""

import random
import re
from collections.abc import Sequence

from medvl.instructions import GENERAL
from medvl.router.data import LabelledQuestion
from medvl.router.templates import read_templates

_WORD = re.compile(r"[A-Za-z]{4,}")


def augmented(text: str, rng: random.Random) -> str:
    """The question as another hand might have typed it."""
    if rng.random() < 0.35:
        return text
    words = text.split()
    if len(words) > 4 and rng.random() < 0.3:
        del words[rng.randrange(len(words))]
    text = " ".join(_with_typo(word, rng) if rng.random() < 0.06 and _WORD.fullmatch(word) else word for word in words)
    if rng.random() < 0.15:
        text = f"{rng.choice(read_templates().preambles)} {text}"
    if rng.random() < 0.15:
        text = f"Please {text[0].lower()}{text[1:]}"
    if rng.random() < 0.2:
        text = text.rstrip(" .?!") or text
    return text


def _with_typo(word: str, rng: random.Random) -> str:
    place = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if kind == 1:
        return word[:place] + word[place + 1 :]
    if kind == 2:
        return word[: place + 1] + word[place:]
    return word[:place] + rng.choice("abcdefghijklmnopqrstuvwxyz") + word[place + 1 :]


def balanced(questions: Sequence[LabelledQuestion], rng: random.Random) -> list[LabelledQuestion]:
    """The questions, those of rarer tasks several times, so that every task has about as many (at most eight times).

    Prompts that are no task stand as they are, or several times if they are rarer than the largest task.
    """
    by_task: dict[str, list[LabelledQuestion]] = {}
    for question in questions:
        by_task.setdefault(question.task, []).append(question)
    largest = max((len(own) for task, own in by_task.items() if task != GENERAL), default=0)
    rows = []
    for own in by_task.values():
        copies = min(8, max(1, largest // len(own)))
        rows += own * copies + rng.sample(own, min(len(own), max(0, largest - copies * len(own))) if copies < 8 else 0)
    return rows
