"""How a single row is refused. What refuses a whole run is in `medvl.errors`."""

from preprocess.report import Action


class RowRefusedError(Exception):
    """A row that does not become a record."""

    def __init__(self, code: str, action: Action, detail: str) -> None:
        """The code of `preprocess.report.CODES`, what becomes of the row, and why."""
        super().__init__(detail)
        self.code, self.action, self.detail = code, action, detail
