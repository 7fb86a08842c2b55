"""Parquet files and datasets of Hugging Face: saved folders, and names on the Hub. Rows are read as they are needed."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medvl.errors import DataError
from medvl.sources.tables.base import Row, Table
from medvl.sources.tables.extra import needs
from medvl.sources.tables.json_rows import flat

SPLIT: Final = "split"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_BATCH = 64  # rows with images in them are large


@dataclass(frozen=True)
class Rows(Sequence[Row]):
    """Rows that are read each time they are gone through, and never all in memory."""

    total: int
    parts: Callable[[], Iterator[Row]]

    def __len__(self) -> int:
        """How many there are."""
        return self.total

    def __iter__(self) -> Iterator[Row]:
        """All of them."""
        return self.parts()

    def __getitem__(self, place: Any) -> Any:
        """One, or some; this reads all before it."""
        return list(self)[place]


def is_parquet(path: Path) -> bool:
    """By the suffix."""
    return path.is_file() and path.suffix.lower() in (".parquet", ".pq")


def is_saved(path: Path) -> bool:
    """By the files that `save_to_disk` leaves."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def is_hub_name(path: Path) -> bool:
    """OWNER/NAME without a file's suffix, where no such path or folder of the owner's name is there."""
    name = path.as_posix()
    return bool(_HUB_NAME.fullmatch(name)) and not path.suffix and not path.parent.exists()


def read_parquet(path: Path) -> Table:
    """The rows of a file; classes that it knows by number become their names."""
    needs("pyarrow", "Parquet")
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise DataError(f"{path}: no Parquet file: {error}") from error
    metadata = (file.schema_arrow.metadata or {}).get(b"huggingface")
    named = _named(json.loads(metadata)["info"]["features"]) if metadata else {}

    def rows() -> Iterator[Row]:
        with pyarrow.parquet.ParquetFile(path) as content:
            for batch in content.iter_batches(_BATCH):
                yield from (_row(row, named) for row in batch.to_pylist())

    return Table(path, Rows(file.metadata.num_rows, rows), folder=path.parent)


def read_saved(path: Path) -> Table:
    """The rows of a folder that `save_to_disk` wrote."""
    needs("datasets", "a saved dataset")
    import datasets

    try:
        return _of(path, path, datasets.load_from_disk(str(path)))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error


def read_hub(path: Path, subset: str | None = None) -> Table:
    """The rows of a dataset of the Hub, of all its splits. This is the only form that uses the network."""
    needs("datasets", "a dataset of the Hugging Face Hub")
    import datasets

    name = path.as_posix()
    try:
        found = datasets.load_dataset(name, subset)
    except (OSError, ValueError, RuntimeError) as error:
        offline = "; HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE", "0") != "0" else ""
        raise DataError(f"{name}: no such file or folder, and as a dataset of the Hub: {error}{offline}") from error
    first = next(iter(found.values()))
    return _of(path, Path(first.cache_files[0]["filename"]), found)


def _of(name: Path, path: Path, found: Any) -> Table:
    """The rows of a `Dataset` or `DatasetDict`; the splits of the latter in a column of their own."""
    import datasets

    parts = dict(found) if isinstance(found, datasets.DatasetDict) else {"": found}
    columns = {column for part in parts.values() for column in part.column_names}
    if "" not in parts and SPLIT in columns:
        raise DataError(f"{name}: it has splits, and a column that is called {SPLIT}; rename that")
    raw = [(split, part, _named(part.features.to_dict())) for split, part in parts.items()]
    images = {column: kind for _, part, _ in raw for column, kind in part.features.items()}
    undecoded = datasets.Image(decode=False)

    def rows() -> Iterator[Row]:
        for split, part, named in raw:
            for column, kind in images.items():
                if isinstance(kind, datasets.Image):
                    part = part.cast_column(column, undecoded)
                elif getattr(kind, "feature", None) == datasets.Image():
                    part = part.cast_column(column, type(kind)(undecoded))
            for row in part:
                yield ({SPLIT: split} if split else {}) | dict(_row(row, named))

    return Table(
        path, Rows(sum(map(len, parts.values())), rows), {SPLIT: SPLIT} if "" not in parts else {}, path.parent
    )


def _named(features: Any) -> dict[str, list[str]]:
    """Column -> names of its classes, for columns of numbers that stand for classes."""
    inner = {column: kind.get("feature", kind) if isinstance(kind, dict) else {} for column, kind in features.items()}
    return {column: kind["names"] for column, kind in inner.items() if kind.get("_type") == "ClassLabel"}


def _row(row: dict[str, Any], named: dict[str, list[str]]) -> Row:
    for column, names in named.items():
        value = row.get(column)
        if isinstance(value, list):
            row[column] = [_name(item, names) for item in value]
        else:
            row[column] = _name(value, names)
    return flat(row)


def _name(value: Any, names: list[str]) -> Any:
    """The name of a class; -1 stands for none."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None if value == -1 else value
