"""Gives every training record the weight and focal exponent of its answer, and the trainer a loss that uses them.

The two travel as columns of the tokenised training set, which evaluation sets do not have: they are evaluated with the
model's own loss, so that runs with and without balance compare.

Needs of the trainer: `train_dataset` as a keyword, `compute_loss(model, inputs, return_outputs, num_items_in_batch)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvl.factory.collator import WrappedCollator
from medvl.factory.data.rows import RowReader, read_rows, row_reader
from medvl.losses import IGNORED
from medvl.losses.classes import AnswerClass, answer_class, weigh
from medvl.wording import listed
from medvl.yaml_files import read_yaml

WEIGHT, GAMMA = "medvl_weight", "medvl_gamma"
_SHOWN = 12  # classes of one question that are logged


def given_weights(value: Mapping[str, float] | str | None) -> dict[str, float] | None:
    """What `loss_balance_weights` says: label -> weight, empty for `none`, None for frequencies.

    Raises:
        ValueError: a file that cannot be read, or keys that are no text (an unquoted `no` is false in YAML).
    """
    if value is None or value == "frequency":
        return None
    if value == "none":
        return {}
    weights = dict(read_yaml(Path(value)) if isinstance(value, str) else value)
    for label in weights:
        if not isinstance(label, str):
            raise ValueError(f"loss_balance_weights: the label {label!r} is no text; write it in quotes")
    return weights


def balance_dataset(dataset: Any, reader: RowReader, arguments: Any) -> Any:
    """The tokenised training set with the columns `medvl_weight` and `medvl_gamma`; logs the weights.

    Args:
        dataset: LLaMA-Factory's, with `input_ids` and `labels`.
        reader: Reads its rows.
        arguments: Of the recipe, with the `loss_balance` keys.

    Raises:
        ValueError: given weights that fit no answer, or no answer that is a class.
    """
    from llamafactory.extras.logging import get_logger

    log = get_logger("llamafactory.medvl")  # LLaMA-Factory shows what is logged under its own name
    classes = _classes(dataset, reader)
    answers: list[Any] = [answer for answer, _ in classes]
    given = given_weights(arguments.loss_balance_weights)
    weights = dict.fromkeys(weigh(classes), 1.0) if given == {} else weigh(classes, given)
    if not weights:
        raise ValueError(
            "loss_balance: no question of the training data has answers that are classes (the rule stands in "
            "medvl/losses/classes.py); remove `loss_balance`, or name labels in `loss_balance_weights`"
        )
    counts = Counter(answers)
    balanced = sum(counts[answer] for answer in weights)
    log.info_rank0(f"loss_balance: {balanced} of {len(answers)} answers are classes; their weights:")
    for line in _table(weights, counts):
        log.info_rank0(f"  {line}")
    gamma = arguments.loss_balance_gamma if arguments.loss_balance == "focal" else 0.0
    weighed = dataset.add_column(WEIGHT, [weights.get(answer, 1.0) for answer in answers])
    return weighed.add_column(GAMMA, [gamma if answer in weights else 0.0 for answer in answers])


def _classes(dataset: Any, reader: RowReader) -> list[tuple[AnswerClass | None, int]]:
    """Class and number of supervised tokens of every record."""
    known: dict[tuple[str, str], AnswerClass | None] = {}
    classes: list[tuple[AnswerClass | None, int]] = []
    for example in read_rows(dataset, "input_ids", "labels"):
        row = reader.read(example["input_ids"], example["labels"])
        if row is None:
            classes.append((None, sum(label != IGNORED for label in example["labels"])))
            continue
        text = (row.question, row.answer)
        if text not in known:
            known[text] = answer_class(*text)
        classes.append((known[text], row.stop - row.start))
    return classes


def _table(weights: Mapping[AnswerClass, float], counts: Mapping[AnswerClass | None, int]) -> list[str]:
    """One line per question, the most frequent class first."""
    lines = []
    for group in dict.fromkeys(answer.group for answer in weights):
        inside = sorted((answer for answer in weights if answer.group == group), key=lambda answer: -counts[answer])
        told = [f"{answer.name} {weights[answer]:.3g} ({counts[answer]} records)" for answer in inside]
        lines.append(listed(told, _SHOWN))
    return lines


@dataclass(frozen=True)
class BalancedCollator(WrappedCollator):
    """A collator that keeps weight and exponent of each record beside the batch."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """The collator's batch; in training with `medvl_weight` and `medvl_gamma` of shape (batch,)."""
        import torch

        columns = {name: [feature.pop(name) for feature in features if name in feature] for name in (WEIGHT, GAMMA)}
        batch = super().__call__(features)
        batch.update({name: torch.tensor(values) for name, values in columns.items() if values})
        return batch


def prepare(keywords: dict[str, Any]) -> None:
    """Weighs the training set among a trainer's keywords and wraps its collator."""
    arguments, collator = keywords["finetuning_args"], keywords["data_collator"]
    reader = row_reader(collator, keywords["tokenizer"], keywords["model"])
    keywords["train_dataset"] = balance_dataset(keywords["train_dataset"], reader, arguments)
    keywords["data_collator"] = BalancedCollator(collator)


def balanced_trainer(stock: type) -> type:
    """A subclass of LLaMA-Factory's trainer whose training loss is the balanced one."""
    from medvl.losses.balanced import balanced_loss

    class BalancedTrainer(stock):  # type: ignore[misc]
        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
            **options: Any,
        ) -> Any:
            """As the stock trainer, with weighted records; their batches are divided by as many tokens as there."""
            if WEIGHT not in inputs:  # evaluation
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch, **options)
            inputs = dict(inputs)
            weights, gammas, labels = (inputs.pop(name) for name in (WEIGHT, GAMMA, "labels"))
            outputs = model(**inputs)
            whole_batch = self.model_accepts_loss_kwargs and num_items_in_batch is not None
            items = num_items_in_batch if whole_batch else None
            loss = balanced_loss(outputs.get("logits"), labels, weights, gammas, items)
            if whole_batch and self.args.average_tokens_across_devices:
                # The trainer counted the tokens of all devices; their gradients are averaged afterwards.
                loss = loss * (self.accelerator.num_processes if self.args.n_gpu <= 1 else self.args.n_gpu)
            return (loss, outputs) if return_outputs else loss

    return BalancedTrainer
