"""Checks the weights that a folder or a loaded model holds: an adapter, a checkpoint or a whole model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from medvl.wording import listed

# 256 MiB of 32-bit numbers: a mask of a whole embedding would take half its memory again.
_ELEMENTS_AT_ONCE = 2**26
_SHOWN = 3  # names in a message


def nonfinite_tensors(folder: Path) -> list[str]:
    """Names of the tensors that hold NaN or infinity, `file.safetensors: tensor`, sorted; empty when all is well.

    Reads every `*.safetensors` file directly in the folder, one tensor at a time and nothing in checkpoints below it,
    so memory stays at one tensor. Other formats are not read. An empty list for a folder without such files.

    Raises:
        ValueError: a file is cut off or no safetensors file.
        OSError: a file cannot be read.
    """
    found: list[str] = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(path), framework="pt") as tensors:
                # `offset_keys` is the order in the file: reading is sequential.
                names = [name for name in tensors.offset_keys() if not is_finite(tensors.get_tensor(name))]
        except SafetensorError as error:
            raise ValueError(f"{path}: the weights cannot be read ({error}); copy the file again") from error
        found += (f"{path.name}: {name}" for name in sorted(names))
    return found


def nonfinite_parameters(model: torch.nn.Module, *, trained_alone: bool = False) -> list[str]:
    """Names of the parameters of a loaded model that hold NaN or infinity; empty when all is well.

    Those of layers that bitsandbytes has quantised are codes, and are not looked at.

    Args:
        model: The model.
        trained_alone: Whether only the parameters that are trained are looked at.
    """
    return [
        name
        for name, weight in model.named_parameters()
        if (weight.requires_grad or not trained_alone) and not hasattr(weight, "quant_state") and not is_finite(weight)
    ]


def no_numbers(names: Sequence[str]) -> str:
    """How many tensors hold NaN or infinity, and the first of them, as a clause."""
    return f"{len(names)} tensors hold NaN or infinity ({listed(names, _SHOWN)})"


def why_broken(model: torch.nn.Module) -> str | None:
    """The parameters of a loaded model that hold NaN or infinity, as a clause; None when all is well."""
    names = nonfinite_parameters(model)
    return f"{no_numbers(names)}; copy or train the model again" if names else None


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite; true for whole numbers and for an empty tensor."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    # float8 has no isfinite of its own.
    pieces = tensor.reshape(-1).split(_ELEMENTS_AT_ONCE)
    return all(bool(torch.isfinite(piece.float() if piece.element_size() == 1 else piece).all()) for piece in pieces)
