"""From scores to decisions: temperature, thresholds, gate, calibration error."""

import numpy as np
import pytest

from medvl.instructions import GENERAL
from medvl.router.calibration import (
    LEAST,
    LEAST_ALONE,
    MOST,
    NEVER_ALONE,
    calibrate,
    expected_calibration_error,
    fit_alone,
    fit_temperature,
    probabilities,
)
from medvl.router.similarity import nearest

LABELS = ["counting", "detection"]


def noisy(scale: float, questions: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a calibrated classifier, times `scale`, and the truth."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (questions, 2)).astype(np.float32)
    first = rng.random(questions) < probabilities(logits, 1.0)[:, 0]
    return logits * scale, np.stack([first, ~first], axis=1).astype(np.float32)


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_temperature_undoes_overconfidence(scale: float) -> None:
    assert fit_temperature(*noisy(scale)) == pytest.approx(scale, rel=0.1)


def test_temperature_lowers_the_calibration_error() -> None:
    logits, truth = noisy(4.0)

    def error(temperature: float) -> float:
        return expected_calibration_error(probabilities(logits, temperature)[:, 0], truth[:, 0] == 1)

    assert error(fit_temperature(logits, truth)) < 0.03 < error(1.0)


def test_calibration_error_by_hand() -> None:
    """Two bins: confidence .95 and right half the time, confidence .55 and always right."""
    confidences = np.array([0.95, 0.95, 0.55, 0.55], np.float32)
    right = np.array([True, False, True, True])
    assert expected_calibration_error(confidences, right) == pytest.approx(0.5 * 0.45 + 0.5 * 0.45, abs=1e-6)


def test_the_threshold_is_as_strict_as_it_needs_to_be() -> None:
    sure = [([9.0, -9.0], "counting")] * 50
    doubtful = [([-1.0, 2.0], "detection")] * 50 + [([0.0, 1.0], "counting")] * 20
    rows = sure + doubtful
    logits = np.array([row for row, _ in rows], np.float32)
    found = calibrate(logits, np.ones(len(rows), np.float32), [task for _, task in rows], LABELS)
    wrong, right = probabilities(np.array([[0.0, 1.0], [-1.0, 2.0]], np.float32), found.temperature)[:, 1]
    assert set(found.thresholds) == set(LABELS)
    assert wrong < found.thresholds["counting"] == found.thresholds["detection"] <= right + 0.01
    found = calibrate(logits[:100], np.ones(100, np.float32), [task for _, task in rows[:100]], LABELS)
    assert set(found.thresholds.values()) == {LEAST}


def test_what_is_kept_out_needs_no_threshold() -> None:
    labels = [*LABELS, GENERAL]
    logits = np.array([[5.0, 0.0, 0.0]] * 20 + [[0.0, 0.0, 5.0]] * 20, np.float32)  # half of these are none
    tasks = ["counting"] * 20 + ["detection", GENERAL] * 10
    found = calibrate(logits, np.ones(40, np.float32), tasks, labels)
    assert set(found.thresholds.values()) == {LEAST}


def test_where_nothing_is_routed_rightly_the_threshold_is_as_strict_as_can_be() -> None:
    logits = np.array([[5.0, -9.0], [5.0, -9.0]], np.float32)
    found = calibrate(logits, np.ones(2, np.float32), ["detection", GENERAL], LABELS)
    assert found.thresholds == {"counting": MOST, "detection": MOST}


def test_the_gate_lets_held_out_questions_pass() -> None:
    similarities = np.linspace(0.6, 1.0, 100, dtype=np.float32)
    logits = np.tile(np.array([[4.0, -4.0]], np.float32), (100, 1))
    gate = calibrate(logits, similarities, ["counting"] * 100, LABELS).similarity
    assert (similarities >= gate).mean() >= 0.98
    assert gate > 0.59


def test_prompts_that_are_no_task_do_not_move_the_gate() -> None:
    logits = np.tile(np.array([[4.0, -4.0]], np.float32), (4, 1))
    similarities = np.array([0.9, 0.9, 0.1, 0.1], np.float32)
    found = calibrate(logits, similarities, ["counting", "counting", GENERAL, GENERAL], LABELS)
    assert found.similarity == pytest.approx(0.9)


def test_nothing_to_calibrate_on() -> None:
    with pytest.raises(ValueError, match="no held-out question has a task"):
        calibrate(np.zeros((1, 2), np.float32), np.zeros(1, np.float32), [GENERAL], LABELS)


def test_nearest_is_the_largest_cosine() -> None:
    index = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    assert nearest(np.array([[0.0, 1.0], [1.0, 0.0]], np.float32), index) == pytest.approx([0.8, 1.0])


def test_words_decide_alone_from_where_they_are_as_often_right() -> None:
    rng = np.random.default_rng(0)
    truth = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 3000)]
    words = (2 * truth + rng.normal(0, 1, truth.shape)).astype(np.float32)
    right = words.argmax(1) == truth.argmax(1)
    share, temperature = fit_alone(words, truth, right)
    assert share == LEAST_ALONE
    best = probabilities(words, temperature).max(1)
    better = right | (best < 0.9)  # both together mend what the words say up to here
    share, _ = fit_alone(words, truth, better)
    passed = best >= share
    assert LEAST_ALONE < share < NEVER_ALONE
    assert right[passed].sum() >= better[passed].sum()
    assert fit_alone(words, truth, np.ones(len(words), bool))[0] == NEVER_ALONE
