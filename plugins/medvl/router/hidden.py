"""A hidden layer over hashed features: it learns which of them come together, which a linear classifier cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

NEVER = -20.0  # of a label that no row of training has
_WIDTH = 64
_BATCH, _RATE = 128, 2e-3
_LOST = 0.1  # share of features that an epoch does not see
_DROPPED = 0.3  # of the hidden layer
_SPREAD = 0.1  # of the first weights

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Row = tuple[Indices, Floats]  # columns and values of one question


@dataclass(frozen=True)
class HiddenLayer:
    """Scores rows of features.

    Attributes:
        inner: (columns, width).
        inner_bias: (width,).
        outer: (width, labels).
        outer_bias: (labels,).
    """

    inner: Floats
    inner_bias: Floats
    outer: Floats
    outer_bias: Floats

    def score(self, columns: Indices, values: Floats) -> Floats:
        """Logits (labels,) of one row."""
        hidden = np.maximum(values @ self.inner[columns] + self.inner_bias, 0)
        scored: Floats = hidden @ self.outer + self.outer_bias
        return scored

    def parts(self) -> dict[str, Floats]:
        """What a file keeps, in half precision."""
        return {name: part.astype(np.float16) for name, part in asdict(self).items()}

    @classmethod
    def of(cls, parts: Mapping[str, Floats]) -> HiddenLayer:
        """From what `parts` gave; other entries may be there."""
        return cls(**{name: parts[name].astype(np.float32) for name in cls.__dataclass_fields__})


def fit_hidden(
    rows: Sequence[Row], labels: Sequence[int], width: int, number: int, *, epochs: int = 5, seed: int = 0
) -> HiddenLayer:
    """Train one; every label counts the same, however many rows it has.

    Args:
        rows: At least one.
        labels: Of each row, 0 to `number` - 1.
        width: Columns that there are.
        number: Labels that there are.
        epochs: Passes over the rows.
        seed: Of everything random.
    """
    import torch

    chance = torch.Generator().manual_seed(seed)
    counts = np.bincount(labels, minlength=number)
    weight = torch.tensor(len(labels) / (number * np.maximum(counts, 1)), dtype=torch.float32)
    truth = torch.tensor(labels)
    inner = torch.empty(width, _WIDTH).normal_(0, _SPREAD, generator=chance).requires_grad_()
    outer = torch.empty(_WIDTH, number).uniform_(-1, 1, generator=chance).div_(math.sqrt(_WIDTH)).requires_grad_()
    never = torch.where(torch.from_numpy(counts) > 0, 0.0, NEVER)
    biases = [torch.zeros(_WIDTH, requires_grad=True), never.requires_grad_()]
    optimisers = (torch.optim.SparseAdam([inner], lr=_RATE), torch.optim.Adam([outer, *biases], lr=_RATE))
    planned = epochs * math.ceil(len(rows) / _BATCH)
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, lambda step: 1 - step / planned) for each in optimisers]
    for _ in range(epochs):
        for places in torch.randperm(len(rows), generator=chance).split(_BATCH):
            batch = [rows[place] for place in places.tolist()]
            columns = torch.from_numpy(np.concatenate([own for own, _ in batch]))
            values = _thinned(torch.from_numpy(np.concatenate([own for _, own in batch])), _LOST, chance)
            starts = torch.from_numpy(np.cumsum([0, *(len(own) for own, _ in batch[:-1])]))
            summed = torch.nn.functional.embedding_bag(
                columns, inner, starts, mode="sum", sparse=True, per_sample_weights=values
            )
            hidden = _thinned(torch.relu(summed + biases[0]), _DROPPED, chance)
            loss = torch.nn.functional.cross_entropy(hidden @ outer + biases[1], truth[places], weight=weight)
            for each in optimisers:
                each.zero_grad()
            loss.backward()
            for each in (*optimisers, *schedules):
                each.step()
    return HiddenLayer(*(part.detach().numpy() for part in (inner, biases[0], outer, biases[1])))


def _thinned(values: torch.Tensor, share: float, chance: torch.Generator) -> torch.Tensor:
    """A share of the values 0, the others larger for it."""
    import torch

    return values * (torch.rand(values.shape, generator=chance) >= share) / (1 - share)
