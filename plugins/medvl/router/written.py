"""Questions as people of several professions ask them, written for this project: the JSON Lines below `questions/`.

    {"question": "Number of nodules?", "task": "counting", "style": "terse", "profile": "radiologist"}

One file per profile of an author. Whole profiles, and one style of every profile, are kept from training: what is
measured on them is measured on hands that the classifier has not seen.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medvl.instructions import GENERAL
from medvl.router.patterns import FOLDER
from medvl.tasks import canonical_task

QUESTIONS = FOLDER / "questions"
HELD_OUT_PROFILES = ("ophthalmologist", "organiser", "patient")
HELD_OUT_STYLES = ("spoken",)
# Kept from the first training, on whose answers temperature, thresholds and gate are fitted; then trained on too.
# Nobody who wrote questions for training may have read what the router makes of these, or thresholds are too low.
CALIBRATION_PROFILES = ("caregiver", "dermatologist", "pathologist", "researcher", "typist")


@dataclass(frozen=True)
class WrittenQuestion:
    """One question with what is known of it.

    Attributes:
        question: Verbatim.
        task: Canonical task, or `general` for a prompt that is no image task.
        style: How it is asked: terse, polite, misspelt, ...
        profile: Who asks.
    """

    question: str
    task: str
    style: str
    profile: str

    @property
    def is_held_out(self) -> bool:
        """Whether training must never read it."""
        return self.profile in HELD_OUT_PROFILES or self.style in HELD_OUT_STYLES


@cache
def written_questions(folder: Path = QUESTIONS) -> tuple[WrittenQuestion, ...]:
    """All questions, by profile and in the order of their file.

    Raises:
        ValueError: a line without one of the four fields, or with an unknown task.
    """
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                task = GENERAL if row["task"] == GENERAL else str(canonical_task(row["task"]))
                found.append(WrittenQuestion(row["question"], task, row["style"], row["profile"]))
            except (KeyError, ValueError) as error:
                raise ValueError(f"{path}:{number}: {error}") from error
    return tuple(found)


def to_train_on() -> list[WrittenQuestion]:
    """Those that training may read."""
    return [written for written in written_questions() if not written.is_held_out]


def held_out() -> list[WrittenQuestion]:
    """Those of the held-out profiles and styles."""
    return [written for written in written_questions() if written.is_held_out]
