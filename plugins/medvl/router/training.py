"""Training of the classifier: options, augmentation, and a loop that fails rather than skips a step."""

from __future__ import annotations

import difflib
import math
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medvl.router.data import LabelledQuestion
from medvl.router.labels import LABELS
from medvl.yaml_files import read_yaml

if TYPE_CHECKING:
    from medvl.router.gliclass import QuestionClassifier


@dataclass(frozen=True)
class TrainingOptions:
    """How a classifier is trained; the keys of `recipes/router_*.yaml`.

    Attributes:
        encoder: Folder or hub name of the question encoder; None: a small one from scratch.
        label_encoder: The same of the labels; None: as `encoder`.
        full: Fine-tune the encoders; otherwise they are frozen and the heads alone train (a matter of seconds).
        epochs: Passes over the questions.
        batch_size: Questions per step.
        learning_rate: Of the heads, and of everything from scratch.
        encoder_learning_rate: Of pretrained encoders, where `full`.
        focal_alpha: Weight of positives in the focal loss, negatives weigh 1 - alpha; -1: both 1.
        focal_gamma: How much less a question counts the better it is known already; 0: all the same.
        preset: mevlip allows `focal_alpha: 1`, which gives negatives no gradient at all.
        templates: Own questions for the tasks that have too few (missing), for every task (all), or none.
        augment: Slips of the keyboard, lost words and other case in training questions.
        holdout: Share of wordings kept from training, for temperature, thresholds and the similarity gate.
        seed: Of everything.
    """

    encoder: str | None = None
    label_encoder: str | None = None
    full: bool = False
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    encoder_learning_rate: float = 2e-5
    focal_alpha: float = -1.0
    focal_gamma: float = 1.0
    preset: Literal["mevlip"] | None = None
    templates: Literal["missing", "all", "none"] = "all"
    augment: bool = True
    holdout: float = 0.2
    seed: int = 0

    def problems(self) -> list[str]:
        """What is wrong with the options, one sentence each."""
        found = []
        if self.focal_alpha >= 1 and self.preset != "mevlip":
            found.append(
                f"focal_alpha: {self.focal_alpha} multiplies the loss of every negative by {1 - self.focal_alpha:g}, "
                "so the classifier says yes to all; use -1, or `preset: mevlip` to have ME-VLIP's setting all the same"
            )
        if self.preset not in (None, "mevlip"):
            found.append(f"preset: {self.preset!r}; the one preset is mevlip")
        if self.templates not in ("missing", "all", "none"):
            found.append(f"templates: {self.templates!r}; expected missing, all or none")
        if not 0 < self.holdout < 1:
            found.append(f"holdout: {self.holdout}; expected a share between 0 and 1: thresholds are fitted on it")
        positive = ("epochs", "batch_size", "learning_rate", "encoder_learning_rate")
        wrong = [name for name in positive if getattr(self, name) <= 0]
        found += [f"{name}: {getattr(self, name)}; expected more than 0" for name in wrong]
        if self.label_encoder and not self.encoder:
            found.append("label_encoder without encoder: name both, or neither for small ones from scratch")
        return found


def read_options(recipe: Path | None, **overrides: Any) -> TrainingOptions:
    """The options of a recipe, with those that are not None put over them.

    Raises:
        ValueError: no such file, an unknown key, a value of another type, or what `problems` says.
    """
    known = {field.name: field.type for field in fields(TrainingOptions)}
    options = TrainingOptions()
    for key, value in (read_yaml(recipe) if recipe else {}).items():
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(known)}"
            raise ValueError(f"{recipe}: unknown key {key!r}; {hint}")
        before = getattr(options, key)
        if isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if before is not None and type(value) is not type(before):
            raise ValueError(f"{recipe}: {key}: {value!r}; expected {type(before).__name__}")
        options = replace(options, **{key: value})
    options = replace(options, **{key: value for key, value in overrides.items() if value is not None})
    if problems := options.problems():
        raise ValueError("\n".join(f"{recipe or 'options'}: {problem}" for problem in problems))
    return options


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
    """Fit the classifier to questions; a `general` prompt is one to which no label applies.

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
    texts = [
        [_augmented(row.text, rng) if options.augment else row.text for row in rows] for _ in range(options.epochs)
    ]
    cached = [_frozen_features(classifier, version) for version in texts[:2]] if frozen else []
    label_features = classifier.label_features().detach() if frozen else None
    classifier.model.train()
    losses: list[float] = []
    step = 0
    for epoch in range(options.epochs):
        total = 0.0
        for places in _batches(len(rows), options.batch_size, rng):
            if frozen:
                features = cached[epoch % len(cached)][places]
            else:
                features = classifier.features([texts[epoch][place] for place in places])
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
    return TrainingResult(step, losses, time.perf_counter() - start)


def _batches(number: int, size: int, rng: random.Random) -> list[list[int]]:
    # Not grouped by length, which would be faster: length goes with task here, and such batches do not train.
    order = list(range(number))
    rng.shuffle(order)
    return [order[start : start + size] for start in range(0, number, size)]


def _rate(step: int, planned: int) -> float:
    """Up over a tenth of the steps, then linearly down."""
    warm = max(1, planned // 10)
    return min((step + 1) / warm, (planned - step) / max(1, planned - warm))


def _frozen_features(classifier: QuestionClassifier, texts: Sequence[str]) -> Any:
    import torch

    classifier.model.eval()
    with torch.no_grad():
        return torch.cat([classifier.features(texts[start : start + 64]) for start in range(0, len(texts), 64)])


def balanced(questions: Sequence[LabelledQuestion], rng: random.Random) -> list[LabelledQuestion]:
    """The questions, those of rarer tasks several times, so that every task has about as many (at most eight times)."""
    by_task: dict[str, list[LabelledQuestion]] = {}
    for question in questions:
        by_task.setdefault(question.task, []).append(question)
    largest = max(map(len, by_task.values()))
    rows = []
    for own in by_task.values():
        copies = min(8, largest // len(own))
        rows += own * copies + rng.sample(own, min(len(own), largest - copies * len(own)) if copies < 8 else 0)
    return rows


_WORD = re.compile(r"[A-Za-z]{4,}")
_PREAMBLES = (
    "You are an experienced physician.", "Please look at the picture.", "Consider the attached file.",
    "Take your time.", "The patient is 61 years old.", "Answer precisely.", "This was acquired last week.",
    "Here is the next case.",
)  # fmt: skip


def _augmented(text: str, rng: random.Random) -> str:
    """The question as another hand might have typed it."""
    if rng.random() < 0.35:
        return text
    words = text.split()
    if len(words) > 4 and rng.random() < 0.3:
        del words[rng.randrange(len(words))]
    slipped = [_slip(word, rng) if rng.random() < 0.06 and _WORD.fullmatch(word) else word for word in words]
    text = " ".join(slipped)
    if rng.random() < 0.15:
        text = f"{rng.choice(_PREAMBLES)} {text}"
    if rng.random() < 0.15:
        text = f"Please {text[0].lower()}{text[1:]}"
    if rng.random() < 0.2:
        text = text.rstrip(" .?!") or text
    return text


def _slip(word: str, rng: random.Random) -> str:
    place = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if kind == 1:
        return word[:place] + word[place + 1 :]
    if kind == 2:
        return word[: place + 1] + word[place:]
    return word[:place] + rng.choice("abcdefghijklmnopqrstuvwxyz") + word[place + 1 :]


def stated(options: TrainingOptions) -> dict[str, Any]:
    """The options as router.json keeps them; a folder's name alone, not where it lay."""
    values = asdict(options)
    for key in ("encoder", "label_encoder"):
        if values[key] and Path(values[key]).is_dir():
            values[key] = Path(values[key]).name
    return values
