"""A collator around another one: the only class of this kind, for all that look at records or at batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WrappedCollator:
    """What subclasses put around LLaMA-Factory's collator, or around one another; other attributes are its own.

    LLaMA-Factory and transformers read attributes of the collator (`template`, `processor`), and data loaders hand it
    to worker processes.

    Attributes:
        collator: The one inside.
    """

    collator: Any

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of some records."""
        batch: dict[str, Any] = self.collator(features)
        return batch

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked of the collator."""
        return getattr(object.__getattribute__(self, "collator"), name)
