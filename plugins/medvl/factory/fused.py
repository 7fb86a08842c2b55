"""liger's fused cross entropy for Qwen3-VL and InternVL3: the logits of all positions are never built.

`enable_liger_kernel: true` does nothing for these families in LLaMA-Factory 0.9.5 ("Current model does not support
liger kernel"). Beside the grounding loss it does: liger's own patches are applied, and the other terms are computed
from the hidden states (column_logits.py), which liger leaves in place. What cannot be done so is refused.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from llamafactory.extras.logging import get_logger

from medvl.factory.checks.adapter_fit import without_adapter
from medvl.factory.column_logits import ColumnLogits
from medvl.factory.families import FAMILIES

PATCHES = {kind: family.liger for kind, family in FAMILIES.items() if family.liger}
CURE = "set `enable_liger_kernel: false`"


def fuse(model: Any, columns: ColumnLogits) -> None:
    """Apply liger's patch to a loaded model; ValueError when this model, machine or set-up cannot have it."""
    base = without_adapter(model)
    family = base.config.model_type
    if family not in PATCHES:
        raise ValueError(f"enable_liger_kernel: medvl fuses {', '.join(PATCHES)}, this model is `{family}`; {CURE}")
    if not gpu():
        raise ValueError(f"enable_liger_kernel: liger's kernels need a GPU, and this machine has none; {CURE}")
    patch = getattr(importlib.import_module("liger_kernel.transformers"), PATCHES[family], None)
    if patch is None:
        raise ValueError(f"enable_liger_kernel: this liger-kernel has no {PATCHES[family]}; install 0.8, or {CURE}")
    if not columns.usable():
        raise ValueError(
            "enable_liger_kernel: the fused loss multiplies with the output head's own weights, which are sharded "
            f"(ZeRO-3, FSDP), quantised or under an adapter here; {CURE}"
        )
    patch(model=base)
    get_logger("llamafactory.medvl").info_rank0(f"{PATCHES[family]}: fused cross entropy, logits are not built.")


def gpu() -> bool:
    """Whether liger's kernels can run here."""
    return bool(torch.cuda.is_available())
