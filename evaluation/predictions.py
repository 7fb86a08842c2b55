"""Prediction files: which shape a file has, and its rows in one form."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from evaluation.rows import IN_MEMORY, Row, decode_rows, encode_rows, find_file, image_names, readable, scorer_key
from evaluation.samples import Prediction, PredictionFile, Shape
from medvl.answers import answer_text
from medvl.boxes import Frame
from medvl.errors import DataError

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


def read_predictions(path: Path) -> PredictionFile:
    """A prediction file of any known shape.

    Raises:
        DataError: no file, no rows, an unknown shape, a row that lacks its keys, or boxes in no or several frames.
    """
    with readable(path):
        path = find_file(path)
        return _of_bytes(path, path.read_bytes())


def predictions_in_memory(given: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> PredictionFile:
    """Predictions that lie in no file: id -> text, or rows of any known shape, `id` and `prediction` for one.

    Raises:
        DataError: as `read_predictions`, or values that JSON cannot hold.
    """
    if isinstance(given, Mapping):
        given = [{"id": name, "prediction": text} for name, text in given.items()]
    return _of_bytes(IN_MEMORY / "predictions", encode_rows(given, IN_MEMORY / "predictions"))


def _of_bytes(path: Path, data: bytes) -> PredictionFile:
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
    try:
        return Frame(stated.pop()) if stated else None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


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


def choose_frame(asked: Frame | None, file: PredictionFile, of_data: Frame | None) -> Frame | None:
    """The frame of a file's boxes: as asked, else as its rows say, else pixels or the converted data's, by its shape.

    None where nothing tells; that matters only if there are boxes.
    """
    return asked or file.frame or (Frame.PIXEL if file.shape.boxes_in == "pixel" else of_data)
