"""Grounding loss on teacher-forced answers: distance-aware digits, expected boxes, and the choice to go on or stop.

Everything is computed from the few logits that matter: rows that predict a digit of a box or decide on one more object,
times the ten digits and the tokens that decide. Probability elsewhere is the cross-entropy's affair: each term is
conditional on the model saying a digit where a digit belongs (so with the true number of digits), or one of the
candidates where it decides. A right mean of wrong digits costs L_iou nothing: it is no loss to train with alone.

    loss = LM + w1 * L_w1 + scale * warmup * (alpha * L_iou + beta * L_fp + gamma * L_fn)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from medvl.losses.generated import reward, rewards

if TYPE_CHECKING:
    from torch import Tensor

    from medvl.losses.coordinates import Targets

__all__ = ["IOU_KINDS", "GroundingSettings", "IouKind", "Terms", "combine", "grounding_terms", "reward", "rewards"]

IouKind = Literal["giou", "diou", "ciou", "iou"]
IOU_KINDS: tuple[IouKind, ...] = get_args(IouKind)

SMOOTH_L1 = 5.0  # weight of SmoothL1 beside 1 - GIoU, as in DETR
SMOOTH_L1_KNEE = 0.01  # of the frame's side; linear beyond


@dataclass(frozen=True)
class GroundingSettings:
    """Weights of the terms; see the module's formula. alpha and gamma are the reference system's own.

    Its beta of 0.5 was worse by the rule of benchmarks/RESULTS.md.
    """

    alpha: float = 1.0
    beta: float = 2.0
    gamma: float = 1.0
    w1: float = 0.3
    scale: float = 0.05
    iou: IouKind = "giou"


@dataclass(frozen=True)
class Terms:
    """The parts of the loss for one batch, unweighted: 0-dim tensors, means within each row, then over all rows.

    Attributes:
        w1: Place-weighted Wasserstein-1 distance of the digits, in digits (0 to 9), each digit for itself: it rises
            with the distance of a digit, not of the number. For 300, certain digits cost 1.37 where they spell 305,
            0.40 for 400, 2.37 for 900, 5.84 for 299. Its least is the true digits alone, which L_iou's is not.
        iou: 1 - GIoU (or its kin) of the expected box, plus 5 * SmoothL1 of its coordinates; see `expected_offsets`.
        fp: -log P(stop) where the answer stops: at its end, at the end of a class, at the empty list.
        fn: -log P(go on) where it goes on: at each boundary between objects, and before the first.
        iou_teacher_forced: Mean IoU over all boxes of the box that the most probable digits spell; no gradient.
        boxes, skipped: Boxes used, and boxes left out because a digit is not a token of its own.
    """

    w1: Tensor
    iou: Tensor
    fp: Tensor
    fn: Tensor
    iou_teacher_forced: Tensor
    boxes: int
    skipped: int


def grounding_terms(column_logits: Tensor, targets: Targets, settings: GroundingSettings) -> Terms:
    """All terms of one batch, in float32 (float64 if the logits are).

    Args:
        column_logits: Shape (r, c): the logit of `targets.columns[j]` at position `targets.rows[i]`.
        targets: Of the same batch, on the same device.
        settings: Only `iou` matters here; see `combine` for the weights.
    """
    import torch

    logits = column_logits if column_logits.dtype == torch.float64 else column_logits.float()
    zero = logits.new_zeros(())
    w1 = iou = teacher_forced = fp = fn = zero
    if targets.boxes:
        values = torch.arange(10, dtype=logits.dtype, device=logits.device)
        places, shares = targets.places.to(logits), targets.digit_shares.to(logits)
        digits = targets.digits.to(logits)
        log_probabilities = logits[:, :10].log_softmax(-1)[targets.digit_rows]  # (n, 4, k, 10)
        probabilities = log_probabilities.exp()
        w1 = (shares * (probabilities * (values - digits[..., None]).abs()).sum(-1)).sum()
        truth = (places * digits).sum(-1)
        expected = truth + expected_offsets(log_probabilities, targets)
        spelled = (places * probabilities.argmax(-1)).sum(-1)
        iou = (targets.box_shares.to(logits) * box_loss(expected, truth, settings.iou)).sum()
        teacher_forced = overlap(sort_corners(spelled), sort_corners(truth)).mean().detach()
    if len(targets.decision_rows):
        absent = targets.choices < 0
        choices = logits[targets.decision_rows[:, None], targets.choices.clamp(min=0)].masked_fill(absent, -torch.inf)
        loss = choices.logsumexp(-1) - choices[:, 0]
        fp = (targets.fp_shares.to(logits) * loss).sum()
        fn = (targets.fn_shares.to(logits) * loss).sum()
    return Terms(w1, iou, fp, fn, teacher_forced, targets.boxes, targets.skipped)


def expected_offsets(log_probabilities: Tensor, targets: Targets) -> Tensor:
    """Expected number less the true one, shape (n, 4), over the frame's unit; exactly 0 for certain true digits.

    What is written is the true number up to the first wrong digit, and from there the nearest number that begins so
    (`medvl.losses.nearest`): for 300, a first digit 2 means 299. A place counts as often as it is reached.

    Args:
        log_probabilities: Shape (n, 4, k, 10), of the digits.
        targets: The same boxes.
    """
    import torch

    right = log_probabilities.gather(-1, targets.digits[..., None])[..., 0]
    # Not `cumprod`, whose gradient waits for the GPU to look for zeros.
    reached = torch.nn.functional.pad(right[..., :-1].cumsum(-1), (1, 0)).exp()
    offsets = targets.offsets.to(log_probabilities)
    return (reached * (log_probabilities.exp() * offsets).sum(-1)).sum(-1)


def combine(terms: Terms, settings: GroundingSettings, warmup: float = 1.0) -> Tensor:
    """What is added to the language-model loss; `warmup` (0 to 1) holds back all but L_w1."""
    decisions = settings.beta * terms.fp + settings.gamma * terms.fn
    return settings.scale * warmup * (settings.alpha * terms.iou + decisions) + settings.w1 * terms.w1


def sort_corners(boxes: Tensor) -> Tensor:
    """Boxes (n, 4) with x_min <= x_max and y_min <= y_max; the gradient goes with each coordinate."""
    import torch

    first, second = boxes[:, :2], boxes[:, 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    import torch

    sides = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    return sides.clamp(min=0).prod(-1)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (n, 4), pair by pair; 0 where neither has an area. An inverted box has none."""
    intersection = _intersection(a, b)
    union = _area(a) + _area(b) - intersection
    return intersection / union.where(union > 0, union.new_ones(()))


def box_loss(boxes: Tensor, truth: Tensor, kind: IouKind) -> Tensor:
    """1 - IoU (of the given kind) + 5 * SmoothL1 for each of n boxes; shape (n,).

    Coordinates are fractions of the frame. Each belongs to the true one in its place, in whichever order the true
    corners are: a box whose corners have changed sides has no area, and all its gradients lead its coordinates to their
    own true ones. (With sorted corners each would be drawn to the other's.) A true box without an area has no IoU:
    there, SmoothL1 is all.
    """
    import torch

    smooth = torch.nn.functional.smooth_l1_loss(boxes, truth, beta=SMOOTH_L1_KNEE, reduction="none").mean(-1)
    inverted = (truth[:, :2] > truth[:, 2:]).repeat(1, 2)
    a, b = (given.roll(2, -1).where(inverted, given) for given in (boxes, truth))
    solid = _area(b) > 0
    b = b.where(solid[:, None], b.new_tensor([0.0, 0.0, 1.0, 1.0]))  # any box with an area; masked below
    iou = overlap(a, b)
    penalty = _PENALTIES[kind](a, b, iou)
    if kind in ("diou", "ciou"):  # the centre of a box with changed sides leads astray
        penalty = penalty.where((a[:, :2] <= a[:, 2:]).all(-1), _giou(a, b, iou))
    return SMOOTH_L1 * smooth + (1 - iou + penalty).where(solid, iou.new_zeros(()))


def _none(_a: Tensor, _b: Tensor, iou: Tensor) -> Tensor:
    return iou.new_zeros(())


def _enclosing(a: Tensor, b: Tensor) -> Tensor:
    """From the least to the largest corner; of an inverted box, as far as its corners lie beyond their true ones."""
    import torch

    return torch.cat([torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:])], -1)


def _giou(a: Tensor, b: Tensor, _iou: Tensor) -> Tensor:
    """Share of the enclosing box that neither box covers (arXiv 1902.09630)."""
    enclosing = _area(_enclosing(a, b))
    union = _area(a) + _area(b) - _intersection(a, b)
    return (enclosing - union) / enclosing


def _diou(a: Tensor, b: Tensor, _iou: Tensor) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the enclosing box (arXiv 1911.08287)."""
    enclosing = _enclosing(a, b)
    centres = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2
    return centres.square().sum(-1) / (enclosing[:, 2:] - enclosing[:, :2]).square().sum(-1)


def _ciou(a: Tensor, b: Tensor, iou: Tensor) -> Tensor:
    """DIoU's, plus the difference of the aspect ratios (arXiv 1911.08287)."""
    import torch

    # A side under a thousandth counts as one: the ratio of a box that has collapsed has no useful gradient.
    ratios = [((s[:, 2] - s[:, 0]).clamp(min=1e-3) / (s[:, 3] - s[:, 1]).clamp(min=1e-3)).atan() for s in (a, b)]
    v = 4 / torch.pi**2 * (ratios[0] - ratios[1]).square()
    trade = v.detach() / (1 - iou.detach() + v.detach()).clamp(min=1e-7)
    return _diou(a, b, iou) + trade * v


_PENALTIES = {"iou": _none, "giou": _giou, "diou": _diou, "ciou": _ciou}
