"""The balanced loss in training runs of both families, through LLaMA-Factory's own `run_exp`."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from llamafactory.train.tuner import run_exp

from medvl.factory import balance
from medvl.factory.balance import GAMMA, WEIGHT, BalancedCollator, balance_dataset, given_weights
from medvl.factory.data.rows import RowReader
from medvl.losses.classes import AnswerClass

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
FAMILIES = ["qwen3vl", "internvl3"]


def logged(folder: Path, key: str) -> list[float]:
    """What the trainer logged under this key."""
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[key] for entry in log if key in entry]


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_weights_train_as_the_stock_trainer(family: str, tiny_recipe: Recipe, tmp_path: Path) -> None:
    common = {"gradient_accumulation_steps": 2, "eval_dataset": "tiny_val", "max_steps": 1}
    common |= {"eval_strategy": "steps", "eval_steps": 1}
    keys = {"loss_balance": "focal", "loss_balance_gamma": 0.0, "loss_balance_weights": {"round": 5, "square": 5}}
    run_exp(tiny_recipe(family, output_dir=str(tmp_path / "stock"), **common))
    run_exp(tiny_recipe(family, output_dir=str(tmp_path / "ours"), **keys, **common))
    for key in ("loss", "grad_norm", "eval_loss"):
        stock = logged(tmp_path / "stock", key)
        assert len(stock) == 1
        assert logged(tmp_path / "ours", key) == pytest.approx(stock, abs=2e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_the_batch_reach_the_loss_and_compose_with_grounding(
    family: str, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.yaml"
    weights.write_text("round: 3\nsquare: 1\n")
    seen: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    from medvl.losses import balanced

    original = balanced.balanced_loss

    def spy(logits: Any, labels: Any, weights: Any, gammas: Any, items: Any) -> Any:
        loss = original(logits, labels, weights, gammas, items)
        seen.append((weights, gammas, loss.item()))
        return loss

    monkeypatch.setattr(balanced, "balanced_loss", spy)
    keys = {"loss_balance": "focal", "loss_balance_weights": str(weights), "use_grounding_loss": True}
    common = {"eval_dataset": "tiny_val", "do_eval": True, "per_device_train_batch_size": 8, "max_steps": 1}
    run_exp(tiny_recipe(family, dataloader_num_workers=1, **keys, **common))
    assert len(seen) == 1, "evaluation uses the model's own loss"
    (weight, gamma, loss), *_ = seen
    # Two `round`, two `square` of equally many tokens, and four box answers that keep 1.
    assert sorted(weight.tolist()) == pytest.approx([0.5, 0.5, 1, 1, 1, 1, 1.5, 1.5])
    assert torch.equal(gamma, torch.where(weight == 1, 0.0, 2.0))
    (total,) = logged(tmp_path / "out", "loss")
    (language,) = logged(tmp_path / "out", "loss_lm")
    assert language == pytest.approx(loss, abs=1e-4)
    assert total > language, "the grounding terms come on top"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"loss_balance": "focl"}, "`focl` is none of none, weighted, focal"),
        ({"loss_balance": "focal", "loss_balance_gamma": -1.0}, "-1.0 is not a number from 0 to 10"),
        ({"loss_balance_gamma": 1.0}, "does nothing without `loss_balance: weighted` or `focal`"),
        ({"loss_balance": "weighted", "packing": True}, "cannot be combined with `packing`"),
        ({"loss_balance": "weighted", "use_dft_loss": True}, "cannot be combined with `use_dft_loss`"),
        ({"loss_balance": "weighted", "train_on_prompt": True}, "cannot be combined with `train_on_prompt`"),
        ({"loss_balance": "weighted", "label_smoothing_factor": 0.1}, "combined with `label_smoothing_factor`"),
        ({"loss_balances": "weighted"}, "did you mean `loss_balance`"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_recipes_that_cannot_be_honoured_are_refused(keys: dict[str, Any], message: str, tiny_recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=message):
        run_exp(tiny_recipe("qwen3vl", **keys))


def test_fused_loss_is_refused(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from llamafactory.hparams import parser

    monkeypatch.setattr(parser, "check_version", lambda *_, **__: None)  # liger-kernel need not be installed
    with pytest.raises(ValueError, match="cannot be combined with `enable_liger_kernel`"):
        run_exp(tiny_recipe("qwen3vl", loss_balance="weighted", enable_liger_kernel=True))


class _Words:
    """A tokenizer and template of words: token i is the word at place i; 0 is an image, 1 the end."""

    words = ("<image>", "<end>", "Question:", "Assess", "normality.", "Answer:", "normal", "abnormal", "[]")

    def decode(self, tokens: list[int], **_: Any) -> str:
        return " ".join(self.words[token] for token in tokens)

    def encode_oneturn(self, tokenizer: Any, messages: Any) -> tuple[list[int], list[int]]:
        return [2, 5], [1]


def word_dataset(answers: list[int]) -> Dataset:
    prompt = [2, 0, 0, 3, 4, 5]
    rows = [{"input_ids": [*prompt, answer, 1], "labels": [-100] * 6 + [answer, 1]} for answer in answers]
    return Dataset.from_list(rows)


def test_columns_hold_inverse_frequencies_and_the_exponent_of_classes_only() -> None:
    dataset = word_dataset([6] * 95 + [7] * 5)
    reader = RowReader(_Words(), _Words(), [0])
    keys = {"loss_balance": "focal", "loss_balance_gamma": 1.5, "loss_balance_weights": None}
    balanced = balance_dataset(dataset, reader, SimpleNamespace(**keys))
    assert balanced[99][WEIGHT] / balanced[0][WEIGHT] == pytest.approx(16)
    assert sum(balanced[WEIGHT]) == pytest.approx(100)
    assert set(balanced[GAMMA]) == {1.5}
    only_focal = balance_dataset(dataset, reader, SimpleNamespace(**keys | {"loss_balance_weights": "none"}))
    assert set(only_focal[WEIGHT]) == {1.0}
    assert set(only_focal[GAMMA]) == {1.5}
    weighted = balance_dataset(dataset, reader, SimpleNamespace(**keys | {"loss_balance": "weighted"}))
    assert set(weighted[GAMMA]) == {0.0}


def test_training_data_without_classes_is_refused() -> None:
    keys = SimpleNamespace(loss_balance="weighted", loss_balance_gamma=2.0, loss_balance_weights=None)
    with pytest.raises(ValueError, match="no question of the training data has answers that are classes"):
        balance_dataset(word_dataset([8] * 30), RowReader(_Words(), _Words(), [0]), keys)


def test_the_table_names_the_most_frequent_classes_first() -> None:
    classes = {AnswerClass("q", f"class {i}"): 1.0 for i in range(14)}
    counts = Counter({answer: place + 1 for place, answer in enumerate(classes)})
    (line,) = balance._table(classes, counts)
    assert line.startswith("class 13 1 (14 records), class 12 1 (13 records)")
    assert line.endswith("2 more")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"normal": 1, "abnormal": 4}', {"normal": 1, "abnormal": 4}),
        ("normal: 1\nabnormal: 4.5\n", {"normal": 1, "abnormal": 4.5}),
    ],
    ids=["json", "yaml"],
)
def test_weights_are_read_from_json_and_yaml(text: str, expected: dict[str, float], tmp_path: Path) -> None:
    (tmp_path / "weights").write_text(text)
    assert given_weights(str(tmp_path / "weights")) == expected


def test_a_label_that_yaml_reads_as_false_is_refused() -> None:
    with pytest.raises(ValueError, match="the label False is no text; write it in quotes"):
        given_weights({False: 2.0, "yes": 1.0})  # type: ignore[dict-item]


def test_evaluation_features_carry_nothing() -> None:
    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        return {"keys": sorted(features[0])}

    collator = BalancedCollator(collate)
    assert collator([{"labels": 1}]) == {"keys": ["labels"]}
    trained = collator([{"labels": 1, WEIGHT: 2.0, GAMMA: 0.0}, {"labels": 1, WEIGHT: 1.0, GAMMA: 0.0}])
    assert trained["keys"] == ["labels"]
    assert trained[WEIGHT].tolist() == [2.0, 1.0]
