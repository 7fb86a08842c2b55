"""Loads a base model with all its adapters beside it, as LLaMA-Factory does, and every adapter whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from llamafactory.data import get_template_and_fix_tokenizer
from llamafactory.hparams import get_infer_args
from llamafactory.model import load_model, load_tokenizer
from peft import PeftModel
from transformers import GenerationConfig

from medvl.errors import UsageError
from medvl.factory.checks.adapter_fit import naming, nonfinite, unloaded
from medvl.predict.setup import Setup, check_base
from medvl.weights import why_broken


@dataclass(frozen=True)
class Loaded:
    """What was loaded.

    Attributes:
        tokenizer: The model's, padding on the left.
        processor: The model's, with LLaMA-Factory's settings.
        template: LLaMA-Factory's, fixed for the tokenizer.
        model: The base model, inside PEFT's where there are adapters; not to be trained.
        names: Name of each adapter -> PEFT's name of it.
    """

    tokenizer: Any
    processor: Any
    template: Any
    model: Any
    names: dict[str, str]


def load(setup: Setup) -> Loaded:
    """The base model with its adapters.

    Raises:
        UsageError: a model without image processor; weights that are no numbers; or an adapter that was trained on
            another model, or is not loaded whole.
    """
    for adapter_spec in setup.adapters.values():
        if adapter_spec.folder is not None and (bad := nonfinite(adapter_spec.folder)):
            raise UsageError(bad)
    model_args, data_args, finetuning_args, _ = get_infer_args(_arguments(setup))
    tokenizer, processor = itemgetter("tokenizer", "processor")(load_tokenizer(model_args))
    if getattr(processor, "image_processor", None) is None:
        raise UsageError(
            f"{setup.model} cannot be loaded: no image processor; InternVL3 needs a checkpoint whose name ends in -hf"
        )
    tokenizer.padding_side = "left"
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    base = load_model(tokenizer, model_args, finetuning_args, is_trainable=False)
    _leave_unpacked(base)
    # The config of a hub's model is there by now.
    check_base({name: adapter_spec.card for name, adapter_spec in setup.adapters.items()}, setup.model)
    if broken := why_broken(base):
        raise UsageError(f"{setup.model}: {broken}")
    # A checkpoint's own settings would make greedy answers stray: repetition penalties, forced tokens.
    base.generation_config = GenerationConfig()
    model, names = _with_adapters(base, setup, model_args.compute_dtype)
    return Loaded(tokenizer, processor, template, model, names)


def _leave_unpacked(model: torch.nn.Module) -> None:
    """Keep bitsandbytes 0.50 from packing layers for a CPU's AVX512-BF16 that have no whole blocks, where it fails.

    Qwen3-VL-8B's vision tower has such: 4,304 is no multiple of 64.
    """
    for layer in model.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False) and (layer.out_features % 32 or layer.in_features % 64):
            layer.support_avx512bf16_for_cpu = False


def _arguments(setup: Setup) -> dict[str, Any]:
    quantization, base = setup.quantization, setup.base
    arguments = {
        "model_name_or_path": setup.model,
        "template": setup.template,
        # Every question brings its system prompt; an empty one must stay empty.
        "default_system": "",
        "image_max_pixels": base.image_max_pixels,
        "image_min_pixels": base.image_min_pixels,
        "crop_to_patches": base.crop_to_patches,
        "infer_dtype": setup.dtype,
        "trust_remote_code": False,
    }
    if setup.enable_thinking is not None:
        arguments["enable_thinking"] = setup.enable_thinking
    if quantization.bit is not None:
        arguments |= {
            "quantization_bit": quantization.bit,
            "quantization_method": quantization.method,
            "quantization_type": quantization.type,
            "double_quantization": quantization.double_quantization,
        }
    return arguments


def _with_adapters(base: Any, setup: Setup, dtype: torch.dtype) -> tuple[Any, dict[str, str]]:
    """The model, and PEFT's names of the adapters: module names, in which a dot cannot stand.

    Adapters compute in `dtype`, as they did in training under autocast; PEFT loads them in 32 bits.
    """
    names = {name: f"adapter_{place}" for place, name in enumerate(setup.adapters)}
    model = base
    for name, adapter_spec in setup.adapters.items():
        with naming(adapter_spec.folder or name):
            if model is base:
                model = PeftModel.from_pretrained(base, str(adapter_spec.folder), adapter_name=names[name])
            else:
                model.load_adapter(str(adapter_spec.folder), adapter_name=names[name])
        if adapter_spec.folder is not None and (lost := unloaded(model, adapter_spec.folder, names[name])):
            raise UsageError(lost)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)
    model.requires_grad_(False)
    return model.eval(), names
