"""Frozen parts below the first trained weight run without gradients.

PEFT lets the output of every input embedding require gradients when it wraps a checkpointed model of 16 bits, since
stock reentrant checkpointing needs that. InternVL's vision tower counts its patch embedding as one, so autograd keeps
all activations of a frozen tower and runs its backward pass for nothing. LLaMA-Factory's own checkpointing marks the
input of each trained layer itself. Here the hooks that nothing needs are taken away; values and gradients stay.

Needs of transformers and PEFT: the name of the hook. Of LLaMA-Factory: that it puts `gradient_checkpointing_enable` on
the model where checkpointing is its own.
"""

from __future__ import annotations

from typing import Any

from llamafactory.extras.logging import get_logger
from transformers import TrainerCallback

from medvl.factory.checks.adapter_fit import without_adapter
from medvl.factory.checks.trained import part_of, trained_parts

_HOOKS = {"make_inputs_require_grads", "make_inputs_require_grad"}
_BELOW = {"vision tower": ("vision tower",), "projector": ("vision tower", "projector")}


def idle_parts(model: Any) -> list[str]:
    """Parts in which, and below which, nothing is trained: "vision tower", "projector"; of those that the model has."""
    trained = {part.part for part in trained_parts(model)}
    there = {part_of(name, model) for name, _ in model.named_parameters()}
    return [part for part, below in _BELOW.items() if part in there and not trained & set(below)]


def drop_hooks(model: Any) -> list[str]:
    """Take away the hooks by which a module's output requires gradients that nothing needs.

    Returns:
        The names of these modules. Those that something may need stay: with other checkpointing than LLaMA-Factory's,
        all that lie in a part with trained weights or above one.
    """
    idle, base = set(idle_parts(model)), without_adapter(model)
    if "gradient_checkpointing_enable" in vars(base):
        idle |= {part.part for part in trained_parts(model)}
    dropped = []
    for name, module in base.named_modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "") in _HOOKS and part_of(name, base) in idle:
                del module._forward_hooks[key]
                dropped.append(name)
    return list(dict.fromkeys(dropped))


class DropHooks(TrainerCallback):  # type: ignore[misc]
    """Drops the hooks once the trainer has set up its model: `gradient_checkpointing: true` sets them there."""

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, model: Any = None, **_: Any) -> None:
        """Called before the first batch, also of a resumed run."""
        if dropped := drop_hooks(model):
            told = ", ".join(dropped)
            get_logger("llamafactory.medvl").info_rank0(f"No gradients for the output of {told}: nothing needs them.")
