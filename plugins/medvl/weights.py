"""Checks the weights that a folder or a loaded model holds: an adapter, a checkpoint or a whole model."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

# 256 MiB of 32-bit numbers: a mask of a whole embedding would take half its memory again.
_ELEMENTS_AT_ONCE = 2**26


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


def why_broken(model: torch.nn.Module) -> str | None:
    """The parameters of a loaded model that hold NaN or infinity, as a clause; None when all is well.

    Those of layers that bitsandbytes has quantised are codes, and are not looked at.
    """
    loose = ((name, weight) for name, weight in model.named_parameters() if not hasattr(weight, "quant_state"))
    names = [name for name, weight in loose if not is_finite(weight)]
    if not names:
        return None
    shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    return f"{len(names)} tensors hold NaN or infinity ({shown}); copy or train the model again"


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite; true for whole numbers and for an empty tensor."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    # float8 has no isfinite of its own.
    pieces = tensor.reshape(-1).split(_ELEMENTS_AT_ONCE)
    return all(bool(torch.isfinite(piece.float() if piece.element_size() == 1 else piece).all()) for piece in pieces)
