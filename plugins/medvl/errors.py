"""The two ways in which the commands refuse to go on, each with its exit code."""


class UsageError(ValueError):
    """Options that cannot be followed, alone or together. Exit code 2."""


class DataError(ValueError):
    """Data that cannot be used as it is: the message names it, what was expected, and the cure. Exit code 3."""
