"""Libraries that only some forms of data need."""

from importlib.util import find_spec

from medvl.errors import UsageError


def needs(library: str, form: str) -> None:
    """Raise `UsageError` with the cure if a library is not installed."""
    if find_spec(library) is None:
        raise UsageError(
            f"{form} is read by {library}, which is not installed: pip install --editable '.[tables]' in the clone"
        )
