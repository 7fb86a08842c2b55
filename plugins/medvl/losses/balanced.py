"""Class-weighted and focal cross-entropy on answer tokens, for tasks whose answers are unevenly distributed.

    loss = sum_t w(t) * (1 - p_t)^gamma(t) * -log p_t  /  number of supervised tokens

Weight and gamma belong to a whole answer (`medvl.losses.classes` decides which), p_t is the probability of the right
token. The focal factor is that of Lin et al. 2017 (arXiv:1708.02002), applied per token: the token on which the answers
part carries it, those that follow from it are nearly certain and fade. With weights 1 and gamma 0 this is the
cross-entropy of the transformers models, value and gradient.

The sum is divided by the number of tokens, never by the sum of weights: with one record in a batch the latter would
cancel its weight.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from medvl.losses import IGNORED

ROWS = 256  # positions whose logits are float at one time: 156 MB at 152k entries


def balanced_loss(
    logits: torch.Tensor | None,
    labels: torch.Tensor,
    weights: torch.Tensor,
    gammas: torch.Tensor,
    items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Balanced cross-entropy of a batch.

    Only supervised positions are converted to float, `ROWS` at a time, and computed again in the backward pass.

    Args:
        logits: (batch, length, vocabulary), any float type; position i predicts label i + 1.
        labels: (batch, length), -100 where there is no loss.
        weights: (batch,), one per record.
        gammas: (batch,), 0 for a record without focal factor.
        items: What to divide by; the number of supervised tokens of this batch if None.

    Returns:
        A float32 scalar with gradients; 0 for a batch without supervised tokens.

    Raises:
        ValueError: logits and labels do not fit together, as when a fused loss leaves no logits.
    """
    if logits is None or logits.ndim != 3 or logits.shape[:2] != labels.shape:
        shape = None if logits is None else tuple(logits.shape)
        raise ValueError(f"the balanced loss needs logits for every label {tuple(labels.shape)}, not {shape}")
    labels = labels.to(logits.device)
    records, places = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    rows, targets = logits[records, places], labels[records, places + 1]
    weights, gammas = (values.to(rows.device, torch.float32)[records] for values in (weights, gammas))
    focal = bool(gammas.any())
    total = rows[:0].float().sum()  # 0, in the graph even without tokens: every rank takes part in the backward pass
    for part in zip(*(values.split(ROWS) for values in (rows, targets, weights, gammas)), strict=True):
        total = total + checkpoint(_sum, *part, focal, use_reentrant=False, preserve_rng_state=False)
    return total / (max(len(targets), 1) if items is None else items)


def _sum(
    rows: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, gammas: torch.Tensor, focal: bool
) -> torch.Tensor:
    losses = cross_entropy(rows.float(), targets, reduction="none")
    if focal:
        # A tiny doubt at least: the derivative of x^gamma at 0 is infinite for a gamma below 1.
        doubt = (-torch.expm1(-losses)).clamp(min=1e-6)
        losses = torch.where(gammas > 0, doubt**gammas, 1.0) * losses
    return (weights * losses).sum()
