"""What must fit the model: the template of its family, and keys that its kind of model never reads.

The checkpoint's config.json is looked up on this machine only. A model that is still to be downloaded is looked at
again when its tokenizer was loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medvl.factory.families import FAMILIES, THINKING, Family
from medvl.factory.recipe import Recipe

# Keys of a recipe -> what adapter_config.json calls them.
_ADAPTER_KEYS = {"lora_rank": "r"} | {key: key for key in ("lora_alpha", "lora_dropout", "use_dora", "use_rslora")}


def model_config(name_or_path: str, revision: str = "main", cache_dir: str | None = None) -> dict[str, Any] | None:
    """The checkpoint's config.json, from its folder or the Hugging Face cache; None where it is not on this machine."""
    file: Any = Path(name_or_path) / "config.json"
    if not file.is_file():
        if Path(name_or_path).is_absolute():
            return None
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            file = try_to_load_from_cache(name_or_path, "config.json", cache_dir=cache_dir, revision=revision)
        except HFValidationError:  # a folder that is not there; LLaMA-Factory says so
            return None
    return _read(Path(file)) if isinstance(file, str | Path) else None


def template_problems(recipe: Recipe, processor: Any = None) -> list[str]:
    """A sentence if the recipe's template is that of another family; LLaMA-Factory fails with an AttributeError.

    processor: of the model, once it is loaded.
    """
    loaded = type(processor).__name__
    by_processor = next((kind for kind, family in FAMILIES.items() if loaded == family.processor), None)
    kind = (_config(recipe) or {}).get("model_type") or by_processor
    family, template = FAMILIES.get(kind or ""), recipe.value("template")
    if family is None or template in family.templates or (template is None and not recipe.value("do_train")):
        return []
    return [
        f"template: `{template}` does not fit {recipe.value('model_name_or_path')}, which is of `model_type: {kind}`; "
        f"write `template: {family.templates[0]}`"
    ]


def unused_by_model(recipe: Recipe) -> list[str]:
    """Sentences about keys that do nothing with this model, or with the adapter that is trained on."""
    config = _config(recipe)
    found = [] if config is None else _of_config(recipe, config)
    if recipe.value("do_train") and recipe.asks("adapter_name_or_path") and not recipe.value("create_new_adapter"):
        found += _of_adapter(recipe, Path(recipe.value("adapter_name_or_path")[-1]))
    if recipe.word("flash_attn") == "fa2" and not _has_flash_attention():
        found.append("flash_attn: fa2 needs the package flash-attn and a GPU; write `flash_attn: auto`")
    return found


def _of_config(recipe: Recipe, config: dict[str, Any]) -> list[str]:
    kind = config.get("model_type")
    found = []
    if config.get("quantization_config") and recipe.asks("quantization_bit"):
        found.append("quantization_bit: does nothing, the checkpoint is quantised already; remove it")
    family = FAMILIES.get(kind or "")
    if family is None:
        return found
    if not family.tiled and recipe.asks("crop_to_patches"):
        found.append(f"crop_to_patches: does nothing for `{kind}`, only InternVL cuts images into tiles")
    if not family.pan_and_scan and recipe.asks("image_do_pan_and_scan"):
        found.append(f"image_do_pan_and_scan: does nothing for `{kind}`; remove it")
    if not recipe.value("do_train"):
        return found
    if recipe.asks("shift_attn"):
        found.append(f"shift_attn: does nothing for `{kind}`, LLaMA-Factory has it for LLaMA; remove it")
    text = (config.get("text_config") or {}).get("model_type")
    if recipe.asks("moe_aux_loss_coef") and text != "qwen3_moe":
        found.append(f"moe_aux_loss_coef: does nothing for `{kind}` with a `{text}` language model; remove it")
    if recipe.asks("enable_liger_kernel") and not family.fused_by_llamafactory:
        found += _unfused(recipe, family, kind)
    if recipe.value("template") not in THINKING:
        found += [
            f"{key}: does nothing with `template: {recipe.value('template')}`, which does not think; remove it"
            for key in ("enable_thinking", "preserve_thinking")
            if recipe.asks(key)
        ]
    return found


def _unfused(recipe: Recipe, family: Family, kind: str | None) -> list[str]:
    """Why medvl does not fuse a model that LLaMA-Factory leaves as it is."""
    if family.liger is None:
        return [f"enable_liger_kernel: does nothing for `{kind}`; remove it"]
    if recipe.asks("use_asft_loss"):
        return ["enable_liger_kernel: the ASFT loss needs the logits that are never built; remove one of the two"]
    return []


def _of_adapter(recipe: Recipe, adapter: Path) -> list[str]:
    """Training goes on with the adapter's own rank, scale and dropout, whatever the recipe says."""
    file = adapter / (recipe.value("adapter_folder") or "") / "adapter_config.json"
    there = _read(file) if file.is_file() else None
    if there is None:
        return []
    return [
        f"{key}: {recipe.value(key)} does nothing, the adapter {adapter} that is trained on has {there.get(name)}; "
        f"write that, or `create_new_adapter: true`"
        for key, name in _ADAPTER_KEYS.items()
        if key in recipe.keys and name in there and recipe.value(key) != there[name]
    ]


def _config(recipe: Recipe) -> dict[str, Any] | None:
    name = recipe.value("model_name_or_path")
    return model_config(name, recipe.value("model_revision"), recipe.value("cache_dir")) if name else None


def _has_flash_attention() -> bool:
    from transformers.utils import is_flash_attn_2_available, is_torch_npu_available

    return bool(is_flash_attn_2_available() or is_torch_npu_available())


def _read(file: Path) -> dict[str, Any] | None:
    """A JSON object; None for anything else, which transformers says better."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
