"""A cell of a spreadsheet as text: what a reader sees, by the commonest number formats."""

import datetime
import re
from typing import Any

_DATE = re.compile(r"yyyy|yy|mmmm|mmm|mm|m|dddd|ddd|dd|d|hh|h|ss|s|am/pm", re.IGNORECASE)
_IGNORED = re.compile(r"\[[^\]]*\]|\\(?=.)|_.|\*.")  # colours and locales, escapes, widths, fillers
_NUMBER = re.compile(r"(?P<thousands>#,##)?(?P<digits>[0#?]+)(?:\.(?P<decimals>[0#?]+))?(?P<percent>%)?")


def shown(value: Any, number_format: str) -> tuple[str, bool]:
    """The text of a cell, and whether its format is one that is understood; a number is plain where it is not.

    >>> shown(7, "000"), shown(0.5, "0%"), shown(1.0, "General"), shown(3.14159, "0.00")
    (('007', True), ('50%', True), ('1', True), ('3.14', True))
    """
    if isinstance(value, str):
        return value, True
    if isinstance(value, bool):
        return str(value).upper(), True
    plain = _IGNORED.sub("", number_format.split(";", 1)[0]).strip()
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return _date(value, plain), True
    if isinstance(value, datetime.timedelta):
        return str(value), True
    if plain in ("General", "@", ""):
        return _general(value), True
    known = _NUMBER.fullmatch(plain.replace('"', ""))
    return (_number(value, known), True) if known and '"' not in plain else (_general(value), False)


def _general(value: float) -> str:
    """A number with as many digits as Excel keeps, 15."""
    text = f"{value:.15g}"
    return text if "e" in text or "." not in text else text.rstrip("0").rstrip(".")


def _number(value: float, known: re.Match[str]) -> str:
    decimals = known["decimals"] or ""
    scaled = value * 100 if known["percent"] else value
    text = f"{abs(scaled):{',' if known['thousands'] else ''}.{len(decimals)}f}"
    for _ in range(len(decimals) - len(decimals.rstrip("#"))):  # optional digits
        text = text.removesuffix("0")
    whole, point, part = text.partition(".")
    whole = whole.zfill(known["digits"].count("0"))
    sign = "-" if scaled < 0 and float(text.replace(",", "")) else ""
    return f"{sign}{whole}{point if part else ''}{part}{known['percent'] or ''}"


def _date(value: datetime.datetime | datetime.date | datetime.time, plain: str) -> str:
    """By the letters of the format; ISO where it is a name of one, as for `General`."""
    if not _DATE.search(plain) or plain == "General":
        return value.isoformat(" ") if isinstance(value, datetime.datetime) else value.isoformat()
    codes = [match[0].lower() for match in _DATE.finditer(plain)]
    twelve = "am/pm" in codes
    places = iter(range(len(codes)))

    def part(_: re.Match[str]) -> str:
        place = next(places)
        code = codes[place]
        beside = codes[max(place - 1, 0) : place + 2]
        if code in ("m", "mm") and any(other[0] in "hs" for other in beside):  # minutes stand beside hours or seconds
            code = code.replace("m", "n")
        return _part(value, code, twelve)

    return _DATE.sub(part, plain)


def _part(value: Any, code: str, twelve: bool) -> str:
    patterns = {"yyyy": "%Y", "yy": "%y", "mmmm": "%B", "mmm": "%b", "mm": "%m", "dddd": "%A", "ddd": "%a", "dd": "%d",
                "hh": "%I" if twelve else "%H", "nn": "%M", "ss": "%S", "am/pm": "%p"}  # fmt: skip
    if code in patterns:
        return str(value.strftime(patterns[code]))
    double = {"m": "%m", "d": "%d", "h": "%I" if twelve else "%H", "n": "%M", "s": "%S"}[code]
    return str(int(value.strftime(double)))
