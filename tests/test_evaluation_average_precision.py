"""COCO's mAP without confidences: against pycocotools, by hand, and that no way of failing beats a wrong answer."""

import contextlib
import io
import json

import numpy as np
import pytest

from evaluation.scores import Resampling
from evaluation.scoring import score
from medvl.boxes import as_boxes, iou
from medvl.tasks import Task
from tests.support.samples import Case, samples_of

LIMITS = [0.5 + 0.05 * step for step in range(10)]
Map = dict[str, list[list[float]]]


def found(cases: list[Case], task: Task = Task.INSTANCE_DETECTION) -> dict[str, float | None]:
    scores = score(samples_of(task, cases), "strict")[task].pooled
    return {name: scores[name]["value"] for name in ("map_iou50_95", "map_iou50", "map_iou75", "f1_iou50_macro")}


def random_images(n: int = 80) -> list[tuple[Map, Map]]:
    """Truths on a grid, far apart, of three classes; predictions near most of them, some with a wrong name, some
    invented."""
    rng = np.random.default_rng(3)
    images: list[tuple[Map, Map]] = []
    for _ in range(n):
        truth: Map = {}
        predicted: Map = {}
        for cell in rng.choice(9, rng.integers(0, 6), replace=False):
            name = str(rng.choice(["a", "b", "c"], p=[0.6, 0.3, 0.1]))
            left, top = float(cell % 3 * 100), float(cell // 3 * 100)
            box = [left, top, left + 60, top + 50]
            truth.setdefault(name, []).append(box)
            if rng.random() < 0.8:
                said = name if rng.random() < 0.85 else str(rng.choice(["a", "b", "c"]))
                predicted.setdefault(said, []).append([side + float(rng.integers(-9, 10)) for side in box])
        if rng.random() < 0.3:
            predicted.setdefault("b", []).append([300.0, 300.0, 330.0, 330.0])
        images.append((truth, predicted))
    return images


def by_pycocotools(images: list[tuple[Map, Map]], limit: float) -> float:
    """mAP at one IoU by COCO's own code.

    It needs an order of boxes. With all false positives before all true ones its curve, which is the best precision at
    this recall or beyond, is the one of a single operating point.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    names = ["a", "b", "c"]
    truths, answers = [], []
    for number, (truth, predicted) in enumerate(images):
        for name, boxes in truth.items():
            truths += [{"image_id": number, "category_id": names.index(name), "iscrowd": 0, "id": len(truths) + place,
                        "bbox": [x, y, x2 - x, y2 - y], "area": (x2 - x) * (y2 - y)}
                       for place, (x, y, x2, y2) in enumerate(boxes, 1)]  # fmt: skip
        for name, boxes in predicted.items():
            for box in boxes:
                right = bool((iou(as_boxes(truth.get(name, [])), as_boxes(box)) >= limit).any())
                answers.append({"image_id": number, "category_id": names.index(name), "score": 0.1 if right else 0.9,
                                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]})  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": [{"id": number} for number in range(len(images))], "annotations": truths,
                        "categories": [{"id": place} for place in range(3)]}  # fmt: skip
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(answers), "bbox")
        evaluation.params.iouThrs = np.array([limit])
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, -1]  # recall, class
    return float(precision[precision > -1].mean())


def test_agrees_with_pycocotools() -> None:
    pytest.importorskip("pycocotools")
    images = random_images()
    ours = found([(json.dumps(truth), json.dumps(predicted)) for truth, predicted in images])
    theirs = [by_pycocotools(images, limit) for limit in LIMITS]
    assert ours["map_iou50"] == pytest.approx(theirs[0])
    assert ours["map_iou75"] == pytest.approx(theirs[5])
    assert ours["map_iou50_95"] == pytest.approx(np.mean(theirs))
    assert 0.2 < np.mean(theirs) < 0.8


A, B, FAR = [0, 0, 10, 10], [20, 20, 40, 40], [90, 90, 99, 99]


def text(**boxes: list[list[int]]) -> str:
    return json.dumps(boxes)


# References, prediction, mAP at 0.5, macro F1 at 0.5. AP of a class: precision times (1 + floor(100 recall)) / 101.
VALUES = {
    "a copy": (text(a=[A], b=[B]), text(a=[A], b=[B]), 1.0, 1.0),
    "one of two classes": (text(a=[A], b=[B]), text(a=[A]), 0.5, 0.5),
    "one more box": (text(a=[A]), text(a=[A, FAR]), 0.5, 2 / 3),
    "half of a class": (text(a=[A, B]), text(a=[A]), 51 / 101, 2 / 3),
    "names exchanged": (text(a=[A], b=[B]), text(b=[A], a=[B]), 0.0, 0.0),
    "a name that nobody knows": (text(a=[A], b=[B]), text(a=[A], b=[B], z=[FAR]), 0.75, 5 / 6),
    "a box of another class of the image": (text(a=[A], b=[B]), text(a=[A], b=[B, FAR]), 0.75, 5 / 6),
    "nothing": (text(a=[A]), "{}", 0.0, 0.0),
    "unreadable": (text(a=[A]), "I see nothing that I could name", 0.0, 0.0),
}


@pytest.mark.parametrize(("truth", "predicted", "precision", "f1"), VALUES.values(), ids=VALUES.keys())
def test_values_by_hand(truth: str, predicted: str, precision: float, f1: float) -> None:
    ours = found([(truth, predicted)])
    assert ours["map_iou50"] == pytest.approx(precision)
    assert ours["f1_iou50_macro"] == pytest.approx(f1)


def test_no_reference_has_no_value() -> None:
    assert set(found([("{}", "{}")]).values()) == {None}


def test_a_box_in_an_image_without_any_costs_its_class_alone() -> None:
    both = (text(a=[A], b=[B]), text(a=[A], b=[B]))
    assert found([both, ("{}", text(a=[FAR]))])["map_iou50"] == pytest.approx((0.5 + 1) / 2)
    assert found([both, ("{}", text(z=[FAR]))])["map_iou50"] == pytest.approx((0.5 + 1) / 2)
    assert found([both, ("{}", "what?")])["map_iou50"] == pytest.approx((0.5 + 1) / 2)


@pytest.mark.parametrize("truth", [text(a=[A]), text(a=[A], b=[B]), "{}"])
def test_failing_to_answer_is_never_better_than_a_wrong_box(truth: str) -> None:
    others = [(text(a=[A], b=[B]), text(a=[A], b=[B]))] * 3
    wrong = [found([*others, (truth, text(**{name: [FAR]}))]) for name in ("a", "b")]
    failed = found([*others, (truth, "cannot say")])
    assert all((failed[name] or 0) <= (values[name] or 0) + 1e-12 for values in wrong for name in failed)


def test_a_detection_question_says_the_name() -> None:
    one = json.dumps([{"bbox_2d": A, "label": "cyst"}])
    for said in ("[[0, 0, 10, 10]]", json.dumps([{"bbox_2d": A, "label": "a round thing"}])):
        assert found([(one, said)], Task.DETECTION)["map_iou50"] == 1.0
    two = json.dumps([{"bbox_2d": A, "label": "cyst"}, {"bbox_2d": B, "label": "mass"}])
    assert found([(two, two.replace("cyst", "x"))], Task.DETECTION)["map_iou50"] == pytest.approx(1 / 4)


def test_classes_never_cross_datasets() -> None:
    cases: list[Case] = [(text(a=[A]), text(a=[A]), "first"), (text(b=[B]), text(b=[B], a=[FAR]), "second")]
    scores = score(samples_of(Task.INSTANCE_DETECTION, cases), "strict")[Task.INSTANCE_DETECTION]
    assert scores.datasets["first"]["map_iou50"]["value"] == 1.0
    assert scores.datasets["second"]["map_iou50"]["value"] == 0.5  # `a` is a name that nobody knows there
    assert scores.macro["map_iou50"]["value"] == 0.75


def test_intervals_come_with_it() -> None:
    cases: list[Case] = [(json.dumps(truth), json.dumps(predicted)) for truth, predicted in random_images(40)]
    entry = score(samples_of(Task.INSTANCE_DETECTION, cases), "strict", Resampling(draws=200, cluster="sample"))[
        Task.INSTANCE_DETECTION
    ].pooled["map_iou50"]
    assert entry["note"].startswith("no confidences, so average precision at one operating point")
    low, high = entry["ci95"]
    assert low <= entry["value"] <= high
