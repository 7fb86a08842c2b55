"""Scores of predictions: `evaluate` is the call, `run.py` the command.

>>> from evaluation import Settings, evaluate
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.results import Results, evaluate
    from evaluation.scores import Resampling, Settings

__all__ = ["Resampling", "Results", "Settings", "evaluate"]


def __getattr__(name: str) -> Any:
    """The exports, imported when they are asked for: scipy and its like take seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from evaluation import results, scores

    return getattr(results if hasattr(results, name) else scores, name)
