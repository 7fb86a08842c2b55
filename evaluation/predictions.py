"""Prediction files: which shape a file has, and its rows in one form."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from medvl.answers import answer_text
from medvl.boxes import FRAMES, Frame
from medvl.errors import DataError

Row = dict[str, Any]
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


# Most telling first: a Qwen3 row has all keys of a challenge row, whose `Answer` holds the truth there.
SHAPES: tuple[Shape, ...] = (
    Shape("llamafactory", frozenset({"predict", "label"}), "predict", "data", "LLaMA-Factory's do_predict"),
    Shape("qwen3", frozenset({"ImageName", "Question", "prediction"}), "prediction", "pixel", "FLARE25-QWen3VL-4B"),
    Shape("m3llm", frozenset({"id", "task", "question", "reference_answer", "prediction"}), "prediction", "data",
          "M3LLM's evaluate_all.py"),  # its ids are places in the file of a task
    Shape("by_id", frozenset({"id", "prediction"}), "prediction", "data", "medvl predict"),
    Shape("challenge", frozenset({"ImageName", "Question"}), "Answer", "pixel", "the challenge's predictions.json",
          handed_in=True),
)  # fmt: skip

# A folder stands for the first of these that it holds.
FILE_NAMES = ("predictions.json", "predictions.jsonl", "generated_predictions.jsonl", "all_predictions.json")


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


def find_file(path: Path) -> Path:
    """The file meant by `path`: itself, or the prediction file in a folder.

    Raises:
        DataError: there is none.
    """
    if path.is_file():
        return path
    for name in FILE_NAMES:
        if (path / name).is_file():
            return path / name
    missing = f"expected one of {', '.join(FILE_NAMES)} in it" if path.is_dir() else "there is no such file"
    raise DataError(f"{path}: {missing}")


def decode_rows(data: bytes, path: Path) -> list[Row]:
    """The objects of a JSON list or of JSON lines; blank lines are skipped.

    Raises:
        DataError: not JSON, or something else than objects; names the line.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    numbers: Sequence[int] = ()
    try:
        values = msgspec.json.decode(data)
        values = [values] if isinstance(values, dict) else values
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if data.lstrip()[:1] == b"[":
            raise DataError(f"{path}: not JSON ({error}); write the file again, it may have been cut off") from error
        lines = [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
        numbers = [number for number, _ in lines]
        values = [_decode_line(line, f"{path}, line {number}") for number, line in lines]
    if not isinstance(values, list):
        raise DataError(f"{path}: a {type(values).__name__}; expected a JSON list or JSON lines of objects")
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            where = f"line {numbers[index]}" if numbers else f"row {index}"
            raise DataError(f"{path}, {where}: a {type(value).__name__}; expected a JSON object")
    return values


def _decode_line(line: bytes, where: str) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{where}: not JSON ({error}); remove the line if a run was cut off while writing it"
        ) from error


def shape_of(row: Mapping[str, Any], path: Path) -> Shape:
    """The shape of a row, by its keys.

    Raises:
        DataError: no known shape; shows the keys found and the shapes known.
    """
    for shape in SHAPES:
        if shape.keys <= row.keys():
            return shape
    known = "; ".join(f"{shape.written_by}: {', '.join(sorted(shape.keys | {shape.answer}))}" for shape in SHAPES)
    raise DataError(f"{path}: unknown shape, its first row has the keys {', '.join(sorted(row))}; known are {known}")


def image_names(value: object) -> tuple[str, ...]:
    """Image names of a row: a string is one image. Empty for anything else."""
    names = [value] if isinstance(value, str) else value
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def read_predictions(path: Path) -> PredictionFile:
    """A prediction file of any known shape.

    Raises:
        DataError: no file, no rows, an unknown shape, a row that lacks its keys, or boxes in no or several frames.
    """
    path = find_file(path)
    data = path.read_bytes()
    rows = decode_rows(data, path)
    if not rows:
        raise DataError(f"{path}: holds no predictions")
    shape = shape_of(rows[0], path)
    for index, row in enumerate(rows):
        if lacking := shape.keys - row.keys():
            keys = f"it lacks {', '.join(sorted(lacking))}, which the first row has"
            raise DataError(f"{path}, row {index}: {keys}; all rows of a file must have one shape")
    predictions = tuple(_prediction(index, row, shape) for index, row in enumerate(rows))
    return PredictionFile(path, shape, hashlib.sha256(data).hexdigest(), predictions, _frame(rows, shape, path))


def _frame(rows: Sequence[Row], shape: Shape, path: Path) -> Frame | None:
    """The frame that `medvl predict` writes into its rows: that of the answers its adapters were trained on."""
    stated = {row["frame"] for row in rows if row.get("frame") is not None} if shape.name == "by_id" else set()
    if len(stated) > 1:
        raise DataError(
            f"{path}: boxes in several frames ({', '.join(sorted(map(str, stated)))}); score predictions.json"
        )
    frame = next((known for known in FRAMES if stated == {known}), None)
    if stated and frame is None:
        raise DataError(f"{path}: unknown frame {stated.pop()!r}; known are {', '.join(FRAMES)}")
    return frame


def _prediction(index: int, row: Row, shape: Shape) -> Prediction:
    answer = row.get(shape.answer)
    text = answer if isinstance(answer, str) or answer is None else answer_text(answer)
    if shape.name == "llamafactory":
        return Prediction(index, text, label=str(row["label"]), generated=True)
    dataset, profile = row.get("dataset"), row.get("task")
    by_id = shape.name == "by_id"
    return Prediction(
        index,
        text,
        id=str(row["id"]) if by_id else None,
        images=image_names(row.get("ImageName")),
        question=str(row.get("question" if shape.name == "m3llm" else "Question") or ""),
        dataset=dataset if isinstance(dataset, str) else None,
        value=row.get("Answer", "") if shape.handed_in else msgspec.UNSET,
        scorer_key=None if by_id else scorer_key(row),
        generated=not shape.handed_in,
        profile=profile if by_id and isinstance(profile, str) else None,
    )


def scorer_key(row: Mapping[str, Any]) -> str:
    """By what the challenge's scorer joins rows; the names of several images as Python prints their list."""
    return f"{row.get('ImageName', '')}||{row.get('Question', '')}"
