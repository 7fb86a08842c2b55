#!/usr/bin/env python
"""Checkpoints of true size with random weights, and LoRA adapters for them; no network.

    python benchmarks/gpu/checkpoints.py internvl3-8b /tmp/bench/internvl3-8b [--tokenizer tokenizer.json[.gz]]

Without --tokenizer texts have more tokens than with the real one: its small BPE is trained on the spot.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins"), str(ROOT / "benchmarks")]

import torch  # noqa: E402
import transformers  # noqa: E402
from grounding_models import SIZES, Size, internvl3_config, qwen3vl_config  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402

from medvl.demo import tokenizer as tokenizers  # noqa: E402

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def build(name: str, folder: Path, bpe: Path | None = None, adapters: Sequence[str] = ()) -> Path:
    """Write `folder`/base, and `folder`/adapters/NAME of ME-VLIP's shape (rank 8, all linear layers), unless there."""
    size = SIZES[name]
    tokenizer = tokenizer_of(size, bpe)
    base = folder / "base"
    model: Any = None
    if not (base / "done").exists():
        model = model_of(size, tokenizer)
        model.save_pretrained(base, max_shard_size="4GB")
        processor_of(size, tokenizer).save_pretrained(base)
        tokenizer.save_pretrained(base)
        (base / "done").touch()
    missing = [it for it in adapters if not (folder / "adapters" / it / "adapter_config.json").exists()]
    if missing:
        with torch.device("meta"):  # an adapter needs the names and shapes alone
            model = transformers.AutoModelForImageTextToText.from_config(config_of(size, tokenizer))
        for it in missing:
            write_adapter(model, folder / "adapters", it)
    return base


def tokenizer_of(size: Size, bpe: Path | None) -> Any:
    """The family's tokenizer, with a published BPE or one trained on the spot."""
    learnt = tokenizers.read_bpe(bpe) if bpe else tokenizers.train_bpe(tokenizers.default_corpus(0), 768)
    family = tokenizers.qwen3_tokenizer_of if size.family == "qwen3vl" else tokenizers.internvl3_tokenizer_of
    return family(learnt)


def config_of(size: Size, tokenizer: Any) -> Any:
    """The family's config; with room for the tokenizer's last token."""
    size = replace(size, vocabulary=max(size.vocabulary, len(tokenizer)))
    config = (qwen3vl_config if size.family == "qwen3vl" else internvl3_config)(size, tokenizer)
    config.get_text_config().eos_token_id = tokenizer.eos_token_id
    return config


def model_of(size: Size, tokenizer: Any) -> Any:
    """Random weights in 16 bits on the GPU, in 32 bits on a CPU."""
    cuda = torch.cuda.is_available()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if cuda else torch.float32)
    with torch.device("cuda" if cuda else "cpu"):
        model = transformers.AutoModelForImageTextToText.from_config(config_of(size, tokenizer))
    torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def processor_of(size: Size, tokenizer: Any) -> Any:
    """The family's processor, with the published sizes of images."""
    if size.family == "qwen3vl":
        limits = {"shortest_edge": 65536, "longest_edge": 16777216}
        shown = {
            "size": limits, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
            "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
        }  # fmt: skip
        images, videos = transformers.Qwen2VLImageProcessor(**shown), transformers.Qwen3VLVideoProcessor(**shown)
        return transformers.Qwen3VLProcessor(images, tokenizer, videos, chat_template=tokenizers.QWEN_CHAT)
    shown = {
        "size": {"height": size.side, "width": size.side},
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    return transformers.InternVLProcessor(
        transformers.GotOcr2ImageProcessor(crop_to_patches=False, min_patches=1, max_patches=12, **shown),
        tokenizer,
        transformers.InternVLVideoProcessor(**shown),
        image_seq_length=(size.side // 14) ** 2 // 4,
        chat_template=tokenizers.INTERN_CHAT,
    )


def write_adapter(model: Any, folder: Path, name: str) -> None:
    """A LoRA adapter whose weights are drawn, small enough that the model stays sane."""
    target = rf".*language_model.*\.({'|'.join(LINEAR)})"
    adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=target, task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(len(name))
    weights = {
        key.replace(".default", ""): torch.randn(weight.shape, generator=generator) * 0.01
        for key, weight in adapted.state_dict().items()
        if "lora_" in key
    }
    adapted.peft_config["default"].save_pretrained(folder / name)
    from safetensors.torch import save_file

    save_file(weights, folder / name / "adapter_model.safetensors", metadata={"format": "pt"})
    adapted.unload()


def main() -> None:
    """Build one from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--adapters", nargs="*", default=[])
    args = parser.parse_args()
    build(args.size, args.folder, args.tokenizer, args.adapters)


if __name__ == "__main__":
    main()
