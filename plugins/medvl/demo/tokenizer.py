"""Byte-level BPE tokenizers trained on the spot, with the special tokens and chat templates of the real families.

What matters to the rest of the project is kept: every digit is one token, the special tokens come in the order of
the published checkpoints, and `special` is set on the same ones, so that prediction files look as with real models.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AddedToken, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

Bpe = tuple[dict[str, int], list[tuple[str, str]]]  # vocabulary and merges

CHAT_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_SPECIAL = [
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]
INTERN_SPECIAL = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
# Added but not special in the published tokenizers: decoding keeps them.
QWEN_PLAIN = [
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
]
QWEN3_PLAIN = ["<tool_response>", "</tool_response>", "<think>", "</think>"]

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ 'IMAGE' }}"
    "{% elif part['type'] == 'video' %}{{ 'VIDEO' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_CHAT = _CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>").replace(
    "VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"
)
INTERN_CHAT = _CHATML.replace("IMAGE", "<IMG_CONTEXT>\n").replace("VIDEO", "<video>\n")

_FINDINGS = ("fracture", "nodule", "effusion", "polyp", "lesion", "opacity", "cell", "mass")


def default_corpus(seed: int, sentences: int = 2000) -> Iterator[str]:
    """Medical questions and answers in all box styles, enough for a BPE that knows the project's formats."""
    rng = random.Random(seed)
    for _ in range(sentences):
        box, finding = [rng.randint(0, 1000) for _ in range(4)], rng.choice(_FINDINGS)
        yield from (
            f"Find every {finding} in this image and give its bounding box as JSON.",
            json.dumps([{"bbox_2d": box, "label": finding}], separators=(",", ":")),
            f"<ref>{finding}</ref><box>[{box}]</box>",
            f"How many {finding}s are there? {box[0]}",
            "Report: the lungs are clear. Which of the following options is correct? A: yes, B: no",
            "You are a helpful assistant.\nsystem user assistant",
        )


def train_bpe(corpus: Iterable[str], vocab_size: int) -> Bpe:
    """Vocabulary and merges of a byte-level BPE with Qwen2's own pre-tokenizer, which splits numbers into digits."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return dict(model["vocab"]), [(left, right) for left, right in model["merges"]]


def read_bpe(path: Path) -> Bpe:
    """The BPE of a published `tokenizer.json`, which may be compressed by gzip."""
    raw = path.read_bytes()
    model = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)["model"]
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    return dict(model["vocab"]), [(left, right) for left, right in pairs]


def qwen3_tokenizer(corpus: Iterable[str], vocab_size: int) -> Any:
    """`qwen3_tokenizer_of` a BPE trained on `corpus`."""
    return qwen3_tokenizer_of(train_bpe(corpus, vocab_size))


def internvl3_tokenizer(corpus: Iterable[str], vocab_size: int) -> Any:
    """`internvl3_tokenizer_of` a BPE trained on `corpus`."""
    return internvl3_tokenizer_of(train_bpe(corpus, vocab_size))


def qwen3_tokenizer_of(bpe: Bpe) -> Any:
    """A `Qwen2Tokenizer` with Qwen3-VL's special tokens and chat template."""
    tokenizer = Qwen2Tokenizer(
        vocab=bpe[0],
        merges=bpe[1],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[*CHAT_SPECIAL[1:], *QWEN_SPECIAL],
        model_max_length=262144,
    )
    _add_tokens(tokenizer, [*CHAT_SPECIAL, *QWEN_SPECIAL], [*QWEN_PLAIN, *QWEN3_PLAIN])
    tokenizer.chat_template = QWEN_CHAT
    return tokenizer


def internvl3_tokenizer_of(bpe: Bpe) -> Any:
    """A `Qwen2Tokenizer` with InternVL3's image tokens, special tokens and chat template."""
    tokenizer = Qwen2Tokenizer(
        vocab=bpe[0],
        merges=bpe[1],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "context_image_token": "<IMG_CONTEXT>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "video_token": "<video>",
        },
        model_max_length=8192,
    )
    special = [*QWEN_SPECIAL, *INTERN_SPECIAL]
    _add_tokens(tokenizer, [*CHAT_SPECIAL, *special], QWEN_PLAIN)
    # transformers' conversion script of the real weights lists these too, which is why LLaMA-Factory strips <ref> and
    # <box> from prediction files.
    extra = {"extra_special_tokens": [*CHAT_SPECIAL[1:], *special]}
    tokenizer.add_special_tokens(extra, replace_extra_special_tokens=False)
    tokenizer.chat_template = INTERN_CHAT
    return tokenizer


def _add_tokens(tokenizer: Any, special: list[str], plain: list[str]) -> None:
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in special], special_tokens=True)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
