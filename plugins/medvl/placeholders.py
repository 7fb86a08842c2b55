"""What programs write where they have no value: as an answer it may be one, or stand for a missing one."""

from medvl.choices import normal

_PLACEHOLDERS = frozenset(("none", "null", "nil", "nan", "nat", "n/a", "#n/a", "na", "<na>", "undefined"))


def is_placeholder(text: str) -> bool:
    """Whether a text is nothing but such a word.

    >>> is_placeholder("NaN"), is_placeholder("None of these")
    (True, False)
    """
    return normal(text) in _PLACEHOLDERS
