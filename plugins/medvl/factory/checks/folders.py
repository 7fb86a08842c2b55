"""Folders that hold a whole model and an adapter: who loads one gets the adapter twice, or another base model.

transformers and peft decide by the presence of files. `export` with `export_dir` in the adapter's own folder writes
such a folder, and so does full fine-tuning into the output folder of a LoRA run.
"""

from __future__ import annotations

from pathlib import Path

from medvl.factory.recipe import Recipe

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_ADAPTER = (CONFIG, WEIGHTS, "adapter_model.bin")
_MODEL = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def holds_adapter(folder: Path) -> bool:
    """Whether files of an adapter lie directly in this folder."""
    return any((folder / name).is_file() for name in _ADAPTER)


def holds_model(folder: Path) -> bool:
    """Whether the weights of a whole model lie directly in this folder."""
    return any((folder / name).is_file() for name in _MODEL)


def adapter_beside(model: str) -> str | None:
    """Why a model's folder cannot be loaded: transformers puts the adapter in it on top, unasked; else None."""
    folder = Path(model)
    if not (folder / CONFIG).is_file():
        return None
    if not (folder / "config.json").is_file() and not holds_model(folder):
        return f"{folder}: an adapter, not a model; give it as the adapter, and the model that it was trained on"
    return (
        f"{folder}: the files of an adapter lie beside the model's. It would be put onto the model once more if it was "
        f"merged into it. Remove {CONFIG} and {WEIGHTS} from a merged model, or export it into a folder of its own"
    )


def export_problems(recipe: Recipe) -> list[str]:
    """Why a merged model cannot be written where `export_dir` says; empty where it can."""
    if not recipe.value("export_dir"):
        return []
    target = Path(recipe.value("export_dir"))
    adapters = _paths(recipe.value("adapter_name_or_path"))
    if any(_same(target, adapter) for adapter in adapters) or holds_adapter(target):
        return [
            f"export_dir: {target} holds an adapter, and a merged model beside it would be loaded with the adapter "
            "applied twice; export into a folder of its own"
        ]
    if adapters and any(_same(target, base) for base in _paths(recipe.value("model_name_or_path"))):
        return [f"export_dir: {target} is the base model, which would be lost; export into a folder of its own"]
    return []


def model_problems(recipe: Recipe) -> list[str]:
    """Why `model_name_or_path`, or the folder that training writes, would hold a model and an adapter."""
    beside = [adapter_beside(str(folder)) for folder in _paths(recipe.value("model_name_or_path"))]
    found = [f"model_name_or_path: {why}" for why in beside if why]
    if recipe.value("do_train") and recipe.value("output_dir"):
        folder, kind = Path(recipe.value("output_dir")), recipe.value("finetuning_type")
        adapter = kind in ("lora", "oft")
        if (holds_model if adapter else holds_adapter)(folder):
            there, here = ("a whole model", "an adapter") if adapter else ("an adapter", "a whole model")
            found.append(f"output_dir: {folder} holds {there}, and this run writes {here} beside it; name another one")
    return found


def _paths(value: str | list[str] | None) -> list[Path]:
    names = value.split(",") if isinstance(value, str) else value or []
    return [Path(name.strip()) for name in names]


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
