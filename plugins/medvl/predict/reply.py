"""What comes back for one question, from either back end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """A model's answer, or why there is none.

    Attributes:
        text: Untouched; empty if there is an error.
        finish: stop, or length if it was cut off; None if there is an error.
        error: Why there is no answer.
    """

    text: str
    finish: str | None
    error: str | None = None


def failed(error: str) -> Reply:
    """No answer, and why."""
    return Reply("", None, error)
