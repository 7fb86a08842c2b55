"""`--recipe` and `--processor`: the recipe to count for, and the control tokens of the checkpoint that it trains."""

import argparse
from pathlib import Path
from typing import Any

from medvl.control_tokens import KNOWN, known_control_tokens
from medvl.errors import UsageError
from medvl.yaml_files import read_yaml

RECIPE_MODEL = "the recipe's"  # value of --processor without one


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys of a recipe.

    Raises:
        UsageError: no such file, no YAML mapping, or no template in it.
    """
    try:
        recipe = read_yaml(path)
    except ValueError as error:
        raise UsageError(f"--recipe {error}") from error
    if not isinstance(recipe.get("template"), str):
        raise UsageError(f"--recipe {path}: expected a LLaMA-Factory recipe with a template")
    return recipe


def chosen_tokens(args: argparse.Namespace) -> frozenset[str]:
    """Text that must not stand in a record: the known control tokens, and those of `--recipe`.

    A recipe's are of the checkpoint that it names, or `--processor`, if that lies on this machine, and those it adds.
    As text they are not text: one claims the place of an image that is not there, another ends the turn.
    LLaMA-Factory's training then stops early without a word.

    Raises:
        UsageError: the recipe or a tokenizer file of the checkpoint cannot be read.
    """
    if args.recipe is None:
        return KNOWN
    recipe = read_recipe(args.recipe)
    asked = args.processor if args.processor not in (None, RECIPE_MODEL) else recipe.get("model_name_or_path", "")
    added = {token.strip() for token in str(recipe.get("add_special_tokens") or "").split(",")} - {""}
    try:
        folder = _folder(str(asked))
        return KNOWN | added | (known_control_tokens(folder) if folder else frozenset())
    except ValueError as error:
        raise UsageError(str(error)) from error


def _folder(checkpoint: str) -> Path | None:
    """Where a checkpoint's tokenizer lies: the folder itself, or in the cache of the hub; None if on neither."""
    if not checkpoint or Path(checkpoint).is_dir():
        return Path(checkpoint) if checkpoint else None
    from huggingface_hub import try_to_load_from_cache  # takes a while, and most runs name no recipe

    for name in ("tokenizer.json", "tokenizer_config.json"):
        try:
            cached = try_to_load_from_cache(checkpoint, name)
        except ValueError:  # no name that the hub could have
            return None
        if isinstance(cached, str):
            return Path(cached).parent
    return None
