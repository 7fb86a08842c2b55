"""The settings that `medvl fit` may choose among: all of them train the same records in the same steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from medvl.errors import UsageError

_BATCH, _ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"
_NO_CHECKPOINTING = "disable_gradient_checkpointing"
# Of gradient checkpointing; refused beside `disable_gradient_checkpointing: true`.
_CHECKPOINTING_KEYS = ("use_reentrant_gc", "use_unsloth_gc", "gradient_checkpointing", "gradient_checkpointing_kwargs")
_BITS_KEYS = ("quantization_method", "quantization_type", "double_quantization", "quantization_device_map")
_PLAIN = 16  # bits; more than any quantised weights have
DEFAULT_BATCH = 8  # transformers' own
_OFF = (None, False, "false", "none", "null")


class Setting(msgspec.Struct, frozen=True):
    """One way to train the recipe.

    Attributes:
        batch: Records of a micro-batch on one device.
        accumulation: Micro-batches of a step; the product is the same in all settings.
        checkpointing: Whether activations are computed again in the backward pass instead of kept.
        fused: Whether liger's kernels compute the loss (`enable_liger_kernel`).
        bits: 4 or 8: quantised; None: in the recipe's own precision.
    """

    batch: int
    accumulation: int
    checkpointing: bool
    fused: bool
    bits: int | None

    @property
    def kind(self) -> tuple[bool, bool, int | None]:
        """Everything but the micro-batch."""
        return self.checkpointing, self.fused, self.bits

    def needs_more_than(self, other: Setting) -> bool:
        """Whether it needs at least the memory of another one: what that one ran out of, it runs out of too."""
        return (
            self.batch >= other.batch
            and self.checkpointing <= other.checkpointing
            and self.fused <= other.fused
            and (self.bits or _PLAIN) >= (other.bits or _PLAIN)
        )

    def __str__(self) -> str:
        """As progress names it: `8 x 1, checkpointing, fused loss, 4 bits`."""
        words = [f"{self.batch} x {self.accumulation}", f"{'' if self.checkpointing else 'no '}checkpointing"]
        return ", ".join(words + ["fused loss"] * self.fused + ([f"{self.bits} bits"] if self.bits else []))


def own_setting(recipe: Mapping[str, Any]) -> Setting:
    """What the recipe asks for as it is.

    Raises:
        UsageError: a micro-batch or an accumulation that is no whole number.
    """
    sizes = [recipe.get(key, default) for key, default in ((_BATCH, DEFAULT_BATCH), (_ACCUMULATION, 1))]
    for key, size in zip((_BATCH, _ACCUMULATION), sizes, strict=True):
        if type(size) is not int or size < 1:
            raise UsageError(f"{key}: {size!r} is not a whole number of at least 1")
    off = recipe.get(_NO_CHECKPOINTING) not in _OFF and recipe.get("gradient_checkpointing") in _OFF
    bits = recipe.get("quantization_bit")
    batch, accumulation = sizes
    return Setting(
        batch, accumulation, not off, recipe.get("enable_liger_kernel") not in _OFF, bits if bits not in _OFF else None
    )


def candidates(own: Setting, *, fused: bool, bits: Sequence[int | None], any_batch: bool, above: bool) -> list[Setting]:
    """Every setting to try: the recipe's own first, then kind by kind with rising micro-batches, the smaller ones last.

    Args:
        own: The recipe's.
        fused: Whether the fused loss can be tried.
        bits: Precisions to try.
        any_batch: Whether micro-batches may change at all.
        above: Whether only multiples of the recipe's micro-batch leave the loss as it is (several devices).
    """
    records = own.batch * own.accumulation
    sizes = [size for size in range(1, records + 1) if records % size == 0] if any_batch else [own.batch]
    sizes = [size for size in sizes if not (above and size % own.batch)]
    sizes.sort(key=lambda size: (size < own.batch, abs(size - own.batch)))
    found = [
        Setting(size, records // size, checkpointing, fuse, bit)
        for bit in bits
        for checkpointing in (True, False)
        for fuse in dict.fromkeys((own.fused, fused))
        for size in sizes
    ]
    return [own, *(setting for setting in found if setting != own)]


def changes(setting: Setting, own: Setting, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the recipe that make it this setting; None takes a key away."""
    found: dict[str, Any] = {}
    if setting.batch != own.batch:
        found |= {_BATCH: setting.batch, _ACCUMULATION: setting.accumulation}
        # The loss stays the mean over what was a micro-batch.
        group = recipe.get("medvl_loss_group") or own.batch
        # 0 is off; null is refused.
        off = 0 if "medvl_loss_group" in recipe else None
        found["medvl_loss_group"] = off if group == setting.batch else group
    if setting.checkpointing != own.checkpointing:
        found[_NO_CHECKPOINTING] = not setting.checkpointing
        found |= {} if setting.checkpointing else {key: None for key in _CHECKPOINTING_KEYS if key in recipe}
    if setting.fused != own.fused:
        found["enable_liger_kernel"] = setting.fused
    if setting.bits != own.bits:
        found["quantization_bit"] = setting.bits
        found |= {key: None for key in _BITS_KEYS if key in recipe} if setting.bits is None else {}
    return {key: value for key, value in found.items() if value is not None or key in recipe}


def applied(recipe: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with some keys changed; those that are changed to None are taken away."""
    away = {key for key, value in changed.items() if value is None}
    return {key: value for key, value in (dict(recipe) | dict(changed)).items() if key not in away}


def words(changed: Mapping[str, Any]) -> str:
    """Changes as they are typed behind `llamafactory-cli train RECIPE`."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in changed.items())
