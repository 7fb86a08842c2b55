"""Why a prediction cannot start. What goes wrong with single questions is recorded beside their ids instead."""


class UsageError(ValueError):
    """Options that cannot be followed together. Exit code 2."""


class DataError(ValueError):
    """Data that cannot be predicted from, or an output that cannot be continued. Exit code 3."""
