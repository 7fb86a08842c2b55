"""What all readers of tables ask of the row with the names of the columns, and of rows in which nothing stands."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medvl.errors import DataError
from medvl.sources.tables.base import Row

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".dcm", ".nii", ".nii.gz")


def checked_header(names: Sequence[Any], path: Path) -> list[str]:
    """The names of the columns without spaces around them; one without a name is called by its place.

    Raises:
        DataError: two are the same, or they look like values, so that the file has no header.
    """
    header = [str(name or "").strip() or f"column {place}" for place, name in enumerate(names, start=1)]
    if repeated := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(f"{path}: several columns are called {', '.join(repeated)}; give each a name of its own")
    values = [name for name in header if name.lower().endswith(IMAGE_SUFFIXES) or re.fullmatch(r"-?\d+[.,]\d+", name)]
    if values:
        raise DataError(f"{path}: its first row has to be the names of the columns, and holds {values[0]!r}")
    return header


def is_blank(value: Any) -> bool:
    """Whether nothing stands in a cell: none, NaN as a number, or spaces. The word NaN is a word."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def without_blank_end(rows: Sequence[Row]) -> tuple[Sequence[Row], tuple[tuple[str, str], ...]]:
    """Rows without the empty ones at the end, which spreadsheets leave, and a note that says how many there were."""
    kept = len(rows)
    while kept and all(map(is_blank, rows[kept - 1].values())):
        kept -= 1
    blank = len(rows) - kept
    return rows[:kept], (("ROWS_BLANK", f"{blank} rows at the end"),) if blank else ()
