"""LoRA adapters that each answer every question with one letter of their own, so that an answer tells who gave it.

Weights are set by hand, nothing is trained. In a micro checkpoint the first number of every token's embedding is made
large, and the second one of letters: whatever is asked, the last layer then sees "some token" or "a letter". An adapter
of rank 2 on the output layer turns the first into its letter and the second into the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoTokenizer

from medvl.demo.checkpoints import Family, build_checkpoint

_LARGE = 10.0  # beside embeddings that spread by 0.02


def build_marked(family: Family, out: Path, letters: Mapping[str, str], *, endless: bool = False) -> Path:
    """Write `out`/base, a micro checkpoint, and `out`/adapters/NAME for every name, and return `out`.

    Args:
        family: Family of the checkpoint.
        out: Folder.
        letters: Adapter name -> the letter it says.
        endless: Whether it goes on saying it as long as it may.
    """
    base = build_checkpoint(family, out / "base", scale="micro")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForImageTextToText.from_pretrained(base)
    token_of = {letter: tokenizer.encode(letter, add_special_tokens=False)[0] for letter in letters.values()}
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings[:, 0] = _LARGE
        embeddings[list(token_of.values()), 1] = _LARGE
    model.save_pretrained(base)
    adapted = None
    for name, letter in letters.items():
        config = LoraConfig(r=2, lora_alpha=2, target_modules=["lm_head"], task_type="CAUSAL_LM")
        if adapted is None:
            adapted = get_peft_model(model, config, adapter_name=name)
        else:
            adapted.add_adapter(name, config)
        layer = adapted.base_model.model.lm_head
        into, back = torch.zeros(2, layer.in_features), torch.zeros(layer.out_features, 2)
        into[0, 0] = into[1, 1] = 1.0
        back[token_of[letter], 0] = _LARGE
        back[tokenizer.eos_token_id, 1] = 0.0 if endless else _LARGE**2
        layer.lora_A[name].weight.data, layer.lora_B[name].weight.data = into, back
        adapted.save_pretrained(out / "adapters", selected_adapters=[name], save_embedding_layers=False)
    return out
