"""People's own data: a table with a row per question, or per box, and a folder of images.

    image,question,answer                       image_id;x_min;y_min;x_max;y_max;class
    a.png,Is there an effusion?,no              0a1b;12;30;60;82;mass
    b.png,"Which lobe? A: left, B: right",B     0a1b;70;31;90;44;nodule

What a column means is guessed by its name, or said by --columns. Forms of data are read by `medvl.sources.tables`, one
file each; what they give is the same for all from here on.
"""

from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from medvl.errors import DataError, UsageError
from medvl.placeholders import is_placeholder
from medvl.sources.base import Contents, Found, Row, Sample, SourceFile
from medvl.sources.given import GivenSource
from medvl.sources.tables import images, presets
from medvl.sources.tables.base import BoxFormat, Table
from medvl.sources.tables.box_questions import Ask
from medvl.sources.tables.columns import chosen_columns, read_columns
from medvl.sources.tables.embedded import written_out
from medvl.sources.tables.settings import Settings, settings_of
from medvl.sources.tables.understanding import Understood
from medvl.tasks import Task, canonical_task, unknown_name

_READER_OPTIONS = ("sheet", "encoding", "separator", "subset", "pixels_from")
_MEANT: Mapping[str, str] = {"group": "patient"}


@dataclass(frozen=True)
class Tables(GivenSource):
    """Any table; `configured` reads it."""

    name = "table"
    title = "your own data"
    layout = (
        "a file (CSV, Excel, JSON, Parquet, COCO, CVAT, chats, …), a folder (of such, of Pascal VOC or YOLO, or of a "
        "folder per class), or OWNER/NAME on the Hub"
    )
    source_frame = "auto"
    licence: str = "The records quote the data they were made of: its licence holds for them too."
    folder: str = ""
    samples_of: Mapping[SourceFile, list[Sample]] = field(default_factory=dict)
    notes: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, str, str], ...] = ()
    stated: Mapping[str, Any] = field(default_factory=dict)

    def add_arguments(self, arguments: ArgumentParser) -> None:
        """See `GivenSource`."""
        add = arguments.add_argument_group("what DATA means").add_argument
        add("--images", type=Path, metavar="DIR", help="names of images are below it (default: the folder of DATA)")
        add(
            "--columns",
            nargs="+",
            default=[],
            metavar="KEY=COLUMN",
            help="question=, answer=, image=, boxes=, label=, "
            "options=, task=, split=, patient=, dataset=; several with commas; empty: none. Or a YAML file of them",
        )
        add(
            "--task", metavar="TASK", help=f"of rows that name none: {', '.join(Task)} (default: guessed, or asked for)"
        )
        add("--question", metavar="TEXT", help="of rows that have none; labels become its options")
        add(
            "--ask",
            choices=get_args(Ask),
            help="about boxes of rows without a question: one question per image (default), or one per class",
        )
        add(
            "--labels", nargs="+", default=[], metavar="VALUE=NAME", help="what values of answers and labels are called"
        )
        add("--label-separator", metavar="TEXT", help="what stands between the labels of one answer")
        add(
            "--box-format",
            choices=get_args(BoxFormat),
            help="order of a box's numbers (default: by the columns' names, or by all boxes)",
        )
        add("--decimal", choices=("point", "comma"), help="what stands before decimals (default: by all numbers)")
        add(
            "--preset", choices=sorted(presets.PRESETS) or None, help="a known data set, whose columns need not be said"
        )
        add("--sheet", help="sheet of an Excel workbook (default: the first)")
        add("--encoding", help="of a CSV file (default: by its content)")
        add("--separator", help="of a CSV file: comma, semicolon, tab, pipe (default: by its content)")
        add(
            "--pixels-from",
            choices=("0", "1"),
            help="of Pascal VOC: its first pixel (default: 1, or 0 if a box has it)",
        )
        add("--subset", help="of a dataset on the Hub")  # fmt: skip

    def configured(self, args: Namespace) -> "Tables":
        """See `GivenSource`; here the data is read."""
        from medvl.sources.tables.reading import read_samples

        images.forget()
        preset = presets.PRESETS[args.preset] if args.preset else presets.Preset(self.licence)
        table = _table(args)
        rows = written_out(table.rows, args.out / "images")
        names = list(dict.fromkeys(name for row in rows for name in row))
        said = _said(args).over(preset.settings_for(names)).over(settings_of(table))
        columns, guessed = chosen_columns(names, said)
        if "image" not in {*columns, *said.columns} and (
            column := images.column_of_files(rows, names, str(table.folder.resolve()))
        ):
            columns, guessed = chosen_columns(names, replace(said, columns={**said.columns, "image": column}))
            guessed.add("image")
        understood = Understood(
            table.path.absolute(), rows, columns, str(table.folder.resolve()), said,
            table.lines, table.classes, table.row_notes, table.row_problems,
        )  # fmt: skip
        samples, facts = read_samples(understood, args.decimal)
        if any(sample.boxes for sample in samples):  # they have the frame of their own now
            args.source_frame = next(sample.boxes.frame for sample in samples if sample.boxes)
        by_file: dict[SourceFile, list[Sample]] = {file: [] for file in dict.fromkeys(understood.files)}
        for sample in samples:
            by_file[sample.file].append(sample)
        order = list(self.splits)
        shown = [(_MEANT.get(role, role), ", ".join(found), "guessed" if role in guessed else "stated")
                 for role, found in columns.items()]  # fmt: skip
        return Tables(
            licence=preset.licence,
            folder=understood.folder,
            samples_of={file: by_file[file] for file in sorted(by_file, key=lambda file: order.index(file.split.name))},
            notes=(*table.notes, *_rewritten(samples)),
            facts=(*shown, *facts, ("images", understood.folder, "stated" if args.images else "beside DATA")),
            stated=_recorded(args),
        )

    def overview(self) -> Sequence[tuple[str, str, str]]:
        """See `GivenSource`."""
        return self.facts

    def find(self, root: Path, splits: Sequence[str] = (), datasets: Sequence[str] = ()) -> Found:
        """See `Source`; a file for every split and dataset of the table."""
        for kind, asked, there in (("split", splits, self.splits), ("dataset", datasets, self._datasets)):
            for name in asked:
                if name not in there:
                    raise unknown_name(kind, name, there)
        return Found(tuple(file for file in self.samples_of if (not splits or file.split.name in splits)
                           and (not datasets or file.dataset in datasets)))  # fmt: skip

    def read(self, file: SourceFile) -> Contents:
        """See `Source`; what is to be said of the whole table is said with its first file."""
        return Contents(self.samples_of[file], self.notes if file == next(iter(self.samples_of)) else ())

    def samples(self, file: SourceFile, rows: Sequence[Row]) -> list[Sample]:
        """See `Source`."""
        return self.samples_of[file]

    def places(self, file: SourceFile, name: str) -> Sequence[str]:
        """As written, or below the folder by its bare name."""
        return (images.find(self.folder, name).path,)

    @property
    def _datasets(self) -> list[str]:
        return [file.dataset for file in self.samples_of]


SOURCE = Tables()


def _said(args: Namespace) -> Settings:
    """What the command line says of the rows."""
    labels = dict[str, str]()
    for word in args.labels:
        value, equals, name = word.rpartition("=")
        if not equals or not name.strip():
            raise UsageError(f"--labels {word}: expected VALUE=NAME")
        labels[value] = name.strip()
    return Settings(
        columns=read_columns(args.columns),
        task=canonical_task(args.task) if args.task else None,
        question=args.question,
        box_format=args.box_format,
        frame=None if args.source_frame == "auto" else args.source_frame,
        labels=labels,
        separator=args.label_separator,
        ask=args.ask or "image",
    )


def _table(args: Namespace) -> Table:
    """The rows of DATA; raises `DataError` with a line for all that cannot be read."""
    from medvl.sources.tables.forms import read_table

    given = {name: getattr(args, name) for name in _READER_OPTIONS if getattr(args, name)}
    if args.images and not args.images.is_dir():
        raise UsageError(f"--images {args.images}: no such folder")
    table = read_table(args.root, given, args.images)
    if table.refused:
        raise DataError("\n".join(table.refused))
    return table


def _rewritten(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """Notes on labels of which the question offers the letters, and on odd ones among them: not one for every row."""
    changed = [sample for sample in samples if sample.target is not None]
    if not changed:
        return []
    said = f"{len(changed)} answers are trained on as another text, as "
    notes = [("ANSWER_REWRITTEN", f"{said}{changed[0].answer[:80]!r} as {changed[0].target!r}")]
    for label, count in Counter(sample.answer for sample in changed if is_placeholder(sample.answer)).items():
        cure = "if values are missing there, leave them blank"
        notes.append(("ANSWER_PLACEHOLDER", f"{label!r} is a label in {count} rows, and is offered; {cure}"))
    return notes


def _recorded(args: Namespace) -> dict[str, Any]:
    """The options that decide what is written, for the manifest."""
    names = ("columns", "task", "question", "labels", "label_separator", "box_format", "decimal", "preset", "ask",
             *_READER_OPTIONS)  # fmt: skip
    stated = {name: getattr(args, name) for name in names if getattr(args, name)}
    return stated | ({"images": str(args.images)} if args.images else {})
