"""The model families, one entry each: what medvl has to know of a checkpoint that LLaMA-Factory does not tell it.

docs/add_a_model_family.md adds one. Importable without torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One `model_type` of config.json.

    Attributes:
        templates: The templates of LLaMA-Factory that write its image tokens, the usual one first.
        processor: Name of its processor's class, which tells the family where config.json is not to be had.
        tiled: Whether `crop_to_patches` cuts its images into tiles.
        pan_and_scan: Whether `image_do_pan_and_scan` cuts large images into crops.
        plain_product: Whether its logits are the head's product with the final states and nothing else, so that the
            grounding loss need not read all of them.
        liger: liger-kernel's function for it, which is called under `enable_liger_kernel` if LLaMA-Factory does not.
        fused_by_llamafactory: Whether LLaMA-Factory 0.9.5 itself acts on `enable_liger_kernel`.
    """

    templates: tuple[str, ...]
    processor: str | None = None
    tiled: bool = False
    pan_and_scan: bool = False
    plain_product: bool = False
    liger: str | None = None
    fused_by_llamafactory: bool = True


THINKING = ("qwen3_vl",)  # the templates that can think

_QWEN3_VL = ("qwen3_vl_nothink", "qwen3_vl")

FAMILIES = {
    "qwen3_vl": Family(
        _QWEN3_VL,
        processor="Qwen3VLProcessor",
        plain_product=True,
        liger="apply_liger_kernel_to_qwen3_vl",
        fused_by_llamafactory=False,
    ),
    "qwen3_vl_moe": Family(_QWEN3_VL, fused_by_llamafactory=False),
    "qwen2_vl": Family(("qwen2_vl",), processor="Qwen2VLProcessor"),
    "qwen2_5_vl": Family(("qwen2_vl",), processor="Qwen2_5_VLProcessor"),
    "internvl": Family(
        ("intern_vl",),
        processor="InternVLProcessor",
        tiled=True,
        plain_product=True,
        liger="apply_liger_kernel_to_internvl",
        fused_by_llamafactory=False,
    ),
}
