"""The seven canonical tasks and their spellings in the wild."""

import difflib
import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache


class Task(StrEnum):
    """What a question asks for; decides how its answer is read, written and scored."""

    CLASSIFICATION = "classification"
    MULTI_LABEL = "multi_label_classification"
    DETECTION = "detection"
    INSTANCE_DETECTION = "instance_detection"
    COUNTING = "counting"
    REGRESSION = "regression"
    REPORT = "report_generation"

    @property
    def has_boxes(self) -> bool:
        """Whether answers of this task hold boxes."""
        return self in (Task.DETECTION, Task.INSTANCE_DETECTION)

    @property
    def is_number(self) -> bool:
        """Whether answers of this task are one number."""
        return self in (Task.COUNTING, Task.REGRESSION)


# Spellings met in FLARE records and in the code of systems trained on it, after `_normal`.
_ALIASES: dict[Task, tuple[str, ...]] = {
    Task.CLASSIFICATION: ("classification", "binary classification", "disease diagnosis",
                          "disease diagnosis classification"),
    Task.MULTI_LABEL: ("multi label classification", "multilabel classification", "multi label", "multilabel"),
    Task.DETECTION: ("detection", "object detection", "lesion detection"),
    Task.INSTANCE_DETECTION: ("instance detection", "instance segmentation"),
    Task.COUNTING: ("counting", "cell counting"),
    Task.REGRESSION: ("regression",),
    Task.REPORT: ("report generation", "reporting"),
}  # fmt: skip
_TASK_OF = {alias: task for task, aliases in _ALIASES.items() for alias in aliases}


class UnknownNameError(ValueError):
    """A task or dataset name that is not in the table; the message holds the nearest known one."""


def _normal(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().lower()


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a `name` that is not among the `known` ones, naming the nearest of them."""
    known = list(known)
    folded = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    hint = f"did you mean {folded[nearest[0]]!r}?" if nearest else f"known: {', '.join(known)}"
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}")


@lru_cache(maxsize=256)
def canonical_task(name: str) -> Task:
    """The task that a `TaskType` spelling means, whatever its case, hyphens, underscores and spaces.

    Raises:
        UnknownNameError: no spelling in the table matches. It is never guessed: a guess once turned every unknown
            task into classification in a public baseline.
    """
    try:
        return _TASK_OF[_normal(name)]
    except KeyError:
        raise unknown_name("task", name, _TASK_OF) from None
