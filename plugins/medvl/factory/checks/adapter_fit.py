"""Whether an adapter fits the model it is put on, wherever one is loaded: prediction, serving, `export`, `do_predict`.

PEFT loads what fits and passes over the rest: with other names of modules nothing is loaded, with equal shapes an
adapter goes onto the model of another family, and the answers look like answers. Importable without torch.

Needs of LLaMA-Factory: `load_model` of `llamafactory.model.loader`, called with tokenizer, model and finetuning
arguments, and the name `PeftModel` of `llamafactory.model.adapter`, looked up there at call time.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medvl.factory.checks.folders import adapter_beside
from medvl.factory.fingerprints import base_model
from medvl.factory.run_card import RunCard, find_run_card
from medvl.wording import listed

_BUDGET = ("image_max_pixels", "image_min_pixels", "crop_to_patches")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SHOWN = 3

log = logging.getLogger("medvl")


def other_base(card: RunCard, model: str, merged: Sequence[str] = ()) -> str | None:
    """Why `model` is not what an adapter with this run card was trained on; None where it may be.

    Their config.json decides, whatever the names; of two names on a hub, the names where a config is not known.

    Args:
        card: The adapter's.
        model: Folder or hub name of the model.
        merged: Adapters that are merged into the model before this one is put on it.
    """
    config, _ = base_model(model, "main")
    stated, name, below = card.model.config_sha256, card.model.name_or_path, _below(card)
    if below and list(map(_place, below)) != list(map(_place, merged)):
        if config is None or config != stated:  # the merged model has a config of its own, which no card knows
            return None
        return f"trained on {name} with {', '.join(below)} merged into it; merge that first, and put it on the result"
    if config and stated:
        if config == stated:
            return None
        return (
            f"trained on {name}, whose config.json differs from that of {model}; put it on the model it was trained "
            "on, or put that config.json back where only the file was written anew"
        )
    on_hub = all(_HUB_NAME.fullmatch(each) and not Path(each).exists() for each in (name, model))
    return f"trained on {name}, not on {model}; put it on that model" if on_hub and name != model else None


def _below(card: RunCard) -> list[str]:
    """Adapters that LLaMA-Factory merged into the base before it trained this one; the last of a list is trained on."""
    named = card.model.adapters
    return named if card.recipe.get("create_new_adapter") else named[:-1]


def _place(name: str) -> str:
    return str(Path(name).resolve())


def unloaded(model: Any, folder: Path, adapter: str = "default") -> str | None:
    """What PEFT passed over when it loaded the adapter from `folder`; None where each tensor has its place.

    Args:
        model: PEFT's model with the adapter. Its weights are read once more: only then PEFT tells.
        folder: The adapter's.
        adapter: PEFT's name of it.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    # As PEFT itself reads it: names of modules that a checkpoint had before.
    renamed = getattr(model.get_base_model(), "_checkpoint_conversion_mapping", {})
    weights = load_peft_weights(str(folder), device="cpu", key_mapping=renamed)
    result = set_peft_model_state_dict(model, weights, adapter_name=adapter)
    homeless = sorted(result.unexpected_keys)
    empty = sorted(key for key in result.missing_keys if adapter in key.split("."))
    parts = [
        f"{len(names)} {what} ({listed(names, _SHOWN)})"
        for names, what in ((homeless, "of its tensors have no place in the model"), (empty, "places got no tensor"))
        if names
    ]
    return f"{folder}: the adapter does not fit: {'; '.join(parts)}; put it on its own model" if parts else None


@contextlib.contextmanager
def naming(folder: str | Path) -> Iterator[None]:
    """Around PEFT's loading: ValueError that names the adapter's folder where its tensors have other shapes."""
    try:
        yield
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        shapes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        more = f" (and {len(shapes) - 1} more)" if len(shapes) > 1 else ""
        raise ValueError(
            f"{folder}: the adapter does not fit: {shapes[0].rstrip('.')}{more}; put it on its own model"
        ) from error


def nonfinite(folder: Path) -> str | None:
    """Why an adapter cannot be used: weights that are NaN or infinite; else None.

    Raises:
        ValueError: a damaged file.
    """
    from medvl.weights import no_numbers, nonfinite_tensors

    names = nonfinite_tensors(folder)
    return f"{folder}: {no_numbers(names)}; train it again, or take a checkpoint before" if names else None


def without_adapter(model: Any) -> Any:
    """The model inside a LoRA adapter; a model without one as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def extend_loader(loader: Any) -> None:
    """Check adapters before LLaMA-Factory loads them, and models after; AttributeError for a name kept elsewhere."""
    from medvl.weights import why_broken

    adapter = sys.modules["llamafactory.model.adapter"]
    load, peft_model = loader.load_model, adapter.PeftModel
    if hasattr(load, "checks_adapters"):
        return

    @functools.wraps(load)
    def checked(tokenizer: Any, model_args: Any, finetuning_args: Any, *rest: Any, **options: Any) -> Any:
        if wrong := list(problems(model_args)):
            raise ValueError("\n".join(wrong))
        trains = options.get("is_trainable", rest[0] if rest else False)
        for note in () if trains or model_args.export_dir else budget_notes(model_args):
            log.warning(note)
        model = load(tokenizer, model_args, finetuning_args, *rest, **options)
        if not trains and (broken := why_broken(model)):  # training says so at its first step, with more
            raise ValueError(f"{model_args.model_name_or_path}: {broken}")
        return model

    class CheckedPeftModel(peft_model):  # type: ignore[misc, valid-type]
        """PEFT's model, loaded whole or not at all."""

        @classmethod
        def from_pretrained(cls, model: Any, model_id: Any, *args: Any, **options: Any) -> Any:
            """As PEFT; ValueError for a local adapter of which PEFT would pass over a part."""
            folder = Path(model_id, options.get("subfolder") or "")
            with naming(folder):
                loaded = peft_model.from_pretrained(model, model_id, *args, **options)
            if folder.is_dir() and (lost := unloaded(loaded, folder)):
                raise ValueError(lost)
            return loaded

    checked.checks_adapters = True  # type: ignore[attr-defined]
    adapter.PeftModel = CheckedPeftModel  # type: ignore[attr-defined]
    for name, module in list(sys.modules.items()):  # those that took it from the loader already
        if name.startswith("llamafactory.") and getattr(module, "load_model", None) is load:
            module.load_model = checked  # type: ignore[attr-defined]


def problems(model_args: Any) -> Iterator[str]:
    """Why LLaMA-Factory should not load what these arguments name, one sentence each."""
    folders, model = _adapters(model_args), model_args.model_name_or_path
    if beside := adapter_beside(model):
        yield beside
    for count, folder in enumerate(folders):
        card = find_run_card(folder)
        if card and (other := other_base(card, model, list(map(str, folders[:count])))):
            yield f"{folder}: {other}"
        if bad := nonfinite(folder):
            yield bad


def budget_notes(model_args: Any) -> Iterator[str]:
    """Where the arguments ask otherwise than the run cards of model and adapters say they were trained."""
    for folder in _adapters(model_args) or [Path(model_args.model_name_or_path)]:
        if (card := find_run_card(folder)) is None:
            continue
        trained = {key: getattr(card.vision, key) for key in _BUDGET} | {"quantization_bit": card.quantization.bit}
        differs = [key for key, value in trained.items() if getattr(model_args, key) != value]
        if differs:
            asked = ", ".join(f"{key} {getattr(model_args, key)}" for key in differs)
            cure = ", ".join(f"{key}: {'null' if trained[key] is None else trained[key]}".lower() for key in differs)
            yield f"{folder} is asked with {asked}; its run card says {cure}: write that into the recipe"


def _adapters(model_args: Any) -> Sequence[Path]:
    """The adapters that are folders here; others come from a hub."""
    names = model_args.adapter_name_or_path or []
    folders = [Path(name, model_args.adapter_folder or "") for name in names]
    return [folder for folder in folders if folder.is_dir()]
