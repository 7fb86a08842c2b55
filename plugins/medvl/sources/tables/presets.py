"""Data sets that people start with: what their columns mean, by their own pages (`--preset NAME`).

One YAML file each in `sources/presets`. `tables` lists the forms in which a set is passed around; the first whose
columns are all there is taken.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from medvl.boxes import Frame
from medvl.errors import DataError
from medvl.sources.tables.base import BoxFormat, Role
from medvl.sources.tables.settings import Settings
from medvl.tasks import canonical_task
from medvl.yaml_files import read_yaml

_FOLDER = Path(__file__).resolve().parent.parent / "presets"


class Renames(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the name of an image becomes the name of its file: what `pattern` matches in whole becomes `becomes`."""

    pattern: str
    becomes: str


class PresetTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the forms in which a set is passed around; see `Settings` for what its parts mean."""

    columns: dict[Role, str]
    task: str | None = None
    question: str | None = None
    box_format: BoxFormat | None = None
    frame: Frame | None = None
    labels: dict[str, str] = {}
    separator: str | None = None
    splits: dict[str, str] = {}
    images: Renames | None = None

    def settings(self) -> Settings:
        """What the command line need not say."""
        return Settings(
            columns=self.columns,
            task=canonical_task(self.task) if self.task else None,
            question=self.question,
            box_format=self.box_format,
            frame=self.frame,
            labels=self.labels,
            separator=self.separator,
            splits=self.splits,
            renames=(self.images.pattern, self.images.becomes) if self.images else None,
        )


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a data set.

    Attributes:
        licence: Under which terms it may be used, in a sentence.
        title: What people call it.
        page: Where that stands.
        tables: Its forms.
    """

    licence: str
    title: str = ""
    page: str = ""
    tables: tuple[PresetTable, ...] = ()

    def settings_for(self, names: Sequence[str]) -> Settings:
        """What is known of a table with these columns; nothing without any form.

        Raises:
            DataError: it has the columns of none; says which they are.
        """
        for table in self.tables:
            if all(_there(column, names) for column in table.columns.values()):
                return table.settings()
        if self.tables:
            forms = " or ".join(", ".join(table.columns.values()) for table in self.tables)
            raise DataError(f"not a table of {self.title}, which has the columns {forms}; this has {', '.join(names)}")
        return Settings()


def _there(column: str, names: Sequence[str]) -> bool:
    return column in names or all(part.strip() in names for part in column.split(","))


def read_preset(path: Path) -> Preset:
    """A preset, every key checked.

    Raises:
        DataError: a key or value that is none; names the file and the place.
    """
    try:
        preset = msgspec.convert(_texts(read_yaml(path)), Preset)
        for table in preset.tables:
            table.settings()
    except ValueError as error:  # msgspec's and a task's are of this kind
        raise DataError(f"{path}: {error}") from error
    if not preset.tables or not preset.title or not preset.page:
        raise DataError(f"{path}: expected title, licence, page and tables")
    return preset


def _texts(value: Any) -> Any:
    """The same with numbers as text, as which they are compared: `1: train` in YAML is a number."""
    if isinstance(value, Mapping):
        return {str(key): _texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return list(map(_texts, value))
    return value if value is None or isinstance(value, str) else str(value)


PRESETS: Mapping[str, Preset] = {path.stem: read_preset(path) for path in sorted(_FOLDER.glob("*.yaml"))}
