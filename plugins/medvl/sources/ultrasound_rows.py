"""The rows of an annotation table, xlsx or csv: which column is which, and every cell as text.

    Timestamp,Folder Name,Image Name,Q1: Anatomical Structures,…,Q8: Clinical Recommendations,…,Annotator,Status
    2026-01-17T15:09,Abdomen,Abdomen_004.png,"aorta, liver",…,Prenatal routine monitoring,…,drshalal,complete

Headings vary: questions are known by their number, the others by the words in `_NAMES`.
"""

import csv
import datetime
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medvl.errors import DataError
from medvl.files import not_utf8
from medvl.sources.ultrasound_labels import QUESTIONS, Question

_QUESTION = re.compile(r"(?<![a-z])q(?:uestion)?[\s._-]*([1-8])(?![0-9])", re.IGNORECASE)
_NAMES = {
    "folder": re.compile(r"\b(?:folder|category|class|view)\b", re.IGNORECASE),
    "image": re.compile(r"\b(?:image|file)[\s_-]*(?:name|path)?\b", re.IGNORECASE),
    "annotator": re.compile(r"\b(?:annotator|doctor|reader|sonographer)\b", re.IGNORECASE),
}
_SEPARATORS = ",;\t"
# What Excel shows where a formula failed is no answer.
_EXCEL_ERROR = re.compile(r"#(?:REF!|N/A|VALUE!|NAME\?|DIV/0!|NUM!|NULL!)")


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
        """What `as_row` gave."""
        answers = {question: row[question] for question in QUESTIONS if question in row}
        return cls(line, row["folder"], row["image"], row["annotator"], answers)


@dataclass(frozen=True)
class Annotations:
    """A table.

    Attributes:
        rows: Its rows in order.
        empty: How many rows without any value were passed over.
    """

    rows: tuple[Annotation, ...]
    empty: int


def read_annotations(path: Path) -> Annotations:
    """The rows of a table.

    Raises:
        DataError: it cannot be read, or its columns cannot be told; names the file, what was found, and the cure.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    return _read(path, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=4)  # one file is that of three splits and eight questions
def _read(path: Path, _state: tuple[int, int]) -> Annotations:
    if path.is_dir():
        raise DataError(f"{path}: a folder; name the table in it, .xlsx or .csv")
    table = _excel(path) if path.suffix.lower() in (".xlsx", ".xlsm") else _csv(path)
    headings = next(table, [])
    columns = _columns(path, headings)
    rows, empty = [], 0
    for line, cells in enumerate(table):
        if not any(cell.strip() for cell in cells):
            empty += 1
            continue
        if any(cell.strip() for cell in cells[len(headings) :]):
            found = f"{len(cells)} cells below {len(headings)} headings"
            raise DataError(f"{path}: row {line + 2} has {found}; quote texts that hold the separator")
        said = {name: cells[place] if place < len(cells) else "" for name, place in columns.items()}
        rows.append(
            Annotation(
                line=line,
                folder=said.get("folder", "").strip(),
                image=said["image"].strip(),
                annotator=said.get("annotator", "").strip(),
                answers={question: said[question] for question in QUESTIONS if question in said},
            )
        )
    if not rows:
        raise DataError(f"{path}: no row below its headings")
    return Annotations(tuple(rows), empty)


def _columns(path: Path, headings: Sequence[str]) -> dict[str, int]:
    """Question, or `folder`, `image`, `annotator`, to the place of its column."""
    found: dict[str, int] = {}
    problems = []
    for place, heading in enumerate(headings):
        number = _QUESTION.search(heading)
        # "Q6: Image Quality" is a question, whatever else its heading says.
        names = [f"q{number[1]}"] if number else [name for name, words in _NAMES.items() if words.search(heading)]
        for name in names[:1]:
            if name in found and name in QUESTIONS:
                problems.append(f"{headings[found[name]]!r} and {heading!r} are both {name}; rename one")
            found.setdefault(name, place)
    if "image" not in found:
        problems.append("no column for the image's file name; call one `Image Name`")
    if not found.keys() & set(QUESTIONS):
        problems.append("no question column; headings begin with Q1 to Q8")
    if problems:
        shown = ", ".join(repr(heading) for heading in headings) or "none"
        raise DataError(f"{path}: {'; '.join(problems)}. Headings: {shown}")
    return found


def _csv(path: Path) -> Iterator[list[str]]:
    content = path.read_bytes()
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise DataError(f"{path}: an Excel workbook under another name; save it as .xlsx, or rename it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {not_utf8(content) or error}; save it as CSV UTF-8") from error
    heading = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=heading.count)
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    except csv.Error as error:
        raise DataError(f"{path}: not CSV: {error}") from error


def _excel(path: Path) -> Iterator[list[str]]:
    """The cells of the sheet that has questions in its heading."""
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise DataError(f"{path}: Excel needs openpyxl: pip install openpyxl; or save it as CSV UTF-8") from error
    try:
        workbook = load_workbook(path, read_only=True, data_only=True)
        sheets = {sheet.title: sheet.iter_rows(values_only=True) for sheet in workbook.worksheets}
        heads = {title: [_text(cell) for cell in next(rows, ())] for title, rows in sheets.items()}
        asking = [title for title, head in heads.items() if any(map(_QUESTION.search, head))]
        if len(asking) > 1:
            raise DataError(f"{path}: the sheets {', '.join(asking)} all have questions; save the one meant by itself")
        title = asking[0] if asking else next(iter(heads))
        yield heads[title]
        for row in sheets[title]:
            yield [_text(cell) for cell in row]
    except (InvalidFileException, zipfile.BadZipFile, KeyError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not an Excel workbook: {error}; save it anew, or as CSV UTF-8") from error


def _text(value: Any) -> str:
    """A cell as text; whole numbers without a point, dates as ISO writes them."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    text = str(value)
    return "" if _EXCEL_ERROR.fullmatch(text.strip()) else text
