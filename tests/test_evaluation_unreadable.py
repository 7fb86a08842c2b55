"""Strict rules: no answer is one wrong box or label besides those missed, in every F1, so never better than wrong."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics.registry import metrics_of
from evaluation.scores import TaskScores
from evaluation.scoring import score
from medvl.tasks import Task
from tests.support.samples import LOSS, NO_PREDICTION, Case, samples_of

NO_ANSWER = [None, "", " \n", "???", "I cannot tell.", "Error: timeout", NO_PREDICTION]
LABELS = ["bone", "caries", "cyst", "pulp"]
label_sets = st.lists(st.sampled_from(LABELS), unique=True, max_size=3).map(lambda names: "; ".join(names) or "none")
corner = st.integers(0, 8)
box = st.tuples(corner, corner, corner, corner).map(lambda b: [b[0], b[1], b[0] + b[2] + 1, b[1] + b[3] + 1])
box_lists = st.lists(box, max_size=3)
FAR = [500, 500, 510, 510]
# These describe the boxes that were written, of which there are none.
DESCRIBE = {"aspect_bias", "duplicate_rate", "out_of_range_rate"}
instances = st.dictionaries(st.sampled_from(["1", "2", "X"]), box_lists.filter(bool), max_size=2).map(
    lambda found: str(found).replace("'", '"')
)
TEXTS = {
    Task.CLASSIFICATION: st.sampled_from("ABC"),
    Task.MULTI_LABEL: label_sets,
    Task.DETECTION: box_lists.map(str),
    Task.INSTANCE_DETECTION: instances,
}


def wrong_answers(task: Task, truth: str) -> list[str]:
    """Answers that name exactly one object, which is wrong: every other class, and one that is never the truth."""
    if task is Task.DETECTION:
        return [str([FAR])]
    if task is Task.INSTANCE_DETECTION:
        return [f'{{"{name}": [{FAR}]}}' for name in ("1", "2", "X", "Y")]
    names = [*"ABC"] if task is Task.CLASSIFICATION else [*LABELS, "bubbles"]
    return [name for name in names if name not in truth.split("; ")]


def strict(task: Task, cases: Sequence[Case]) -> TaskScores:
    return score(samples_of(task, cases, LOSS if task is Task.CLASSIFICATION else "?", size=(600, 600)), "strict")[task]


@pytest.mark.parametrize("task", TEXTS)
@settings(deadline=None)
@given(data=st.data())
def test_no_answer_never_scores_better_than_one_wrong_object(task: Task, data: st.DataObject) -> None:
    texts = TEXTS[task]
    datasets = st.sampled_from("de")
    cases: list[Case] = data.draw(
        st.lists(st.tuples(texts, st.one_of(texts, st.sampled_from(["???", None])), datasets), min_size=1, max_size=8)
    )
    row = data.draw(st.integers(0, len(cases) - 1))
    truth, dataset = cases[row][0], data.draw(datasets)
    silent, wrong = (
        strict(task, [*cases[:row], (truth, text, dataset), *cases[row + 1 :]])
        for text in (data.draw(st.sampled_from(NO_ANSWER)), data.draw(st.sampled_from(wrong_answers(task, truth))))
    )
    for metric in (metric for metric in metrics_of("strict", task) if metric.name not in DESCRIBE):
        sign = 1 if metric.higher_is_better else -1
        for part, other in ((silent.pooled, wrong.pooled), (silent.macro, wrong.macro)):
            mine, its = part[metric.name]["value"], other[metric.name]["value"]
            assert (mine is None) == (its is None), metric.name
            assert mine is None or sign * mine <= sign * its + 1e-9, metric.name


BOX = "[[0, 0, 10, 10]]"
MAP = '{"1": [[0, 0, 10, 10]]}'
# Task, cases with one wrong object last, the object, and the F1 that both it and no answer must have.
ONE_WRONG: dict[str, tuple[Task, list[Case], str, str, float]] = {
    "the issue's two detections": (Task.DETECTION, [(BOX, BOX)], BOX, "[[100, 100, 150, 150]]", 0.5),
    "instances": (Task.INSTANCE_DETECTION, [(MAP, MAP)], MAP, '{"1": [[90, 90, 99, 99]]}', 0.5),
    "labels": (Task.MULTI_LABEL, [("a", "a"), ("b", "b")], "a", "b", 2 / 3),
    "classes": (Task.CLASSIFICATION, [("A", "A"), ("B", "B")], "A", "B", 2 / 3),
}


@pytest.mark.parametrize("answer", NO_ANSWER)
@pytest.mark.parametrize(("task", "cases", "truth", "wrong", "value"), ONE_WRONG.values(), ids=ONE_WRONG)
def test_no_answer_is_one_wrong_object_in_every_f1(
    task: Task, cases: list[Case], truth: str, wrong: str, value: float, answer: str | None
) -> None:
    silent, mistaken = (strict(task, [*cases, (truth, text)]).pooled for text in (answer, wrong))
    named = [name for name in silent if name.startswith(("f1", "precision", "mean_iou_matched", "grounding", "false"))]
    assert {name: silent[name]["value"] for name in named} == {name: mistaken[name]["value"] for name in named}
    assert silent[next(name for name in ("f1_iou50", "f1_macro") if name in silent)]["value"] == pytest.approx(value)


def test_no_answer_is_charged_to_the_class_that_costs_most() -> None:
    """One of A, five of B, all found: a false A halves the F1 of A to 2/3, a false B lowers that of B to 10/11."""
    cases: list[Case] = [("A", "A"), *[("B", "B")] * 5, ("C", "C"), ("C", "C")]
    silent = strict(Task.CLASSIFICATION, [*cases, ("C", "???")]).pooled["f1_macro"]["value"]
    assert silent == pytest.approx((2 / 3 + 1 + 4 / 5) / 3)


def test_no_answer_is_charged_within_its_dataset() -> None:
    cases: list[Case] = [("a", "a", "d"), ("b", "b", "e"), ("b", "???", "e")]
    scores = strict(Task.MULTI_LABEL, cases)
    assert scores.datasets["d"]["f1_macro"]["value"] == 1.0
    assert scores.datasets["e"]["f1_macro"]["value"] == pytest.approx(0.5)
