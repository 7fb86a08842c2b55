"""Control tokens of both families: text that a tokenizer turns into something else than text.

A question with `<|image_pad|>` or `<IMG_CONTEXT>` in it claims an image place that no image fills, and one with
`<|im_end|>` ends its turn. Such text is refused by name wherever text comes in: conversion, prediction, serving.
"""

import json
import re
from functools import lru_cache
from pathlib import Path

# Special tokens of the published tokenizers (`special: true` in tokenizer.json).
_QWEN3_VL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
    *("<|quad_start|>", "<|quad_end|>"),
)
_INTERNVL3 = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")

KNOWN = frozenset((*_QWEN3_VL, *_INTERNVL3))
# What box answers are written with; harmless where a box style puts it (`box_text`), and a control token elsewhere.
BOX_MARKUP = frozenset(
    token for token in KNOWN if re.fullmatch(r"</?(ref|box|quad)>|<\|(object_ref|box|quad)_\w+\|>", token)
)


def control_tokens(text: str, known: frozenset[str] = KNOWN) -> list[str]:
    """The control tokens in a text, each once, in order of appearance. Case counts: `<IMG>` is text.

    Args:
        text: A question, answer or label.
        known: What to look for; `known_control_tokens(folder)` adds those of a checkpoint.
    """
    if "<" not in text and known is KNOWN:  # nearly every text
        return []
    return list(dict.fromkeys(_pattern(known).findall(text)))


@lru_cache(maxsize=16)
def _pattern(known: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(known, key=lambda token: (-len(token), token)))))


@lru_cache(maxsize=16)
def known_control_tokens(checkpoint: Path) -> frozenset[str]:
    """`KNOWN` and the special tokens that a checkpoint's `tokenizer.json` and `tokenizer_config.json` list.

    Raises:
        ValueError: one of the files is no JSON of the usual form.
    """
    found = set(KNOWN)
    for name, listed in (("tokenizer.json", _of_tokenizer), ("tokenizer_config.json", _of_config)):
        path = checkpoint / name
        if path.is_file():
            try:
                found.update(listed(json.loads(path.read_text(encoding="utf-8"))))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{path}: special tokens cannot be read ({error}); copy the file again") from error
    return frozenset(token for token in found if token.strip())


def _of_tokenizer(content: dict[str, list[dict[str, str]]]) -> list[str]:
    return [token["content"] for token in content.get("added_tokens") or [] if token.get("special")]


def _of_config(content: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    return [token["content"] for token in (content.get("added_tokens_decoder") or {}).values() if token.get("special")]
