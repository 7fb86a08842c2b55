"""Files of M3LLM: JSON lists and JSON Lines, and which of its three forms their rows have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from medvl.errors import DataError
from medvl.files import not_utf8, read_file

# Training: `conversations` or `messages`. Stage: what stage 4 or 5 of making the data wrote. Benchmark: PMC-MI-Bench.
Form = Literal["training", "stage", "benchmark"]
Note = tuple[str, str]  # a code of `preprocess.report.CODES`, and what was found

_NAMED = 5  # bad rows that a message names


def read_rows(path: Path) -> tuple[list[dict[str, Any]], tuple[Note, ...]]:
    """The rows of a file, and what is unusual about it.

    Raises:
        DataError: it cannot be read, has no rows, or holds something else; names the first bad ones.
    """
    values, notes = _values(path)
    bad = [f"{place} is {str(row)[:80]!r}" for place, row in values if not isinstance(row, dict)]
    if bad:
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise DataError(f"{path}: expected an object per row; {'; '.join(bad[:_NAMED])}{more}")
    if not values:
        raise DataError(f"{path}: holds no rows")
    return [row for _, row in values], notes


def read_value(path: Path) -> Any:
    """The JSON value of a file; `msgspec.UNSET` if it is not one, as JSON Lines are not.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return msgspec.json.decode(_content(path))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.UNSET


def first_row(path: Path) -> dict[str, Any]:
    """The first row, without reading all of a long file of JSON Lines; raises `DataError` as `read_rows`."""
    try:
        with path.open("rb") as file:
            row = msgspec.json.decode(file.readline().removeprefix(b"\xef\xbb\xbf"))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        row = None
    return row if isinstance(row, dict) and form_of(row) else read_rows(path)[0][0]


def form_of(row: Mapping[str, Any]) -> Form | None:
    """Which form a row has; None for none that is known."""
    if "conversations" in row or "messages" in row:  # messages: the second release's
        return "training"
    if "gt" in row:
        return "benchmark"
    return "stage" if "qa_pairs" in row or "subcaptions" in row else None


def is_meta(value: Any) -> bool:
    """Whether a JSON value is a meta file's."""
    return isinstance(value, dict) and any(
        isinstance(entry, dict) and "annotation" in entry for entry in value.values()
    )


def _content(path: Path) -> bytes:
    try:
        return read_file(str(path))[1].removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _values(path: Path) -> tuple[list[tuple[str, Any]], tuple[Note, ...]]:
    """The rows with their places, and notes."""
    data, value = _content(path), read_value(path)
    if value is msgspec.UNSET:
        if problem := not_utf8(data):
            raise DataError(f"{path}: {problem}")
        return _lines(path, data), ()
    notes: tuple[Note, ...] = ()
    if isinstance(value, dict):
        lists = [key for key, rows in value.items() if isinstance(rows, list)]
        if form_of(value) is None and len(lists) == 1:  # `data` or `samples`, as the benchmark's own reader takes
            notes = (("FILE_WRAPPED", f"the rows stand under the key {lists[0]!r}"),)
            value = value[lists[0]]
        else:
            value = [value]  # one line
    if not isinstance(value, list):
        raise DataError(f"{path}: a {type(value).__name__}; expected rows")
    return [(f"row {place}", row) for place, row in enumerate(value)], notes


def _lines(path: Path, data: bytes) -> list[tuple[str, Any]]:
    """JSON Lines; blank ones are no rows."""
    if data.lstrip()[:1] == b"[":
        raise DataError(f"{path}: a JSON list that does not end, or is damaged; write the file again")
    rows, bad = [], []
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            try:
                rows.append((f"line {number}", msgspec.json.decode(line)))
            except (msgspec.DecodeError, RecursionError) as error:
                bad.append(f"line {number}: {error}")
    if bad:
        more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise DataError(f"{path}: not JSON Lines: {'; '.join(bad[:_NAMED])}{more}; mend or remove them")
    return rows
