"""References: the answers that predictions are scored against, from a FLARE tree, converted records or another file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from evaluation.frames import read_frame, size_on_disk
from evaluation.predictions import decode_rows, find_file, scorer_key
from medvl.boxes import Frame, Size
from medvl.errors import DataError
from medvl.sharegpt import MANIFEST, Record, RecordError, file_sha256, read_records
from medvl.sources.flare import (
    SPLITS,
    FlareError,
    Question,
    QuestionFile,
    find_question_files,
    image_path,
    question_file,
    read_questions,
)
from medvl.tasks import Task, UnknownNameError, canonical_task

# First part of image names -> dataset, as in the release. Only for files that stand outside a tree.
_IMAGES = {
    "bcn20000": "bcn20000", "bone_marrow": "bone_marrow", "boneresorption": "boneresorption", "bus-uclm": "BUS-UCLM",
    "busi": "BUSI", "cell": "neurips22cell", "chestdr": "chestdr", "chrm": "chromosome", "cmmd": "CMMD",
    "endo": "endo", "fundus": "fundus", "iu-xray": "IU_XRay", "iugc": "iugc", "neojaundice": "neojaundice",
    "prml": "periapical", "pxmt": "dental", "retino": "retino",
}  # fmt: skip
_SHOWN = 5


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


def read_references(path: Path, splits: Sequence[str] = ()) -> References:
    """The references at a path.

    Args:
        path: A FLARE tree, a folder in one, a question file, a converted file, or a file (or folder) of answers in the
            challenge's format.
        splits: Splits of a tree. Default: all that have answers, training only if no other has.

    Raises:
        DataError: nothing there, an unknown shape, unusable rows, or no answers at all.
        UnknownNameError: a split that is not there.
    """
    try:
        references = _read_folder(path, splits) if path.is_dir() else _read_file(find_file(path))
    except (FlareError, RecordError) as error:
        raise DataError(str(error)) from error
    if not references.items:
        raise DataError(
            f"{path}: {references.unanswered} questions and not one answer to score against; "
            "the public copy of a hidden split is blank, name a file with answers"
        )
    return references


def _read_folder(path: Path, splits: Sequence[str]) -> References:
    inside = path.resolve()
    split_folders = {split.folder for split in SPLITS.values()}
    if any((inside / folder).is_dir() for folder in split_folders):
        return _tree(path, list(find_question_files(inside, splits)), training=bool(splits))
    above = next((folder for folder in (inside, *inside.parents) if folder.name in split_folders), None)
    if above is not None:
        files = find_question_files(above.parent, [above.name])
        return _tree(path, [file for file in files if file.path.is_relative_to(inside)], training=True)
    if (path / MANIFEST).is_file():
        raise DataError(f"{path}: holds several converted files; name the one that was predicted")
    return _read_file(find_file(path))


def _tree(path: Path, files: Sequence[QuestionFile], *, training: bool) -> References:
    """The references of question files; `training` says whether training files count although others have answers."""
    if not files:
        raise DataError(f"{path}: no question files in it")
    questions = [question for file in files for question in read_questions(file)]
    answered = [question for question in questions if question.answer.strip()]
    notes = []
    if not training and any(question.file.split.name != "train" for question in answered):
        left_out = [question for question in answered if question.file.split.name == "train"]
        answered = [question for question in answered if question.file.split.name != "train"]
        if left_out:
            notes.append(f"{len(left_out)} training questions are left out; --splits train scores them")
    read = {question.file for question in answered}
    return References(
        path=path,
        kind="tree",
        items=tuple(_from_questions(answered, lambda question: f"flare/{question.id}")),
        files={file.path: file_sha256(file.path) for file in files if file in read},
        splits=tuple(dict.fromkeys(question.file.split.folder for question in answered)),
        unanswered=sum(not question.answer.strip() for question in questions),
        notes=tuple(notes),
    )


def _read_file(path: Path) -> References:
    rows = decode_rows(path.read_bytes(), path)
    if rows and {"conversations", "source"} <= rows[0].keys():
        return _records(path, rows)
    if rows and not {"TaskType", "ImageName", "Question", "Answer"} <= rows[0].keys():
        raise DataError(
            f"{path}: not references, its first row has the keys {', '.join(sorted(rows[0]))}; "
            "expected TaskType, ImageName, Question and Answer, or records of a preprocess script"
        )
    file = question_file(path)
    if file.split.folder in path.resolve().parts:
        return _tree(path, [file], training=True)
    answered = [question for index, row in enumerate(rows) if (question := Question(file, index, row)).answer.strip()]
    return References(
        path=path,
        kind="challenge",
        items=tuple(_from_questions(answered, lambda question: f"{path.stem}/{question.index:06d}", outside=True)),
        files={path: file_sha256(path)},
        unanswered=len(rows) - len(answered),
    )


def _from_questions(
    questions: Iterable[Question], name: Callable[[Question], str], *, outside: bool = False
) -> list[Reference]:
    """Questions as references; `outside` a tree there are no images, and their names tell the dataset."""
    references, errors = [], []
    for question in questions:
        try:
            references.append(
                Reference(
                    id=name(question),
                    task=question.task,
                    dataset=dataset_of(question.images, question.task) if outside else question.file.dataset,
                    question=question.text,
                    images=question.images,
                    answer=question.answer,
                    target=None,
                    image_size=(lambda: None) if outside else _size_reader(question),
                    row=question.index,
                    fields=_other_fields(question.row),
                    split="" if outside else question.file.split.folder,
                    written=question.row["Answer"],
                    scorer_key=scorer_key(question.row),
                )
            )
        except (FlareError, UnknownNameError) as error:
            errors.append(f"{question.file.path}, row {question.index}: {error}")
    if errors:
        more = f" and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise DataError(f"{len(errors)} references cannot be used, mend their rows: {'; '.join(errors[:_SHOWN])}{more}")
    return references


def _size_reader(question: Question) -> Callable[[], Size | None]:
    return cache(lambda: size_on_disk(image_path(question.file, question.images[0])))


# Fields that have a place of their own in a reference.
_KNOWN_FIELDS = {"ImageName", "Question", "Answer", "id", "dataset", "task", "conversations", "images", "source"}


def _other_fields(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(row[key]) for key in row.keys() - _KNOWN_FIELDS if isinstance(row[key], str | int)}


def dataset_of(images: Sequence[str], task: Task) -> str:
    """The dataset an image belongs to by its name, for rows that stand outside a tree.

    >>> dataset_of(["imagesVal/PXMT_00736.png"], Task.CLASSIFICATION)
    'dental'
    """
    stem = images[0].replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    prefix = next((prefix for prefix in _IMAGES if stem.lower().startswith(f"{prefix}_")), None)
    if prefix is None:
        return "unknown"
    detection = task is Task.DETECTION and prefix in ("busi", "bus-uclm")  # two datasets each share their images
    return _IMAGES[prefix] + ("-det" if detection else "")


def _records(path: Path, rows: Sequence[Mapping[str, Any]]) -> References:
    records = read_records(path)
    items = tuple(
        _from_record(index, record, _other_fields(row))
        for index, (record, row) in enumerate(zip(records, rows, strict=True))
        if record.source.answer.strip()
    )
    frame, notes = read_frame(path)
    return References(
        path=path,
        kind="records",
        items=items,
        files={path: file_sha256(path)},
        splits=tuple(dict.fromkeys(record.source.split for record in records)),
        frame=frame,
        unanswered=len(records) - len(items),
        notes=notes,
    )


def _task(record: Record) -> Task:
    try:
        return canonical_task(record.task)
    except UnknownNameError as error:
        raise DataError(f"{record.id}: {error}") from error


def _from_record(row: int, record: Record, fields: dict[str, str]) -> Reference:
    speakers = [turn.speaker for turn in record.conversations]
    if speakers != ["human", "gpt"]:
        raise DataError(f"{record.id}: expected a human turn and a gpt turn, found {speakers}")
    size = record.source.sizes[0] if record.source.sizes else None
    return Reference(
        id=record.id,
        task=_task(record),
        dataset=record.dataset,
        question=record.source_question,
        images=tuple(record.images),
        answer=record.source.answer,
        target=record.target,
        image_size=lambda: size,
        row=row,
        fields=fields,
        names=tuple(record.source.names),
        split=record.source.split,
    )
