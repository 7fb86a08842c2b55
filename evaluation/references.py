"""References: the answers that predictions are scored against, from a source's tree, converted records or a file."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from evaluation.foreign_references import foreign_references
from evaluation.frames import read_frame, size_on_disk
from evaluation.rows import IN_MEMORY, decode_rows, encode_rows, find_file, other_fields, readable, refuse, scorer_key
from evaluation.samples import Reference, References
from medvl.box_text import in_pixels
from medvl.boxes import Frame, Size
from medvl.errors import DataError
from medvl.sharegpt import MANIFEST, Record, file_sha256, read_records
from medvl.sources import SOURCES, Tree, file_at, tree_at
from medvl.sources.base import Part, Sample, Source, SourceFile, image_path
from medvl.sources.foreign_records import foreign_records
from medvl.sources.places import OutsideError
from medvl.tasks import Task, UnknownNameError, canonical_task


def read_references(path: Path, splits: Sequence[str] = ()) -> References:
    """The references at a path.

    Args:
        path: A tree, a folder in one, a question file, a converted file, or a file (or folder) of answers in the
            challenge's format.
        splits: Splits of a tree. Default: all that have answers, training only if no other has.

    Raises:
        DataError: nothing there, an unknown shape, unusable rows, or no answers at all.
        UnknownNameError: a split that is not there.
    """
    with readable(path):
        return _with_answers(_read_folder(path, splits) if path.is_dir() else _read_file(find_file(path)))


def references_in_memory(rows: Iterable[Record | Mapping[str, Any]]) -> References:
    """References that lie in no file: converted records, or rows of a question file.

    Raises:
        DataError: as `read_references`, or values that JSON cannot hold.
    """
    path = IN_MEMORY / "references"
    data = encode_rows(rows, path)
    decoded = decode_rows(data, path)
    digest = hashlib.sha256(data).hexdigest()
    if not _are_records(decoded):
        return _with_answers(_from_rows(path, decoded, _source_of(path, decoded), digest))
    try:
        records = msgspec.convert(decoded, list[Record])
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {error}; expected the output of a preprocess script") from error
    return _with_answers(_from_records(path, decoded, records, digest))


def _with_answers(references: References) -> References:
    if not references.items:
        raise DataError(
            f"{references.path}: {references.unanswered} questions and not one answer to score against; "
            "the public copy of a hidden split is blank, name a file with answers"
        )
    return references


def _read_folder(path: Path, splits: Sequence[str]) -> References:
    if tree := tree_at(path):
        return _tree(path, tree, tree.files(splits), training=bool(splits or tree.split))
    if (path / MANIFEST).is_file():
        raise DataError(f"{path}: holds several converted files; name the one that was predicted")
    return _read_file(find_file(path))


def _tree(path: Path, tree: Tree, files: Sequence[SourceFile], *, training: bool) -> References:
    """The references of files of a tree; `training`: whether those to train on count although others have answers."""
    if not files:
        raise DataError(f"{path}: no question files in it")
    samples = [sample for file in files for sample in tree.source.read(file).samples]
    answered = [sample for sample in samples if sample.answered]
    held_out = [sample for sample in answered if sample.file.split.role != "train"]
    notes = []
    if not training and held_out:
        if left_out := len(answered) - len(held_out):
            notes.append(f"{left_out} training questions are left out; --splits train scores them")
        answered = held_out
    read = {sample.file for sample in answered}
    return References(
        path=path,
        kind="tree",
        items=tuple(_from_samples(tree.source, answered)),
        files={file.path: file_sha256(file.path) for file in files if file in read},
        splits=tuple(dict.fromkeys(sample.file.split.folder for sample in answered)),
        unanswered=sum(not sample.answered for sample in samples),
        notes=tuple(notes),
    )


def _read_file(path: Path) -> References:
    if (foreign := foreign_records(path)) is not None:
        return foreign_references(path, foreign)
    tree = tree_at(path)
    if tree and path.name.endswith(tree.source.suffix) and not tree.source.reference_keys:
        return _tree(path, tree, [file_at(path)[1]], training=True)
    rows = decode_rows(path.read_bytes(), path)
    if _are_records(rows):
        return _from_records(path, rows, read_records(path), file_sha256(path))
    source = _source_of(path, rows)
    if tree:
        return _tree(path, tree, [file_at(path)[1]], training=True)
    return _from_rows(path, rows, source, file_sha256(path))


def _are_records(rows: Sequence[Mapping[str, Any]]) -> bool:
    return bool(rows) and {"conversations", "source"} <= rows[0].keys()


def _source_of(path: Path, rows: Sequence[Mapping[str, Any]]) -> Source:
    """The source whose question files hold such rows; raises DataError if there is none."""
    in_rows = [source for source in SOURCES.values() if source.reference_keys]
    for source in in_rows:
        if not rows or set(source.reference_keys) <= rows[0].keys():
            return source
    *keys, last = in_rows[0].reference_keys
    raise DataError(
        f"{path}: not references, its first row has the keys {', '.join(sorted(rows[0]))}; "
        f"expected {', '.join(keys)} and {last}, or records of a preprocess script"
    )


def _from_rows(path: Path, rows: Sequence[dict[str, Any]], source: Source, digest: str) -> References:
    """The references of a question file outside a tree."""
    samples = source.samples(source.file_at(path), rows)
    answered = [sample for sample in samples if sample.answered]
    return References(
        path=path,
        kind="challenge",
        items=tuple(_from_samples(source, answered, outside=True)),
        files={path: digest},
        unanswered=len(rows) - len(answered),
    )


def _from_samples(source: Source, samples: Iterable[Sample], *, outside: bool = False) -> list[Reference]:
    """Samples as references; `outside` a tree there are no images, and their names tell the dataset."""
    references, errors = [], []
    parts: tuple[Part, ...] = ("task", "images", "question") if outside else ("task", "question", "images")
    for sample in samples:
        if problem := sample.problem(*parts, "answer"):
            errors.append(f"{sample.file.path}, row {sample.index}: {problem.detail}")
            continue
        assert sample.task is not None
        image = (lambda: None) if outside else _first_image(source, sample)
        references.append(
            Reference(
                id=f"{sample.file.path.stem}/{sample.index:06d}" if outside else f"{source.name}/{sample.id}",
                task=sample.task,
                dataset=source.dataset_of(sample.images, sample.task) if outside else sample.dataset,
                question=sample.question,
                images=sample.images,
                answer=_answer(sample, image),
                target=None,
                image_size=_size_reader(image),
                row=sample.index,
                image=image,
                fields=other_fields(sample.row),
                split="" if outside else sample.file.split.folder,
                written=sample.written,
                scorer_key=scorer_key(sample.row),
            )
        )
    refuse(errors)
    return references


def _first_image(source: Source, sample: Sample) -> Callable[[], Path | None]:
    """Finds the file of the first image, whether it is there or not; None where its name leads out."""

    def find() -> Path | None:
        try:
            return image_path(source, sample.file, sample.images[0]) if sample.images else None
        except OutsideError:
            return None

    return find


def _size_reader(image: Callable[[], Path | None]) -> Callable[[], Size | None]:
    return cache(lambda: size_on_disk(path) if (path := image()) else None)


def _answer(sample: Sample, image: Callable[[], Path | None]) -> str:
    """The answer as text; boxes as data in pixels of the first image."""
    if sample.boxes is None:
        return sample.answer
    path = image()
    size = size_on_disk(path) if path and sample.boxes.frame != Frame.PIXEL else (1, 1)
    if size is None:
        raise DataError(f"{sample.file.path}, row {sample.index}: {path} cannot be read, and its boxes need its size")
    return in_pixels(sample.boxes.parsed, size, sample.boxes.frame, maps=sample.task is Task.INSTANCE_DETECTION)[1]


def _from_records(path: Path, rows: Sequence[Mapping[str, Any]], records: Sequence[Record], digest: str) -> References:
    items = tuple(
        _from_record(index, record, other_fields(row), path.parent)
        for index, (record, row) in enumerate(zip(records, rows, strict=True))
        if record.source.truth.strip()
    )
    frame, notes = read_frame(path)
    return References(
        path=path,
        kind="records",
        items=items,
        files={path: digest},
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


def _from_record(row: int, record: Record, fields: dict[str, str], folder: Path) -> Reference:
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
        answer=record.source.truth,
        target=record.target,
        image_size=lambda: size,
        row=row,
        fields=fields | ({} if record.source.group is UNSET else {"group": record.source.group}),
        names=tuple(record.source.names),
        split=record.source.split,
        image=lambda: folder / record.images[0] if record.images else None,
    )
