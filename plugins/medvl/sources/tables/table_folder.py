"""A folder of tables of one form, such as train.csv and test.csv: their rows one after the other.

Their names say the splits, if all of them do: `train`, `val`, `test` and their like as words of file or folder.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from medvl.errors import DataError
from medvl.sources.tables import arrow, delimited, excel, json_rows
from medvl.sources.tables.arrow import SPLIT, Rows
from medvl.sources.tables.base import Row, Table
from medvl.sources.tables.splits import split_in

_FORMS = ((delimited.holds, delimited.read), (arrow.is_parquet, arrow.read_parquet), (json_rows.holds, json_rows.read),
          (excel.holds, excel.read))  # fmt: skip


_NO_TABLES = ("dataset_info.json", "dataset_infos.json")  # beside the Parquet files of a dataset of the Hub


def _files(folder: Path) -> list[Path]:
    """All tables in a folder and its folders, less hidden ones."""
    paths = (path for path in sorted(folder.rglob("*")) if path.name not in _NO_TABLES)
    found = (path for path in paths if any(holds(path) for holds, _ in _FORMS))
    return [path for path in found if not re.search(r"(?:^|/)\.", path.relative_to(folder).as_posix())]


def holds(path: Path) -> bool:
    """Whether there is a table in it."""
    return path.is_dir() and bool(_files(path))


def read(path: Path) -> Table:
    """The rows of all tables.

    Raises:
        DataError: they are of several forms, have other columns, or some of their names say a split and others none.
    """
    files = _files(path)
    if len(kinds := {file.suffix.lower() for file in files}) > 1:
        raise DataError(f"{path}: tables of several forms, {', '.join(sorted(kinds))}; name one file")
    reader = next(read for holds, read in _FORMS if holds(files[0]))
    tables = [reader(file) for file in files]
    splits = [split_in(file.relative_to(path).as_posix()) for file in files]
    if len(files) > 1 and any(splits) and not all(splits):
        unclear = next(file.name for file, split in zip(files, splits, strict=True) if not split)
        raise DataError(f"{path}: the name of {unclear} says no split, and those of others do; name one file")
    columns = [set(next(iter(table.rows), {})) for table in tables]
    for file, found in zip(files, columns, strict=True):
        if len(files) > 1 and not json_rows.holds(file) and (other := found ^ columns[0]):
            raise DataError(f"{file}: other columns than {files[0].name}: {', '.join(sorted(other))}; name one file")
    named = all(splits) and not any(SPLIT in found for found in columns)

    def rows() -> Iterator[Row]:
        for table, split in zip(tables, splits, strict=True):
            yield from ({SPLIT: split} | dict(row) if named else row for row in table.rows)

    return Table(
        path,
        Rows(sum(len(table.rows) for table in tables), rows),
        {SPLIT: SPLIT} if named else {},
        path if len(files) > 1 else files[0].parent,
        notes=tuple((code, f"{file.name}: {said}") for file, table in zip(files, tables, strict=True)
                    for code, said in table.notes),
        refused=tuple(line for table in tables for line in table.refused),
    )  # fmt: skip
