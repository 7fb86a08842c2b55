"""How messages shorten what is long."""

from collections.abc import Sequence


def few(items: Sequence[str], most: int) -> list[str]:
    """The first `most` items, and behind them how many more there are.

    >>> few(["a", "b", "c"], 2)
    ['a', 'b', 'and 1 more']
    """
    rest = len(items) - most
    return [*items[:most], f"and {rest} more"] if rest > 0 else list(items)


def listed(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """`few` as one text.

    >>> listed(["a", "b", "c"], 2)
    'a, b, and 1 more'
    """
    return separator.join(few(items, most))
