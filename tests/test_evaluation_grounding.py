"""Grounding metrics: against torchvision, pycocotools and hand-worked values; what changes them and what must not."""

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from evaluation.matching import THRESHOLDS, match
from evaluation.scoring import score
from medvl.boxes import Size, as_boxes, iou
from medvl.tasks import Task
from tests.support.samples import Case, samples_of

boxes = st.lists(
    st.tuples(st.integers(0, 80), st.integers(0, 80), st.integers(1, 60), st.integers(1, 60)).map(
        lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    ),
    max_size=6,
)


def found(cases: list[Case], size: Size | None = None) -> dict[str, float | None]:
    scores = score(samples_of(Task.DETECTION, cases, size=size), "strict")[Task.DETECTION]
    return {name: entry["value"] for name, entry in scores.pooled.items()}


def random_images(n: int = 60) -> list[tuple[list[list[int]], list[list[int]]]]:
    """Truths on a grid, far apart, so that matching is not in question; predictions near some, others invented."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(n):
        cells = rng.choice(9, rng.integers(1, 6), replace=False)
        truth = [[int(c % 3 * 100), int(c // 3 * 100), int(c % 3 * 100 + 60), int(c // 3 * 100 + 50)] for c in cells]
        near = [[side + int(rng.integers(-12, 13)) for side in box] for box in truth if rng.random() < 0.8]
        images.append((truth, near + [[300, 300, 320, 320]] * int(rng.integers(0, 3))))
    return images


def test_iou_agrees_with_torchvision() -> None:
    torch = pytest.importorskip("torch")
    box_iou = pytest.importorskip("torchvision.ops").box_iou
    corners = np.random.default_rng(0).uniform(0, 100, (2, 200, 2, 2))
    first, second = np.sort(corners, axis=2).reshape(2, 200, 4)
    expected = box_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    assert iou(first, second) == pytest.approx(expected)


@given(boxes, boxes)
def test_matching_agrees_with_an_assignment_at_every_threshold(first: list[list[int]], second: list[list[int]]) -> None:
    matrix = iou(as_boxes(first), as_boxes(second))
    matched = match(matrix)
    for threshold, hits in zip(THRESHOLDS, matched.hits, strict=True):
        allowed = (matrix >= threshold).astype(float)
        assert hits == allowed[linear_sum_assignment(allowed, maximize=True)].sum()
    assert matched.iou_of_truth.sum() == pytest.approx(matrix[linear_sum_assignment(matrix, maximize=True)].sum())
    assert matched.hit_of_truth.sum() == matched.hits[1]


def test_recall_agrees_with_pycocotools() -> None:
    """COCO's average recall of boxes without confidences; its precision is not defined without them."""
    cocotools = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    images = random_images()

    def listed(side: int) -> list[dict[str, Any]]:
        return [
            {"image_id": number, "category_id": 1, "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]], "score": 1.0,
             "area": (b[2] - b[0]) * (b[3] - b[1]), "iscrowd": 0}
            for number, image in enumerate(images) for b in image[side]
        ]  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        truth = cocotools.COCO()
        truth.dataset = {
            "images": [{"id": number} for number in range(len(images))],
            "categories": [{"id": 1}],
            "annotations": [row | {"id": number + 1} for number, row in enumerate(listed(0))],
        }
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(listed(1)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"][:, 0, 0, -1]  # thresholds; all areas; as many boxes as there are
    ours = found([(str(truth), str(predicted)) for truth, predicted in images])
    assert ours["recall_iou50"] == pytest.approx(recall[0])
    assert ours["recall_iou75"] == pytest.approx(recall[5])
    assert ours["recall_iou50_95"] == pytest.approx(recall.mean())


ONE = "[[0, 0, 10, 10]]"
# Truth, prediction, metric, value.
VALUES: dict[str, tuple[str, str, str, float]] = {
    "loss of a copy": (ONE, ONE, "grounding_loss", 0.0),
    "loss of IoU .8": (ONE, "[[0, 0, 10, 8]]", "grounding_loss", 0.2),
    "loss of a miss: 1 + .5 FP + 1 FN": (ONE, "[[50, 50, 60, 60]]", "grounding_loss", 2.5),
    "loss of silence: 1 + 1 FN": (ONE, "[]", "grounding_loss", 2.0),
    "loss where nothing is": ("[]", "[]", "grounding_loss", 0.0),
    "loss of an invention: 1 + .5 FP": ("[]", ONE, "grounding_loss", 1.5),
    "geonli of a copy": (ONE, ONE, "geonli", 1.0),
    "geonli of IoU .8": (ONE, "[[0, 0, 10, 8]]", "geonli", 0.8),
    "geonli with a box too many": (ONE, "[[0, 0, 10, 10], [50, 50, 60, 60]]", "geonli", math.exp(-2.5)),
    "geonli with a box too few": ("[[0, 0, 9, 9], [20, 20, 29, 29]]", "[[0, 0, 9, 9]]", "geonli", math.exp(-2.5) / 2),
    "geonli, both empty": ("[]", "[]", "geonli", 1.0),
    "geonli, only truth empty": ("[]", ONE, "geonli", 0.0),
    "geonli with alpha 1": (ONE, "[[0, 0, 10, 10], [50, 50, 60, 60]]", "geonli_alpha1", math.exp(-1)),
    "mean over matched leaves out references without one": (
        "[[0, 0, 10, 10], [20, 20, 30, 30]]", "[[0, 0, 10, 8]]", "mean_iou_matched", 0.8),
    "mean over all references counts them": ("[[0, 0, 10, 10], [20, 20, 30, 30]]", "[[0, 0, 10, 8]]", "mean_iou", 0.4),
    "Acc@.5 takes the first box": (ONE, "[[50, 50, 60, 60], [0, 0, 10, 10]]", "accuracy_iou50", 0.0),
    "false positives": (ONE, "[[0, 0, 10, 10], [50, 50, 60, 60]]", "false_positives", 1.0),
    "false negatives": (ONE, "[[50, 50, 60, 60]]", "false_negatives", 1.0),
    "duplicates": (ONE, "[[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]]", "duplicate_rate", 2 / 3),
    "too wide by a half": ("[[0, 0, 10, 10]]", "[[0, 0, 15, 10]]", "aspect_bias", math.log2(1.5)),
    "f1 from .5 to .95: IoU .8 counts at seven of ten": (ONE, "[[0, 0, 10, 8]]", "f1_iou50_95", 0.7),
    "out of range: one of two": (ONE, "[[0, 0, 10, 10], [90, 90, 120, 110]]", "out_of_range_rate", 0.5),
    "out of range by rounding is in": (ONE, "[[-1, 0, 101, 100]]", "out_of_range_rate", 0.0),
}  # fmt: skip


@pytest.mark.parametrize(("truth", "text", "name", "value"), VALUES.values(), ids=VALUES)
def test_value(truth: str, text: str, name: str, value: float) -> None:
    assert found([(truth, text)], (100, 100))[name] == pytest.approx(value)


UNDEFINED = {
    "size not known": ([(ONE, ONE)], "out_of_range_rate"),
    "no box claimed": ([(ONE, "[]")], "duplicate_rate"),
    "no pair": ([(ONE, "[]")], "aspect_bias"),
    "no image with one box": ([("[]", ONE)], "accuracy_iou50"),
}


@pytest.mark.parametrize(("cases", "name"), UNDEFINED.values(), ids=UNDEFINED)
def test_without_a_value_there_is_a_reason(cases: list[Case], name: str) -> None:
    entry = score(samples_of(Task.DETECTION, cases), "strict")[Task.DETECTION].pooled[name]
    assert entry["value"] is None and entry["reason"]


def test_groups_of_objects() -> None:
    truth = '[{"bbox_2d": [0, 0, 9, 9], "label": "ship"}, {"bbox_2d": [40, 40, 80, 80], "label": "Ship"}]'
    scores = score(samples_of(Task.DETECTION, [(truth, "[[40, 40, 80, 80]]")], size=(100, 100)), "strict")
    groups = scores[Task.DETECTION].groups
    assert set(groups) == {"class=ship", "uniqueness=unique", "size=small", "size=large", "position=top-left",
                           "position=centre"}  # fmt: skip
    assert groups["size=small"]["recall_iou50"]["value"] == 0.0 and groups["size=large"]["mean_iou"]["value"] == 1.0
    assert groups["class=ship"]["recall_iou50"] == {
        "value": 0.5, "ci95": None, "n": 2, "higher_is_better": True}  # fmt: skip


def test_overlapped_objects_are_not_unique() -> None:
    samples = samples_of(Task.DETECTION, [("[[0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60]]", ONE)])
    groups = score(samples, "strict")[Task.DETECTION].groups
    assert (groups["uniqueness=overlapped"]["mean_iou"]["n"], groups["uniqueness=unique"]["mean_iou"]["n"]) == (2, 1)


@given(boxes, boxes, st.integers(2, 9))
def test_scaling_the_image_changes_nothing(truth: list[list[int]], said: list[list[int]], by: int) -> None:
    larger = [[[side * by for side in box] for box in side] for side in (truth, said)]
    one = found([(str(truth), str(said))], (150, 150))
    assert one == pytest.approx(found([(str(larger[0]), str(larger[1]))], (150 * by, 150 * by)))


@given(boxes.filter(bool), boxes.filter(bool))
def test_duplicates_never_help(truth: list[list[int]], said: list[list[int]]) -> None:
    names = ("f1_iou50", "f1_iou75", "precision_iou50", "f1_iou50_95")
    once, twice = found([(str(truth), str(said))]), found([(str(truth), str([*said, *said, *said]))])
    if len(said) >= len(truth) and once["recall_iou50"] == 1.0:
        assert all((twice[name] or 0) <= (once[name] or 0) + 1e-12 for name in names)
    # A copy may hit a second truth that overlaps the first; where references lie apart it never does.
    if iou(as_boxes(truth), as_boxes(truth)).sum() == len(truth):
        assert all((twice[name] or 0) <= (once[name] or 0) + 1e-12 for name in names)
        assert (twice["grounding_loss"] or 0) >= (once["grounding_loss"] or 0) - 1e-12
