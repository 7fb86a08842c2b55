"""What may have made a training's figures no numbers, and what to try."""

from __future__ import annotations

from typing import Any

import torch

from medvl.losses import IGNORED
from medvl.weights import no_numbers, nonfinite_parameters


def cause(model: Any, labels: torch.Tensor | None, step: int, cutoff_len: int) -> str:
    """What can be seen of the cause, one line; empty if nothing."""
    if labels is not None and bool((labels == IGNORED).all()):
        return f"Cause: no answer is left in the batch, all are cut off by cutoff_len {cutoff_len}; raise it.\n"
    broken = nonfinite_parameters(model)
    if not broken:
        return ""
    frozen = [name for name in broken if not model.get_parameter(name).requires_grad]
    if frozen or step == 0:
        return f"Cause: the checkpoint itself is broken, {no_numbers(frozen or broken)}. Copy it again.\n"
    return f"Cause: training has driven weights out of range, {no_numbers(broken)}.\n"


def to_try(args: Any, model: Any) -> str:
    """The usual causes, with the recipe's own values."""
    precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "float32"
    attention = getattr(model.config, "_attn_implementation", None)
    return (
        f"What to try: a lower learning_rate (it is {args.learning_rate:g}) with a warm-up; `bf16: true` instead of "
        f"fp16 (it is {precision}); another attention kernel, `flash_attn: sdpa` or `disabled` (it is {attention}); an "
        "unbroken copy of the checkpoint."
    )
