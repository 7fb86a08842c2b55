"""Teaches LLaMA-Factory's recipe parser the medvl keys.

Needs these names of `llamafactory.hparams.parser`, looked up there at call time: `FinetuningArguments`, the lists
`_TRAIN_ARGS`, `_INFER_ARGS`, `_EVAL_ARGS`, and `HfArgumentParser`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from transformers import HfArgumentParser

from medvl.factory import hook
from medvl.factory.arguments import KeyGroup, Recipe, extend_arguments, misspelt, problems, requested_keys

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
    for classes in lists:
        classes[classes.index(stock)] = extended
    parser.HfArgumentParser = RecipeParser


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
        self._finish(parsed, args, wrong)
        return parsed

    def parse_args_into_dataclasses(self, args: list[str] | None = None, *rest: Any, **options: Any) -> tuple[Any, ...]:
        """The same for keys given as `--key value`, where misspelt ones are told first."""
        keys = [word[2:].split("=", 1)[0].replace("-", "_") for word in args or [] if word.startswith("--")]
        if wrong := self._misspelt(keys):
            raise ValueError("\n".join(wrong.values()))
        parsed: tuple[Any, ...] = super().parse_args_into_dataclasses(args, *rest, **options)
        self._finish(parsed, keys, {})
        return parsed

    def _misspelt(self, keys: Iterable[str]) -> dict[str, str]:
        return misspelt(keys) if any(issubclass(known, KeyGroup) for known in self.dataclass_types) else {}

    def _finish(self, parsed: tuple[Any, ...], keys: Iterable[str], wrong: dict[str, str]) -> None:
        found = list(wrong.values())
        for arguments in parsed:
            if isinstance(arguments, KeyGroup):
                arguments.medvl_recipe = Recipe(tuple(keys), parsed)  # type: ignore[attr-defined]
                trains = any(hasattr(item, "do_train") for item in parsed)
                found += problems(arguments) if trains else []
                if found:
                    raise ValueError("\n".join(found))
                requested = requested_keys(arguments)
                if trains and requested:
                    require_extended(WORKFLOW, requested)
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
