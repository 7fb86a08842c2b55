"""The losses a recipe can ask for: one file each, and that file is all (docs/add_a_loss.md)."""

from importlib import import_module
from pkgutil import iter_modules

from medvl.factory.losses.base import Loss

_FILES = sorted(module.name for module in iter_modules(__path__) if module.name != "base")

LOSSES: tuple[Loss, ...] = tuple(import_module(f"{__name__}.{name}").LOSS for name in _FILES)
