"""Excel workbooks (.xlsx): the first sheet, or the one that --sheet names. Numbers and dates as they are shown."""

from pathlib import Path
from typing import Any

from medvl.errors import DataError
from medvl.sources.tables.base import Table
from medvl.sources.tables.cell_format import shown
from medvl.sources.tables.extra import needs
from medvl.sources.tables.header import checked_header, without_blank_end

_SHOWN = 5


def holds(path: Path) -> bool:
    """By the suffix; the old .xls too, so that it is refused with its cure."""
    return path.is_file() and path.suffix.lower() in (".xlsx", ".xlsm", ".xls")


def read(path: Path, sheet: str | None = None) -> Table:
    """The rows of a sheet.

    Raises:
        DataError: no workbook, no such sheet, no header, or cells that cannot be read.
    """
    if path.suffix.lower() == ".xls":
        raise DataError(f"{path}: the old Excel format; open it and save it as .xlsx")
    workbook = _workbook(path, values=True)
    name = sheet or workbook.sheetnames[0]
    if name not in workbook.sheetnames:
        raise DataError(f"{path}: no sheet {name!r}; it has {', '.join(workbook.sheetnames)}")
    cells = workbook[name]
    merged = [str(area) for area in cells.merged_cells.ranges]
    lines = list(cells.iter_rows())
    header = checked_header(_named([cell.value for cell in lines[0]] if lines else []), path)
    rows, notes = without_blank_end([dict(zip(header, map(_value, line), strict=False)) for line in lines[1:]])
    refused = [f"{path}: the cells {', '.join(merged[:_SHOWN])} are merged; split and fill them"] if merged else []
    refused += _unread(path, name, lines)
    others = [other for other in workbook.sheetnames if other != name]
    notes += (("SHEETS_UNREAD", f"{name!r} is read, not {', '.join(others)}"),) if others else ()
    odd = [cell for line in lines[1:] for cell in line if _odd(cell)]
    if odd:
        where = ", ".join(f"{cell.coordinate} ({cell.number_format})" for cell in odd[:_SHOWN])
        notes += (("CELL_FORMAT", f"{len(odd)} cells, first {where}"),)
    return Table(path, rows, folder=path.parent, notes=notes, refused=tuple(refused))


def _workbook(path: Path, *, values: bool) -> Any:
    needs("openpyxl", "Excel")
    import zipfile

    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        return openpyxl.load_workbook(path, data_only=values)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, InvalidFileException) as error:
        raise DataError(f"{path}: no Excel workbook: {error}") from error


def _named(names: list[Any]) -> list[Any]:
    """The header without the empty columns at its end, which were formatted once."""
    while names and names[-1] is None:
        names = names[:-1]
    return names


def _value(cell: Any) -> str | None:
    return None if cell.value is None else shown(cell.value, cell.number_format)[0]


def _odd(cell: Any) -> bool:
    return cell.value is not None and not shown(cell.value, cell.number_format)[1]


def _unread(path: Path, sheet: str, lines: list[Any]) -> list[str]:
    """Cells with an error, and formulas whose value the workbook does not hold."""
    found = [
        f"{path}, cell {cell.coordinate}: {cell.value}" for line in lines for cell in line if cell.data_type == "e"
    ]
    empty = {cell.coordinate for line in lines for cell in line if cell.value is None}
    if empty:
        formulas = _workbook(path, values=False)[sheet]
        found += [
            f"{path}, cell {cell.coordinate}: a formula without a value; open the file in Excel and save it"
            for line in formulas.iter_rows()
            for cell in line
            if cell.data_type == "f" and cell.coordinate in empty
        ]
    return found[:_SHOWN] + ([f"{path}: {len(found) - _SHOWN} more such cells"] if len(found) > _SHOWN else [])
