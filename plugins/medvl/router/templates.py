"""Questions made up by this project (templates.yaml), for tasks of which training files hold few or none, and prompts
that are no task.
"""

import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from medvl.yaml_files import read_yaml

_FILE = Path(__file__).with_name("templates.yaml")


@cache
def _templates() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    content = read_yaml(_FILE)
    return content["slots"], content["questions"]


def wordings(task: str) -> int:
    """How many wordings there are for a task (or `general`)."""
    return len(_templates()[1][task])


def make_questions(task: str, number: int, seed: int = 0) -> list[tuple[str, int]]:
    """Different questions for a task (or prompts for `general`), as many of `number` as there can be.

    The wordings are used in turn; the same arguments give the same questions.

    Returns:
        (question, number of its wording).
    """
    rng = random.Random(f"{seed}/{task}")
    found: dict[str, int] = {}
    known = _templates()[1][task]
    for attempt in range(4 * number):
        if len(found) >= number:
            break
        place = attempt % len(known)
        found.setdefault(_filled(known[place], rng), place)
    return list(found.items())


def _filled(wording: str, rng: random.Random) -> str:
    slots = _templates()[0]

    def fill(slot: re.Match[str]) -> str:
        if slot[1] == "options":
            return _options(_some_labels(rng), rng)
        if slot[1] == "labels":
            return rng.choice(("; ", ", ")).join(_some_labels(rng))
        return rng.choice(slots[slot[1]])

    return re.sub(r"\{(\w+)\}", fill, wording)


def _some_labels(rng: random.Random) -> list[str]:
    return rng.sample(_templates()[0]["label"], rng.choice((2, 2, 3, 3, 4, 4, 5, 6, 8, 11)))


def _options(labels: Sequence[str], rng: random.Random) -> str:
    mark = rng.choice(("{}: ", "{}) ", "{}. ", "({}) "))
    letters = rng.choice(("ABCDEFGHIJK", "abcdefghijk", "1234567"))
    parts = [mark.format(letter) + label for letter, label in zip(letters, labels, strict=False)]
    return rng.choice(("", "Options: ")) + rng.choice((" ", ", ")).join(parts)
