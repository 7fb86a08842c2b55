"""Everything that is looked at when LLaMA-Factory has parsed a recipe, before anything is loaded.

A recipe with a medvl key is refused with all reasons at once. One without runs as LLaMA-Factory runs it; keys of it
that do nothing are said.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from medvl.factory.arguments import problems, requested_keys
from medvl.factory.checks.folders import export_problems, model_problems
from medvl.factory.checks.model import template_problems, unused_by_model
from medvl.factory.checks.spelling import dropped
from medvl.factory.checks.unused_keys import unused_keys
from medvl.factory.recipe import Recipe

# Environment variables by which LLaMA-Factory hands a run to a trainer that knows nothing of medvl.
OTHER_TRAINERS = ("USE_MCA", "USE_MEGATRON_BRIDGE")


def why_refused(arguments: Any, recipe: Recipe, dropping: Iterable[type] | None) -> list[str]:
    """Sentences, one per reason; empty if the recipe can be honoured.

    Args:
        arguments: LLaMA-Factory's fine-tuning arguments with the medvl keys.
        recipe: The recipe they belong to.
        dropping: The argument classes of the parser, if it ignores keys that none of them has.
    """
    requested = requested_keys(arguments)
    found = problems(arguments) if recipe.is_training else export_problems(recipe)
    if not requested:
        return found
    found += template_problems(recipe) + model_problems(recipe)
    found += unused_keys(recipe).refused + unused_by_model(recipe)
    if recipe.is_training:
        found += dropped(recipe.keys, dropping) if dropping is not None else []
        found += [
            f"{', '.join(requested)}: {name}=1 hands the run to another trainer, which does not know them; unset it"
            for name in OTHER_TRAINERS
            if enabled(name)
        ]
    return found


def say(recipe: Recipe, requested: list[str]) -> None:
    """Log the keys that do nothing and are not refused; without a medvl key, nothing is refused."""
    from llamafactory.extras.logging import get_logger

    log, unused = get_logger("llamafactory.medvl"), unused_keys(recipe)
    for sentence in [*([] if requested else unused.refused), *unused.said]:
        log.warning_rank0(sentence)


def enabled(variable: str) -> bool:
    """Whether an environment variable is set, as LLaMA-Factory reads them."""
    return os.environ.get(variable, "0").lower() in ("true", "y", "1")
