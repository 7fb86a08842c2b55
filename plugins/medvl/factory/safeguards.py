"""Stops a run that does not train what was asked: figures that are no numbers, and an end before the planned steps.

Put around LLaMA-Factory's trainer under every medvl key. Needs of transformers' trainer, besides public methods:
`_get_grad_norm(model, grad_norm)`, called once per step before the weights change, and `_load_best_model()`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.trainer_utils import TrainOutput

from medvl.factory import run_card
from medvl.factory.checks.resuming import resumed_checkpoint
from medvl.factory.data.named_batches import MOST_NAMED, RECORD, BatchNames, NamingCollator, number_records
from medvl.factory.data.records import RecordFinder
from medvl.factory.data.rows import row_reader
from medvl.factory.ending import EndCallback, NothingToTrainError
from medvl.factory.remedies import cause, to_try
from medvl.weights import is_finite, no_numbers, nonfinite_tensors
from medvl.wording import listed

if TYPE_CHECKING:
    from transformers import Seq2SeqTrainer as Stock
else:
    Stock = object

# fp16 training skips steps whose gradients overflow while it looks for its loss scale, 65536 halved down to 1.
_SKIPPED_AT_MOST = 25
# A gradient of exactly 0 beside a loss is what weights far out of range give; one such batch may be chance.
_ZERO_AT_MOST = 2

log = logging.getLogger("medvl")


class SafeguardMixin(Stock):  # type: ignore[misc]
    """What is put before LLaMA-Factory's trainer, or a subclass of it."""

    def __init__(self, *args: Any, batch_names: BatchNames, **kwargs: Any) -> None:
        """batch_names: names the records of a batch. ValueError for a stream whose batches would be cut."""
        super().__init__(*args, **kwargs)
        evaluated = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        streams = [
            rows for rows in (self.train_dataset, *evaluated) if rows is not None and not hasattr(rows, "__len__")
        ]
        if streams and self.accelerator.dispatch_batches is not False:
            raise ValueError(
                "streaming: the batches of a stream would be handed on by rows, which cuts off images and boxes; add "
                "`accelerator_config: {dispatch_batches: false}`"
            )
        self.batch_names = batch_names
        self.step_records: list[Any] = []  # numbers (or tokens, of a stream) of the micro-batches of this step
        self.step_loss = 0.0
        self.skipped = self.zero = 0  # steps in a row
        self.on_failure: list[Callable[[BaseException], None]] = []  # told when training breaks
        self.ending = EndCallback(self)
        self.add_callback(self.ending)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the stock trainer; no step where the resumed checkpoint has all that are planned.

        The stock trainer then does one step more, if the checkpoint does not end an epoch.
        """
        try:
            return super().train(*args, **kwargs)
        except NothingToTrainError as told:
            if self.is_world_process_zero():
                log.warning("%s", told)
        except BaseException as error:
            for tell in self.on_failure:
                tell(error)
            raise
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()
        self.is_in_train = False
        self.control: Any = self.callback_handler.on_train_end(self.args, self.state, self.control)
        return TrainOutput(self.state.global_step, 0.0, {"epoch": self.state.epoch})

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As the stock trainer; RuntimeError that names step and records if it fails, or its loss is no number."""
        numbers = inputs.pop(RECORD, None)
        tokens, labels = inputs.get("input_ids"), inputs.get("labels")
        batch = tokens if numbers is None else numbers
        self.step_records.append(batch)
        try:
            loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        except torch.OutOfMemoryError:
            raise  # says all there is to say, and `auto_find_batch_size` looks for it
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise RuntimeError(f"{self.place()}: {told}\nRecords of the batch: {self.named([batch])}") from error
        value = loss.item()
        if not math.isfinite(value):
            self.stop(f"the loss is {value}", [batch], labels)
        self.step_loss += value
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """As the stock trainer, before the weights change; RuntimeError for a norm that is no number."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        value = None if norm is None else float(norm)
        records, self.step_records = self.step_records, []
        loss, self.step_loss = self.step_loss, 0.0
        if value is None:  # DeepSpeed does not always know it
            return norm
        broken = not math.isfinite(value)
        self.skipped = self.skipped + 1 if broken else 0
        if broken and (not self._skips_overflow() or self.skipped > _SKIPPED_AT_MOST):
            self.stop(f"the gradient norm is {value} (loss {loss:.4g})", records, None)
        zero = value == 0 and loss != 0 and not self.is_deepspeed_enabled
        self.zero = self.zero + 1 if zero else 0
        if self.zero >= _ZERO_AT_MOST:
            told = f"the gradient is exactly 0, {self.zero} steps in a row, beside a loss of {loss:.4g}"
            self.stop(f"{told}: weights are far out of range, or cut off from the loss", records, None)
        return norm

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As the stock trainer; RuntimeError for an eval loss that is no number."""
        labels, tokens = inputs.get("labels"), inputs.get("input_ids")
        result = super().prediction_step(model, inputs, *args, **kwargs)
        loss = result[0]
        if loss is not None and not is_finite(loss.detach()):
            self.stop(f"the eval loss is {loss.mean().item()}", [tokens], labels)
        return result

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the stock trainer; RuntimeError if what was written holds tensors that are no numbers.

        A run that trained nothing leaves a finished model as it is.
        """
        folder = Path(output_dir or self.args.output_dir)
        if self.ending.nothing_trained and any(folder.glob("*.safetensors")):
            return
        super().save_model(output_dir, _internal_call)
        if self.ending.nothing_trained and self.args.should_save:
            self._copy_card(folder)
        broken = nonfinite_tensors(folder) if self.args.should_save else []
        if broken:
            raise RuntimeError(
                f"{folder}: of the saved weights, {no_numbers(broken)}. Remove the folder. "
                f"{to_try(self.args, self.model)}"
            )

    def save_metrics(self, split: str, *args: Any, **kwargs: Any) -> None:
        """As the stock trainer; none of a training that trained nothing."""
        if not (split == "train" and self.ending.nothing_trained):
            super().save_metrics(split, *args, **kwargs)

    def save_state(self) -> None:
        """As the stock trainer; a run that trained nothing leaves the state of the run that did."""
        if not (self.ending.nothing_trained and (Path(self.args.output_dir) / "trainer_state.json").is_file()):
            super().save_state()

    def _copy_card(self, folder: Path) -> None:
        """The card of the checkpoint, whose weights the folder has now."""
        checkpoint = resumed_checkpoint(self.args)
        if checkpoint and (checkpoint / run_card.FILE_NAME).is_file():
            run_card.write_run_card(run_card.read_run_card(checkpoint), folder)

    def stop(self, what: str, batches: list[Any], labels: torch.Tensor | None) -> None:
        """Raise RuntimeError with step, records, cause as far as it shows, and what to try."""
        raise RuntimeError(
            f"{self.place()}: {what}. Training is stopped.\n"
            f"Records of the batch: {self.named(batches)}\n"
            f"{cause(self.model, labels, self.state.global_step, self.batch_names.cutoff_len)}"
            f"{to_try(self.args, self.model)}"
        )

    def place(self) -> str:
        """The step that is under way, of those planned."""
        if not self.state.max_steps:
            return "Evaluation"
        return f"Step {self.state.global_step + 1} of {self.state.max_steps}"

    def named(self, batches: list[Any]) -> str:
        """The records of some micro-batches, each given by row numbers (rows,) or tokens (rows, tokens)."""
        names = []
        for batch in batches:
            if batch is None:
                continue
            if batch.dim() == 1:
                names += self.batch_names.of_rows([self.train_dataset[number] for number in batch.tolist()])
            else:
                names += self.batch_names.of_tokens(batch, self.model.training)
        return listed(names, MOST_NAMED, "; ") or "not known"

    def _skips_overflow(self) -> bool:
        return bool(self.args.fp16)


def guard(trainer: type, keywords: dict[str, Any]) -> type:
    """The class to build instead of `trainer`; numbers the training set among its keywords and wraps its collator.

    Raises AttributeError when this transformers keeps the gradient norm elsewhere.
    """
    trainer._get_grad_norm  # type: ignore[attr-defined]  # noqa: B018
    arguments, collator = keywords["finetuning_args"], keywords["data_collator"]
    names = (*(arguments.setting("dataset") or []), *(arguments.setting("eval_dataset") or []))
    finder = RecordFinder(tuple(dict.fromkeys(names)), str(arguments.setting("dataset_dir")))
    reader = row_reader(collator, keywords["tokenizer"], keywords["model"])
    evaluated = RecordFinder(tuple(arguments.setting("eval_dataset") or names), finder.dataset_dir)
    batch_names = BatchNames(reader, finder, evaluated, int(arguments.setting("cutoff_len")))
    if keywords["args"].do_train:
        keywords["train_dataset"] = number_records(keywords["train_dataset"])
    keywords["data_collator"] = NamingCollator(collator, batch_names)
    keywords["batch_names"] = batch_names
    return type("SafeguardedTrainer", (SafeguardMixin, trainer), {})
