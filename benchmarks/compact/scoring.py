"""What a model wrote about the test images, scored with the project's own parser and matching."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compact.images import Scene
from evaluation.matching import THRESHOLDS, match, overlaps
from medvl.box_text import parse_boxes


def scores(scenes: Sequence[Scene], texts: Sequence[str]) -> dict[str, float]:
    """Detection's metrics over all boxes of all images, labels not looked at; `fp` and `fn` per image, IoU 0.5.

    `unparsed` is the share of texts that are no box answer; where nothing is to be found, such a text is a false alarm.
    """
    hits, references, predictions, iou, unparsed = np.zeros(len(THRESHOLDS)), 0, 0, 0.0, 0
    for scene, text in zip(scenes, texts, strict=True):
        parsed = parse_boxes(text)
        matched = match(overlaps(scene.boxes, parsed.boxes))
        hits += matched.hits
        references += len(scene.boxes)
        predictions += len(parsed.boxes) if parsed.parsed or len(scene.boxes) else 1
        iou += float(matched.iou_of_truth.sum())
        unparsed += not parsed.parsed
    half, strict = hits[THRESHOLDS.index(0.5)], hits[THRESHOLDS.index(0.75)]
    return {
        "f1_50": 2 * half / (references + predictions),
        "f1_75": 2 * strict / (references + predictions),
        "mean_iou": iou / references,
        "precision": half / max(predictions, 1),
        "recall": half / references,
        "fp": (predictions - half) / len(scenes),
        "fn": (references - half) / len(scenes),
        "unparsed": unparsed / len(scenes),
    }
