"""Counts the parameters of a model from its config.json alone: its classes are built without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medvl.factory.checks.model import model_config
from medvl.fit.memory import Layers, Sizes

_STATES_8BIT = 2


def sizes_of(models: Any, tuning: Any, training: Any, deepspeed: Any) -> Sizes | None:
    """What the formula needs; None where the model has no config.json on this machine, or is of no known kind.

    Args:
        models: LLaMA-Factory's model arguments.
        tuning: Its fine-tuning arguments.
        training: Its training arguments.
        deepspeed: A DeepSpeed configuration, a file or its content; None without.
    """
    import torch
    from llamafactory.model.adapter import init_adapter
    from transformers import AutoConfig, AutoModelForImageTextToText

    content = model_config(models.model_name_or_path, models.model_revision, models.cache_dir)
    if content is None or "text_config" not in content:
        return None
    config = AutoConfig.for_model(**content)
    dtype = models.compute_dtype or torch.float32
    with torch.device("meta"):
        bare = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    head = bare.get_output_embeddings()
    linear = sum(m.weight.numel() for m in bare.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    total = sum(parameter.numel() for parameter in bare.parameters())
    if not models.adapter_name_or_path:
        bare = init_adapter(config, bare, models, tuning, is_trainable=True)
    trained = {name: weight.numel() for name, weight in bare.named_parameters() if weight.requires_grad}
    seen = [name for name in trained if "visual" in name or "vision" in name]
    text, vision = config.text_config, config.vision_config
    return Sizes(
        linear=linear,
        other=total - linear,
        trained=sum(trained.values()),
        adapted=tuning.finetuning_type == "lora",
        language=_layers(text),
        vision=_layers(vision) if seen else None,
        patches=4,  # both families merge 2 x 2
        vocabulary=text.vocab_size,
        size=torch.finfo(dtype).bits // 8,
        double=bool(models.double_quantization),
        states=_STATES_8BIT if "8bit" in str(training.optim) else 8,
        stage=_stage(deepspeed),
    )


def _layers(config: Any) -> Layers:
    heads = getattr(config, "num_attention_heads", None) or config.num_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    count = getattr(config, "num_hidden_layers", None) or config.depth
    return Layers(count, config.hidden_size, heads * width, config.intermediate_size)


def _stage(deepspeed: Any) -> int:
    """ZeRO's stage in a DeepSpeed configuration, a file or its content."""
    if not deepspeed:
        return 0
    content = deepspeed if isinstance(deepspeed, dict) else json.loads(Path(deepspeed).read_text(encoding="utf-8"))
    return int((content.get("zero_optimization") or {}).get("stage", 0))
