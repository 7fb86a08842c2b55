"""What generated answers are worth: the reference system's own quantities, and a reward. Needs no torch.

The reference (TerraQuery) added these numbers to its training loss as constants, which trains nothing. Here they are
what they can be: metrics on an evaluation set, and a reward for trainers that learn from rewards (GRPO).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medvl.box_text import ParsedBoxes, parse_boxes
from medvl.boxes import Boxes, Frame, Size, as_boxes, clip, iou, match_greedy, match_optimal, order_corners
from medvl.unwrapping import unwrap

THRESHOLD = 0.5  # IoU from which a box counts as found
NO_PAIR = 1e-6  # the reference script's mean IoU of an answer without a pair


@dataclass(frozen=True)
class Comparison:
    """One answer against its truth.

    Attributes:
        overlaps: IoU of each pair, best first.
        predicted, true: Number of boxes on either side.
    """

    overlaps: tuple[float, ...]
    predicted: int
    true: int

    @property
    def false_positives(self) -> int:
        """Predicted boxes without a partner."""
        return self.predicted - len(self.overlaps)

    @property
    def false_negatives(self) -> int:
        """True boxes without a partner."""
        return self.true - len(self.overlaps)

    @property
    def mean_iou(self) -> float:
        """Over pairs; 0 without a pair, but 1 where there was nothing to find and nothing was said."""
        if self.overlaps:
            return math.fsum(self.overlaps) / len(self.overlaps)
        return float(self.predicted == self.true == 0)


def compare(predicted: Boxes, true: Boxes) -> Comparison:
    """Pair boxes of one image greedily, best IoU first, each once, IoU >= 0.5, as the reference does."""
    overlaps = iou(predicted, true)
    pairs = match_greedy(overlaps, THRESHOLD)
    return Comparison(tuple(overlaps[pairs[:, 0], pairs[:, 1]].tolist()), len(predicted), len(true))


def unreadable(true: Boxes) -> Comparison:
    """What an answer that holds no boxes and does not say that there are none is worth: one box that is wrong."""
    return Comparison((), 1, len(true))


def documented_penalty(
    comparisons: Sequence[Comparison], alpha: float = 1.0, beta: float = 0.5, gamma: float = 1.0
) -> float:
    """The reference's README: alpha (1 - mean IoU) + beta #FP + gamma #FN, averaged over answers; 0 for none."""
    penalties = [alpha * (1 - c.mean_iou) + beta * c.false_positives + gamma * c.false_negatives for c in comparisons]
    return math.fsum(penalties) / max(len(penalties), 1)


def scripted_penalty(comparisons: Sequence[Comparison], alpha: float = 1.0) -> float:
    """The reference's committed script: -log of the mean over answers of exp(-alpha |dN|) * mean IoU; 0 for none.

    An answer without a pair has mean IoU 1e-6 there, also where nothing was to be found: the script left such
    images out.
    """
    if not comparisons:
        return 0.0
    scores = [
        math.exp(-alpha * abs(c.predicted - c.true)) * (c.mean_iou if c.overlaps else NO_PAIR) for c in comparisons
    ]
    return -math.log(max(math.fsum(scores) / len(scores), 5e-324))  # 700 boxes too many underflow to 0


def reward(
    text: str, truth: ArrayLike | str, size: Size, *, frame: Frame = Frame.NORM1000, length_penalty: float = 1.0
) -> float:
    """What a generated answer is worth, between 0 and 1, for GRPO and its kin.

    With n true boxes, m predicted ones and one-to-one pairs of IoU >= 0.5: F = 2 * (sum of the pairs' IoUs) / (m + n),
    times (n / m) ** length_penalty if m > n. Each box beyond the truth so costs twice, and neither a grid of boxes,
    nor copies of a good box, nor one box around everything is worth as much as an honest answer. (VLM-R1, arXiv
    2504.07615, saw a reward without such a penalty answered with long lists.)

    Args:
        text: The completion alone, in any style that `parse_boxes` reads.
        truth: Boxes of shape (n, 4) in pixels of the image; or the true answer as text in `frame`: then a true
            box with a label pairs only with a box of that label (case and outer spaces aside).
        size: The image's (width, height) in pixels.
        frame: Of the numbers in `text`.
        length_penalty: 0 leaves precision alone to punish what is too much.

    Returns:
        1 for the exact answer, also for the empty list where nothing is to be found; 0 for text that is no box answer.

    Raises:
        ValueError: `truth` is text without boxes that does not say either that there are none, or boxes of other shape.

    >>> round(reward('[{"bbox_2d":[100,100,500,500]}]', [[64, 48, 320, 240]], (640, 480)), 6)
    1.0
    """
    parsed = parse_boxes(unwrap(text))
    true = parse_boxes(truth) if isinstance(truth, str) else None
    if true is not None and not true.parsed:
        raise ValueError(f"the true answer holds no boxes: {str(truth)[:80]!r}")
    if not parsed.parsed:
        return 0.0
    predicted = _pixels(parsed, size, frame)
    wanted = _pixels(true, size, frame) if true is not None else clip(order_corners(as_boxes(truth)), size)
    m, n = len(predicted), len(wanted)
    if m == 0 or n == 0:
        return float(m == n)
    overlaps = iou(predicted, wanted)
    if true is not None:
        overlaps = np.where(_agree(parsed, true), overlaps, 0.0)
    pairs = match_optimal(overlaps, THRESHOLD)
    quality = 2 * float(overlaps[pairs[:, 0], pairs[:, 1]].sum()) / (m + n)
    return float(quality * min(1.0, n / m) ** length_penalty)


def rewards(
    completions: Sequence[Any],
    truth: Sequence[Any],
    size: Sequence[Size],
    *,
    frame: Frame = Frame.NORM1000,
    length_penalty: float = 1.0,
    **_: Any,
) -> list[float]:
    """`reward` of each completion, with the signature that TRL and ms-swift call reward functions by.

    `truth` and `size` are columns of the data set, others are ignored. A completion is text, or a list of messages of
    which the last is the answer. For another frame or penalty hand the trainer a function that calls this one with it.
    """
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [
        reward(text, true, wide, frame=frame, length_penalty=length_penalty)
        for text, true, wide in zip(texts, truth, size, strict=True)
    ]


def _pixels(parsed: ParsedBoxes, size: Size, frame: Frame) -> Boxes:
    return clip(order_corners(parsed.pixels(size, frame)), size)


def _agree(predicted: ParsedBoxes, true: ParsedBoxes) -> Any:
    """Whether each predicted label is the true one, or there is no true one; shape (predicted, true)."""
    ours, theirs = ([label and label.strip().casefold() for label in side.labels] for side in (predicted, true))
    return [[label in (mine, None) for label in theirs] for mine in ours]
