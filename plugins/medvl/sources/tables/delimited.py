"""CSV and TSV. Cells stay as they are written: NA, 007 and 1.0 are what they say."""

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from medvl.errors import DataError
from medvl.sources.tables.base import Table
from medvl.sources.tables.header import checked_header, without_blank_end

_SEPARATORS = (",", ";", "\t", "|")
_NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", r"\t": "\t"}
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
         codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
_SAID = re.compile(r"sep=(.)\r?\n")
_SNIFFED = 1000  # rows by which a separator is told
_SHOWN = 5
# Text of Western Europe in cp1252: accents stand alone or in pairs, and signs do not stand inside words. What another
# encoding makes of its own letters looks different: Bia³y, Ïðèâåò, ½á¹û.
_SIGNS = r"\u00a1\u00a3\u00a7\u00a9\u00aa\u00ab\u00ae\u00b0-\u00b3\u00b5\u00b9-\u00bf\u00d7\u00f7"
_LETTERS = (
    r"\u00c0-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e"
    r"\u2013-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122"
)
_WESTERN = re.compile(rf"[\x00-\x7f\u00a0\u00b4\u00b7{_LETTERS}{_SIGNS}]*")
_FOREIGN = re.compile(rf"[^\x00-\x7f]{{3}}|[^\W\d_][{_SIGNS}][^\W\d_]")


def holds(path: Path) -> bool:
    """By the suffix."""
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".tab")


def read(path: Path, encoding: str | None = None, separator: str | None = None) -> Table:
    """The rows of a file; the encoding and the separator are told from its content where they are not stated.

    Raises:
        DataError: encoding or separator are unclear, or there is no header.
    """
    text = decoded(path, encoding)
    if said := _SAID.match(text):  # by Excel, which reads it and does not show it
        text, separator = text[said.end() :], separator or said[1]
    chosen = _separator(path, text, separator)
    header, rows, refused = checked_header([], path), [], list[str]()
    try:
        lines = _rows(text, chosen)
        header = checked_header(next(lines, []), path)
        for number, cells in enumerate(lines, start=2):
            if len(cells) != len(header) and cells:
                refused.append(f"{path}, row {number}: {len(cells)} cells, and the header has {len(header)}")
            rows.append(dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        raise DataError(f"{path}: {error}, after {len(rows) + 1} rows; a quotation mark is missing there") from error
    if len(refused) > _SHOWN:
        refused[_SHOWN:] = [f"{path}: {len(refused) - _SHOWN} more such rows"]
    kept, notes = without_blank_end(rows)
    return Table(path, kept, folder=path.parent, notes=notes, refused=tuple(refused))


def decoded(path: Path, encoding: str | None = None) -> str:
    """The text of a file: as stated, by its byte order mark, as UTF-8, or as cp1252 where it reads like that.

    Raises:
        DataError: none of these.
    """
    data = path.read_bytes()
    marked = next((name for mark, name in _BOMS.items() if data.startswith(mark)), None)
    for name in filter(None, (encoding or marked, None if encoding or marked else _unmarked(data))):
        try:
            text = data.decode(name)
        except (UnicodeDecodeError, LookupError) as error:
            raise DataError(f"{path}: not {name}: {error}") from error
        if name != "cp1252" or encoding or (_WESTERN.fullmatch(text) and not _FOREIGN.search(text)):
            return text.removeprefix("\ufeff")
    raise DataError(f"{path}: neither UTF-8 nor clearly cp1252; save it as UTF-8, or say --encoding NAME")


def _unmarked(data: bytes) -> str | None:
    """The encoding of a text without a mark: UTF-16 has a zero in every second byte of plain letters."""
    start = data[:4096]
    for name, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
        if len(zeros) > 1 and zeros.count(0) > 0.6 * len(zeros):
            return name
    for name in ("utf-8", "cp1252"):
        try:
            data.decode(name)
        except UnicodeDecodeError:
            continue
        return name
    return None


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)  # a report, or an image as text, is longer than the limit of 128 KiB
    spaced = re.match(rf'[^\n"{re.escape(separator)}]+{re.escape(separator)} +\S', text) is not None
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=separator, skipinitialspace=spaced, strict=True)


def _separator(path: Path, text: str, stated: str | None) -> str:
    """The separator by which all of the first rows have as many cells as the header."""
    if stated:
        return _NAMES.get(stated, stated)
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    widths = {candidate: _widths(text, candidate) for candidate in _SEPARATORS}
    divides = [candidate for candidate, found in widths.items() if found and found[0] > 1]
    even = [candidate for candidate in divides if len(set(widths[candidate])) == 1]
    if len(chosen := even or divides) > 1:
        cells = ", ".join(f"{widths[candidate][0]} columns by {candidate!r}" for candidate in chosen)
        raise DataError(f"{path}: its separator is unclear, {cells}; say --separator comma, semicolon, tab or pipe")
    return chosen[0] if chosen else ","


def _widths(text: str, separator: str) -> list[int]:
    try:
        return [len(cells) for cells in islice(_rows(text, separator), _SNIFFED) if cells]
    except csv.Error:
        return []
