"""Two ways to learn from answers that are not all true: noise objects behind the boxes, and boxes that are read askew.

Noise objects (Pix2Seq, arXiv 2109.10852) are drawn as `preprocess/grounding.py --noise-objects` draws them:

    [{"bbox_2d":[102,300,202,400],"label":"cell"},{"bbox_2d":[110,480,190,560],"label":"#noise"}]

A model learns to go on where it would have stopped, and to tell by the label, with the box before its eyes, that it is
nothing. Readers of answers drop boxes of this name (`medvl.box_text.parse_boxes`), scores too. What conversion cannot
do to an answer is done here: the numbers of noise are not learned, since they cannot be.

Read askew: what a model wrote before is rarely exact, but training shows it exact boxes alone. Here the model reads
numbers that are a little off, and what it is to write stays true.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from medvl.box_words import NOISE_LABEL
from medvl.losses import IGNORED
from preprocess.noise import draw_noise

if TYPE_CHECKING:
    from torch import Tensor

    from compact.images import Scene
    from medvl.losses.coordinates import Targets, Vocabulary

_NUMBERS = re.compile(rf'\[([0-9,]+)\],"label":"{NOISE_LABEL}"'.encode())


def noisy(scene: Scene, count: int, rng: np.random.Generator) -> Scene:
    """The scene with `count` drawn boxes behind its own: copies moved by a little or far, and random ones."""
    if not count:
        return scene
    drawn = draw_noise(scene.boxes, (1000, 1000), count, random.Random(int(rng.integers(2**32))))
    return replace(scene, boxes=np.concatenate([scene.boxes, drawn]), labels=(*scene.labels, *[NOISE_LABEL] * count))


def without_noise_numbers(labels: Tensor, vocabulary: Vocabulary) -> Tensor:
    """A copy of labels `(b, t)` that ignores the tokens of noise boxes' numbers, and learns all else of them."""
    learned = labels.clone()
    for row in learned:
        positions = (row != IGNORED).nonzero()[:, 0]
        pieces = [vocabulary.bytes_of(token) for token in row[positions].tolist()]
        starts = np.cumsum([0, *map(len, pieces)])[:-1]
        for found in _NUMBERS.finditer(b"".join(pieces)):
            row[positions[(found.start(1) <= starts) & (starts < found.end(1))]] = IGNORED
    return learned


def askew(ids: Tensor, targets: Targets, vocabulary: Vocabulary, sigma: float, rng: np.random.Generator) -> Tensor:
    """A copy of token ids `(b, t)` in which the numbers of every second box or so are moved, and nothing else.

    A number keeps its first digit and its length: behind another first digit, the true second one would be wrong.

    Args:
        ids: As they are read.
        targets: Of the same batch, in norm1000.
        vocabulary: Of its tokenizer.
        sigma: Standard deviation of the moves, in thousandths of the side.
        rng: Chooses and moves.
    """
    if not targets.boxes:
        return ids
    places = (targets.places * 1000).round().long().numpy()  # (n, 4, k)
    digits = targets.digits.numpy()
    first, unit = (places * digits)[..., 0], places[..., 0]
    number = (places * digits).sum(-1)
    offset = (rng.standard_normal(number.shape) * sigma).round() * (rng.random((len(number), 1)) < 0.5)
    moved = (number + offset.astype(int)).clip(first, np.minimum(first + unit - 1, 1000))
    there = places > 0
    tokens = np.array(vocabulary.digits)[moved[..., None] // places.clip(min=1) % 10]
    read = ids.clone()
    at = targets.rows[targets.digit_rows] + 1  # a row is the output that predicts the token behind it
    read.view(-1)[at[torch.from_numpy(there)]] = torch.from_numpy(tokens[there])
    return read
