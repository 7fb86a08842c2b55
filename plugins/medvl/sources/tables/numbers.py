"""Numbers in the cells of a column, with a decimal point or a decimal comma."""

import re
from collections.abc import Iterable
from typing import Literal

from medvl.errors import UsageError

Decimal = Literal["point", "comma"]
_COMMA = re.compile(r"[-+]?(?:\d{1,3}(?:[. ]\d{3})+|\d*),\d+")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def decimal_of(texts: Iterable[str], what: str) -> Decimal:
    """Which sign the numbers of a column have before their decimals.

    Raises:
        UsageError: 1,234 and nothing that tells whether that is more than a thousand or less than two.
    """
    commas = [text for text in (text.strip().rstrip(" %") for text in texts) if "," in text]
    numbers = [text for text in commas if _COMMA.fullmatch(text)]
    if not numbers or len(numbers) < len(commas):
        return "point"
    if not all(_GROUPED.fullmatch(text) for text in numbers):
        return "comma"
    raise UsageError(
        f"{what}: {numbers[0]!r} may have a decimal comma or thousands; say --decimal comma or --decimal point"
    )


def with_point(text: str, decimal: Decimal) -> str:
    """A number with a decimal point and without signs between thousands; any other text as it is.

    >>> with_point("1.234,5 %", "comma"), with_point("1,234", "point"), with_point("twelve", "comma")
    ('1234.5 %', '1234', 'twelve')
    """
    bare = text.strip().rstrip(" %")
    unit = text.strip()[len(bare) :]
    if decimal == "comma" and _COMMA.fullmatch(bare):
        return bare.replace(".", "").replace(" ", "").replace(",", ".") + unit
    return bare.replace(",", "") + unit if decimal == "point" and _GROUPED.fullmatch(bare) else text


def is_number(text: str) -> bool:
    """Whether a text is a number, in either way of writing, maybe with a percent sign."""
    bare = text.strip().rstrip(" %")
    return any(form.fullmatch(bare) for form in (_NUMBER, _COMMA, _GROUPED))


def number(text: str, decimal: Decimal = "point") -> float:
    """The number that a text is; raises `ValueError` with the text for any other."""
    bare = with_point(text, decimal).strip()
    if not _NUMBER.fullmatch(bare):
        raise ValueError(f"{text!r} is no number")
    return float(bare)
