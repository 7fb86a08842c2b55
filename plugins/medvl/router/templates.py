"""Questions made up by this project (templates.yaml), for tasks of which training files hold few or none, and prompts
that are no task.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from medvl.instructions import GENERAL
from medvl.router.patterns import FOLDER, converted, section
from medvl.tasks import Task
from medvl.yaml_files import read_yaml

FILE = FOLDER / "templates.yaml"
_SLOT = re.compile(r"\{(\w+)\}")
_Texts = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1)]


@dataclass(frozen=True)
class Templates:
    """templates.yaml.

    Attributes:
        slots: Name -> what may fill it.
        questions: Task or `general` -> wordings with {slots}.
        preambles: What may stand before a question.
    """

    slots: Mapping[str, Sequence[str]]
    questions: Mapping[str, Sequence[str]]
    preambles: Sequence[str]


@cache
def read_templates(path: Path = FILE) -> Templates:
    """The templates in a file.

    Raises:
        ValueError: naming file and key: no such file, not YAML, no texts, a task that is missing or unknown, a slot
            that nothing fills.
    """
    content = read_yaml(path)
    slots, questions = section(content, "slots", _Texts, path), section(content, "questions", _Texts, path)
    if wrong := set(questions) ^ {*map(str, Task), GENERAL}:
        raise ValueError(f"{path}: questions: missing or unknown {', '.join(sorted(wrong))}")
    for task, wording in ((task, wording) for task, own in questions.items() for wording in own):
        if unknown := set(_SLOT.findall(wording)) - {"options", "labels", *slots}:
            raise ValueError(f"{path}: questions: {task}: {wording}: no slot {', '.join(sorted(unknown))}")
    return Templates(slots, questions, converted(content.get("preambles"), _Texts, f"{path}: preambles"))


def wordings(task: str) -> int:
    """How many wordings there are for a task (or `general`)."""
    return len(read_templates().questions[task])


def make_questions(task: str, number: int, seed: int = 0) -> list[tuple[str, int]]:
    """Different questions for a task (or prompts for `general`), as many of `number` as there can be.

    The wordings are used in turn; the same arguments give the same questions.

    Returns:
        (question, number of its wording).
    """
    rng = random.Random(f"{seed}/{task}")
    found: dict[str, int] = {}
    known = read_templates().questions[task]
    for attempt in range(4 * number):
        if len(found) >= number:
            break
        place = attempt % len(known)
        found.setdefault(_filled(known[place], rng), place)
    return list(found.items())


def _filled(wording: str, rng: random.Random) -> str:
    slots = read_templates().slots

    def fill(slot: re.Match[str]) -> str:
        if slot[1] == "options":
            return _options(_some_labels(rng), rng)
        if slot[1] == "labels":
            return rng.choice(("; ", ", ")).join(_some_labels(rng))
        return rng.choice(slots[slot[1]])

    return _SLOT.sub(fill, wording)


def _some_labels(rng: random.Random) -> list[str]:
    return rng.sample(read_templates().slots["label"], rng.choice((2, 2, 3, 3, 4, 4, 5, 6, 8, 11)))


def _options(labels: Sequence[str], rng: random.Random) -> str:
    mark = rng.choice(("{}: ", "{}) ", "{}. ", "({}) "))
    letters = rng.choice(("ABCDEFGHIJK", "abcdefghijk", "1234567"))
    parts = [mark.format(letter) + label for letter, label in zip(letters, labels, strict=False)]
    return rng.choice(("", "Options: ")) + rng.choice((" ", ", ")).join(parts)
