"""The ways a preprocess script refuses to go on, each with its exit code, and how it refuses a single row."""

from preprocess.report import Action


class UsageError(ValueError):
    """Options that cannot be followed; exit code 2."""


class RefusedError(ValueError):
    """Data that must not be trained on as it is; exit code 3, and nothing was written."""


class RowRefusedError(Exception):
    """A row that does not become a record."""

    def __init__(self, code: str, action: Action, detail: str) -> None:
        """The code of `preprocess.report.CODES`, what becomes of the row, and why."""
        super().__init__(detail)
        self.code, self.action, self.detail = code, action, detail
