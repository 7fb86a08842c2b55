"""Rows as files hold them, or as they are given in memory: JSON lists or JSON lines of objects."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from medvl.errors import DataError

Row = dict[str, Any]
_SHOWN = 5
# Stands where messages and provenance name a file, for what was given in memory.
IN_MEMORY = Path("in-memory")
# A folder stands for the first of these that it holds.
FILE_NAMES = ("predictions.json", "predictions.jsonl", "generated_predictions.jsonl", "all_predictions.json")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What is read within comes from `path`.

    Raises:
        DataError: the system refuses; names the file, which some of its errors do not.
    """
    try:
        yield
    except OSError as error:
        name, why = error.filename or path, error.strerror or error
        raise DataError(f"{name} cannot be read ({why}); see that it is a whole file that you may read") from error


def find_file(path: Path) -> Path:
    """The file meant by `path`: itself, or the prediction file in a folder.

    Raises:
        DataError: there is none.
    """
    if path.is_file():
        return path
    for name in FILE_NAMES:
        if (path / name).is_file():
            return path / name
    missing = f"expected one of {', '.join(FILE_NAMES)} in it" if path.is_dir() else "there is no such file"
    raise DataError(f"{path}: {missing}")


def decode_rows(data: bytes, path: Path) -> list[Row]:
    """The objects of a JSON list or of JSON lines; blank lines are skipped.

    Raises:
        DataError: not JSON, or something else than objects; names the line.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    numbers: Sequence[int] = ()
    try:
        values = msgspec.json.decode(data)
        values = [values] if isinstance(values, dict) else values
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if data.lstrip()[:1] == b"[":
            raise DataError(f"{path}: not JSON ({error}); write the file again, it may have been cut off") from error
        lines = [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
        numbers = [number for number, _ in lines]
        values = [_decode_line(line, f"{path}, line {number}") for number, line in lines]
    if not isinstance(values, list):
        raise DataError(f"{path}: a {type(values).__name__}; expected a JSON list or JSON lines of objects")
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            where = f"line {numbers[index]}" if numbers else f"row {index}"
            raise DataError(f"{path}, {where}: a {type(value).__name__}; expected a JSON object")
    return values


def _decode_line(line: bytes, where: str) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{where}: not JSON ({error}); remove the line if a run was cut off while writing it"
        ) from error


def encode_rows(rows: Iterable[Any], path: Path) -> bytes:
    """Rows in memory as the JSON that a file of them would hold; raises DataError for what is not JSON."""
    try:
        return msgspec.json.encode(list(rows))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be written as JSON ({error}); give rows of texts, numbers and lists"
        ) from error


def image_names(value: object) -> tuple[str, ...]:
    """Image names of a row: a string is one image. Empty for anything else."""
    names = [value] if isinstance(value, str) else value
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def scorer_key(row: Mapping[str, Any]) -> str:
    """By what the challenge's scorer joins rows; the names of several images as Python prints their list."""
    return f"{row.get('ImageName', '')}||{row.get('Question', '')}"


# Fields that have a place of their own in a reference.
_KNOWN_FIELDS = {"ImageName", "Question", "Answer", "id", "dataset", "task", "conversations", "images", "source"}


def other_fields(row: Mapping[str, Any]) -> dict[str, str]:
    """What a row says beside question and answer, where it is text or a whole number."""
    return {key: str(row[key]) for key in row.keys() - _KNOWN_FIELDS if isinstance(row[key], str | int)}


def refuse(errors: Sequence[str]) -> None:
    """Raise `DataError` with the first of them, if there are any."""
    if errors:
        more = f" and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise DataError(f"{len(errors)} references cannot be used, mend their rows: {'; '.join(errors[:_SHOWN])}{more}")
