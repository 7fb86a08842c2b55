"""Batches of like length: every record once, in an order that seed and epoch decide; padding in the log."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("llamafactory")
import datasets
from accelerate.data_loader import BatchSamplerShard
from llamafactory.train.tuner import run_exp
from torch.utils.data import BatchSampler

from medvl.factory import batching
from medvl.factory.batching import LikeLengthSampler, count_tokens, like_length_order
from medvl.factory.run_card import read_run_card

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
SORTED = {"train_sampling_strategy": "group_by_length", "medvl_run_card": True}


@given(st.lists(st.integers(1, 50), max_size=200), st.integers(1, 9), st.integers(0, 5))
def test_every_row_comes_once_and_the_longest_in_the_first_unit(lengths: list[int], unit: int, epoch: int) -> None:
    order = like_length_order(np.array(lengths, dtype=int), unit, (7, epoch))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert order.tolist() == like_length_order(np.array(lengths, dtype=int), unit, (7, epoch)).tolist()
    if unit <= len(lengths) and len(lengths) % unit == 0:
        assert max(lengths) in [lengths[row] for row in order[:unit]]


def test_units_are_alike_and_epochs_and_seeds_differ() -> None:
    lengths = np.random.default_rng(0).integers(100, 2000, 4000)
    orders = {key: like_length_order(lengths, 8, key) for key in [(0, 0), (0, 1), (1, 0)]}
    assert len({order.tobytes() for order in orders.values()}) == 3
    for order in orders.values():
        units = lengths[order].reshape(-1, 8)
        padding = 1 - lengths.sum() / (units.max(axis=1) * 8).sum()
        assert padding < 0.02, "against 0.4 at random"
        ranks = np.argsort(np.argsort(units.mean(axis=1)))
        assert abs(np.corrcoef(np.arange(len(ranks))[1:], ranks[1:])[0, 1]) < 0.1, "long and short steps are mixed"
    members = [{frozenset(unit) for unit in order.reshape(-1, 8).tolist()} for order in orders.values()]
    assert not members[0] & members[1], "other records meet in another epoch"


def test_tokens_are_counted_of_the_rows_as_they_lie() -> None:
    rows = datasets.Dataset.from_dict({"input_ids": [[1] * n for n in (5, 1, 9, 3)], "images": [None] * 4})
    assert count_tokens(rows.select([2, 0])).tolist() == [9, 5]
    assert count_tokens(rows.select([])).tolist() == []


def test_sampler_asks_for_the_epoch_when_an_order_begins() -> None:
    epoch = 0
    sampler = LikeLengthSampler(list(range(60)), 4, 3, lambda: epoch)
    first = list(sampler)
    assert list(sampler) == first and len(sampler) == 60
    epoch = 1
    assert list(sampler) != first


def logged(folder: Path) -> list[dict[str, Any]]:
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in log if "loss" in entry]


def train(recipe: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The numbers of the records of each micro-batch."""
    seen: list[list[int]] = []
    step = batching.BatchingMixin.training_step

    def watch(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        seen.append(self.step_records[-1].tolist())
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(batching.BatchingMixin, "training_step", watch)
    run_exp(recipe | {"output_dir": str(out)})
    monkeypatch.setattr(batching.BatchingMixin, "training_step", step)
    return seen


def test_an_epoch_has_every_record_and_goes_on_the_same_after_a_stop(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = SORTED | {"use_grounding_loss": True, "max_steps": 8, "save_strategy": "steps", "save_steps": 3}
    whole = train(tiny_recipe("internvl3", **keys), tmp_path / "out", monkeypatch)
    epochs = [sorted(chain.from_iterable(whole[start : start + 4])) for start in (0, 4)]
    assert epochs == [list(range(8))] * 2
    assert whole[:4] != whole[4:]
    checkpoint = {"resume_from_checkpoint": str(tmp_path / "out" / "checkpoint-6")}
    resumed = train(tiny_recipe("internvl3", **keys, **checkpoint), tmp_path / "again", monkeypatch)
    assert resumed == whole[6:]
    card = read_run_card(tmp_path / "out")
    assert card.recipe["train_sampling_strategy"] == "group_by_length"
    with pytest.raises(ValueError, match="train_sampling_strategy: random instead of group_by_length"):
        run_exp(tiny_recipe("internvl3", **keys | checkpoint | {"train_sampling_strategy": "random"}))


def test_padding_is_logged_as_a_share_of_all_tokens(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[Any] = []
    step = batching.BatchingMixin.training_step

    def watch(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        masks.append(inputs["attention_mask"])
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(batching.BatchingMixin, "training_step", watch)
    keys = {"max_steps": 2, "gradient_accumulation_steps": 2, "logging_steps": 1, "output_dir": str(tmp_path)}
    run_exp(tiny_recipe("qwen3vl", medvl_run_card=True, **keys))
    shares = [1 - sum(mask.sum().item() for mask in pair) / sum(mask.numel() for mask in pair)
              for pair in (masks[:2], masks[2:])]  # fmt: skip
    assert [entry["padding"] for entry in logged(tmp_path)] == pytest.approx(shares, abs=1e-4)
    assert max(shares) > 0


def test_a_strategy_that_nothing_reads_is_refused(tiny_recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="train_sampling_strategy: does nothing without removing `disable_shuffling"):
        run_exp(tiny_recipe("qwen3vl", **SORTED, disable_shuffling=True))
    with pytest.raises(ValueError, match="train_sampling_strategy: does nothing without `streaming: false`"):
        run_exp(tiny_recipe("qwen3vl", **SORTED, streaming=True))
    with pytest.raises(ValueError, match="length_column_name: does nothing without a column of lengths"):
        run_exp(tiny_recipe("qwen3vl", **SORTED, length_column_name="tokens"))


@pytest.mark.parametrize("count", [600, 601, 607])
def test_two_processes_share_the_records_and_get_batches_alike(count: int) -> None:
    lengths = np.random.default_rng(1).integers(10, 500, count)

    def of_process(index: int) -> list[list[int]]:
        sampler = LikeLengthSampler(lengths, 3 * 2, 0, lambda: 1)  # a step is a micro-batch of 3 in two processes
        return list(BatchSamplerShard(BatchSampler(sampler, 3, False), 2, index))

    first, second = of_process(0), of_process(1)
    assert len(first) == len(second)
    assert set(chain.from_iterable(first + second)) == set(range(count))
    full = count // 6
    once = list(chain.from_iterable(first[:full] + second[:full]))
    assert len(set(once)) == len(once), "only the last micro-batches may repeat records"
    apart = [abs(lengths[one].mean() - lengths[other].mean()) for one, other in zip(first, second, strict=True)]
    assert np.mean(apart[:full]) < 40, "neither waits for the other"
