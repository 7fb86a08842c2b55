"""Logits of a few positions and a few vocabulary entries, without a second copy of the vocabulary.

A loss beside the language-model loss reads perhaps a hundred of a thousand positions and twenty of 152,000 entries.
Indexing the model's logits would give a gradient that is zero nearly everywhere and as large as the logits themselves.
Here the final hidden states are kept as they leave the model, and only the chosen rows of them meet the chosen rows of
the output head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from medvl.factory.checks.adapter_fit import without_adapter
from medvl.factory.families import FAMILIES


def whole_head(head: Any) -> bool:
    """Whether an output head is a plain layer with all its weights in this process."""
    if type(head) is not torch.nn.Linear:
        return False
    weight = head.weight
    whole = weight.shape == (head.out_features, head.in_features) and not hasattr(weight, "ds_id")
    return bool(whole and weight.is_floating_point())


class ColumnLogits:
    """Watches one model; asked once after every forward pass of training."""

    def __init__(self, model: Any, *, sharded: bool = False) -> None:
        """model: as LLaMA-Factory hands it to its trainer, with or without a LoRA adapter; sharded: under FSDP."""
        base = without_adapter(model)
        self.head = base.get_output_embeddings()
        family = FAMILIES.get(base.config.model_type)
        self.sharded = sharded or family is None or not family.plain_product
        self._states: torch.Tensor | None = None
        # The inner model, not the head: a fused loss never calls the head.
        getattr(base, base.base_model_prefix).register_forward_hook(self._keep)

    def __call__(self, rows: torch.Tensor, columns: torch.Tensor, outputs: Mapping[str, Any]) -> torch.Tensor:
        """Float32 logits of shape (len(rows), len(columns)), part of the autograd graph of the last forward pass.

        Args:
            rows: Positions in the flattened (batch * length,) sequence.
            columns: Token ids.
            outputs: What the model returned.

        Raises:
            ValueError: there are neither usable hidden states nor logits.
        """
        states, self._states = self._states, None
        if states is not None and self.usable():
            weight = self.head.weight
            rows, columns = rows.to(states.device), columns.to(weight.device)
            # A trained head gets a sparse gradient here, added to the dense one of the language-model loss.
            entries = functional.embedding(columns, weight, sparse=True).float()
            bias = None if self.head.bias is None else self.head.bias[columns].float()
            chosen = states.reshape(-1, states.shape[-1])[rows].to(weight.device)
            with torch.autocast(weight.device.type, enabled=False):
                return functional.linear(chosen.float(), entries, bias)
        logits = outputs.get("logits")
        if logits is None:
            raise ValueError(
                "the model returned no logits, and its output head cannot be used directly (sharded, quantised or "
                "under an adapter): set `enable_liger_kernel: false`, or remove use_grounding_loss"
            )
        flat = logits.reshape(-1, logits.shape[-1])
        return flat[rows.to(flat.device)[:, None], columns.to(flat.device)].float()

    def none(self, outputs: Mapping[str, Any]) -> torch.Tensor | None:
        """What a batch that asks for no logits has to add to its loss: nothing, or a zero with a gradient of zeros.

        The latter where weights are sharded: ZeRO-3 gathers them in the order of the backward pass, which must be the
        same on every rank, so a rank without boxes has to go the way of those with boxes (else they wait for each other
        for ever).
        """
        self._states = None
        if self.usable() or outputs.get("logits") is None:
            return None
        return outputs["logits"].flatten()[:0].float().sum()

    def usable(self) -> bool:
        """Whether this process holds the head's plain weights: not quantised, adapted, or split by ZeRO-3 or FSDP."""
        return not self.sharded and whole_head(self.head)

    def _keep(self, module: Any, _args: Any, output: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self._states = output[0]
