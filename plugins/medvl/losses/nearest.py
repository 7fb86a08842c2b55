"""What a digit stands for: the nearest number that can still be written after it. Tables of offsets; no torch here.

The digits before it are the true ones; what follows may be of any length. For 102 in the frame 0-1000:

    first digit 9     9, 90-99, 900-999     99, an offset of -3
    first digit 2     2, 20-29, 200-299     29, an offset of -73
    second digit 1    11, 110-119           110, an offset of +8
"""

from __future__ import annotations

import numpy as np

from medvl.boxes import DECIMALS, Frame
from medvl.losses.vocabulary import Floats, Integers


def frame_step(places: Floats, frame: Frame) -> float:
    """The distance of one number of an answer's frame from the next, in the answer's own numbers.

    Whole numbers, unless the answer writes decimals; in `norm1` at least the decimals that conversion writes.

    Args:
        places: Signed place values of the answer's digits, 0 in the padding; any shape.
        frame: The frame.
    """
    smallest = float(np.abs(places[places != 0]).min(initial=1.0))
    return min(smallest, 10.0 ** -DECIMALS[frame]) if frame == Frame.NORM1 else smallest


def nearest_offsets(digits: Integers, places: Floats, tops: Floats, steps: Floats) -> Floats:
    """Nearest number with the true digits before a place and each digit there, less the true number.

    Digits before the point may be followed by any number of others; those behind it have fixed places. The sign is that
    of the truth. The true digit's offset is exactly 0. Of two numbers equally near, the one of the true length counts.
    Where the frame has no such number (1005 of at most 1000, 5.0 of at most 1), what the digit spells at its place
    counts, as if the frame went on: never nothing.

    Args:
        digits: (n, 4, k) the true digits, 0 in the padding.
        places: (n, 4, k) signed place values, 0 in the padding.
        tops: (n,) the largest number of the frame, infinite if it has none.
        steps: (n,) the distance of its numbers; see `frame_step`.

    Returns:
        Shape (n, 4, k, 10), in the numbers of the text; 0 in the padding.
    """
    real = places != 0
    exponents = np.rint(np.log10(np.abs(places), out=np.zeros_like(places), where=real))[..., None]
    place = np.abs(places)[..., None]
    step, top = (values[:, None, None, None] for values in (steps, tops))
    contributions = np.abs(places) * digits
    truth = contributions.sum(-1)[..., None, None]
    stem = (contributions.cumsum(-1) - contributions)[..., None] + place * np.arange(10.0)
    first = exponents[..., :1, :]
    zero_first = stem < 10.0**first
    best = np.full(stem.shape, np.inf)
    near = np.clip(truth, stem, stem + np.maximum(place - step, 0))  # what the frame lacks
    # How many digits longer than the true number: as long, one more, or fewer.
    for longer in (0, 1, *range(-1, -1 - int(exponents.max(initial=0)), -1)):
        low = stem * 10.0**longer
        high = np.minimum((stem + place) * 10.0**longer - step, top)
        here = np.clip(truth, low, np.maximum(low, high))
        # Before the point only, and no 0 but the one that is all there is before it.
        exists = (low <= top) & (~zero_first | (first + longer <= 0))
        if longer:
            exists &= exponents + longer >= 0
        distance = np.abs(here - truth)
        better = exists & (distance < best)
        best, near = np.where(better, distance, best), np.where(better, here, near)
    offsets: Floats = np.where(places[..., :1, None] < 0, -1.0, 1.0) * (near - truth)
    offsets[~real] = 0
    np.put_along_axis(offsets, digits[..., None], 0.0, -1)
    return offsets
