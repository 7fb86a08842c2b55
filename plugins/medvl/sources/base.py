"""What a data source is: the contract through which conversion, prediction, scoring and the router read all of them.

A source is one file beside this one. Its `read` gives samples: task, question, answer and image names of one row each,
or a coded problem where a row cannot be used. Everything after that is the same for every source.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from medvl.box_text import ParsedBoxes
from medvl.boxes import Boxes, Frame
from medvl.errors import DataError
from medvl.sharegpt import Record
from medvl.source_frames import SourceFrame
from medvl.sources.places import place_in
from medvl.tasks import Task

Row = Mapping[str, Any]
# train: trained on. eval: held out, with answers. hidden: held out, and its public copy may have none.
Role = Literal["train", "eval", "hidden"]
Part = Literal["images", "task", "question", "answer"]


@dataclass(frozen=True)
class Split:
    """A split of a source.

    Attributes:
        name: Short name, used for entries and options.
        folder: The source's own name of it: a folder under the root. Stands in ids.
        role: What it is for.
    """

    name: str
    folder: str
    role: Role


@dataclass(frozen=True)
class SourceFile:
    """One file with rows: `path` holds those of `dataset` in `split`."""

    split: Split
    category: str
    dataset: str
    path: Path

    @property
    def home(self) -> str:
        """What the ids of its samples begin with: `<split folder>/<category>/<dataset>`."""
        return f"{self.split.folder}/{self.category}/{self.dataset}"


@dataclass(frozen=True)
class Found:
    """The files of a tree in a fixed order, and a line for everything in it that was refused."""

    files: tuple[SourceFile, ...]
    refused: tuple[str, ...] = ()

    def all(self) -> tuple[SourceFile, ...]:
        """The files; raises `DataError` with every line if anything was refused."""
        if self.refused:
            raise DataError("\n".join(self.refused))
        return self.files


class Problem(NamedTuple):
    """Why a row cannot be used: which part of it, a code of `preprocess.report.CODES`, and what was expected."""

    part: Part
    code: str
    detail: str


@dataclass(frozen=True)
class BoxAnswer:
    """An answer that is boxes as data.

    Attributes:
        boxes: Shape (n, 4), `x_min, y_min, x_max, y_max`, on the first image; none says that there is nothing.
        labels: One per box; None where an object has no name.
        frame: Frame of the numbers.
        corners: Shape (n, 8), `x1, y1, …, x4, y4`, of boxes that are oriented; None where there are none.
    """

    boxes: Boxes
    labels: tuple[str | None, ...]
    frame: Frame
    corners: Boxes | None = None

    @property
    def parsed(self) -> ParsedBoxes:
        """As if they had been read from a text."""
        return ParsedBoxes(self.boxes, self.labels, explicit_empty=not len(self.boxes))


class Sample(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One question with its answer, about some images.

    Attributes:
        file: Where it stands.
        index: Its place among the samples of the file, from 0, be they in several splits; several may be made of one
            row.
        row: The row as it is, untouched.
        task: Canonical task; None beside a problem.
        question: Verbatim; empty beside a problem.
        images: Names as the row writes them (`Source.places`); empty beside a problem.
        titles: What the images are called in the prompt, a word each, `Fig-0`; empty if they have no names there.
        answer: The answer as text, verbatim; empty where it is blank, absent, or boxes as data.
        target: What is trained on and scored against, where that is not the answer itself: a label for its words.
        written: The answer as the JSON value that it is.
        boxes: The answer, where a source has boxes as data.
        box_label: What boxes without a name enclose, where the question says it.
        line: Row of the file that it was made of, from 0, where several may be made of one.
        group: Patient or case: records of one stay in one split.
        notes: Codes (of `preprocess.report.CODES`) and details of what the source found odd, or rewrote.
        problems: Why it cannot be used.
    """

    file: SourceFile
    index: int
    row: Row
    task: Task | None = None
    question: str = ""
    images: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    answer: str = ""
    target: str | None = None
    written: Any = msgspec.UNSET
    boxes: BoxAnswer | None = None
    box_label: str | None = None
    line: int | None = None
    group: str | None = None
    notes: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def id(self) -> str:
        """Unique in a tree: `<split folder>/<category>/<dataset>/<index>`. Records put the source's name before it."""
        return f"{self.file.home}/{self.index:06d}"

    @property
    def dataset(self) -> str:
        """Name of its dataset."""
        return self.file.dataset

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.boxes is not None or bool(self.answer)

    def problem(self, *parts: Part) -> Problem | None:
        """The first problem, parts in this order."""
        return next((found for part in parts for found in self.problems if found.part == part), None)


class Contents(NamedTuple):
    """The samples of a file, and what is unusual about the file itself: code and detail."""

    samples: list[Sample]
    notes: tuple[tuple[str, str], ...] = ()


class Repair(NamedTuple):
    """What `--clean` may do about a coded finding: in words, and answer to repaired answer (None drops the row)."""

    words: str
    mend: "Mender"


class Mender(Protocol):
    """Repairs the answer of a record."""

    def __call__(self, record: Record, answer: str, /) -> str | None:
        """The answer that is trained on instead; None if the record is to be dropped."""


class Source(Protocol):
    """A data source. A subclass has the attributes, `find`, `read` and `samples`; the rest only where it differs.

    What is here is right for trees as in `medvl.sources.folders`: `<root>/<split folder>/<category>/<dataset>/`.

    Attributes:
        name: First part of ids and entry names, and the default output folder below `data/`.
        title: What people call it.
        layout: What `--root` is, for `--help`.
        licence: Under which terms its data may be used, in a sentence.
        splits: Split by its name, in the order in which files come.
        suffix: What the names of its files end in.
        question_keys: Keys of every row, by which JSON files outside a tree are known as its own; () if there are none.
        reference_keys: The same for rows with answers to score against.
        hub: Name of its repository on the Hugging Face Hub, from which `--download` fetches it.
        stated: Options of its own that decide what is written, for the manifest.
        source_frame: Frame of its boxes, where the command line does not say it.
        max_side: Longest side of an image that is shown as it is, pixels; of a larger one a copy is made that is as
            long. Only for a source without boxes, which would lie elsewhere on the copy.
        noise_objects: Boxes that are drawn into each box answer of the split `train`, under a name that is no object's.
    """

    name: str
    title: str
    layout: str
    licence: str
    splits: Mapping[str, Split]
    suffix: str
    question_keys: tuple[str, ...] = ()
    reference_keys: tuple[str, ...] = ()
    hub: str | None = None
    stated: Mapping[str, Any] = {}
    source_frame: SourceFrame = Frame.PIXEL
    max_side: int | None = None
    noise_objects: int = 0

    def find(self, root: Path, splits: Sequence[str] = (), datasets: Sequence[str] = ()) -> Found:
        """The files of a tree, of these splits (names or folders) and datasets; of all if empty.

        Raises:
            medvl.tasks.UnknownNameError: a split or dataset that is asked for is not there.
        """

    def read(self, file: SourceFile) -> Contents:
        """The samples of a file; raises `DataError` where it cannot be read."""

    def samples(self, file: SourceFile, rows: Sequence[Row]) -> list[Sample]:
        """Rows that were read already, as samples. What is wrong with one is among its problems."""

    def holds(self, folder: Path) -> bool:
        """Whether a folder is the root of a tree: it has files below folders of the splits, two levels deep."""
        return any(any(folder.glob(f"{split.folder}/*/*/*{self.suffix}")) for split in self.splits.values())

    def file_at(self, path: Path) -> SourceFile:
        """A file by its path: split, category and dataset are read off the folders above it."""
        by_folder = {split.folder: split for split in self.splits.values()}
        split = next((by_folder[part] for part in reversed(path.resolve().parts) if part in by_folder), None)
        folder = path.resolve().parent
        return SourceFile(split or self.split_outside(path), folder.parent.name, folder.name, path)

    def split_outside(self, path: Path) -> Split:
        """The split that a file outside a tree is of."""
        return next(split for split in self.splits.values() if split.role != "train")

    def places(self, file: SourceFile, name: str) -> Sequence[str]:
        """Where an image may lie, the likeliest place first; raises `OutsideError` for a name that leads out."""
        return (place_in(str(file.path.parent), name),)

    def archives(self, file: SourceFile) -> tuple[Path, list[Path]]:
        """The folder with the images of a file, and the archives that hold what belongs there."""
        return file.path.parent, []

    def label_separator(self, dataset: str) -> str | None:
        """What separates the labels in multi-label answers of a dataset; None where that is not known."""
        return None

    def dataset_of(self, images: Sequence[str], task: Task) -> str:
        """The dataset of a row that stands outside a tree, by the names of its images."""
        return "unknown"

    def repairs(self) -> Mapping[str, Repair]:
        """Code of a finding -> what `--clean` may do about it, beside what it does for all sources."""
        return {}

    def sections(self, rows: Mapping[SourceFile, Sequence[Sample]]) -> Mapping[str, Any]:
        """Parts of report.json of its own, made of the samples that were converted."""
        return {}


def image_path(source: Source, file: SourceFile, name: str) -> Path:
    """Where an image lies: at the first of its places that is a file, else at the likeliest.

    Raises:
        OutsideError: the name leads out.
    """
    places = source.places(file, name)
    return Path(next(filter(os.path.isfile, places), places[0]))
