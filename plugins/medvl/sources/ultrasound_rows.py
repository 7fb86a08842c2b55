"""The rows of an annotation table, xlsx or csv: which column is which.

    Timestamp,Folder Name,Image Name,Q1: Anatomical Structures,…,Q8: Clinical Recommendations,…,Annotator,Status
    2026-01-17T15:09,Abdomen,Abdomen_004.png,"aorta, liver",…,Prenatal routine monitoring,…,drshalal,complete

Headings vary: questions are known by their number, the others by the words in `_NAMES`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medvl.errors import DataError
from medvl.sources.tables import cells, delimited, excel
from medvl.sources.tables.base import Table
from medvl.sources.tables.header import is_blank
from medvl.sources.ultrasound_labels import QUESTIONS, Question

_QUESTION = re.compile(r"(?<![a-z])q(?:uestion)?[\s._-]*([1-8])(?![0-9])", re.IGNORECASE)
_NAMES = {
    "folder": re.compile(r"\b(?:folder|category|class|view)\b", re.IGNORECASE),
    "image": re.compile(r"\b(?:image|file)[\s_-]*(?:name|path)?\b", re.IGNORECASE),
    "annotator": re.compile(r"\b(?:annotator|doctor|reader|sonographer)\b", re.IGNORECASE),
}


@dataclass(frozen=True)
class Annotation:
    """One row.

    Attributes:
        line: Its place among the rows below the heading, from 0.
        folder: Folder of the image; empty where the table has no such column.
        image: File name of the image.
        annotator: Who wrote it; empty where the table does not say.
        answers: Question -> answer verbatim, empty where its cell is blank; of the columns that there are.
    """

    line: int
    folder: str
    image: str
    annotator: str
    answers: dict[Question, str]

    def as_row(self) -> dict[str, str]:
        """The row with the same names for its columns, whatever their headings."""
        answers = {str(question): answer for question, answer in self.answers.items()}
        return {"folder": self.folder, "image": self.image, "annotator": self.annotator} | answers

    @classmethod
    def of_row(cls, line: int, row: Mapping[str, Any]) -> "Annotation":
        """What `as_row` gave, or a row of a table with its columns called so."""
        answers = {question: cells.text(row[question]) for question in QUESTIONS if question in row}
        folder, image, annotator = (cells.text(row.get(name)).strip() for name in _IN_ORDER)
        return cls(line, folder, image, annotator, answers)


_IN_ORDER = ("folder", "image", "annotator")


@dataclass(frozen=True)
class Annotations:
    """A table: its rows in order, and codes and details of what is unusual about the file."""

    rows: tuple[Annotation, ...]
    notes: tuple[tuple[str, str], ...] = ()


def read_annotations(path: Path) -> Annotations:
    """The rows of a table.

    Raises:
        DataError: it cannot be read, or its columns cannot be told; names the file, what was found, and the cure.
        UsageError: a library for its form is not installed.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    return _read(path, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=4)  # one file is that of three splits and eight questions
def _read(path: Path, _state: tuple[int, int]) -> Annotations:
    table = _table(path)
    if table.refused:
        raise DataError("\n".join(table.refused))
    if not table.rows:
        raise DataError(f"{path}: no row below its headings")
    columns = _columns(path, list(table.rows[0]))
    rows, empty = [], 0
    for line, row in enumerate(table.rows):
        if all(map(is_blank, row.values())):
            empty += 1
        else:
            rows.append(Annotation.of_row(line, {name: row.get(heading) for name, heading in columns.items()}))
    notes = (("ROWS_BLANK", f"{empty} rows between others"),) if empty else ()
    return Annotations(tuple(rows), (*table.notes, *notes))


def _table(path: Path) -> Table:
    if path.is_dir():
        raise DataError(f"{path}: a folder; name the table in it, .xlsx or .csv")
    if excel.holds(path):
        return excel.read(path)
    with path.open("rb") as file:
        if file.read(4) in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
            raise DataError(f"{path}: an Excel workbook under another name; call it .xlsx")
    return delimited.read(path)


def _columns(path: Path, headings: Sequence[str]) -> dict[str, str]:
    """Question, or `folder`, `image`, `annotator`, to the heading of its column."""
    found: dict[str, str] = {}
    problems = []
    for heading in headings:
        number = _QUESTION.search(heading)
        # "Q6: Image Quality" is a question, whatever else its heading says.
        names = [f"q{number[1]}"] if number else [name for name, words in _NAMES.items() if words.search(heading)]
        for name in names[:1]:
            if name in found and name in QUESTIONS:
                problems.append(f"{found[name]!r} and {heading!r} are both {name}; rename one")
            found.setdefault(name, heading)
    if "image" not in found:
        problems.append("no column for the image's file name; call one `Image Name`")
    if not found.keys() & set(QUESTIONS):
        problems.append("no question column; headings begin with Q1 to Q8")
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}. Headings: {', '.join(map(repr, headings))}")
    return found
