"""Training questions as other hands might have typed them, of other topics, and as many of each task."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from medvl.instructions import GENERAL
from medvl.router.data import LabelledQuestion
from medvl.router.patterns import FOLDER, converted, section
from medvl.router.templates import read_templates
from medvl.tasks import Task
from medvl.yaml_files import read_yaml

FILE = FOLDER / "topics.yaml"
_WORD = re.compile(r"[A-Za-z]{4,}")
_Texts = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1)]
# Refusing one of these says little against the others of its set: "no boxes" may well want no instances either.
_ALIKE = (
    {Task.DETECTION, Task.INSTANCE_DETECTION},
    {Task.CLASSIFICATION, Task.MULTI_LABEL, Task.VQA},
    {Task.REPORT, Task.VQA},
)


@dataclass(frozen=True)
class Topics:
    """topics.yaml.

    Attributes:
        swaps: Lists of words, those of one list may stand for each other.
        histories: What is told before a question.
        openings: How a request begins.
        endings: How it ends.
        refused: Task -> how it is refused.
    """

    swaps: Mapping[str, Sequence[str]]
    histories: Sequence[str]
    openings: Sequence[str]
    endings: Sequence[str]
    refused: Mapping[str, Sequence[str]]

    @property
    def list_of(self) -> dict[str, str]:
        """Word in lower case -> its list."""
        return {word.casefold(): name for name, words in self.swaps.items() for word in words}


@cache
def read_topics(path: Path = FILE) -> Topics:
    """The topics in a file.

    Raises:
        ValueError: naming file and key: no such file, not YAML, no texts, a task that is missing or unknown.
    """
    content = read_yaml(path)
    swaps, refused = section(content, "swaps", _Texts, path), section(content, "refused", _Texts, path)
    if wrong := set(refused) ^ set(map(str, Task)):
        raise ValueError(f"{path}: refused: missing or unknown {', '.join(sorted(wrong))}")
    told = {key: converted(content.get(key), _Texts, f"{path}: {key}") for key in ("histories", "openings", "endings")}
    return Topics(swaps, told["histories"], told["openings"], told["endings"], refused)


@cache
def topic_lists() -> dict[str, str]:
    """Word of the project's own topics -> the list that it stands in."""
    return read_topics().list_of


@cache
def _swapped_words() -> tuple[re.Pattern[str], dict[str, str]]:
    lists = topic_lists()
    longest_first = sorted(map(re.escape, lists), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(longest_first)})\b", re.IGNORECASE), lists


def varied(text: str, task: str, rng: random.Random) -> str:
    """The question about something else, and perhaps after a history, politely, or with another task refused."""
    topics = read_topics()
    word, lists = _swapped_words()
    text = word.sub(lambda it: rng.choice(topics.swaps[lists[it[0].casefold()]]) if rng.random() < 0.6 else it[0], text)
    if rng.random() < (0.1 if task == GENERAL else 0.25):
        text = _with_refusal(text, task, rng)
    if rng.random() < 0.15:
        text = f"{rng.choice(topics.histories)} {text}"
    if rng.random() < 0.2:
        opening = rng.choice(topics.openings)
        text = f"{opening} {text if opening[-1] in '.?:' else _lowered(text)}"
    if rng.random() < 0.12:
        text = f"{text} {rng.choice(topics.endings)}"
    return text


def _with_refusal(text: str, task: str, rng: random.Random) -> str:
    refused = read_topics().refused
    alike = {str(other) for same in _ALIKE if task in same for other in same}
    others = [other for other in refused if other != task and other not in alike]
    said = rng.choice(refused[rng.choice(others)])
    if rng.random() < 0.25:
        said += rng.choice((", ", " and ")) + _lowered(rng.choice(refused[rng.choice(others)]))
    if rng.random() < 0.7:
        return said + rng.choice((". ", "; ", ", ", ": ", " - ", ", just ")) + rng.choice((text, _lowered(text)))
    return text.rstrip(" .?!") + rng.choice((". ", "; ", ", ")) + _lowered(said) + rng.choice(("", "."))


def _lowered(text: str) -> str:
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


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
