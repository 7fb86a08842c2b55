"""Lets the model answer eval records while it trains, and compares its boxes with the true ones.

The numbers are the reference system's own (`medvl.losses.generated`), on generated text, where its training loss had
them. Answers are greedy, and long at most twice the longest true answer of the batch: a model that lists boxes without
end is seen by its false positives, without waiting for all of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from rich.console import Console
from rich.progress import track
from transformers import GenerationConfig, TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled

from medvl.box_text import parse_boxes
from medvl.boxes import order_corners
from medvl.factory.grounding_log import eval_prefix
from medvl.losses import IGNORED
from medvl.losses.generated import Comparison, compare, documented_penalty, scripted_penalty, unreadable
from medvl.losses.grounding import GroundingSettings
from medvl.unwrapping import unwrap

SPARE_TOKENS = 32  # beyond twice the true answer, for a short one in another style


@dataclass(frozen=True)
class EvalRecord:
    """One eval record: what the model is asked, and the true answer.

    Attributes:
        record: As LLaMA-Factory tokenised it.
        start: Number of tokens before the answer.
        answer: Text of the true answer.
        length: Its number of tokens.
    """

    record: dict[str, Any]
    start: int
    answer: str
    length: int

    def prompt(self) -> dict[str, Any]:
        """What the collator takes, without the answer."""
        tokens = {"input_ids": self.record["input_ids"][: self.start], "attention_mask": [1] * self.start}
        return self.record | tokens | {"labels": [IGNORED] * self.start}


def choose_questions(dataset: Any, tokenizer: Any, limit: int) -> list[EvalRecord]:
    """Up to `limit` records whose answer holds boxes or says that there are none; the same ones every time.

    Of several turns the first is asked.

    Raises:
        ValueError: the dataset is a stream, or has no such record.
    """
    if not hasattr(dataset, "__len__"):
        raise ValueError(
            "grounding_eval_steps: `streaming` gives no eval set to choose records from; remove one of the two"
        )
    questions = []
    for index in random.Random(0).sample(range(len(dataset)), len(dataset)):
        question = _question(dataset[index], tokenizer)
        if question is not None:
            questions.append(question)
            if len(questions) == limit:
                break
    if not questions:
        raise ValueError(
            "grounding_eval_steps: no record of the eval set has a box answer; name another eval_dataset, or set 0"
        )
    return questions


def _question(record: dict[str, Any], tokenizer: Any) -> EvalRecord | None:
    labels = record["labels"]
    start = next((place for place, label in enumerate(labels) if label != IGNORED), None)
    if start is None:
        return None
    ends = (IGNORED, tokenizer.eos_token_id)
    stop = next((place for place in range(start, len(labels)) if labels[place] in ends), len(labels))
    answer = tokenizer.decode(labels[start:stop], skip_special_tokens=False)
    if not parse_boxes(answer).parsed:
        return None
    return EvalRecord(record, start, answer, stop - start)


class BoxEvaluation(TrainerCallback):  # type: ignore[misc]
    """Asks every `grounding_eval_steps` steps; `metrics` keeps the last result and `step` when it was made."""

    def __init__(self, trainer: Any, collator: Any, every: int, limit: int, weights: GroundingSettings) -> None:
        """collator: the trainer's; with token types for models that need them (positions.py). weights: of the loss.

        Raises ValueError when the trainer has no eval set with box answers, or shards its weights with FSDP.
        """
        if trainer.eval_dataset is None:
            raise ValueError("grounding_eval_steps: there is no eval_dataset (or val_size); add one, or set 0")
        if trainer.is_fsdp_enabled:
            raise ValueError("grounding_eval_steps: a model sharded by FSDP cannot generate while it trains; set 0")
        self.trainer, self.collator, self.every, self.weights = trainer, collator, every, weights
        datasets = trainer.eval_dataset
        named = datasets if isinstance(datasets, dict) else {"": datasets}
        tokenizer = trainer.processing_class
        self.questions = {name: choose_questions(dataset, tokenizer, limit) for name, dataset in named.items()}
        self.step, self.metrics = -1, dict[str, float]()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask and log, on every rank; also after the last step."""
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.step, self.metrics = state.global_step, {}
            for name, questions in self.questions.items():
                self.metrics |= {eval_prefix(name) + key: value for key, value in self.ask(questions).items()}
            should_log = control.should_log
            self.trainer.log(dict(self.metrics))
            control.should_log = should_log  # any log marks the step as logged; its training loss still has to be

    def ask(self, questions: Sequence[EvalRecord]) -> dict[str, float]:
        """What the model's answers are worth, over all ranks."""
        args = self.trainer.args
        mine, size = questions[args.process_index :: args.world_size], args.per_device_eval_batch_size
        # Ranks that share their weights (ZeRO-3) must generate equally often: some ask a question again, for nothing.
        count = math.ceil(math.ceil(len(questions) / args.world_size) / size)
        batches = [mine[index * size : (index + 1) * size] for index in range(count)]
        compared: list[Scored] = []
        model = self.trainer.model
        training = model.training
        model.eval()
        console = Console(stderr=True)
        hidden = not self.trainer.is_world_process_zero() or not console.is_terminal
        with torch.no_grad():
            for batch in track(batches, "Answering eval records", console=console, disable=hidden, transient=True):
                answers = self.answer(batch or questions[:1])
                loss = self.language_loss(batch or questions[:1])
                compared += [score(text, it.answer, loss) for it, text in zip(batch, answers, strict=False)]
        model.train(training)
        return summary(gather_object(compared) if args.world_size > 1 else compared, self.weights)

    def language_loss(self, batch: Sequence[EvalRecord]) -> float:
        """The language-model loss of the true answers, which the reference adds its penalty to."""
        inputs = self.trainer._prepare_inputs(self.collator([dict(question.record) for question in batch]))
        return float(self.trainer.compute_loss(self.trainer.model, inputs))

    def answer(self, batch: Sequence[EvalRecord]) -> list[str]:
        """The model's greedy answers to some questions."""
        tokenizer = self.trainer.processing_class
        with left_padding(tokenizer):
            inputs = self.collator([question.prompt() for question in batch])
        # What is for the loss alone, and positions: generate makes its own.
        for unused in ("labels", "position_ids", "rope_deltas", *self.trainer.in_batch):
            inputs.pop(unused, None)
        inputs = self.trainer._prepare_inputs(inputs)
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=2 * max(question.length for question in batch) + SPARE_TOKENS,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
        )
        generated = self.trainer.model.generate(
            **inputs, generation_config=config, synced_gpus=is_deepspeed_zero3_enabled()
        )
        answers = generated[:, inputs["input_ids"].shape[1] :].tolist()
        return [tokenizer.decode(until(ids, tokenizer.eos_token_id), skip_special_tokens=False) for ids in answers]


def until(ids: list[int], end: int) -> list[int]:
    """Tokens before the first `end`."""
    return ids[: ids.index(end)] if end in ids else ids


@contextmanager
def left_padding(tokenizer: Any) -> Any:
    """Prompts of a batch must end together for generation."""
    side = tokenizer.padding_side
    tokenizer.padding_side = "left"
    try:
        yield
    finally:
        tokenizer.padding_side = side


@dataclass(frozen=True)
class Scored:
    """An answer beside its truth.

    Attributes:
        comparison: Of the boxes.
        readable: Whether it was a box answer at all; one without any box must say so.
        loss: Language-model loss of the true answers of its batch.
    """

    comparison: Comparison
    readable: bool
    loss: float


def score(text: str, truth: str, loss: float) -> Scored:
    """Compare in the numbers both were written in, which IoU does not depend on.

    An unreadable answer, a blank one too, counts as one wrong box, as in evaluation/run.py: it is never better than a
    wrong one.
    """
    answer, true = parse_boxes(unwrap(text)), parse_boxes(truth)
    if not answer.parsed:
        return Scored(unreadable(true.boxes), readable=False, loss=loss)
    return Scored(compare(order_corners(answer.boxes), order_corners(true.boxes)), readable=True, loss=loss)


def summary(scored: Sequence[Scored], weights: GroundingSettings) -> dict[str, float]:
    """Metrics over all answers; pairs have IoU >= 0.5. An unreadable answer is one wrong box in all of them.

    `boxes_iou` is the mean over answers of the mean IoU of their pairs; `boxes_iou_all` the mean over all true boxes.
    `boxes_fp` and `boxes_fn` are per answer. `boxes_loss` is what the reference documents, LM + alpha (1 - IoU) + beta
    #FP + gamma #FN with the recipe's weights; `boxes_loss_script` what its script computes, LM - log(exp(-|dN|) mean
    IoU). (The reference takes an unreadable answer for one without boxes, which pays where the boxes would be wrong.)
    """
    comparisons, answers = [one.comparison for one in scored], len(scored)
    language = math.fsum(one.loss for one in scored) / answers
    pairs = sum(len(one.overlaps) for one in comparisons)
    true, predicted = sum(one.true for one in comparisons), sum(one.predicted for one in comparisons)
    metrics = {
        "boxes_iou": math.fsum(one.mean_iou for one in comparisons) / answers,
        "boxes_iou_all": math.fsum(iou for one in comparisons for iou in one.overlaps) / max(true, 1),
        "boxes_f1": 2 * pairs / (true + predicted) if true + predicted else 1.0,
        "boxes_fp": sum(one.false_positives for one in comparisons) / answers,
        "boxes_fn": sum(one.false_negatives for one in comparisons) / answers,
        "boxes_unreadable": sum(not one.readable for one in scored) / answers,
        "boxes_loss": language + documented_penalty(comparisons, weights.alpha, weights.beta, weights.gamma),
        "boxes_loss_script": language + scripted_penalty(comparisons),
    }
    return {name: round(value, 6) for name, value in metrics.items()} | {"boxes_answers": answers}
