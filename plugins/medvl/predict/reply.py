"""What comes back for one question, from either back end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """A model's answer, or why there is none.

    Attributes:
        text: Untouched; empty if there is an error.
        finish: stop, or length if it was cut off; None if there is an error.
        error: Why there is no answer.
        broken: Whether the back end failed, rather than this question: its image, its length, its size in memory.
    """

    text: str
    finish: str | None
    error: str | None = None
    broken: bool = False


def failed(error: Exception | str, *, broken: bool = False) -> Reply:
    """No answer, and why."""
    if not isinstance(error, str):
        error = f"{type(error).__name__}: {str(error) or 'no reason is given'}"
    return Reply("", None, error, broken)
