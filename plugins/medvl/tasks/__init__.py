"""The tasks, one file each; `TASKS` is the one table of them. docs/add_a_task.md shows how to add another."""

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from medvl.tasks import (
    classification,
    counting,
    detection,
    instance_detection,
    multi_label,
    regression,
    report,
    vqa,
)
from medvl.tasks.base import Answer, Context, Row, Task, TaskSpec, Value, Writing

__all__ = ["POSTPROCESSORS", "TASKS", "Answer", "Context", "Row", "Task", "TaskSpec", "UnknownNameError", "Value",
           "Writing", "canonical_task", "unknown_name"]  # fmt: skip

_MODULES = (  # in the order of `Task`
    classification,
    multi_label,
    detection,
    instance_detection,
    counting,
    regression,
    report,
    vqa,
)
TASKS: Mapping[Task, TaskSpec] = {module.TASK.task: module.TASK for module in _MODULES}
# What a profile may have answers checked for -> the task whose answers look so.
POSTPROCESSORS: Mapping[str, Task] = {spec.postprocess: task for task, spec in TASKS.items()}
_TASK_OF = {spelling: task for task, spec in TASKS.items() for spelling in spec.spellings}


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
