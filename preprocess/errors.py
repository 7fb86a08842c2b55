"""The two ways a preprocess script refuses to go on; each has its exit code."""


class UsageError(ValueError):
    """Options that cannot be followed; exit code 2."""


class RefusedError(ValueError):
    """Data that must not be trained on as it is; exit code 3, and nothing was written."""
