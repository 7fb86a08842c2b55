"""Boxes that fit their references far better in another frame than in that they were scored in: all of a dataset's, or
those of some images, as in a file put together from two runs. A finding, never a rescore.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from evaluation.findings import OtherFrame
from evaluation.matching import both_sides, match, overlaps
from evaluation.metrics.registry import Floats
from evaluation.samples import Sample
from medvl.boxes import Frame, from_frame, order_corners
from medvl.tasks import Task

# How much larger the mean IoU of a dataset must be in another frame, so that luck with a few boxes is no finding.
_MUCH_BETTER = 0.2
# A box fits one frame and not another from this IoU in the one, and this far above that in the other.
_FITS, _BY = 0.5, 0.4
# An image fits where this share of its references is found so; half of them may be in either frame.
_OF_IMAGE = 1 / 3
# Some images are a finding from this share on: of many wrong boxes a few fit another frame by chance.
_SOME = 0.1


def other_frames(groups: Mapping[tuple[Task, str], Sequence[Sample]], frame: Frame) -> Iterator[OtherFrame]:
    """A finding per dataset and frame that its boxes, or those of some of its images, fit far better.

    Args:
        groups: Task and dataset -> samples.
        frame: Frame the boxes were scored in.
    """
    for (task, dataset), samples in groups.items():
        usable = [sample for sample in samples if _has_boxes(sample)] if task.has_boxes else []
        if not usable:
            continue
        found = {other: [_found(sample, frame, other) for sample in usable] for other in Frame}
        means = {other: float(np.mean(np.concatenate(found[other]))) for other in Frame}
        best = max(Frame, key=lambda other: means[other])
        for other in (other for other in Frame if other != frame):
            there = [_fits(*pair) for pair in zip(found[other], found[frame], strict=True)]
            here = [_fits(*pair) for pair in zip(found[frame], found[other], strict=True)]
            as_a_whole = other == best and means[other] >= means[frame] + _MUCH_BETTER
            if as_a_whole or sum(there) >= _SOME * len(usable):
                ids = tuple(sample.reference.id for sample, fits in zip(usable, there, strict=True) if fits)
                yield OtherFrame(dataset, task, frame, means[frame], other, means[other], len(usable), ids, sum(here))


def frames_of_rows(found: Sequence[OtherFrame]) -> dict[str, Frame]:
    """Reference's id -> the frame that its boxes fit far better."""
    return {name: finding.fits for finding in found for name in finding.ids}


def _has_boxes(sample: Sample) -> bool:
    sides = both_sides(sample)
    return all(len(side.boxes) for side in sides) and sample.reference.image_size() is not None


def _found(sample: Sample, frame: Frame, other: Frame) -> Floats:
    """IoU of each reference box if the predicted ones, scored in `frame`, had been written in `other`."""
    size = sample.reference.image_size()
    truth, predicted = both_sides(sample)
    assert size is not None  # `_has_boxes` let no other through
    with np.errstate(over="ignore"):
        numbers = predicted.boxes / from_frame(np.ones((1, 4)), size, frame)  # unrounded, unlike `to_frame`
        boxes = order_corners(from_frame(numbers, size, other))
    return match(overlaps(truth.boxes, boxes)).iou_of_truth


def _fits(there: Floats, here: Floats) -> bool:
    """Whether enough references of an image are found in one frame and not in the other."""
    return bool(((there >= _FITS) & (there >= here + _BY)).mean() >= _OF_IMAGE)
