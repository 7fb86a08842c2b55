"""liger's kernels for Qwen3-VL and InternVL3: fused cross entropy, RMSNorm, RoPE, and SwiGLU where liger has it.

`enable_liger_kernel: true` does nothing for these families in LLaMA-Factory 0.9.5 ("Current model does not support
liger kernel"). Under a medvl key it does: liger's own patches are applied, and the logits of all positions are never
built. The grounding loss takes its terms from the hidden states (column_logits.py), which liger leaves in place. What
cannot be done so is refused.
"""

from __future__ import annotations

import importlib
from types import MethodType
from typing import Any

import torch
from llamafactory.extras.logging import get_logger

from medvl.factory.checks.adapter_fit import without_adapter
from medvl.factory.column_logits import whole_head
from medvl.factory.families import FAMILIES

PATCHES = {kind: family.liger for kind, family in FAMILIES.items() if family.liger}
CURE = "set `enable_liger_kernel: false`"


def fuse_if_asked(trainer: Any) -> None:
    """Apply liger's patch where the recipe asks for it and LLaMA-Factory does nothing; ValueError as `fuse`."""
    family = FAMILIES.get(without_adapter(trainer.model).config.model_type)
    stock = family is None or family.fused_by_llamafactory
    if not stock and trainer.finetuning_args.setting("enable_liger_kernel"):
        fuse(trainer.model, sharded=trainer.is_fsdp_enabled)


def fuse(model: Any, *, sharded: bool = False) -> None:
    """Apply liger's patch to a loaded model; ValueError when this model, machine or set-up cannot have it.

    sharded: Whether FSDP will split its weights.
    """
    base = without_adapter(model)
    family = base.config.model_type
    if family not in PATCHES:
        raise ValueError(f"enable_liger_kernel: medvl fuses {', '.join(PATCHES)}, this model is `{family}`; {CURE}")
    if not gpu():
        raise ValueError(f"enable_liger_kernel: liger's kernels need a GPU, and this machine has none; {CURE}")
    patch = getattr(importlib.import_module("liger_kernel.transformers"), PATCHES[family], None)
    if patch is None:
        raise ValueError(f"enable_liger_kernel: this liger-kernel has no {PATCHES[family]}; install 0.8, or {CURE}")
    if sharded or not whole_head(base.get_output_embeddings()):
        raise ValueError(
            "enable_liger_kernel: the fused loss multiplies with the output head's own weights, which are sharded "
            f"(ZeRO-3, FSDP), quantised or under an adapter here; {CURE}"
        )
    stock = type(base).forward
    patch(model=base)
    if type(base).forward is not stock:  # liger's InternVL patch is for the class, and later models of the process
        base.forward = MethodType(type(base).forward, base)
        type(base).forward = stock
    get_logger("llamafactory.medvl").info_rank0(f"{PATCHES[family]}: fused cross entropy, logits are not built.")


def gpu() -> bool:
    """Whether liger's kernels can run here."""
    return bool(torch.cuda.is_available())
