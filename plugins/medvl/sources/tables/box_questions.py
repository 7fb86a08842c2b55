"""The question about an image whose boxes are all that a set has: one for all classes, or one per class.

image    "Locate every object of these classes in the image: Platelets, RBC, WBC. Answer with a JSON map of class to a
         list of boxes, [x_min, y_min, x_max, y_max]."                                            instance detection
class    "Locate every RBC in the image. Answer with a box for each, [x_min, y_min, x_max, y_max]."        detection

With several classes in one question the names of the boxes are part of the answer, so that its task is the one whose
scores look at names. Of one class the question says the name. An image without boxes is a negative: the map is empty,
or the list. `class` asks for every class that is in the image and for as many that are not, one at least, drawn by the
name of the image, so that the same data gives the same questions.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from medvl.errors import UsageError
from medvl.tasks import Task

Ask = Literal["image", "class"]
_MOST_NAMES = 100  # in one question
_MAP = (
    "Locate every object of these classes in the image: {names}. Answer with a JSON map of class to a list of boxes, "
    "[x_min, y_min, x_max, y_max]."
)
_LIST = "Locate every {names} in the image. Answer with a box for each, [x_min, y_min, x_max, y_max]."


@dataclass(frozen=True)
class BoxQuestion:
    """A question about the boxes of an image.

    Attributes:
        text: The question.
        task: Instance detection where names are part of the answer, else detection.
        places: Which of the image's boxes answer it.
        label: What all of them enclose; None where each has its own name.
    """

    text: str
    task: Task
    places: tuple[int, ...]
    label: str | None


def question_for(names: Sequence[str], task: Task | None = None, own: str | None = None) -> tuple[str, Task]:
    """The question for all boxes of these names, and its task.

    Args:
        names: Classes of the set, at least one.
        task: As stated; by the number of names if None.
        own: A question of the user's, with `{names}` where they belong, or without.

    Raises:
        UsageError: too many names for one question.

    >>> question_for(["cyst"])[0]
    'Locate every cyst in the image. Answer with a box for each, [x_min, y_min, x_max, y_max].'
    """
    task = task or (Task.DETECTION if len(names) == 1 else Task.INSTANCE_DETECTION)
    text = own or (_MAP if task is Task.INSTANCE_DETECTION else _LIST)
    if "{names}" in text and len(names) > _MOST_NAMES:
        raise UsageError(f"{len(names)} classes are too many for one question; say --ask class, or --question TEXT")
    between = "; " if any("," in name for name in names) else ", "
    return text.replace("{names}", between.join(names)), task


def questions_for(
    ask: Ask, classes: Sequence[str], labels: Sequence[str | None], image: str, own: str | None = None,
    task: Task | None = None,
) -> Iterator[BoxQuestion]:  # fmt: skip
    """The questions about one image.

    Args:
        ask: One question per image, or one per class.
        classes: Names of the set, sorted.
        labels: Name of each box of the image; None where it has none.
        image: Its name, by which absent classes are drawn.
        own: A question of the user's, see `question_for`.
        task: As stated.
    """
    everything = tuple(range(len(labels)))
    if ask == "image" or not classes:
        text, kind = question_for(classes or ["object"], task, own)
        yield BoxQuestion(text, kind, everything, classes[0] if len(classes) == 1 else None)
        return
    present = [name for name in classes if name in labels]
    absent = [name for name in classes if name not in labels]
    drawn = random.Random(image).sample(absent, min(len(absent), max(1, len(present))))
    for name in classes:
        if name in present or name in drawn:
            places = tuple(place for place in everything if labels[place] == name)
            yield BoxQuestion(question_for([name], Task.DETECTION, own)[0], Task.DETECTION, places, name)
