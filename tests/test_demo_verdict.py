"""When the demo says that a model learnt, and when it does not."""

from typing import Any

import pytest

from medvl.demo.verdict import DRAWN, Comparison, compare, failures, headline
from medvl.tasks import TASKS, Task

GOOD = {task: 1.0 if spec.higher_is_better else 0.5 for task, spec in TASKS.items()}
BAD = {task: 0.1 if spec.higher_is_better else 40.0 for task, spec in TASKS.items()}


def metrics(values: dict[Task, float | None], n_invalid: int = 0) -> dict[str, Any]:
    entry = {"n": 24, "n_invalid": n_invalid}
    return {"tasks": {task.value: {TASKS[task].headline: {**entry, "value": value}} for task, value in values.items()}}


@pytest.mark.parametrize(
    ("higher_is_better", "untrained", "trained", "improved"),
    [
        (True, 0.2, 0.3, True),  # a score went up
        (True, 0.3, 0.3, False),  # standing still is not learning
        (True, 0.3, 0.2, False),  # a score went down
        (False, 9.0, 2.0, True),  # an error went down
        (False, 2.0, 9.0, False),  # an error went up
        (False, None, 1e9, True),  # no valid answer is worse than any value
        (False, 2.0, None, False),  # answers were lost
        (False, None, None, False),  # still none
        (True, 0.0, None, False),  # a score that vanished
    ],
)
def test_better(higher_is_better: bool, untrained: float | None, trained: float | None, improved: bool) -> None:
    assert Comparison(Task.COUNTING, "any", higher_is_better, untrained, trained).improved is improved


def test_a_mean_over_a_minority_of_answers_is_no_number() -> None:
    assert headline(metrics({Task.COUNTING: 0.5}, n_invalid=13), Task.COUNTING) is None
    assert headline(metrics({Task.COUNTING: 0.5}, n_invalid=12), Task.COUNTING) == 0.5
    assert headline(metrics({Task.DETECTION: 0.5}, n_invalid=13), Task.DETECTION) == 0.5


@pytest.mark.parametrize(
    ("untrained", "trained", "expected"),
    [
        (BAD, GOOD, []),  # learnt
        (GOOD, GOOD, [task.value for task in Task]),  # nothing changed
        (BAD, GOOD | {Task.DETECTION: 0.1}, ["detection"]),  # one task did not
        (BAD, GOOD | {Task.CLASSIFICATION: 0.79}, ["classification"]),  # better, but not good enough
        (BAD, GOOD | {Task.CLASSIFICATION: 0.8}, []),  # just good enough
        (BAD | {Task.COUNTING: None}, GOOD, []),  # untrained gave no number
        ({}, {}, [task.value for task in Task if task in DRAWN]),  # nothing was scored
    ],
)
def test_failures_name_the_task(
    untrained: dict[Task, float | None], trained: dict[Task, float | None], expected: list[str]
) -> None:
    found = failures(compare(metrics(untrained), metrics(trained)))
    assert [sentence.partition(":")[0] for sentence in found] == expected


def test_a_task_lost_on_the_way_is_a_failure() -> None:
    trained = {task: value for task, value in GOOD.items() if task is not Task.REPORT}
    assert [line.partition(":")[0] for line in failures(compare(metrics(BAD), metrics(trained)))] == [Task.REPORT.value]
