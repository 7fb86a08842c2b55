"""Start-up hook: typed medvl keys in the recipes of plain `llamafactory-cli train`.

LLaMA-Factory has no plug-in mechanism. torch calls every entry point of the group `torch.backends` at the end of
`import torch` (its documented autoload for device back ends), so `autoload` runs in each process that trains:
torchrun's children, DeepSpeed's and Ray's workers included. It only registers a finder that lets medvl extend a few
LLaMA-Factory modules right after they were loaded.

This module runs inside everybody's `import torch`: it uses the standard library only and never raises. A failure is
logged and kept in `STATE`; LLaMA-Factory then works as without medvl, and a recipe that asks for a medvl key is
refused (see parsing.py). `MEDVL_DISABLE=1` switches it off.
"""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

TARGETS = {
    "llamafactory.hparams.parser": ("medvl.factory.parsing", "extend_parser"),
    "llamafactory.train.sft.workflow": ("medvl.factory.trainer", "extend_workflow"),
    "llamafactory.chat.hf_engine": ("medvl.factory.positions", "extend_engine"),
    "llamafactory.model.loader": ("medvl.factory.checks.adapter_fit", "extend_loader"),
}
OFF_SWITCH = "MEDVL_DISABLE"

log = logging.getLogger("medvl")


@dataclass
class HookState:
    """What happened in this process; `medvl doctor` reads it.

    `failures` maps a module name (or "start-up") to the reason why it could not be extended.
    """

    called: bool = False
    disabled: bool = False
    extended: set[str] = field(default_factory=set)
    failures: dict[str, str] = field(default_factory=dict)


STATE = HookState()


def autoload() -> None:
    """Register the hook; called by torch at the end of `import torch`. Never raises."""
    try:
        _install()
    except Exception as error:
        _record_failure("start-up", error)


def extend(name: str, module: ModuleType) -> None:
    """Apply medvl's extension to a loaded LLaMA-Factory module; on failure the module stays usable without it."""
    extension, function = TARGETS[name]
    try:
        getattr(importlib.import_module(extension), function)(module)
    except Exception as error:
        _record_failure(name, error)
    else:
        STATE.extended.add(name)
        STATE.failures.pop(name, None)


def extend_loaded() -> None:
    """Extend the target modules that were loaded without the finder.

    That happens when `autoload` is called by hand after LLaMA-Factory was imported, and when `import torch` comes from
    inside a target module: that module cannot be extended before it has run, so parsing.py calls this again.
    """
    if STATE.disabled:
        return
    for name in TARGETS:
        module = sys.modules.get(name)
        if module is None or name in STATE.extended or name in STATE.failures:
            continue
        if not getattr(module.__spec__, "_initializing", False):
            extend(name, module)


class PostImportFinder(MetaPathFinder):
    """Finds the target modules as Python would, and extends them once they have run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a target module, prepared so that `extend` follows its execution; None for all others."""
        if fullname not in TARGETS:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                _extend_after_execution(spec)
                return spec
        return None


def _install() -> None:
    STATE.called = True
    STATE.disabled = os.environ.get(OFF_SWITCH, "").strip().lower() in {"1", "true", "yes", "on"}
    if STATE.disabled:
        return
    if not any(isinstance(finder, PostImportFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, PostImportFinder())
    extend_loaded()


def _extend_after_execution(spec: ModuleSpec) -> None:
    loader = spec.loader
    if loader is None or not hasattr(loader, "exec_module"):
        raise ImportError(f"{spec.name} has no loader that runs it")
    execute = loader.exec_module

    def execute_and_extend(module: ModuleType) -> None:
        execute(module)
        extend(spec.name, module)

    # On the instance, not in a wrapper: module.__loader__ stays what inspect and pickle expect.
    loader.exec_module = execute_and_extend  # type: ignore[method-assign]


def _record_failure(where: str, error: Exception) -> None:
    STATE.failures[where] = f"{type(error).__name__}: {error}"
    # A log record, since warnings become exceptions under `python -W error`.
    log.warning("medvl is inactive, %s could not be extended (%s). `medvl doctor` says more.", where, error)
