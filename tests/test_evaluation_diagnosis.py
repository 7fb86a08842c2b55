"""The diagnosis: what it finds in answers made to be found."""

from pathlib import Path

import pytest

from evaluation.diagnosis import diagnose
from evaluation.findings import Diagnosis
from evaluation.predictions import SHAPES
from evaluation.samples import Joined, PredictionFile, References
from evaluation.scores import Evaluation
from evaluation.scoring import score
from medvl.boxes import Frame, Size
from medvl.tasks import Task
from tests.support.samples import LOSS, Case, samples_of


def diagnosed(
    task: Task, cases: list[Case], question: str = "?", *, frame: Frame = "pixel", size: Size | None = None
) -> Diagnosis:
    samples = samples_of(task, cases, question, frame=frame, size=size)
    references = References(Path("r"), "tree", tuple(sample.reference for sample in samples), {})
    file = PredictionFile(Path("p"), SHAPES[0], "", ())
    scores = {"strict": score(samples, "strict")}
    return diagnose(Evaluation(references, file, Joined("id", []), frame, samples, [], scores))


def test_failures_by_kind_with_examples() -> None:
    cases: list[Case] = [("A", "A"), ("A", None), ("B", ""), ("C", "A and B"), ("C", "B, C"), ("C", "word " * 400)]
    failures = diagnosed(Task.CLASSIFICATION, cases, LOSS).failures
    kinds = {failure.kind: failure.count for failure in failures}
    assert kinds == {"several_letters": 2, "no_prediction": 1, "empty": 1, "prose": 1}
    assert failures[0].share == pytest.approx(2 / 6) and failures[0].effect == "invalid"
    assert failures[0].examples[0].prediction == "A and B" and failures[0].examples[0].id == "3"
    prose = next(failure for failure in failures if failure.kind == "prose")
    assert len(prose.examples[0].prediction or "") == 301


def test_repairs_are_told_from_failures() -> None:
    cases: list[Case] = [("[[0, 0, 9, 9]]", "[[9, 9, 0, 0]]"), ("[[0, 0, 9, 9]]", "[[0, 0, 9")]
    effects = {failure.kind: failure.effect for failure in diagnosed(Task.DETECTION, cases).failures}
    assert effects == {"inverted": "repaired", "truncated": "invalid"}


TRUTH = "[[40, 20, 120, 80]]"  # on 200 x 100 pixels


@pytest.mark.parametrize(("frame", "text", "fits"), [
    ("pixel", "[[200, 200, 600, 800]]", "norm1000"),
    ("pixel", "[[0.2, 0.2, 0.6, 0.8]]", "norm1"),
    ("norm1000", "[[40, 20, 120, 80]]", "pixel"),
    ("norm1000", "[[0.2, 0.2, 0.6, 0.8]]", "norm1"),
    ("norm1", "[[200, 200, 600, 800]]", "norm1000"),
    ("pixel", "[[40, 20, 120, 80]]", None),  # fits where it is
    ("pixel", "[[150, 0, 160, 9]]", None),  # fits nowhere
])  # fmt: skip
def test_boxes_that_fit_another_frame(frame: Frame, text: str, fits: Frame | None) -> None:
    cases: list[Case] = [(TRUTH, text)] * 3
    found = diagnosed(Task.DETECTION, cases, frame=frame, size=(200, 100)).other_frames
    assert [finding.fits for finding in found] == ([fits] if fits else [])
    for finding in found:
        assert finding.mean_iou < 0.3 < 0.95 < finding.mean_iou_there and (finding.frame, finding.n) == (frame, 3)


PIXEL, NORM1000, NORM1 = TRUTH, "[[200, 200, 600, 800]]", "[[0.2, 0.2, 0.6, 0.8]]"
NOWHERE = "[[150, 0, 160, 9]]"
TWO = "[[40, 20, 120, 80], [140, 20, 180, 60]]"
# Scored in, answers to TRUTH (or TWO), and per finding: the frame, images that fit it, images that fit as scored.
MIXED: dict[str, tuple[Frame, list[Case], list[tuple[Frame, int, int]]]] = {
    "half of them": ("pixel", [(TRUTH, PIXEL), (TRUTH, NORM1000)] * 3, [("norm1000", 3, 3)]),
    "half, pixels in norm1000": ("norm1000", [(TRUTH, NORM1000), (TRUTH, PIXEL)] * 2, [("pixel", 2, 2)]),
    "one of ten": ("pixel", [*[(TRUTH, PIXEL)] * 9, (TRUTH, NORM1)], [("norm1", 1, 9)]),
    "one of eleven is luck": ("pixel", [*[(TRUTH, PIXEL)] * 10, (TRUTH, NORM1)], []),
    "three frames": (
        "pixel", [(TRUTH, PIXEL), (TRUTH, NORM1000), (TRUTH, NORM1)], [("norm1000", 1, 1), ("norm1", 1, 1)]),
    "two in another frame, two nowhere": ("pixel", [(TRUTH, NORM1000), (TRUTH, NOWHERE)] * 2, [("norm1000", 2, 0)]),
    "both frames in each answer": (
        "pixel", [(TWO, "[[40, 20, 120, 80], [700, 200, 900, 600]]")] * 3, [("norm1000", 3, 3)]),
    "unreadable ones are no evidence": ("pixel", [(TRUTH, PIXEL), (TRUTH, "???")], []),
}  # fmt: skip


@pytest.mark.parametrize("task", [Task.DETECTION, Task.INSTANCE_DETECTION])
@pytest.mark.parametrize(("frame", "cases", "expected"), MIXED.values(), ids=MIXED)
def test_images_whose_boxes_fit_another_frame(
    frame: Frame, cases: list[Case], expected: list[tuple[Frame, int, int]], task: Task
) -> None:
    if task is Task.INSTANCE_DETECTION:
        cases = [(f'{{"1": {truth}}}', text and f'{{"1": {text}}}') for truth, text, *_ in cases]
    found = diagnosed(task, cases, frame=frame, size=(200, 100)).other_frames
    assert sorted((other.fits, len(other.ids), other.here) for other in found) == sorted(expected)
    for other in found:
        assert ("mixes frames" in other.cure) is bool(other.here)
        assert f"boxes of {len(other.ids)} of {other.n} images of d" in other.text


def test_frames_are_not_guessed_without_the_size_of_a_image() -> None:
    assert diagnosed(Task.DETECTION, [(TRUTH, "[[200, 200, 600, 800]]")]).other_frames == ()


CUT = {
    "open bracket": (Task.DETECTION, '[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [1', True),
    "closed": (Task.DETECTION, "[[1, 2, 3, 4]]", False),
    "in the middle of a sentence": (Task.CLASSIFICATION, "The image shows a jaw " * 20 + "and", True),
    "a whole sentence": (Task.CLASSIFICATION, "The image shows a jaw " * 20 + ".", False),
    "a short answer": (Task.CLASSIFICATION, "B", False),
}


@pytest.mark.parametrize(("task", "text", "cut"), CUT.values(), ids=CUT)
def test_answers_cut_off_by_the_token_limit(task: Task, text: str, cut: bool) -> None:
    found = diagnosed(task, [("[[1, 2, 3, 4]]" if task.has_boxes else "A", text)], LOSS).cut_off
    assert [finding.count for finding in found] == [1] * cut
    assert all((finding.examples[0].prediction or "").endswith(text[-9:]) for finding in found)


def test_confusion_has_a_matrix_per_dataset_and_options() -> None:
    cases: list[Case] = [
        ("A", "A", "d", LOSS), ("A", "B", "d", LOSS), ("B", "C", "d", LOSS), ("B", "?", "d", LOSS),
        ("A", "B", "d", "Broken? A: No, B: Yes"), ("A", "A", "e", LOSS),
    ]  # fmt: skip
    found = diagnosed(Task.CLASSIFICATION, cases).confusions
    assert [(matrix.dataset, matrix.options) for matrix in found] == [("d", "AB"), ("d", "ABC"), ("e", "ABC")]
    assert found[1].truth == ("A", "B") and found[1].predicted == ("A", "B", "OTHER", "INVALID")
    assert found[1].counts == ((1, 1, 0, 0), (0, 0, 1, 1))


def test_rare_classes_share_a_row() -> None:
    cases: list[Case] = [(f"type {number}", f"type {number}") for number in range(40) for _ in range(1 + (number < 30))]
    (matrix,) = diagnosed(Task.CLASSIFICATION, cases).confusions
    assert len(matrix.truth) == 31 and matrix.truth[-1] == "OTHER"
    assert sum(map(sum, matrix.counts)) == 70 and matrix.counts[-1][-2] == 10


def test_scores_by_length_of_the_answer() -> None:
    cases: list[Case] = [("A", "A")] * 50 + [("A", "The answer is B.")] * 40 + [("A", "hm, " * 30)] * 10
    bins = diagnosed(Task.CLASSIFICATION, cases, LOSS).lengths
    assert [(part.shortest, part.longest, part.n, part.n_invalid, part.mean_score) for part in bins] == [
        (1, 1, 50, 0, 1.0), (16, 16, 40, 0, 0.0), (120, 120, 10, 10, 0.0)]  # fmt: skip


def test_histograms_hold_every_truth_and_every_valid_answer() -> None:
    (boxes,) = diagnosed(Task.DETECTION, [("[[0, 0, 10, 10], [50, 50, 60, 60]]", "[[0, 0, 10, 8]]")]).histograms
    assert boxes.quantity == "iou" and sum(boxes.counts) == 2 and boxes.counts[0] == boxes.counts[8] == 1
    (errors,) = diagnosed(Task.COUNTING, [("10", "10"), ("10", "500"), ("10", "?")]).histograms
    assert errors.quantity == "absolute_error" and sum(errors.counts) == 2 and errors.edges[-1] == 490


def test_worst_samples_come_from_all_datasets_wrong_before_unreadable() -> None:
    cases: list[Case] = [("A", "B", "d", LOSS)] * 30 + [
        ("A", "?", "e", LOSS),
        ("A", "C", "e", LOSS),
        ("A", "A", "f", LOSS),
    ]
    worst = diagnosed(Task.CLASSIFICATION, cases).worst
    assert len(worst) == 20
    assert [(sample.dataset, sample.reason) for sample in worst[:4]] == [
        ("d", None), ("e", None), ("d", None), ("e", "not_an_option")]  # fmt: skip
    largest = diagnosed(Task.COUNTING, [("10", "11"), ("10", "99"), ("10", "10"), ("10", "?")]).worst
    assert [sample.score for sample in largest] == [89.0, 1.0, None]
