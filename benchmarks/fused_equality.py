#!/usr/bin/env python
"""liger's kernels beside torch on a machine without a GPU: largest differences of the loss and of all gradients.

    uv pip install liger-kernel && uv pip install --target /tmp/numpy21 numpy==2.1.3
    PYTHONPATH=/tmp/numpy21 python benchmarks/fused_equality.py

The kernels run in Triton's interpreter (which fails under newer numpy), one kind at a time beside the fused cross
entropy, in the tiny checkpoints with text, every weight trained. A kernel that the interpreter cannot run says so.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}

import liger_kernel.transformers as liger
import torch
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3_vl import modeling_qwen3_vl

from medvl.demo.checkpoints import build_checkpoint
from medvl.factory import fused

KERNELS = ("rope", "swiglu", "rms_norm", "layer_norm")
OFF = {"qwen3vl": KERNELS[:3], "internvl3": KERNELS}
ROPES = [(modeling_qwen2, "apply_rotary_pos_emb"), (modeling_qwen3_vl, "apply_rotary_pos_emb"),
         (modeling_qwen3_vl, "apply_rotary_pos_emb_vision")]  # fmt: skip


def main() -> int:
    """Print one row per family and kernel."""
    fused.gpu = lambda: True
    sys.stdout.write(
        "| family | kernels | loss, difference | gradients, largest relative difference |\n|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for family, kernels in OFF.items():
            checkpoint = build_checkpoint(family, Path(folder) / family)  # type: ignore[arg-type]
            model = AutoModelForImageTextToText.from_pretrained(checkpoint).train()
            plain = step(copy.deepcopy(model))
            for kernel in (None, *kernels):
                told = compare(
                    plain,
                    copy.deepcopy(model),
                    dict.fromkeys(kernels, False) | {kernel or kernels[0]: kernel is not None},
                )
                sys.stdout.write(f"| {family} | cross entropy{f', {kernel}' if kernel else ''} | {told} |\n")
                sys.stdout.flush()
    return 0


def compare(plain: tuple[Any, dict[str, Any]], model: Any, switches: dict[str, bool]) -> str:
    """The differences of a model with these kernels, or why they do not run."""
    name = fused.PATCHES[model.config.model_type]
    stock, ropes = getattr(liger, name), [getattr(*rope) for rope in ROPES]
    setattr(liger, name, partial(stock, **switches))
    try:
        fused.fuse(model)
        loss, gradients = step(model)
    except Exception as error:
        return f"not run in the interpreter ({type(error).__name__}) |"
    finally:
        setattr(liger, name, stock)
        for (module, attribute), rope in zip(ROPES, ropes, strict=True):
            setattr(module, attribute, rope)
    apart = max(
        float((gradients[key] - its).abs().max() / its.abs().max().clamp(min=1e-12)) for key, its in plain[1].items()
    )
    return f"{float((loss - plain[0]).abs()):.1e} | {apart:.1e}"


def step(model: Any) -> tuple[Any, dict[str, Any]]:
    """The loss of one batch, and all gradients."""
    ids = torch.randint(20, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    loss = model(input_ids=ids, labels=ids.clone(), attention_mask=torch.ones_like(ids)).loss
    loss.backward()
    return loss.detach(), {name: it.grad for name, it in model.named_parameters() if it.grad is not None}


if __name__ == "__main__":
    sys.exit(main())
