"""From scores to decisions: temperature, the threshold and the similarity gate, fitted on held-out wordings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from medvl.instructions import GENERAL

PRECISION = 0.965  # of what the classifiers route, on wordings that they were not trained on
LEAST, MOST = 0.3, 0.95
LEAST_ALONE, NEVER_ALONE = 0.8, 2.0
_GATED = 0.002  # share of held-out questions that the gate may stop

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """How scores are read.

    Attributes:
        temperature: What logits are divided by before the softmax.
        wording: What those of `medvl.router.wording` weigh that are added to GLiClass's before.
        thresholds: Task -> least score with which it is routed to. `calibrate` gives all the same: of scores that are
            shares, one threshold is best for all, and those of single tasks follow the chance of few questions.
        similarity: Least cosine to the nearest training question.
        alone: Least share with which the words decide without GLiClass; above 1 they never do.
        alone_temperature: What their scores are divided by before that.
    """

    temperature: float
    thresholds: dict[str, float]
    similarity: float
    wording: float = 0.0
    alone: float = NEVER_ALONE
    alone_temperature: float = 1.0


def probabilities(logits: Floats, temperature: float) -> Floats:
    """Shares of the labels, which sum to 1; `general` is one of them, for a prompt that is no task."""
    shares: Floats = softmax(logits.astype(np.float64) / temperature, axis=-1).astype(np.float32)
    return shares


def calibrate(
    logits: Floats,
    similarities: Floats,
    tasks: Sequence[str],
    labels: Sequence[str],
    *,
    wording: Floats | None = None,
    precision: float = PRECISION,
) -> Calibration:
    """The calibration that held-out questions ask for.

    Args:
        logits: (questions, labels).
        similarities: (questions,), cosine to the nearest training question.
        tasks: The true task of each, `general` for prompts that are none.
        labels: In the order of the columns.
        wording: (questions, labels), log odds by the words alone.
        precision: Wanted share of right ones among the routes.

    Raises:
        ValueError: no question of a task is among them.
    """
    known = np.array([task != GENERAL for task in tasks])
    if not known.any():
        raise ValueError("no held-out question has a task; give more questions")
    truth = np.array([[task == label for label in labels] for task in tasks], np.float32)
    weight = 0.0 if wording is None else fit_weight(logits, wording, truth)
    logits = logits if wording is None else logits + np.float32(weight) * wording
    temperature = fit_temperature(logits, truth)
    scores = probabilities(logits, temperature)
    best, routed = scores.max(1), scores.argmax(1)
    right = truth[np.arange(len(tasks)), routed] == 1
    is_task = np.array([label != GENERAL for label in labels])[routed]
    threshold = _threshold(best[is_task], right[is_task], precision)
    gate = float(np.quantile(similarities[known], _GATED))
    found = Calibration(temperature, dict.fromkeys(labels, threshold), gate, weight)
    if wording is None:
        return found
    # Where they are not sure, they keep out what is no task.
    together = np.where(best >= threshold, right, ~known)
    alone, alone_temperature = fit_alone(wording, truth, together)
    return replace(found, alone=alone, alone_temperature=alone_temperature)


def fit_alone(wording: Floats, truth: Floats, together: NDArray[np.bool_]) -> tuple[float, float]:
    """(share, temperature): from which share on the words alone are right as often as both classifiers `together`."""
    temperature = fit_temperature(wording, truth)
    scores = probabilities(wording, temperature)
    right, best = truth[np.arange(len(scores)), scores.argmax(1)] == 1, scores.max(1)
    for share in np.arange(LEAST_ALONE, 1, 0.01):
        passed = best >= share
        if passed.any() and right[passed].sum() >= together[passed].sum():
            return round(float(share), 2), temperature
    return NEVER_ALONE, temperature


def fit_weight(logits: Floats, wording: Floats, truth: Floats) -> float:
    """What `wording` weighs beside `logits`, 0 to 10, with the least cross-entropy at its best temperature."""

    def loss(weight: float) -> float:
        return _cross_entropy((logits + weight * wording) / fit_temperature(logits + weight * wording, truth), truth)

    return float(minimize_scalar(loss, bounds=(0, 10), method="bounded", options={"xatol": 0.02}).x)


def fit_temperature(logits: Floats, truth: Floats) -> float:
    """The temperature, 0.05 to 20, with the least cross-entropy."""

    def loss(log_temperature: float) -> float:
        return _cross_entropy(logits.astype(np.float64) / np.exp(log_temperature), truth)

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def _cross_entropy(logits: NDArray[np.floating[Any]], truth: Floats) -> float:
    return float(-np.mean(np.sum(truth * log_softmax(logits, axis=1), axis=1)))


def _threshold(scores: Floats, right: NDArray[np.bool_], precision: float) -> float:
    """The least score from which on at least `precision` of the routes are right, within `LEAST` and `MOST`."""
    for threshold in np.arange(LEAST, MOST, 0.01):
        passed = right[scores >= threshold]
        if not len(passed):
            break  # nothing left to learn from: as strict as it was proved to need
        if passed.mean() >= precision:
            return round(float(threshold), 2)
    return MOST


def expected_calibration_error(confidences: Floats, right: NDArray[np.bool_], bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over equally wide bins, weighted by their questions; 0 is perfect."""
    places = np.minimum((confidences * bins).astype(int), bins - 1)
    gaps = [
        abs(confidences[places == place].mean() - right[places == place].mean()) * np.mean(places == place)
        for place in np.unique(places)
    ]
    return float(sum(gaps))
