"""Teaches LLaMA-Factory's recipe parser the medvl keys.

Needs these names of `llamafactory.hparams.parser`, looked up there at call time: `FinetuningArguments`, the lists
`_TRAIN_ARGS`, `_INFER_ARGS`, `_EVAL_ARGS`, `HfArgumentParser` and `read_args`.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from medvl.factory import hook
from medvl.factory.arguments import extend_arguments, requested_keys
from medvl.factory.checks.recipe import enabled, say, why_refused
from medvl.factory.checks.spelling import misspelt
from medvl.factory.recipe import KeyGroup, Recipe

ARGUMENT_LISTS = ("_TRAIN_ARGS", "_INFER_ARGS", "_EVAL_ARGS")
WORKFLOW = "llamafactory.train.sft.workflow"
ENGINE = "llamafactory.chat.hf_engine"


def extend_parser(parser: Any) -> None:
    """Swap FinetuningArguments for a subclass with the medvl keys, in training, `export`, `chat` and `api` alike.

    Raises AttributeError or RuntimeError, before anything is changed, when this LLaMA-Factory keeps a name elsewhere.
    """
    stock = parser.FinetuningArguments
    lists = [getattr(parser, name) for name in ARGUMENT_LISTS]
    if issubclass(parser.HfArgumentParser, RecipeParser):
        return
    if any(stock not in classes for classes in lists):
        raise RuntimeError(f"FinetuningArguments is not in {', '.join(ARGUMENT_LISTS)}")
    extended = extend_arguments(stock)
    # Those of other trainers too (USE_MCA=1), so that their runs refuse the keys instead of not knowing them.
    for classes in [known for known in vars(parser).values() if isinstance(known, list) and stock in known]:
        classes[classes.index(stock)] = extended
    parser.HfArgumentParser = RecipeParser
    parser.read_args = reads_json(getattr(parser, "read_args", None))


def reads_json(stock: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """`read_args` that can read a .json recipe, on which LLaMA-Factory 0.9.5 fails with an AttributeError."""
    if stock is None:
        return None

    def read_args(args: Any = None) -> Any:
        words = sys.argv[1:]
        if args is not None or not words or not words[0].endswith(".json"):
            return stock(args)
        return read_json_recipe(Path(words[0]), words[1:])

    return read_args


def read_json_recipe(file: Path, overrides: list[str]) -> Any:
    """The keys of a .json recipe, `key=value` words of the command line in place; ValueError for no JSON object."""
    from omegaconf import OmegaConf

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as a JSON recipe ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f'{file}: a recipe is an object, {{"key": value, …}}, not a {type(content).__name__}')
    return OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(content), OmegaConf.from_cli(overrides)))


class RecipeParser(HfArgumentParser):  # type: ignore[misc]
    """HfArgumentParser that remembers which keys the user wrote and refuses what could not be honoured.

    Parsers without the medvl keys (LLaMA-Factory also reads its Ray arguments this way) behave as before.
    """

    def parse_dict(self, args: dict[str, Any], allow_extra_keys: bool = False) -> tuple[Any, ...]:
        """As HfArgumentParser; ValueError for a medvl key that is misspelt or cannot be honoured.

        All of them are named at once. RuntimeError for a key that would be ignored.
        """
        wrong = self._misspelt(args)
        known = {key: value for key, value in args.items() if key not in wrong}
        parsed: tuple[Any, ...] = super().parse_dict(known, allow_extra_keys=allow_extra_keys)
        self._finish(parsed, args, wrong, allow_extra_keys)
        return parsed

    def parse_args_into_dataclasses(self, args: list[str] | None = None, *rest: Any, **options: Any) -> tuple[Any, ...]:
        """The same for keys given as `--key value`, where misspelt ones are told first."""
        keys = [word[2:].split("=", 1)[0].replace("-", "_") for word in args or [] if word.startswith("--")]
        if wrong := self._misspelt(keys):
            raise ValueError("\n".join(wrong.values()))
        parsed: tuple[Any, ...] = super().parse_args_into_dataclasses(args, *rest, **options)
        self._finish(parsed, keys, {}, enabled("ALLOW_EXTRA_ARGS"))
        return parsed

    def _misspelt(self, keys: Iterable[str]) -> dict[str, str]:
        ours = any(issubclass(known, KeyGroup) for known in self.dataclass_types)
        return misspelt(keys, self.dataclass_types) if ours else {}

    def _finish(self, parsed: tuple[Any, ...], keys: Iterable[str], wrong: dict[str, str], drops: bool) -> None:
        """drops: whether LLaMA-Factory ignores keys that it does not know."""
        for arguments in parsed:
            if not isinstance(arguments, KeyGroup):
                continue
            recipe = Recipe(tuple(keys), parsed)
            arguments.medvl_recipe = recipe  # type: ignore[attr-defined]
            requested = requested_keys(arguments)
            if found := [*wrong.values(), *why_refused(arguments, recipe, self.dataclass_types if drops else None)]:
                raise ValueError("\n".join(found))
            say(recipe, requested)
            if requested and recipe.is_training:
                require_extended(WORKFLOW, requested)
                # For `get_dataset`, which is not given the fine-tuning arguments.
                recipe.owner("cutoff_len").medvl_recipe = recipe
            elif "medvl_image_positions" in requested:
                require_extended(ENGINE, ["medvl_image_positions"])


def require_extended(module: str, requested: list[str]) -> None:
    """Raise RuntimeError when medvl could not extend the LLaMA-Factory module that acts on the requested keys."""
    importlib.import_module(module)
    hook.extend_loaded()
    if module not in hook.STATE.extended:
        reason = hook.STATE.failures.get(module, "the hook did not run")
        raise RuntimeError(
            f"The recipe asks for {', '.join(requested)}, but medvl could not extend {module} ({reason}). "
            "Install the LLaMA-Factory version that constraints.txt names, or remove the key; `medvl doctor` says more."
        )
