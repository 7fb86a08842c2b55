"""`medvl_loss_group`: micro-batches of another size, and the loss of every step as it was.

These models' loss is a mean over the answer tokens of a micro-batch, and a step's the mean over its micro-batches. So
2 x 4 and 8 x 1 records are different losses: where answers differ in length, a token's weight depends on its
neighbours. With the key, each run of so many records of a step is averaged for itself, whatever micro-batch it is in.

Needs of transformers' trainer: `get_batch_samples`, called once per step for all its micro-batches in their order, and
the division of each micro-batch's loss by their number. Of the model: that it calls `loss_function`, or liger's
`LigerForCausalLMLoss`, by keyword.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from medvl.factory.balance import WEIGHT
from medvl.factory.checks.adapter_fit import without_adapter
from medvl.losses import IGNORED

if TYPE_CHECKING:
    from transformers import Seq2SeqTrainer as Stock
else:
    Stock = object

FUSED = "LigerForCausalLMLoss"  # of the module that liger's forward pass stands in

# A run of records of one micro-batch that share a group: (how many, what the mean over their tokens is multiplied by).
Part = tuple[int, float]


def parts_of_step(tokens: Sequence[Sequence[int]], group: int) -> list[list[Part]]:
    """The parts of each micro-batch of one step; their sum, divided by the number of micro-batches, is the step's loss.

    Args:
        tokens: Supervised tokens of every record, by micro-batch.
        group: Records over whose tokens the loss is averaged; the last group of a step may have fewer.

    >>> parts_of_step([[3, 1, 2, 2]], 2)
    [[(2, 0.5), (2, 0.5)]]
    >>> parts_of_step([[3], [1]], 2)
    [[(1, 1.5)], [(1, 0.5)]]
    """
    flat = [count for counts in tokens for count in counts]
    totals = [sum(flat[start : start + group]) for start in range(0, len(flat), group)]
    found: list[list[Part]] = []
    first = 0
    for counts in tokens:
        parts = []
        for number, run in groupby(range(first, first + len(counts)), key=lambda place: place // group):
            places = list(run)
            inside = sum(flat[place] for place in places)
            share = len(tokens) * inside / (len(totals) * totals[number]) if totals[number] else 0.0
            parts.append((len(places), share))
        found.append(parts)
        first += len(counts)
    return found


class GroupingMixin(Stock):  # type: ignore[misc]
    """What is put before LLaMA-Factory's trainer, or a subclass of it that adds losses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As the stock trainer; ValueError for several GPUs in one process, and a loss that needs no groups."""
        super().__init__(*args, **kwargs)
        if self.model_accepts_loss_kwargs:  # LLaMA-Factory says no for models with a processor
            raise ValueError(
                "medvl_loss_group: this model has no processor for images, and its loss is a mean over the tokens of a "
                "step, whatever the micro-batch is; remove the key"
            )
        if self.args.n_gpu > 1:
            raise ValueError("medvl_loss_group: start several GPUs of one machine with FORCE_TORCHRUN=1")
        self.group: int = self.finetuning_args.medvl_loss_group
        self.waiting: deque[list[Part]] = deque()  # of the micro-batches of this step

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As the stock trainer; what each record counts for is known now."""
        samples, items = super().get_batch_samples(*args, **kwargs)
        tokens = [(batch["labels"][:, 1:] != IGNORED).sum(-1).tolist() for batch in samples]
        self.waiting = deque(parts_of_step(tokens, self.group))
        return samples, items

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As the stock trainer; in training with the language-model loss of the groups."""
        if not (model.training and self.waiting):
            return super().compute_loss(model, inputs, *args, **kwargs)
        parts = self.waiting.popleft()
        if WEIGHT in inputs:  # the balanced loss divides by the tokens of the micro-batch
            inputs[WEIGHT] = inputs[WEIGHT] * _record_factors(parts, inputs["labels"])
            return super().compute_loss(model, inputs, *args, **kwargs)
        with _grouped(without_adapter(self.model), parts) as calls:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
        if not calls:
            raise ValueError(
                "medvl_loss_group: this model computes its loss in a way that medvl does not know, so that it cannot "
                f"be averaged over {self.group} records; remove the key, and write per_device_train_batch_size: "
                f"{self.group}"
            )
        return loss


def grouping_trainer(stock: type) -> type:
    """A subclass of LLaMA-Factory's trainer, or of one of ours, whose loss is that of groups."""
    return type("GroupingTrainer", (GroupingMixin, stock), {})


def _record_factors(parts: Sequence[Part], labels: torch.Tensor) -> torch.Tensor:
    """What makes a mean over all tokens of a micro-batch the sum of its parts, one factor per record."""
    tokens = (labels[:, 1:] != IGNORED).sum(-1)
    factors, first = [], 0
    for size, share in parts:
        inside = tokens[first : first + size].sum().clamp(min=1)
        factors.append((share * tokens.sum() / inside).float().expand(size))
        first += size
    return torch.cat(factors)


@contextmanager
def _grouped(base: Any, parts: Sequence[Part]) -> Iterator[list[str]]:
    """While it lasts, the losses that the model's forward pass may call are those of the parts; lists the calls."""
    calls: list[str] = []
    fused = sys.modules.get(getattr(base.forward, "__module__", ""))
    stock, own = base.loss_function, "_loss_function" in vars(base)
    base.loss_function = _of_parts(stock, parts, calls)
    liger = getattr(fused, FUSED, None)
    if liger is not None:
        setattr(fused, FUSED, _of_parts(liger, parts, calls))
    try:
        yield calls
    finally:
        if own:
            base.loss_function = stock
        else:
            del base._loss_function
        if liger is not None:
            setattr(fused, FUSED, liger)


def _of_parts(
    stock: Callable[..., torch.Tensor], parts: Sequence[Part], calls: list[str]
) -> Callable[..., torch.Tensor]:
    sizes = [size for size, _ in parts]

    def loss(**keywords: Any) -> torch.Tensor:
        calls.append(getattr(stock, "__name__", "loss"))
        cut = [name for name in ("logits", "hidden_states", "labels", "shift_labels") if keywords.get(name) is not None]
        # Not slices, each of which would have a gradient as large as the whole.
        columns = [keywords[name].split(sizes) for name in cut]
        found = [
            share * stock(**(keywords | dict(zip(cut, part, strict=True))))
            for (_, share), part in zip(parts, zip(*columns, strict=True), strict=True)
            if share
        ]
        return torch.stack(found).sum() if found else keywords[cut[0]].sum() * 0

    return loss
