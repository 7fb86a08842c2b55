"""Models of the real classes with random weights, and batches for them, by which grounding_cost.py measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model

from medvl.box_text import format_boxes
from medvl.boxes import Frame

MLPS = ["gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Size:
    """Sizes of a model; `tokens` an image has, `side` in pixels."""

    family: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    tied: bool
    vision: tuple[int, int, int, int]  # hidden, intermediate, layers, heads
    side: int


SIZES = {
    "tiny-qwen3vl": Size("qwen3vl", 2048, 64, 128, 2, 4, 2, True, (32, 64, 2, 2), 128),
    "tiny-internvl3": Size("internvl3", 2048, 64, 128, 2, 4, 2, False, (32, 64, 2, 2), 56),
    "small-qwen3vl": Size("qwen3vl", 151_936, 512, 1536, 4, 8, 4, True, (64, 128, 2, 2), 512),
    # From the config.json of Qwen/Qwen3-VL-4B-Instruct, Qwen/Qwen3-VL-8B-Instruct and OpenGVLab/InternVL3-8B-hf.
    "qwen3vl-4b": Size("qwen3vl", 151_936, 2560, 9728, 36, 32, 8, True, (1024, 4096, 24, 16), 768),
    "qwen3vl-8b": Size("qwen3vl", 151_936, 4096, 12288, 36, 32, 8, False, (1152, 4304, 27, 16), 768),
    "internvl3-8b": Size("internvl3", 151_674, 3584, 18944, 28, 28, 4, False, (1024, 4096, 24, 16), 448),
}


def build(size: Size, tokenizer: Any, dtype: torch.dtype, device: torch.device, bits: int) -> Any:
    """The model with random weights, adapters and gradient checkpointing."""
    config = (qwen3vl_config if size.family == "qwen3vl" else internvl3_config)(size, tokenizer)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with device:
        model = transformers.AutoModelForImageTextToText.from_config(config)
    torch.set_default_dtype(default)
    model.requires_grad_(False)
    if bits == 4:
        quantise(model.model.language_model, dtype)
    language = "|".join(MLPS)
    target = rf".*language_model.*\.({language})"
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, target_modules=target))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # as LLaMA-Factory trains adapters
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    return model.train()


def quantise(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Put bitsandbytes' NF4 layers in the place of all linear ones; on a GPU."""
    import bitsandbytes

    for name, child in list(module.named_children()):
        if isinstance(child, torch.nn.Linear):
            weight, bias = child.weight, child.bias
            layer = bitsandbytes.nn.Linear4bit(
                child.in_features, child.out_features, bias is not None, compute_dtype=dtype, quant_type="nf4"
            )
            layer.weight = bitsandbytes.nn.Params4bit(weight.data.cpu(), requires_grad=False, quant_type="nf4")
            layer.bias = bias
            setattr(module, name, layer.to(weight.device))
        else:
            quantise(child, dtype)


def text_config(size: Size) -> dict[str, Any]:
    """What both families' language models share."""
    return {
        "vocab_size": size.vocabulary, "hidden_size": size.hidden, "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers, "num_attention_heads": size.heads, "num_key_value_heads": size.kv_heads,
        "max_position_embeddings": 32768, "tie_word_embeddings": size.tied,
    }  # fmt: skip


def qwen3vl_config(size: Size, tokenizer: Any) -> Any:
    """Heads of 128 as in the real models, or smaller ones; M-RoPE sections sum to half a head."""
    head = 128 if size.hidden >= 2560 else size.hidden // size.heads
    hidden, intermediate, layers, heads = size.vision
    sections = [head // 2 - 2 * (head * 5 // 32), head * 5 // 32, head * 5 // 32]
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True, "mrope_section": sections}
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
           for name, token in (("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"),
                               ("vision_end", "vision_end"))}  # fmt: skip
    return transformers.Qwen3VLConfig(
        text_config=text_config(size) | {"head_dim": head, "rope_parameters": rope},
        vision_config={
            "depth": layers, "hidden_size": hidden, "intermediate_size": intermediate, "num_heads": heads,
            "patch_size": 16, "out_hidden_size": size.hidden, "num_position_embeddings": 2304,
            "spatial_merge_size": 2, "deepstack_visual_indexes": [layers // 4, layers // 2],
        },
        tie_word_embeddings=size.tied, **ids,
    )  # fmt: skip


def internvl3_config(size: Size, tokenizer: Any) -> Any:
    """One tile per image."""
    hidden, intermediate, layers, heads = size.vision
    return transformers.InternVLConfig(
        text_config=text_config(size)
        | {"model_type": "qwen2", "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        vision_config={
            "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "intermediate_size": intermediate, "image_size": [size.side] * 2, "patch_size": [14, 14],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=(size.side // 14) ** 2 // 4, tie_word_embeddings=size.tied,
    )  # fmt: skip


def make_batch(size: Size, tokenizer: Any, boxes: int, records: int) -> dict[str, torch.Tensor]:
    """Random images, a question, and answers with `boxes` boxes each; padded on the right."""
    rng = np.random.default_rng(0)
    qwen = size.family == "qwen3vl"
    patches = size.side // (16 if qwen else 14)
    start, image_token, end = (
        ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>") if qwen else ("<img>", "<IMG_CONTEXT>", "</img>")
    )
    ids, labels = [], []
    for _ in range(records):
        corners = np.sort(rng.integers(0, 1001, (boxes, 2, 2)), axis=1).reshape(boxes, 4).astype(float)
        answer = tokenizer.encode(format_boxes(corners, ["lesion"] * boxes, "json", Frame.NORM1000) + "<|im_end|>")
        question = f"<|im_start|>user\n{start}{image_token * (patches**2 // 4)}{end}\nFind every lesion.<|im_end|>\n"
        prompt = tokenizer.encode(question + "<|im_start|>assistant\n")
        ids.append(prompt + answer)
        labels.append([-100] * len(prompt) + answer)
    length = max(map(len, ids))
    padded = torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in ids])
    batch = {
        "input_ids": padded,
        "labels": torch.tensor([row + [-100] * (length - len(row)) for row in labels]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids]),
    }
    if not qwen:
        return batch | {"pixel_values": torch.randn(records, 3, size.side, size.side)}
    image = padded == tokenizer.convert_tokens_to_ids(image_token)
    return batch | {
        "pixel_values": torch.randn(records * patches**2, 3 * 2 * 16 * 16),
        "image_grid_thw": torch.tensor([[1, patches, patches]] * records),
        "mm_token_type_ids": image.long(),
    }
