"""The loop that trains the classifier. It fails rather than skips a step."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medvl.router.augmentation import augmented, balanced, varied
from medvl.router.data import LabelledQuestion
from medvl.router.labels import LABELS
from medvl.router.options import TrainingOptions

if TYPE_CHECKING:
    from medvl.router.gliclass import QuestionClassifier


_VARIED = 0.5  # share of questions that GLiClass reads about something else, per epoch
_HIDDEN = 0.3  # share of tokens that it does not read, lest single words decide


class TrainingError(RuntimeError):
    """A step that could not be taken."""


@dataclass(frozen=True)
class TrainingResult:
    """What training did.

    Attributes:
        steps: Steps taken, all of those planned.
        losses: Mean loss per epoch.
        seconds: Wall-clock time.
    """

    steps: int
    losses: list[float]
    seconds: float


def build(options: TrainingOptions, texts: Sequence[str], *, device: str = "cpu") -> QuestionClassifier:
    """The classifier before training."""
    import torch

    from medvl.router.gliclass import from_pretrained, from_scratch

    torch.manual_seed(options.seed)
    loss = {"focal_loss_alpha": options.focal_alpha, "focal_loss_gamma": options.focal_gamma}
    if options.encoder is None:
        return from_scratch(texts, LABELS, device=device, **loss)
    label_encoder = options.label_encoder or options.encoder
    return from_pretrained(options.encoder, label_encoder, LABELS, device=device, **loss)


def train(
    classifier: QuestionClassifier,
    questions: Sequence[LabelledQuestion],
    options: TrainingOptions,
    *,
    on_step: Callable[[int, int, float], None] | None = None,
) -> TrainingResult:
    """Fit the classifier to questions; `general` is a label like the tasks.

    Args:
        classifier: Changed in place.
        questions: At least one.
        options: How.
        on_step: Called after every step with (step, steps planned, loss).

    Raises:
        TrainingError: a loss that is not finite, or no gradient: the library's trainer skips such steps in silence.
    """
    import torch

    start = time.perf_counter()
    frozen = options.encoder is not None and not options.full
    rng = random.Random(options.seed)
    tasks = list(classifier.labels)
    rows = balanced(questions, rng)
    targets = torch.tensor([[float(task == row.task) for task in tasks] for row in rows], device=classifier.device)
    core = classifier.model.model
    encoders = [*core.encoder_model.parameters(), *core.label_encoder.parameters()]
    for parameter in encoders:
        parameter.requires_grad_(not frozen)
    known = {id(parameter) for parameter in encoders}
    heads = [parameter for parameter in classifier.model.parameters() if id(parameter) not in known]
    encoder_rate = options.encoder_learning_rate if options.encoder else options.learning_rate
    groups = [{"params": heads, "lr": options.learning_rate}]
    groups += [] if frozen else [{"params": encoders, "lr": encoder_rate}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    planned = options.epochs * math.ceil(len(rows) / options.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, planned))
    texts = [[_another(row, rng) if options.augment else row.text for row in rows] for _ in range(options.epochs)]
    cached = [_frozen_features(classifier, version) for version in texts[:2]] if frozen else []
    label_features = classifier.label_features().detach() if frozen else None
    unread = _HIDDEN if options.augment and options.encoder is None else 0.0
    classifier.model.train()
    losses: list[float] = []
    step = 0
    for epoch in range(options.epochs):
        total = 0.0
        for places in _batches(len(rows), options.batch_size, rng):
            if frozen:
                features = cached[epoch % len(cached)][places]
            else:
                features = classifier.features([texts[epoch][place] for place in places], hidden=unread)
            labels = classifier.label_embeddings(
                label_features if label_features is not None else classifier.label_features()
            )
            logits = classifier.logits(classifier.text_embeddings(features), labels)
            loss = core.get_loss(logits, targets[places])
            optimiser.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_([*heads, *encoders], 1.0)
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                raise TrainingError(
                    f"step {step + 1} of {planned}: loss {loss.item()}, gradient {norm.item()}; lower learning_rate"
                )
            if norm == 0 and loss > 0:
                raise TrainingError(f"step {step + 1} of {planned}: no gradient although the loss is {loss.item():.3g}")
            optimiser.step()
            schedule.step()
            step += 1
            total += loss.item() * len(places)
            if on_step:
                on_step(step, planned, loss.item())
        losses.append(total / len(rows))
    if step != planned:
        raise TrainingError(f"{step} of {planned} steps were taken")
    classifier.model.eval()
    classifier.forget_labels()
    if options.preset is None and _labels_collapsed(classifier):
        raise TrainingError("all labels have one embedding, so all score alike; try another seed or learning_rate")
    return TrainingResult(step, losses, time.perf_counter() - start)


def _another(row: LabelledQuestion, rng: random.Random) -> str:
    text = varied(row.text, row.task, rng) if rng.random() < _VARIED else row.text
    return augmented(text, rng)


def _batches(number: int, size: int, rng: random.Random) -> list[list[int]]:
    # Not grouped by length, which would be faster: length goes with task here, and such batches do not train.
    order = list(range(number))
    rng.shuffle(order)
    return [order[start : start + size] for start in range(0, number, size)]


def _rate(step: int, planned: int) -> float:
    """Up over a tenth of the steps, then linearly down."""
    warm = max(1, planned // 10)
    return min((step + 1) / warm, (planned - step) / max(1, planned - warm))


def _labels_collapsed(classifier: QuestionClassifier) -> bool:
    """Whether training has stayed where every label scores its share of the questions, whatever is asked."""
    import torch

    with torch.no_grad():
        embeddings = classifier.label_embeddings(classifier.label_features())
    return bool((embeddings @ embeddings.T).min() > 0.9999)


def _frozen_features(classifier: QuestionClassifier, texts: Sequence[str]) -> Any:
    import torch

    classifier.model.eval()
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # batches of one length need little padding
    with torch.no_grad():
        found = [classifier.features([texts[place] for place in order[start : start + 64]])
                 for start in range(0, len(order), 64)]  # fmt: skip
    places = torch.empty(len(order), dtype=torch.long)
    places[order] = torch.arange(len(order))
    return torch.cat(found)[places.to(classifier.device)]
