"""How many questions a GPU's memory holds at a time, by a formula; a batch that does not fit after all is halved.

Per token of prompt and answer: keys and values of every layer, and what one layer computes for it while the prompt is
read. An image token is made of four patches, which pass the vision tower first. Per question: the logits of a token.
"""

from __future__ import annotations

from typing import Any

import torch

MOST = 64  # decoding one token reads all weights, whatever the batch: beyond this there is little to gain
_SHARE = 0.8  # of the memory; the allocator leaves gaps, and prompts are estimated


def bytes_per_token(config: Any, itemsize: int) -> int:
    """Bytes that a token of prompt or answer takes while its question is answered.

    Args:
        config: transformers' config of the model, text and vision.
        itemsize: Bytes of a number, 2 in 16 bits.
    """
    text, vision = config.get_text_config(), config.vision_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * head
    language = 6 * text.hidden_size + 3 * text.intermediate_size
    patches = 4 * (6 * vision.hidden_size + 3 * vision.intermediate_size)
    return int(cache + max(language, patches)) * itemsize


def questions_at_once(model: Any, tokens: int) -> int | None:
    """How many questions of so many tokens, answer included, a loaded model takes at a time; None without a GPU.

    It follows from the card and the model, not from what else runs there, so that a run that goes on makes the same
    batches.
    """
    if model.device.type != "cuda":
        return None
    total = torch.cuda.get_device_properties(model.device).total_memory
    return fitting(_SHARE * total - torch.cuda.memory_allocated(model.device), model.config, model.dtype, tokens)


def fitting(free: float, config: Any, dtype: torch.dtype, tokens: int) -> int:
    """How many questions of so many tokens `free` bytes hold, from 1 to `MOST`."""
    logits = config.get_text_config().vocab_size * 3 * 4  # in 32 bits, and copies while the next token is chosen
    return max(1, min(MOST, int(free / (tokens * bytes_per_token(config, dtype.itemsize) + logits))))
