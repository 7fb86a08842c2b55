"""Tiny randomly initialised Qwen3-VL and InternVL3 (`-hf` format) checkpoints, built without a network.

    python -m medvl.demo.checkpoints qwen3vl OUT --scale micro
    python -m medvl.demo.checkpoints qwen3vl OUT --scale demo --corpus data/demo/records/demo_all_train.json

`micro` is for tests: it loads, trains and predicts, nothing more. `demo` is shaped so that it learns the drawn
images of `medvl.demo.images` within minutes on two CPU cores. Both are ordinary folders of the real model classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import transformers

from medvl.demo.tokenizer import INTERN_CHAT, QWEN_CHAT, default_corpus, internvl3_tokenizer, qwen3_tokenizer
from medvl.sharegpt import read_records

Family = Literal["qwen3vl", "internvl3"]
Scale = Literal["micro", "demo"]


@dataclass(frozen=True)
class Shape:
    """Sizes of one checkpoint; `side` and `patch` in pixels.

    `std` is the spread of the initial weights, `embedding_std` that of token and image-position embeddings.
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    vision_hidden: int
    vision_layers: int
    vision_heads: int
    patch: int
    merge: int
    side: int
    std: float
    embedding_std: float


SHAPES: dict[tuple[Family, Scale], Shape] = {
    ("qwen3vl", "micro"): Shape(768, 64, 2, 4, 32, 2, 2, patch=16, merge=2, side=256, std=0.02, embedding_std=0.02),
    ("internvl3", "micro"): Shape(768, 64, 2, 4, 32, 2, 2, patch=14, merge=2, side=56, std=0.02, embedding_std=0.02),
    ("qwen3vl", "demo"): Shape(768, 128, 3, 4, 48, 2, 4, patch=8, merge=2, side=64, std=0.05, embedding_std=0.5),
    ("internvl3", "demo"): Shape(768, 128, 3, 4, 96, 2, 4, patch=8, merge=2, side=64, std=0.05, embedding_std=0.5),
}


def build_checkpoint(
    family: Family, out: Path, *, scale: Scale = "micro", corpus: Iterable[str] | None = None, seed: int = 0
) -> Path:
    """Write a checkpoint folder that `AutoProcessor` and `AutoModelForImageTextToText` load, and return it.

    The tokenizer is trained on `corpus` (default: sentences in the project's own formats); every digit stays one token.
    Same arguments, same bytes. The caller's random state is left as it was.
    """
    shape = SHAPES[family, scale]
    texts = default_corpus(seed) if corpus is None else corpus
    build = {"qwen3vl": _qwen3vl, "internvl3": _internvl3}[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor, tokenizer = build(shape, texts)
        _spread_embeddings(model, shape.embedding_std)
    generation = model.generation_config
    generation.eos_token_id, generation.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.config.text_config.eos_token_id = tokenizer.eos_token_id
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.float32).save_pretrained(out)
    processor.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def _spread_embeddings(model: Any, std: float) -> None:
    """Redraw the token and image-position embeddings.

    The libraries start positions at nearly nothing beside the patches (InternVL: at zero) because real weights are
    loaded over them; a model that starts here would need most of its few steps to find out where things are.
    """
    vision = (
        model.model.visual.pos_embed.weight
        if hasattr(model.model, "visual")
        else (model.model.vision_tower.embeddings.position_embeddings)
    )
    for weight in (model.get_input_embeddings().weight, vision):
        torch.nn.init.normal_(weight, std=std)


def _qwen3vl(shape: Shape, corpus: Iterable[str]) -> tuple[Any, Any, Any]:
    tokenizer = qwen3_tokenizer(corpus, shape.vocabulary)
    normalise = {
        "size": {"shortest_edge": (shape.merge * shape.patch) ** 2, "longest_edge": shape.side**2},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "patch_size": shape.patch,
        "temporal_patch_size": 2,
        "merge_size": shape.merge,
    }
    processor = transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(**normalise),
        tokenizer,
        transformers.Qwen3VLVideoProcessor(**normalise),
        chat_template=QWEN_CHAT,
    )
    head_dim = shape.hidden // shape.heads
    # Time, height and width share a head's rotary frequencies 2:1:1 as in the real models; they must sum to half of it.
    section = [head_dim // 4, head_dim // 8, head_dim // 8]
    config = transformers.Qwen3VLConfig(
        text_config={
            **_text_sizes(shape, len(tokenizer)),
            "head_dim": head_dim,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_interleaved": True,
                "mrope_section": section,
            },
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_hidden,
            "intermediate_size": 2 * shape.vision_hidden,
            "num_heads": shape.vision_heads,
            "patch_size": shape.patch,
            "out_hidden_size": shape.hidden,
            "num_position_embeddings": (shape.side // shape.patch) ** 2,
            "spatial_merge_size": shape.merge,
            "deepstack_visual_indexes": list(range(shape.vision_layers)),
            "initializer_range": shape.std,
        },
        **{
            f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
            for name, token in (
                ("image", "image_pad"),
                ("video", "video_pad"),
                ("vision_start", "vision_start"),
                ("vision_end", "vision_end"),
            )
        },
        tie_word_embeddings=False,
    )
    return transformers.Qwen3VLForConditionalGeneration(config), processor, tokenizer


def _internvl3(shape: Shape, corpus: Iterable[str]) -> tuple[Any, Any, Any]:
    tokenizer = internvl3_tokenizer(corpus, shape.vocabulary)
    normalise = {
        "size": {"height": shape.side, "width": shape.side},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    # Pixel shuffle merges 2 x 2 patches; the number stands in the config and in the processor and must agree.
    tokens = (shape.side // shape.patch) ** 2 // 4
    processor = transformers.InternVLProcessor(
        transformers.GotOcr2ImageProcessor(crop_to_patches=False, min_patches=1, max_patches=12, **normalise),
        tokenizer,
        transformers.InternVLVideoProcessor(**normalise),
        image_seq_length=tokens,
        chat_template=INTERN_CHAT,
    )
    config = transformers.InternVLConfig(
        text_config={
            "model_type": "qwen2",
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            **_text_sizes(shape, len(tokenizer)),
        },
        vision_config={
            "hidden_size": shape.vision_hidden,
            "num_hidden_layers": shape.vision_layers,
            "num_attention_heads": shape.vision_heads,
            "intermediate_size": 2 * shape.vision_hidden,
            "image_size": [shape.side, shape.side],
            "patch_size": [shape.patch, shape.patch],
            "initializer_range": shape.std,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=tokens,
        tie_word_embeddings=False,
    )
    return transformers.InternVLForConditionalGeneration(config), processor, tokenizer


def _text_sizes(shape: Shape, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": 2 * shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads // 2,
        "max_position_embeddings": 4096,
        "initializer_range": shape.std,
        "tie_word_embeddings": False,
    }


def _record_texts(path: Path) -> list[str]:
    return [text for record in read_records(path) for text in (record.question, record.target)]


def main() -> None:
    """Build one checkpoint from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=get_args(Family))
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", choices=get_args(Scale), default="micro")
    parser.add_argument("--corpus", type=Path, help="file of records to train the tokenizer on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    corpus = _record_texts(arguments.corpus) if arguments.corpus else None
    build_checkpoint(arguments.family, arguments.out, scale=arguments.scale, corpus=corpus, seed=arguments.seed)


if __name__ == "__main__":
    main()
