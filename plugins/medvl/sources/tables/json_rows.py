"""JSON and JSON Lines: a list of objects, alone or under a key; objects in objects become columns with dotted names.

[{"id": 7, "qa": {"question": "Is it normal?", "answer": "no"}, "image": "7.png"}, …]
{"version": 2, "data": [{…}, {…}]}
{"7.png": {"label": "cyst"}, "8.png": {…}}
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from medvl.answers import WrittenNumber
from medvl.errors import DataError
from medvl.sources.tables.base import Row, Table
from medvl.sources.tables.delimited import decoded

KEY = "key"  # column for the name of an object, where a file is an object of them
_LINES = (".jsonl", ".ndjson", ".jsonlines")
_SHOWN = 5
_DECODER = msgspec.json.Decoder(float_hook=WrittenNumber)


def holds(path: Path) -> bool:
    """By the suffix."""
    return path.is_file() and path.suffix.lower() in (".json", *_LINES)


def read(path: Path) -> Table:
    """The rows of a file; numbers as it writes them.

    Raises:
        DataError: it is no JSON, or no list of objects.
    """
    text = decoded(path)
    lines = path.suffix.lower() in _LINES
    try:
        content = None if lines else _DECODER.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        lines = len(text.strip().splitlines()) > 1 and text.lstrip().startswith("{")
        if not lines:
            raise DataError(f"{path}: not JSON: {_hint(text, error)}") from error
    content, refused = _lines(path, text) if lines else (content, [])
    rows, notes = rows_of(path, content)
    return Table(path, [flat(row) for row in rows], folder=path.parent, notes=notes, refused=tuple(refused))


def rows_of(path: Path, content: Any) -> tuple[list[dict[str, Any]], tuple[tuple[str, str], ...]]:
    """The list of objects that decoded JSON is or holds, and a note where it holds it.

    Raises:
        DataError: it holds none, or several.
    """
    if isinstance(content, dict):
        found = {key: value for key, value in content.items() if _are_rows(value)}
        if len(found) > 1:
            raise DataError(f"{path}: rows stand under several keys, {', '.join(found)}; put them into one list")
        if found:
            ((key, rows),) = found.items()
            return rows, (("FILE_WRAPPED", f"the rows stand under the key {key!r}"),)
        if content and all(isinstance(value, dict) for value in content.values()):
            return [{KEY: key} | value for key, value in content.items()], ()
        raise DataError(f"{path}: one object with the keys {', '.join(content)[:200]}; expected a list of objects")
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects, found {type(content).__name__}")
    for place, row in enumerate(content):
        if not isinstance(row, dict):
            raise DataError(f"{path}: expected a list of objects; row {place} is {str(row)[:80]!r}")
    return content, ()


def flat(row: Mapping[str, Any]) -> Row:
    """A row in which the values of inner objects stand beside them, under dotted names.

    >>> flat({"qa": {"question": "Where?"}, "id": 7})
    {'qa': {'question': 'Where?'}, 'qa.question': 'Where?', 'id': 7}
    """
    columns: dict[str, Any] = {}
    for key, value in row.items():
        columns[key] = value
        if isinstance(value, dict) and "bytes" not in value:  # an image, for libraries of Hugging Face
            columns |= {f"{key}.{inner}": found for inner, found in flat(value).items()}
    return columns


def _lines(path: Path, text: str) -> tuple[list[Any], list[str]]:
    """The values of all lines, and a message for each that has none; blank lines are none."""
    rows, refused = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(_DECODER.decode(line))
            except (msgspec.DecodeError, RecursionError) as error:
                refused.append(f"{path}, line {number}: not JSON: {_hint(line, error)}")
    if len(refused) > _SHOWN:
        refused[_SHOWN:] = [f"{path}: {len(refused) - _SHOWN} more such lines"]
    return rows, refused


def _hint(text: str, error: Exception) -> str:
    nan = re.search(r"[:,\[]\s*NaN\b", text)
    return f"{error}; NaN is not JSON: write null where a value is missing" if nan else str(error)


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)
