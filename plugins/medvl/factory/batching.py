"""Batches of like length, and the share of padding in the log.

`train_sampling_strategy: group_by_length` of transformers 5.5 draws its order from the process's random state: two
processes, or a resumed run, may see other orders, so that records come twice or not at all. Under a medvl key the same
setting has an order of its own, which seed and epoch alone decide. Tokens are counted as LLaMA-Factory trains them:
image tokens are among them.

Needs of transformers' trainer: `_get_train_sampler`, called whenever the training data loader is built, and
`_train_batch_size`, the records of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from transformers import Seq2SeqTrainer as Stock
else:
    Stock = object

LIKE_LENGTH = "group_by_length"
POOL = 64  # steps that are sorted together: more pads less and mixes less


class LikeLengthSampler(Sampler[int]):  # type: ignore[misc]
    """Rows in an order in which neighbours are of like length.

    A unit is the rows of an optimiser step, so that the order does not depend on how a step is divided into
    micro-batches and processes. The shuffled rows are sorted in pools of `POOL` units, or in four pools if that is
    less, and the units are shuffled. One with the longest row comes first, so that a lack of memory shows at the first
    step, and the one that is not full last.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, unit: int, seed: int, epoch: Callable[[], int]) -> None:
        """lengths: tokens of each row; unit: rows that should be alike; epoch: asked when an order begins."""
        self.lengths, self.unit, self.seed, self.epoch = np.asarray(lengths), unit, seed, epoch

    def __len__(self) -> int:
        """The rows of an epoch: all."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Each row once."""
        return iter(like_length_order(self.lengths, self.unit, (self.seed, self.epoch())).tolist())


def like_length_order(lengths: np.ndarray, unit: int, seed: Sequence[int]) -> np.ndarray:
    """A permutation of range(n) for `lengths` (n,), in units of like length; the same for the same seed."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(lengths))
    size = unit * max(1, min(POOL, len(rows) // (4 * unit)))
    pools = [rows[start : start + size] for start in range(0, len(rows), size)]
    order = np.concatenate([pool[np.argsort(-lengths[pool], kind="stable")] for pool in pools] or [rows])
    full = len(order) // unit
    units, rest = order[: full * unit].reshape(full, unit), order[full * unit :]
    if full:
        units = rng.permutation(units)
        longest = int(lengths[units].max(axis=1).argmax())
        units[[0, longest]] = units[[longest, 0]]
    return np.concatenate([units.reshape(-1), rest])


def count_tokens(dataset: Any) -> np.ndarray:
    """Tokens of each row of a tokenised dataset, shape (n,)."""
    from pyarrow import compute  # type: ignore[import-untyped]

    tables = dataset.select_columns(["input_ids"]).with_format("arrow").iter(10_000)
    counts = [compute.list_value_length(table["input_ids"]).to_numpy() for table in tables]
    return np.concatenate(counts) if counts else np.zeros(0, dtype=np.int64)


class BatchingMixin(Stock):  # type: ignore[misc]
    """What is put before LLaMA-Factory's trainer, or a subclass of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As the stock trainer."""
        super().__init__(*args, **kwargs)
        self.tokens: torch.Tensor | None = None  # (padding, all) since the last log, on the device

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """As the stock trainer; of like length if the recipe asks for it."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != LIKE_LENGTH or self.finetuning_args.disable_shuffling:
            return super()._get_train_sampler(train_dataset)
        unit = self._train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LikeLengthSampler(count_tokens(rows), unit, seed, lambda: int((self.state.epoch or 0.0) + 1e-6))

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As the stock trainer; counts the padding."""
        mask = inputs.get("attention_mask")
        if mask is not None and mask.dim() == 2:  # a packed sequence may have another kind
            counts = torch.stack([(mask == 0).sum(), torch.tensor(mask.numel(), device=mask.device)])
            self.tokens = counts if self.tokens is None else self.tokens + counts
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the stock trainer; a log of the training loss also has `padding`, a share of all tokens."""
        if "loss" in logs:
            counts = torch.zeros(2, dtype=torch.long) if self.tokens is None else self.tokens
            padding, every = self.accelerator.reduce(counts.to(self.accelerator.device), "sum").tolist()
            self.tokens = None
            logs["padding"] = round(padding / every, 4) if every else 0.0
        super().log(logs, *args, **kwargs)


def batching_trainer(trainer: type) -> type:
    """The class to build instead of `trainer`; AttributeError when this transformers keeps the sampler elsewhere."""
    trainer._get_train_sampler  # type: ignore[attr-defined]  # noqa: B018
    return type("BatchingTrainer", (BatchingMixin, trainer), {})
