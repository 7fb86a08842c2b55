"""A recipe as LLaMA-Factory parsed it, and what a group of keys is that medvl adds to it. Importable without torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass
class KeyGroup:
    """Keys that belong together; every key has a default that means "not asked for" and a `help` text.

    Attributes:
        prefixes: An unknown key that begins so was meant for this group.
    """

    prefixes: ClassVar[tuple[str, ...]] = ()

    def problems(self) -> list[str]:
        """Sentences about values that cannot be trained with; called for the keys of this group before training."""
        return []

    def setting(self, key: str) -> Any:
        """What the recipe says for any key of LLaMA-Factory; None for one that it does not know."""
        recipe: Recipe = self.medvl_recipe  # type: ignore[attr-defined]
        return recipe.value(key)

    def unread(self, group: type[KeyGroup], switch: str) -> list[str]:
        """The other keys of a group that the recipe sets though it never says that its `switch` is off.

        A recipe that writes the switch, and off, may keep them: `use_grounding_loss=false` on the command line of a
        grounding recipe trains it plainly.
        """
        recipe: Recipe = self.medvl_recipe  # type: ignore[attr-defined]
        if switch in recipe.keys:
            return []
        return [known.name for known in dataclasses.fields(group) if known.name in recipe.keys]

    def clashing(self, switch: str, reasons: Mapping[str, str]) -> list[str]:
        """Those keys that the recipe sets too though `switch` cannot be combined with them.

        reasons: Key -> why not, in brackets; empty where the key says it.
        """
        return [
            f"{switch}: cannot be combined with `{key}`{f' ({reason})' if reason else ''}; remove one of the two"
            for key, reason in reasons.items()
            if self.setting(key)
        ]


@dataclass(frozen=True)
class Recipe:
    """What the user wrote and what LLaMA-Factory made of it.

    `keys` are the names set in the recipe or on the command line; `arguments` are LLaMA-Factory's parsed argument
    objects, shared with the trainer, so that later corrections by LLaMA-Factory are seen here too.
    """

    keys: tuple[str, ...]
    arguments: tuple[Any, ...]

    def value(self, key: str) -> Any:
        """What LLaMA-Factory made of any key; None for one that it does not know."""
        return next((getattr(item, key) for item in self.arguments if hasattr(item, key)), None)

    def word(self, key: str) -> str:
        """A setting as text in lower case, the same for enumerations and what the recipe spells; "none" if unset."""
        value = self.value(key)
        return str(getattr(value, "value", value)).lower()

    @property
    def is_training(self) -> bool:
        """Whether `train` reads it, which also evaluates and predicts; not `export`, `chat` or `api`."""
        return any(hasattr(item, "do_train") for item in self.arguments)

    def asks(self, key: str) -> bool:
        """Whether the user wrote this key, and anything but "off" or "decide yourself" behind it."""
        return key in self.keys and bool(self.value(key)) and self.word(key) not in ("no", "none", "auto", "off")

    def owner(self, key: str) -> Any:
        """The argument object that has this key; KeyError when none has."""
        for item in self.arguments:
            if dataclasses.is_dataclass(item) and key in {known.name for known in dataclasses.fields(item)}:
                return item
        raise KeyError(key)


def is_number(value: Any, most: float) -> bool:
    """Whether a value is a finite number from 0 to `most`; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most and value < math.inf
