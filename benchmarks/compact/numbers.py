"""Two losses on numbers instead of single digits: soft labels, and the expected distance; for whole numbers to 1000.

Soft labels: a Gaussian over the neighbours of the true number is the target. What a model says of a number is the
product of what it says of its digits, so the cross-entropy with the target is a sum over all beginnings of numbers,
each of the target's digits behind that beginning, weighted by how probable the target makes it. Teacher forcing shows
the true number's beginnings, and their part of the sum is what is computed, exactly:

    102, sigma 4:    first digit 1: .73, 9: .27 (99, 98, …); behind 1, 0: 1.00; behind 10, 2: .15, 1 and 3: .14, …

Distance: |nearest number that begins so - truth| under the model's digits, each place as often as it is reached.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from medvl.losses.coordinates import Targets

TOP = 1000


@cache
def soft_labels(sigma: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The target's digits behind each true beginning of each number, and how probable the target makes that beginning.

    Args:
        sigma: Of the Gaussian, in thousandths of the side.

    Returns:
        Shapes (1001, 4, 10) and (1001, 4): number, place from the left, digit; 0 behind a number's last digit. That a
        number ends is left out: the digits are those of the numbers that go on.
    """
    numbers = np.arange(TOP + 1)
    texts = [str(number) for number in numbers]
    begins = np.array([[text.startswith(beginning) for text in texts] for beginning in texts], dtype=float)
    gaussian = np.exp(-0.5 * ((numbers[:, None] - numbers) / sigma) ** 2)
    # mass[b, t]: of the target of t, on numbers that begin with b. Every beginning of a number is a number.
    mass = begins @ (gaussian / gaussian.sum(0))
    digits, reached = np.zeros((TOP + 1, 4, 10)), np.zeros((TOP + 1, 4))
    for number, text in enumerate(texts):
        for place in range(len(text)):
            for digit in range(10):
                beginning = text[:place] + str(digit)
                if str(int(beginning)) == beginning and int(beginning) <= TOP:
                    digits[number, place, digit] = mass[int(beginning), number]
            reached[number, place] = digits[number, place].sum()
            digits[number, place] /= reached[number, place]
    return digits, reached


def soft_loss(log_probabilities: Tensor, targets: Targets, sigma: float) -> Tensor:
    """Cross-entropy with the soft labels, summed over a number's digits; mean over numbers, then as L_iou's is.

    Args:
        log_probabilities: Shape (n, 4, k, 10), of the digits.
        targets: The same boxes, in norm1000.
        sigma: Of the Gaussian, in thousandths of the side.
    """
    numbers = (targets.places * targets.digits).sum(-1).mul(TOP).round().long().clamp(0, TOP)  # (n, 4)
    width = log_probabilities.shape[2]
    tables = (torch.from_numpy(table[:, :width]).to(log_probabilities) for table in soft_labels(sigma))
    digits, reached = (table[numbers] for table in tables)
    cost = -(reached[..., None] * digits * log_probabilities).sum((-1, -2))
    return (targets.box_shares.to(cost) * cost.mean(-1)).sum()


def distance_loss(log_probabilities: Tensor, targets: Targets) -> Tensor:
    """Expected distance of the nearest number that begins so from the true one, of the side; mean as L_iou's is."""
    right = log_probabilities.gather(-1, targets.digits[..., None])[..., 0]
    reached = torch.nn.functional.pad(right[..., :-1].cumsum(-1), (1, 0)).exp()
    far = (log_probabilities.exp() * targets.offsets.to(log_probabilities).abs()).sum(-1)
    return (targets.box_shares.to(far) * (reached * far).sum(-1).mean(-1)).sum()
