"""Where in a batch of labels coordinates and decisions stand, as index tensors. No gradients here."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvl.boxes import Frame
from medvl.losses import IGNORED
from medvl.losses.nearest import frame_step, nearest_offsets
from medvl.losses.vocabulary import NOTHING, AnswerPositions, Floats, Integers, Vocabulary

__all__ = ["PLACE_BASE", "Targets", "Vocabulary", "find_targets"]

PLACE_BASE = 1.2  # weight in L_w1 of a digit against the one to its right (NTIL, arXiv 2505.13077)


@dataclass(frozen=True)
class Targets:
    """What one batch asks of the model, as index tensors into a matrix of r rows and c columns of logits.

    `share` tensors hold the weight of each entry: the mean within each row of the batch, then the mean over all rows,
    those without boxes included. So a batch of four rows and four batches of one add up to the same gradient.

    Attributes:
        rows: (r,) flat positions in (batch * length) whose output predicts a wanted token; already shifted by one,
            unique, rising.
        columns: (c,) vocabulary ids whose logits are wanted: the ten digits, then the candidates of the decisions.
        digit_rows: (n, 4, k) row of each digit of each number; numbers with fewer digits are padded.
        digits: (n, 4, k) the true digits.
        places: (n, 4, k) signed place values over the frame's unit; 0 in the padding.
        offsets: (n, 4, k, 10) what each digit in the place of the true one makes of the number at best, less the
            number, over the frame's unit; see `medvl.losses.nearest`. 0 for the true digit and in the padding.
        digit_shares: (n, 4, k) weights in L_w1; 0 in the padding.
        box_shares: (n,) weights in L_iou.
        decision_rows: (m,) row of each decision.
        choices: (m, d) columns to choose from, the true one first, -1 where there are fewer.
        fp_shares, fn_shares: (m,) weights in L_fp and L_fn.
        boxes, skipped: Boxes used, and boxes left out because a digit is not a token of its own.
        cut: Lists of boxes that were cut off, by `cutoff_len`.
    """

    rows: Tensor
    columns: Tensor
    digit_rows: Tensor
    digits: Tensor
    places: Tensor
    offsets: Tensor
    digit_shares: Tensor
    box_shares: Tensor
    decision_rows: Tensor
    choices: Tensor
    fp_shares: Tensor
    fn_shares: Tensor
    boxes: int
    skipped: int
    cut: int = 0

    @property
    def empty(self) -> bool:
        """Whether the batch asks for nothing, so that there is nothing to compute."""
        return len(self.rows) == 0

    def to(self, device: Any, non_blocking: bool = True) -> Targets:
        """The same on another device; with the arguments by which data loaders move a batch."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.to(device, non_blocking=non_blocking) for name, value in tensors.items()})


def find_targets(labels: Tensor, vocabulary: Vocabulary, frame: Frame = Frame.NORM1000) -> Targets:
    """Targets of labels of shape (batch, length), on the CPU.

    Give labels that are on the CPU (in the collator, or before the forward pass is queued): a copy from a GPU waits
    for everything queued there. A row may hold several answers. The unit of `pixel`, where the labels do not tell the
    image's size, is 1000 pixels. An answer that goes beyond its frame has its largest coordinate for unit, so that
    one error of the annotator does not outweigh everything else.
    """
    table = labels.detach().cpu().numpy()
    found = [
        (row, start, vocabulary.answer(table[row, start:end]))
        for row in range(len(table))
        for start, end in _answers(table[row])
    ] or [(0, 0, NOTHING)]
    answers = [answer for *_, answer in found]
    row_of = np.array([row for row, *_ in found])
    # The output at one position predicts the token at the next.
    shift = np.array([row * table.shape[1] + start - 1 for row, start, _ in found])

    of_box = np.repeat(np.arange(len(found)), [len(answer.positions) for answer in answers])
    positions = _stack([answer.positions for answer in answers], -1)
    outputs = np.where(positions >= 0, positions + shift[of_box, None, None], -1)
    digits = _stack([answer.digits for answer in answers], 0)
    written = _stack([answer.places for answer in answers], 0)
    units = np.array([_unit(answer, frame) for answer in answers])[of_box]
    tops = np.full_like(units, np.inf) if frame == Frame.PIXEL else units
    steps = np.array([frame_step(answer.places, frame) for answer in answers])[of_box]
    places = written / units[:, None, None]
    weights = np.abs(places) ** math.log10(PLACE_BASE)  # PLACE_BASE to the power of the place; 0 in the padding
    box_shares = _shares(row_of[of_box], len(table))

    of_decision = np.repeat(np.arange(len(found)), [len(answer.decisions) for answer in answers])
    deciding = np.concatenate([answer.decisions for answer in answers]) + shift[of_decision]
    truth = table.reshape(-1)[deciding + 1] if len(deciding) else deciding
    ids = np.concatenate([truth[:, None], _stack([answer.others for answer in answers], -1)], axis=1)
    more = np.concatenate([answer.more for answer in answers])
    rows = np.unique(np.concatenate([outputs[outputs >= 0], deciding]))
    ten = np.array(vocabulary.digits)
    columns = np.concatenate([ten, np.setdiff1d(ids[ids >= 0], ten)])
    order = np.argsort(columns)
    choices = np.where(ids >= 0, order[np.searchsorted(columns[order], ids.clip(min=columns.min()))], -1)
    arrays = {
        "rows": rows,
        "columns": columns,
        "digit_rows": np.where(outputs >= 0, np.searchsorted(rows, outputs), 0),
        "digits": digits,
        "places": places,
        "offsets": nearest_offsets(digits, written, tops, steps) / units[:, None, None, None],
        "digit_shares": weights / weights.sum(-1, keepdims=True) * box_shares[:, None, None] / 4,
        "box_shares": box_shares,
        "decision_rows": np.searchsorted(rows, deciding),
        "choices": choices,
        "fp_shares": _shares(np.where(more, row_of[of_decision], -1), len(table)),
        "fn_shares": _shares(np.where(more, -1, row_of[of_decision]), len(table)),
    }
    skipped = sum(answer.skipped for answer in answers)
    return Targets(
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
        boxes=len(of_box),
        skipped=skipped,
        cut=sum(answer.cut for answer in answers),
    )


def _answers(row: Integers) -> list[tuple[int, int]]:
    """(start, end) of each run of trained tokens; a row's first token has no output before it to predict it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row != IGNORED, [False]])))
    return [(max(int(start), 1), int(end)) for start, end in edges.reshape(-1, 2)]


def _stack(arrays: list[NDArray[Any]], fill: int) -> NDArray[Any]:
    """Arrays one after the other, their last axes padded to the longest."""
    width = max(array.shape[-1] for array in arrays)
    padding = [[(0, 0)] * (array.ndim - 1) + [(0, width - array.shape[-1])] for array in arrays]
    return np.concatenate([np.pad(a, p, constant_values=fill) for a, p in zip(arrays, padding, strict=True)])


def _unit(answer: AnswerPositions, frame: Frame) -> float:
    """What a coordinate is divided by to lie between 0 and 1."""
    coordinates = np.abs((answer.places * answer.digits).sum(-1))
    return max(1.0 if frame == Frame.NORM1 else 1000.0, float(coordinates.max(initial=0)))


def _shares(rows: Integers, batch: int) -> Floats:
    """The weight of each entry in a mean within each row, then over all `batch` rows; 0 for entries of row -1."""
    counts = np.bincount(rows + 1, minlength=batch + 1)
    return np.where(rows >= 0, 1.0 / (counts[rows + 1] * batch), 0.0)
