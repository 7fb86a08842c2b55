"""Keys of a recipe that do nothing, because another key says so: LLaMA-Factory 0.9.5 trains without a word.

`double_quantization: true` without `quantization_bit` is the usual one: the recipe reads like QLoRA and trains in 16
bits. needs.py has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medvl.factory.checks.needs import FIRST_WINS, NEEDS, Need
from medvl.factory.recipe import Recipe


@dataclass(frozen=True)
class Unused:
    """Sentences about keys that do nothing: those that are refused under a medvl key, and those that are only said."""

    refused: list[str]
    said: list[str]


def unused_keys(recipe: Recipe) -> Unused:
    """What the recipe writes and nothing reads. Values that ask for nothing (false, 0, none, auto) are no request."""
    trains = bool(recipe.value("do_train"))
    found = Unused([], [])
    for need in NEEDS:
        if not (trains or need.always):
            continue
        idle = [key for key in dict.fromkeys(recipe.keys) if _named(key, need.keys) and recipe.asks(key)]
        if not idle or _met(need, recipe):
            continue
        on_purpose = need.switch in recipe.keys and (need.chosen or not recipe.asks(need.switch))
        for key in idle:
            sentence = f"{key}: does nothing without {need.cure}"
            (found.refused if need.refused and not on_purpose else found.said).append(sentence)
    if trains:
        for row in FIRST_WINS:
            first, *rest = [key for key in row if recipe.asks(key)] or [""]
            found.refused.extend(f"{key}: does nothing beside `{first}`; remove one of the two" for key in rest)
        found.refused.extend(_no_boxes_asked(recipe))
        found.said.extend(_tokenised_before(recipe))
    return Unused(list(dict.fromkeys(found.refused)), list(dict.fromkeys(found.said)))


def _named(key: str, names: tuple[str, ...]) -> bool:
    return key in names or any(name[-1] == "_" and key.startswith(name) for name in names)


def _met(need: Need, recipe: Recipe) -> bool:
    try:
        return need.met(recipe)
    except TypeError:  # a number written as text, or null; whoever reads it says so
        return True


def _no_boxes_asked(recipe: Recipe) -> list[str]:
    """A metric of generated boxes where none are generated; transformers fails at the first evaluation."""
    metric = recipe.value("metric_for_best_model")
    asked = recipe.value("use_grounding_loss") and recipe.value("grounding_eval_steps")
    if asked or not recipe.asks("metric_for_best_model") or "boxes_" not in str(metric):
        return []
    return [f"metric_for_best_model: `{metric}` is there only with `use_grounding_loss` and `grounding_eval_steps`"]


def _tokenised_before(recipe: Recipe) -> list[str]:
    """Keys that are not read since the rows come from `tokenized_path`."""
    folder = recipe.value("tokenized_path")
    if not folder or not Path(folder).is_dir() or not any(Path(folder).iterdir()):
        return []
    keys = ("dataset", "eval_dataset", "cutoff_len", "default_system", "max_samples", "val_size", "mix_strategy")
    idle = ", ".join(key for key in keys if recipe.asks(key))
    return [f"{idle}: not read, the rows come from `tokenized_path` as they were written to {folder}"] if idle else []
