"""What is said about a table beside its rows: by the command line, by a preset, or by the form of the data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from medvl.boxes import Frame
from medvl.sources.tables.base import BoxFormat, Role, Table
from medvl.sources.tables.box_questions import Ask
from medvl.tasks import Task


@dataclass(frozen=True)
class Settings:
    """What is said; None and empty where nothing is.

    Attributes:
        columns: Role -> column, or several with commas between them (`image`: one name each; `boxes`: four numbers;
            `options`: a text each). An empty name says that no column has this role.
        task: Task of all rows.
        question: Question of all rows that have none.
        box_format: Order of a box's numbers.
        frame: Frame of its numbers.
        labels: Value of the answer or label column -> what it is called: `0` -> `normal`.
        separator: What stands between the labels of a multi-label answer.
        splits: Value of the split column -> the split that it names, beside those that are understood anyway.
        renames: Pattern and replacement, by which names of images become names of files.
        ask: Whether boxes without a question are asked for together, or class by class.
    """

    columns: Mapping[Role, str] = field(default_factory=dict)
    task: Task | None = None
    question: str | None = None
    box_format: BoxFormat | None = None
    frame: Frame | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    separator: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    renames: tuple[str, str] | None = None
    ask: Ask = "image"

    def over(self, others: "Settings") -> "Settings":
        """These, and where they say nothing, the others."""
        said = {part.name: getattr(self, part.name) for part in fields(self)}
        merged = replace(others, **{name: value for name, value in said.items() if value})
        return replace(merged, columns={**others.columns, **self.columns})


def settings_of(table: Table) -> Settings:
    """What the form of the data says."""
    return Settings(table.columns, table.task, table.question, table.box_format, table.frame)
