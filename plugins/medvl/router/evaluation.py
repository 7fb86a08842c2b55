"""How well questions are routed: by task, by confidence, on datasets and wordings that were not trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from medvl.instructions import GENERAL
from medvl.router.chain import Router
from medvl.router.data import LabelledQuestion

if TYPE_CHECKING:
    from medvl.router.options import TrainingOptions
    from medvl.router.route import Route

_LEVELS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class Point(msgspec.Struct, frozen=True):
    """One point of the coverage curve: of the questions routed with at least `confidence`."""

    confidence: float
    coverage: float
    accuracy: float | None


class Evaluation(msgspec.Struct, frozen=True):
    """How one router did on questions whose task is known.

    Attributes:
        questions: How many.
        accuracy: Share routed rightly; for a prompt that is no task, `general` is right.
        abstained: Share sent to `general`, of questions that have a task.
        wrong: Share routed to a wrong task.
        tasks_right: Share routed rightly, of questions that have a task; None if there is none.
        tasks_wrong: Share routed to another task, of the same.
        kept_out: Share sent to `general`, of prompts that are no task; None if there is none.
        sources: Stage -> questions it decided.
        confusion: True task -> routed task -> questions.
        curve: Coverage and accuracy by confidence, over questions that have a task.
        mistakes: (question, true task, routed task), the first fifty.
    """

    questions: int
    accuracy: float
    abstained: float
    wrong: float
    tasks_right: float | None
    tasks_wrong: float | None
    kept_out: float | None
    sources: dict[str, int]
    confusion: dict[str, dict[str, int]]
    curve: list[Point]
    mistakes: list[tuple[str, str, str]]


@dataclass(frozen=True)
class LeftOut:
    """Accuracy on one dataset by routers that saw no question of it, nor of another dataset that asks the same."""

    dataset: str
    questions: int
    rules: float
    gliclass: float
    chain: float


def evaluate(router: Router, questions: Sequence[tuple[str, str]]) -> Evaluation:
    """Route (question, task) pairs and compare.

    Raises:
        ValueError: no question.
    """
    if not questions:
        raise ValueError("no question to evaluate on")
    return judge(questions, router.route([text for text, _ in questions]))


def judge(questions: Sequence[tuple[str, str]], routes: Sequence[Route]) -> Evaluation:
    """Compare routes with the tasks of (question, task) pairs."""
    pairs = [(task, route.task) for (_, task), route in zip(questions, routes, strict=True)]
    right = np.array([task == routed for task, routed in pairs])
    known = np.array([task != GENERAL for task, _ in pairs])
    abstained = np.array([routed == GENERAL for _, routed in pairs])
    confusion: dict[str, Counter[str]] = {}
    for task, routed in pairs:
        confusion.setdefault(task, Counter())[routed] += 1
    confidence = np.array([route.confidence if not route.abstained else 0.0 for route in routes])
    return Evaluation(
        questions=len(pairs),
        accuracy=float(right.mean()),
        abstained=float(abstained[known].mean()) if known.any() else 0.0,
        wrong=float((~right & ~abstained).mean()),
        tasks_right=_share(right[known]),
        tasks_wrong=_share((~right & ~abstained)[known]),
        kept_out=_share(abstained[~known]),
        sources=dict(Counter(route.source for route in routes)),
        confusion={task: dict(row) for task, row in sorted(confusion.items())},
        curve=_curve(confidence[known], right[known], ~abstained[known]),
        mistakes=[
            (text, task, routed) for (text, _), (task, routed) in zip(questions, pairs, strict=True) if task != routed
        ][:50],
    )


def _share(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _curve(confidence: np.ndarray, right: np.ndarray, routed: np.ndarray) -> list[Point]:
    points = []
    for level in _LEVELS:
        passed = routed & (confidence >= level)
        if len(passed):
            points.append(Point(level, float(passed.mean()), float(right[passed].mean()) if passed.any() else None))
    return points


def classifier_alone(router: Router, texts: Sequence[str]) -> list[str]:
    """The task that GLiClass scores highest, whatever its confidence: no rules, thresholds and gate."""
    from medvl.router.request import brief
    from medvl.router.route import normalise

    if router.stage is None:
        raise ValueError("a router of rules alone has no classifier")
    labels = list(router.stage.classifier.labels)
    logits, _ = router.stage.classifier.score([brief(normalise(text)) for text in texts])
    return [labels[place] for place in logits.argmax(1)]


def leave_one_dataset_out(
    questions: Sequence[LabelledQuestion],
    options: TrainingOptions,
    *,
    device: str = "cpu",
    on_dataset: Callable[[str, int, int], None] | None = None,
) -> Iterator[LeftOut]:
    """Train a router without each dataset in turn, and ask it that dataset's questions.

    Args:
        questions: Of at least two datasets.
        options: Of training.
        device: To train on.
        on_dataset: Called before each with (dataset, its number from 1, how many there are).
    """
    from medvl.router.fitting import fit

    datasets = sorted({question.dataset for question in questions})
    if len(datasets) < 2:
        raise ValueError(f"leaving one out needs two datasets, there is {', '.join(datasets)}")
    rules = Router()
    for number, dataset in enumerate(datasets, 1):
        if on_dataset:
            on_dataset(dataset, number, len(datasets))
        own = [question for question in questions if question.dataset == dataset]
        asked_here = {question.group for question in own}
        others = [
            question for question in questions if question.group not in asked_here and question.dataset != dataset
        ]
        router = fit(others, options, device=device).router
        texts, tasks = [question.text for question in own], [question.task for question in own]
        yield LeftOut(
            dataset,
            len(own),
            _accuracy([route.task for route in rules.route(texts)], tasks),
            _accuracy(classifier_alone(router, texts), tasks),
            _accuracy([route.task for route in router.route(texts)], tasks),
        )


def _accuracy(found: Sequence[str], tasks: Sequence[str]) -> float:
    return sum(one == other for one, other in zip(found, tasks, strict=True)) / len(tasks)
