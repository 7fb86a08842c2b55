"""Training of the compact model: a common start for each seed, and from there one arm after another."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from compact.arms import Arm
from compact.denoising import askew, noisy, without_noise_numbers
from compact.images import CHANNELS, COMPARED, LABELS, SIDE, START, Scene, reordered, stream
from compact.matching import cheapest
from compact.model import CompactDetector
from compact.numbers import distance_loss, soft_loss
from evaluation.matching import overlaps
from medvl.box_text import format_boxes, parse_boxes
from medvl.boxes import Frame, match_greedy
from medvl.demo.tokenizer import qwen3_tokenizer
from medvl.losses.coordinates import IGNORED, Targets, Vocabulary, find_targets
from medvl.losses.grounding import combine, grounding_terms

BATCH = 16
LEARNING_RATE = 3e-3
WARMUP_STEPS = 25
# Of an arm's steps; holds back all but L_w1.
TERMS_WARMUP = 0.1
LOOK = 0.3  # weight of `look_loss`
# (steps, batch, share of images with 0, 1, … objects) of the start's first stages. Given all objects at once, the
# model takes hundreds of steps more to find out where to look.
CURRICULUM = ((200, 2 * BATCH, (0.0, 1.0)), (100, BATCH, (0.0, 0.5, 0.5)))
START_STEPS = 600


@dataclass(frozen=True)
class Batch:
    """Images, token ids `(b, t)`, labels (not shifted, as LLaMA-Factory leaves them), and what finds the targets."""

    images: Tensor
    ids: Tensor
    labels: Tensor
    vocabulary: Vocabulary
    scenes: list[Scene]

    @functools.cached_property
    def targets(self) -> Targets:
        """The loss's targets; the language-model loss alone needs none, and they take a tenth of a step."""
        return find_targets(self.labels, self.vocabulary)


def make_tokenizer() -> Any:
    """The demo's tokenizer, trained on answers with the labels of both sets: digits are tokens, JSON a few."""
    rng = np.random.default_rng(0)
    boxes = [np.sort(rng.integers(0, 1001, (int(rng.integers(0, 4)), 4)), axis=1).astype(float) for _ in range(500)]
    texts = (format_boxes(b, [str(rng.choice(LABELS)) for _ in b], "json", Frame.NORM1000) for b in boxes)
    return qwen3_tokenizer(texts, 360)


def collate(scenes: list[Scene], tokenizer: Any, vocabulary: Vocabulary) -> Batch:
    """One batch: end token (as a start), answer, end token; the end token also pads, without being trained there."""
    stop = tokenizer.eos_token_id
    answers = [tokenizer(scene.text).input_ids for scene in scenes]
    length = max(map(len, answers)) + 2
    ids, labels = torch.full((len(answers), length), stop), torch.full((len(answers), length), IGNORED)
    for row, answer in enumerate(answers):
        ids[row, 1 : len(answer) + 1] = torch.tensor(answer, dtype=torch.long)
        labels[row, 1 : len(answer) + 1] = ids[row, 1 : len(answer) + 1]
        labels[row, len(answer) + 1] = stop
    images = torch.from_numpy(np.stack([scene.image for scene in scenes]))
    return Batch(images, ids, labels, vocabulary, scenes)


def matched(batch: Batch, model: CompactDetector, tokenizer: Any) -> Batch:
    """The batch with the boxes of each answer in the order that costs the model least; see `compact.matching`."""

    @torch.no_grad()
    def costs(scenes: list[Scene]) -> list[float]:
        trial = collate(scenes, tokenizer, batch.vocabulary)
        return answer_costs(model(trial.images, trial.ids), trial.labels).tolist()  # type: ignore[no-any-return]

    return collate(cheapest(batch.scenes, costs), tokenizer, batch.vocabulary)


def answer_costs(logits: Tensor, labels: Tensor) -> Tensor:
    """The language-model loss of each answer, summed over its tokens; shape (b,)."""
    logits = logits[:, :-1].transpose(1, 2)
    return functional.cross_entropy(logits, labels[:, 1:], ignore_index=IGNORED, reduction="none").sum(-1)


def train(
    model: CompactDetector,
    batches: Iterable[Batch],
    steps: int,
    arm: Arm,
    tokenizer: Any,
    on_step: Callable[[int, float], None],
    start: bool = False,
) -> None:
    """AdamW with a short warm-up and a linear way down to 0; of a `start` without it, but shown where to look."""
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01, fused=True)
    for step, batch in enumerate(itertools.islice(batches, round(steps * arm.share))):
        rate = min(1.0, (step + 1) / WARMUP_STEPS) * (1.0 if start else 1 - step / steps)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * rate
        if arm.matched:
            batch = matched(batch, model, tokenizer)
        if start:
            logits, looked = model.watched(batch.images, batch.ids)
            loss = _loss(logits, batch, arm, tokenizer, 0.0) + LOOK * look_loss(looked, batch.targets)
        else:
            logits = model(batch.images, batch.ids)
            loss = _loss(logits, batch, arm, tokenizer, min(1.0, step / (TERMS_WARMUP * steps)))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        on_step(step, float(loss.detach()))


def _loss(logits: Tensor, batch: Batch, arm: Arm, tokenizer: Any, warmup: float) -> Tensor:
    labels = without_noise_numbers(batch.labels, batch.vocabulary) if arm.noise else batch.labels
    loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    if arm.reference:
        loss = loss + reference_loss(logits.detach(), batch, tokenizer)
    if arm.settings is not None and not batch.targets.empty:
        columns = logits.flatten(0, 1)[batch.targets.rows][:, batch.targets.columns]
        loss = loss + combine(grounding_terms(columns, batch.targets, arm.settings), arm.settings, warmup)
        if arm.numbers is not None and batch.targets.boxes:
            digits = columns[:, :10].log_softmax(-1)[batch.targets.digit_rows]
            if arm.numbers.soft:
                loss = loss + arm.numbers.soft * soft_loss(digits, batch.targets, arm.numbers.sigma)
            if arm.numbers.distance:
                loss = loss + arm.numbers.distance * distance_loss(digits, batch.targets)
    return loss


def reference_loss(logits: Tensor, batch: Batch, tokenizer: Any) -> float:
    """TerraQuery's box loss, `(1 - mean IoU) + 0.5 FP + FN` at IoU 0.5, of what the logits spell; mean over images.

    Text has no gradient, so this is a number: it changes the loss that is shown and nothing that is learned.
    """
    total = 0.0
    for row, (labels, scene) in enumerate(zip(batch.labels, batch.scenes, strict=True)):
        wanted = labels[1:] != IGNORED
        predicted = parse_boxes(tokenizer.decode(logits[row, :-1][wanted].argmax(-1).tolist())).boxes
        matrix = overlaps(scene.boxes, predicted)
        pairs = match_greedy(matrix, 0.5)
        iou = float(matrix[pairs[:, 0], pairs[:, 1]].mean()) if len(pairs) else 0.0
        total += (1 - iou) + 0.5 * (len(predicted) - len(pairs)) + (len(scene.boxes) - len(pairs))
    return total / len(batch.scenes)


def look_loss(looked: Tensor, targets: Targets) -> Tensor:
    """How little of the look rests on the box whose digits are being written: mean of -log of its share.

    Left to itself, the model takes hundreds of steps to find out that it must look at all. Of the start alone.

    Args:
        looked: Shape (b, t, places), places in rows of a square.
        targets: Of the same batch, in norm1000.
    """
    if not targets.boxes:
        return looked.new_zeros(())
    side = round(looked.shape[-1] ** 0.5)
    edges = torch.arange(side + 1) / side
    boxes = (targets.places * targets.digits).sum(-1).to(looked)  # (n, 4)
    columns, rows = ((edges[:-1] < boxes[:, i + 2, None]) & (edges[1:] > boxes[:, i, None]) for i in (0, 1))
    inside = (rows[:, :, None] & columns[:, None, :]).flatten(1)  # (n, places)
    of_digit = looked.flatten(0, 1)[targets.rows[targets.digit_rows]]  # (n, 4, k, places)
    share = (of_digit * inside[:, None, None]).sum(-1).clamp(min=1e-6)
    return -share.log()[targets.places != 0].mean()


def arm_batches(
    source: list[Scene] | None, arm: Arm, seed: int, steps: int, tokenizer: Any, vocabulary: Vocabulary
) -> Iterator[Batch]:
    """What the arms of a seed are trained on: the same images in the same order."""
    rng = np.random.default_rng((COMPARED, seed))
    batches = _drawn_once(seed, steps) if source is None else stream(source, (COMPARED, seed), BATCH)
    for scenes in batches:
        told = [noisy(reordered(scene, arm.order, rng), arm.noise, rng) for scene in scenes]
        batch = collate(told, tokenizer, vocabulary)
        ids = askew(batch.ids, batch.targets, vocabulary, arm.askew, rng) if arm.askew else batch.ids
        yield dataclasses.replace(batch, ids=ids)


@functools.lru_cache(maxsize=1)
def _drawn_once(seed: int, steps: int) -> list[list[Scene]]:
    return list(itertools.islice(stream(None, (COMPARED, seed), BATCH), steps))


def start_batches(seed: int, tokenizer: Any, vocabulary: Vocabulary) -> Iterator[Batch]:
    """What the common start of a seed is trained on."""
    stages = [
        itertools.islice(stream(None, (START, seed, stage), size, counts), steps)
        for stage, (steps, size, counts) in enumerate(CURRICULUM)
    ]
    for scenes in itertools.chain(*stages, stream(None, (START, seed, len(CURRICULUM)), BATCH)):
        yield collate(scenes, tokenizer, vocabulary)


def new_model(seed: int, vocabulary: int) -> CompactDetector:
    """An untrained model."""
    torch.manual_seed(seed)
    return CompactDetector(CHANNELS, SIDE, vocabulary)


def digest(model: nn.Module) -> str:
    """A fingerprint of all weights, bit for bit."""
    parts = b"".join(value.detach().numpy().tobytes() for value in model.state_dict().values())
    return hashlib.blake2b(parts, digest_size=8).hexdigest()
