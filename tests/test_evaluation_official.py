"""The public scorer's rules, quirk by quirk; and beside the strict ones in one run."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.parsing import make_samples
from evaluation.samples import Joined, Prediction, Reference
from evaluation.scoring import score
from medvl.tasks import Task
from tests.support.samples import NO_PREDICTION, Case, samples_of


def official(task: Task, cases: list[Case], question: str = "?") -> dict[str, Any]:
    """The one entry of the task."""
    samples = samples_of(task, [(*case, "d", f"{question} {row}") for row, case in enumerate(cases)])
    (entry,) = score(samples, "official")[task].pooled.values()
    return entry


CLASSES: dict[str, tuple[list[Case], float]] = {
    "exact": ([("A", "A")], 1.0),
    "case and edges": ([("A", " a\n")], 1.0),
    "nothing is extracted": ([("A", "A: No")], 0.0),
    "a missing prediction is no sample": ([("A", "A"), ("B", NO_PREDICTION)], 1.0),
    "a null one is wrong": ([("A", "A"), ("B", None)], 0.5),
    "so is a blank one": ([("A", "A"), ("B", "")], 0.5),
    "mean over classes": ([("A", "A"), ("A", "B"), ("B", "B")], 0.75),
    "a class that is never the truth is only wrong": ([("A", "C"), ("B", "B")], 0.5),
}


@pytest.mark.parametrize(("cases", "value"), CLASSES.values(), ids=CLASSES)
def test_classification(cases: list[Case], value: float) -> None:
    assert official(Task.CLASSIFICATION, cases)["value"] == value


def test_letter_a_of_two_datasets_is_one_class() -> None:
    samples = samples_of(Task.CLASSIFICATION, [("A", "A", "d", "? 1"), ("A", "B", "e", "? 2"), ("B", "B", "e", "? 3")])
    assert score(samples, "official")[Task.CLASSIFICATION].pooled["balanced_accuracy"]["value"] == 0.75


COMMAS = "Endodontic Treatment, Restorative Treatment, and Complications"
LABELS: dict[str, tuple[list[Case], float]] = {
    "the comma label is three labels": ([(COMMAS, "Endodontic Treatment")], 2 * 1 / (1 + 3)),
    "separators and case": ([("a; B", "b, A")], 1.0),
    "micro": ([("a", "a"), ("b; c", "b")], 2 * 2 / (2 + 3)),
    "nothing on either side is 0, not 1": ([(";", ";")], 0.0),
}


@pytest.mark.parametrize(("cases", "value"), LABELS.values(), ids=LABELS)
def test_multi_label(cases: list[Case], value: float) -> None:
    assert official(Task.MULTI_LABEL, cases)["value"] == pytest.approx(value)


BOXES: dict[str, tuple[str, str | None, tuple[int, int, int]]] = {
    "a copy": ("[[0, 0, 10, 10]]", "[[0, 0, 10, 10]]", (1, 0, 0)),
    "IoU of exactly .5 is a miss": ("[[0, 0, 10, 10]]", "[[0, 0, 10, 5]]", (0, 1, 1)),
    "IoU above": ("[[0, 0, 10, 10]]", "[[0, 0, 10, 6]]", (1, 0, 0)),
    "a flat list is four boxes": ("[[0, 0, 10, 10]]", "[0, 0, 10, 10]", (0, 4, 1)),
    "prose is skipped": ("[[0, 0, 10, 10]]", "The lesion is there.", (0, 0, 0)),
    "a fence is skipped": ("[[0, 0, 10, 10]]", "```json\n[[0, 0, 10, 10]]\n```", (0, 0, 0)),
    "a leading space is read": ("[[0, 0, 10, 10]]", " [[0, 0, 10, 10]]", (1, 0, 0)),
    "a number is a miss": ("[[0, 0, 10, 10]]", "7", (0, 0, 1)),
    "tuples in a tuple are a miss": ("[[0, 0, 10, 10]]", "((0, 0, 10, 10),)", (0, 0, 1)),
    "null is a miss": ("[[0, 0, 10, 10]]", None, (0, 0, 1)),
    "None is a miss": ("[[0, 0, 10, 10]]", "None", (0, 0, 1)),
    "a zero-area copy is both wrong": ("[[3, 3, 3, 3]]", "[[3, 3, 3, 3]]", (0, 1, 1)),
    "three numbers match nothing": ("[[0, 0, 10, 10]]", "[[0, 0, 10]]", (0, 1, 1)),
    "references choose in their order": (  # the first takes the box that the second alone could have had
        "[[0, 0, 10, 10], [0, 2, 10, 12]]", "[[0, 1, 10, 11], [0, -3, 10, 7]]", (1, 1, 1)),
    "nothing claimed, nothing there": ("[]", "[]", (0, 0, 0)),
}  # fmt: skip


@pytest.mark.parametrize(("truth", "text", "counts"), BOXES.values(), ids=BOXES)
def test_detection(truth: str, text: str | None, counts: tuple[int, int, int]) -> None:
    table = score(samples_of(Task.DETECTION, [(truth, text)]), "official")[Task.DETECTION].table
    assert tuple(table.counts(0).values()) == counts


def test_failing_to_answer_raises_detection_f1_here_but_not_under_strict_rules() -> None:
    wrong: list[Case] = [("[[0, 0, 9, 9]]", "[[0, 0, 9, 9]]"), ("[[0, 0, 9, 9]]", "[[50, 50, 59, 59]]")]
    silent: list[Case] = [wrong[0], ("[[0, 0, 9, 9]]", "no idea")]
    assert official(Task.DETECTION, wrong)["value"] == 0.5
    assert official(Task.DETECTION, silent)["value"] == 1.0
    assert official(Task.DETECTION, silent)["n"] == 2 and official(Task.DETECTION, silent)["n_invalid"] == 1
    strict = score(samples_of(Task.DETECTION, silent), "strict")[Task.DETECTION].pooled["f1_iou50"]["value"]
    assert strict == 0.5  # one wrong box, as in the answer above


INSTANCES: dict[str, tuple[str, str, tuple[int, int, int]]] = {
    "IoU of exactly .5 is a hit": ('{"1": [[0, 0, 10, 10]]}', '{"1": [[0, 0, 10, 5]]}', (1, 0, 0)),
    "another name": ('{"1": [[0, 0, 10, 10]]}', '{"2": [[0, 0, 10, 10]]}', (0, 1, 1)),
    "names by case": ('{"X": [[0, 0, 10, 10]]}', '{"x": [[0, 0, 10, 10]]}', (0, 1, 1)),
    "single quotes are skipped": ('{"1": [[0, 0, 10, 10]]}', "{'1': [[0, 0, 10, 10]]}", (0, 0, 0)),
    "a list is all missed": ('{"1": [[0, 0, 10, 10], [0, 0, 5, 5]]}', "[[0, 0, 10, 10]]", (0, 0, 2)),
    "best pair first": (  # the pair of .82 leaves the other truth without a box
        '{"1": [[0, 0, 10, 10], [0, 3, 10, 13]]}', '{"1": [[0, 1, 10, 11], [0, -3, 10, 7]]}', (1, 1, 1)),
    "a number in place of boxes ends the image": ('{"1": [[0, 0, 9, 9]]}', '{"1": 7}', (0, 0, 0)),
}  # fmt: skip


@pytest.mark.parametrize(("truth", "text", "counts"), INSTANCES.values(), ids=INSTANCES)
def test_instance_detection(truth: str, text: str, counts: tuple[int, int, int]) -> None:
    table = score(samples_of(Task.INSTANCE_DETECTION, [(truth, text)]), "official")[Task.INSTANCE_DETECTION].table
    assert tuple(table.counts(0).values()) == counts


NUMBERS: dict[str, tuple[list[Case], float | None]] = {
    "mean": ([("10", "12"), ("20", " 16 ")], 3.0),
    "one bad number makes the mean infinite": ([("10", "10"), ("20", "16 %")], None),
    "a reference that is no number too": ([("10", "10"), ("n/a", "16")], None),
    "underscores are read": ([("1000", "1_000")], 0.0),
    "a thousands comma is not": ([("1000", "1,000")], None),
    "infinite": ([("10", "inf")], None),
    "a missing prediction is no sample": ([("10", "12"), ("20", NO_PREDICTION)], 2.0),
    "a null one is no number": ([("10", "12"), ("20", None)], None),
}


@pytest.mark.parametrize(("cases", "value"), NUMBERS.values(), ids=NUMBERS)
def test_numbers(cases: list[Case], value: float | None) -> None:
    entry = official(Task.REGRESSION, cases)
    assert entry["value"] == value
    assert (value is None) == ("no number" in entry.get("reason", ""))


def test_reports_have_no_value_without_the_model() -> None:
    entry = official(Task.REPORT, [("Normal.", "Normal.")])
    assert entry["value"] is None and "--report-metrics green" in entry["reason"]


def test_of_equal_keys_the_last_reference_and_the_last_prediction_count() -> None:
    def reference(row: int, answer: str) -> Reference:
        return Reference(str(row), Task.CLASSIFICATION, "d", "?", ("v/a.png",), answer, None, lambda: None, row)

    said = [Prediction(row, text, images=("v/a.png",), question="?") for row, text in enumerate(["A", "B", "C"])]
    pairs = [(reference(0, "A"), said[0]), (reference(1, "C"), said[1])]
    samples = make_samples(Joined("key", pairs, duplicates=[said[2]]), "pixel")
    entry = score(samples, "official")[Task.CLASSIFICATION].pooled["balanced_accuracy"]
    assert (entry["value"], entry["n"]) == (1.0, 1)
    assert score(samples, "strict")[Task.CLASSIFICATION].pooled["accuracy"]["n"] == 2


def test_an_unknown_spelling_of_the_task_gets_no_metric() -> None:
    (sample,) = samples_of(Task.COUNTING, [("5", "5")])
    fields = sample.reference.fields
    assert isinstance(fields, dict)
    fields["TaskType"] = "Cell Counting"
    entry = score([sample], "official")[Task.COUNTING].pooled["mean_absolute_error"]
    assert (entry["value"], entry["n"]) == (None, 0)


def test_converted_boxes_are_scored_as_they_would_be_handed_in() -> None:
    samples = samples_of(
        Task.DETECTION,
        [("[[50, 20, 100, 80]]", '[{"bbox_2d": [250, 200, 500, 800], "label": "x"}]')],
        frame="norm1000",
        size=(200, 100),
    )
    assert score(samples, "official")[Task.DETECTION].pooled["detection_f1"]["value"] == 1.0


def test_scores_of_samples_that_are_left_out_are_not_numbers() -> None:
    table = score(samples_of(Task.DETECTION, [("[[0, 0, 9, 9]]", "no")]), "official")[Task.DETECTION].table
    assert math.isnan(table.score[0]) and np.all(table.invalid)


Boxes = list[list[int]]
boxes = st.lists(st.tuples(*[st.integers(0, 12)] * 4).map(list), max_size=5)


def plain_iou(a: list[int], b: list[int]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def truths_in_order(truth: Boxes, said: Boxes) -> int:
    """Pairs if every truth in turn takes the best box that is left, above one half."""
    left, hits = list(said), 0
    for box in truth:
        best = max(left, key=lambda other: plain_iou(box, other), default=None)
        if best is not None and plain_iou(box, best) > 0.5:
            left.remove(best)
            hits += 1
    return hits


def best_pair_first(truth: Boxes, said: Boxes) -> int:
    """Pairs if the best of all pairs that are left is taken again and again, from one half on."""
    rows, columns, hits = list(truth), list(said), 0
    while rows and columns:
        row, column = max(itertools.product(rows, columns), key=lambda pair: plain_iou(*pair))
        if plain_iou(row, column) < 0.5:
            break
        rows.remove(row)
        columns.remove(column)
        hits += 1
    return hits


@given(st.lists(st.tuples(boxes, boxes), min_size=1, max_size=4))
def test_box_rules_agree_with_plain_loops(images: list[tuple[Boxes, Boxes]]) -> None:
    for task, match, write in (
        (Task.DETECTION, truths_in_order, str),
        (Task.INSTANCE_DETECTION, best_pair_first, lambda side: json.dumps({"1": side})),
    ):
        hits = sum(match(*sides) for sides in images)
        total = sum(len(truth) + len(said) for truth, said in images)
        entry = official(task, [(write(truth), write(said)) for truth, said in images])
        assert entry["value"] == pytest.approx(2 * hits / total if total else 0.0)
