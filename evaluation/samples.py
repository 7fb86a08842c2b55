"""Samples, and what they are made of: predictions, references, and which of them belong together. Plain data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from medvl.boxes import Frame, Size
from medvl.tasks import Answer, Task

# Frame of a shape's boxes: pixels, or the frame of the converted data the model was asked with.
BoxesIn = Literal["pixel", "data"]


@dataclass(frozen=True)
class Shape:
    """A known shape of prediction rows.

    Attributes:
        name: Stands in provenance.
        keys: What every row has; the first shape all of whose keys a row has is its shape.
        answer: Key of the model's text; may be absent or null in a row, which is a missing answer.
        boxes_in: Frame of its boxes.
        written_by: For error messages.
        handed_in: Whether its answers are what the challenge got; all others are a model's own texts.
    """

    name: str
    keys: frozenset[str]
    answer: str
    boxes_in: BoxesIn
    written_by: str
    handed_in: bool = False


@dataclass(frozen=True)
class Prediction:
    """One row of a prediction file.

    Attributes:
        row: Place in the file, from 0.
        text: The model's answer; None if there is none.
        id: The record's id, in files keyed by it.
        images: Image names as written.
        question: The question as written.
        dataset: Dataset name, if the row says.
        label: What LLaMA-Factory says was the target.
        value: The answer as any JSON value, of a row that was handed in; "" where it has none. What `text` makes of it
            is for readers that understand answers; the challenge's scorer reads it as it is.
        scorer_key: By what the challenge's scorer joins the row; None where it is no row of the challenge.
        generated: Whether `text` is a model's own, which is tidied before it is handed in.
        profile: Profile that the question was asked with, if the row says.
    """

    row: int
    text: str | None
    id: str | None = None
    images: tuple[str, ...] = ()
    question: str = ""
    dataset: str | None = None
    label: str | None = None
    value: Any = msgspec.UNSET
    scorer_key: str | None = None
    generated: bool = False
    profile: str | None = None

    @property
    def name(self) -> str:
        """How a report names this row."""
        return self.id or f"row {self.row}: {', '.join(self.images)} {self.question[:80]!r}".strip()


@dataclass(frozen=True)
class PredictionFile:
    """A prediction file, read.

    Attributes:
        path: The file.
        shape: Its shape.
        sha256: Of its bytes.
        rows: In the order of the file.
        frame: Frame of its boxes, if its rows name one.
    """

    path: Path
    shape: Shape
    sha256: str
    rows: tuple[Prediction, ...]
    frame: Frame | None = None


@dataclass(frozen=True)
class Reference:
    """One question with the answer it should get.

    Attributes:
        id: Unique among the references, e.g. "flare/validation-public/Xray/dental/000012".
        task: Decides how it is scored.
        dataset: Dataset name.
        question: The question, without image tags.
        images: Image names or paths, as written.
        answer: The source's answer as text; boxes in pixels of the first image.
        target: What a model was trained to say, boxes in the frame of the converted data; None outside converted data.
        image_size: (width, height) of the first image, pixels, or None where it cannot be known.
        row: Place in its file, from 0.
        fields: Its row's other fields that are text or whole numbers, as text; `TaskType` as written is one of them.
        names: Image names as the source wrote them, where `images` are not these.
        split: Split folder it comes from, or the source's name of its split; empty where that is not known.
        written: The source's answer as the JSON value it is; unset outside question files.
        scorer_key: By what the challenge's scorer joins it; None outside question files.
        image: Finds the file of its first image, which may not be there; None where nothing tells.
    """

    id: str
    task: Task
    dataset: str
    question: str
    images: tuple[str, ...]
    answer: str
    target: str | None
    image_size: Callable[[], Size | None]
    row: int
    fields: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    split: str = ""
    written: Any = msgspec.UNSET
    scorer_key: str | None = None
    image: Callable[[], Path | None] = lambda: None

    @property
    def key_names(self) -> tuple[str, ...]:
        """Image names to join by: a converted record may train on a normalised copy or on fewer images."""
        return self.names or self.images


@dataclass(frozen=True)
class References:
    """All references of a path.

    Attributes:
        path: As given.
        kind: "tree", "records" or "challenge".
        items: In the order of the files.
        files: SHA-256 of every file read.
        splits: Split folders they come from; empty where that is not known.
        frame: Frame of converted data, as its manifest says.
        unanswered: Questions left out because they have no answer.
        notes: What a reader of the scores should know.
    """

    path: Path
    kind: str
    items: tuple[Reference, ...]
    files: dict[Path, str]
    splits: tuple[str, ...] = ()
    frame: Frame | None = None
    unanswered: int = 0
    notes: tuple[str, ...] = ()

    @property
    def have_ids(self) -> bool:
        """Whether predictions can be joined to them by id."""
        return self.kind != "challenge"


How = Literal["id", "key", "row"]


@dataclass(frozen=True)
class Joined:
    """References with their predictions.

    Attributes:
        how: What they were joined by.
        pairs: Every reference, with its prediction or None.
        extra: Predictions that answer no reference.
        duplicates: Predictions for a reference that had one already. The first in the file counts.
    """

    how: How
    pairs: list[tuple[Reference, Prediction | None]]
    extra: list[Prediction] = field(default_factory=list)
    duplicates: list[Prediction] = field(default_factory=list)

    @property
    def missing(self) -> list[Reference]:
        """References without a prediction, or whose prediction is null."""
        return [reference for reference, prediction in self.pairs if prediction is None or prediction.text is None]


@dataclass(frozen=True)
class Sample:
    """One reference and its prediction.

    Attributes:
        reference: The question and its right answer.
        truth: The right answer, parsed; not parsed where the reference is dirty (FLARE's endo holds `T` and `A B`).
        text: The model's text, None if there is none.
        answer: The model's answer, parsed.
        exact: Whether the text is the reference's own, apart from case, width and spaces, and means the same.
        taken: The row that the challenge's scorer takes (`evaluation.handed_in`), None where it finds none. Of several
            for one question it takes the last, strict rules the first.
        frame: Frame of the boxes in that row; None if nothing tells.
        model_scores: Report metric -> score by a model (`evaluation.model_based_metrics`), NaN where its
            response could not be understood.
    """

    reference: Reference
    truth: Answer
    text: str | None
    answer: Answer
    exact: bool
    taken: Prediction | None = None
    frame: Frame | None = None
    model_scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def invalid(self) -> bool:
        """Whether there is no answer that can be scored. The reference's own text always can."""
        return not (self.exact or self.answer.parsed)

    @property
    def scorable(self) -> bool:
        """Whether an error can be measured: not against a number that cannot be read. Other answers are just wrong."""
        return self.truth.parsed or not self.reference.task.is_number
