"""How a run and a single row are refused. The commands know the first two, each with its exit code."""

from typing import Literal

Refused = Literal["dropped", "quarantined"]


class UsageError(ValueError):
    """Options that cannot be followed, alone or together. Exit code 2."""


class DataError(ValueError):
    """Data that cannot be used as it is: the message names it, what was expected, and the cure. Exit code 3."""


class RowRefusedError(Exception):
    """A row that does not become a record."""

    def __init__(self, code: str, action: Refused, detail: str) -> None:
        """The code of `preprocess.report.CODES`, what becomes of the row, and why."""
        super().__init__(detail)
        self.code, self.action, self.detail = code, action, detail
