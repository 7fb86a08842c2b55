"""What is asked: the questions of a source's tree, of question files, or of records that a preprocess script wrote."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import UNSET

from medvl.boxes import Frame, Size
from medvl.control_tokens import control_tokens
from medvl.errors import DataError
from medvl.instructions import Instruction, fingerprint, without_instruction
from medvl.predict.foreign import EXPECTED, foreign_files, foreign_keys
from medvl.predict.question_files import holds, question_files
from medvl.sharegpt import IMAGE_TAG, MEDIA_TAGS, Record, RecordError, manifest_of, read_records, split_prompt
from medvl.sources import file_at, tree_at
from medvl.sources.base import Sample, Source, SourceFile, image_path
from medvl.sources.foreign_records import ForeignRecord, foreign_records
from medvl.sources.places import OutsideError
from medvl.tasks import Task, UnknownNameError, canonical_task

_RECORD_KEYS = ("conversations", "images")


@dataclass(frozen=True)
class Question:
    """One question about its images.

    Attributes:
        id: Unique; scoring joins by it.
        dataset: Name of its dataset.
        text: As its source asks it, verbatim.
        head: What stands before the text in the prompt: a tag per image, and line breaks.
        images: Its images.
        normalised: Whether the images are as training shows them already; else `medvl.images` mends them.
        task: Its own task, None where that is not known. Only used when asked for: the challenge forbids it.
        size: (width, height) of its first image as shown, pixels; None where only the image tells.
        file: The question file it comes from.
        index: Row in that file, from 0.
        problem: Why it cannot be asked; None if it can.
        frame: Frame of boxes in its text (`medvl.question_boxes`).
    """

    id: str
    dataset: str
    text: str
    head: str
    images: tuple[Path, ...]
    normalised: bool
    task: Task | None
    size: Size | None
    file: Path
    index: int
    problem: str | None = None
    frame: Frame = Frame.PIXEL


def read_questions(
    path: Path, *, splits: Sequence[str] = (), instructions: Mapping[Task, Instruction] | None = None
) -> list[Question]:
    """All questions of a path, in the order of its files.

    Args:
        path: A tree, a folder in one or right above one, a folder of question files, a question file, or a file of
            records.
        splits: Splits of a tree; default: all but training, training only if there is nothing else.
        instructions: Those of the profiles in use. Records that were made with them hold them already; the question
            that the router and the profiles see is the one before.

    Raises:
        DataError: nothing to ask, ids that are not unique, records made with other instructions, or a file that cannot
            be read.
        UnknownNameError: a split that is not there.
    """
    questions = list(_questions(path, splits, instructions or {}))
    if not questions:
        raise DataError(f"{path}: no questions in it{foreign_files(path)}")
    repeated = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: {len(repeated)} ids stand twice, first {repeated[0]}; every question needs its own")
    return questions


def _questions(path: Path, splits: Sequence[str], instructions: Mapping[Task, Instruction]) -> Iterator[Question]:
    if path.is_dir():
        for source, file, prefix in question_files(path, splits):
            yield from _asked(source, file, prefix)
    elif not path.is_file():
        raise DataError(f"{path}: there is no such file or folder")
    elif splits:
        raise DataError(f"{path}: a file has no splits to choose from; remove --splits")
    elif (foreign := foreign_records(path)) is not None:
        yield from (_from_foreign(record, path) for record in foreign)
    elif holds(path, _RECORD_KEYS):
        yield from (_from_record(record, instructions) for record in _records(path, instructions))
    else:
        yield from _asked(*file_at(path), None if tree_at(path) else path.stem)


def _asked(source: Source, file: SourceFile, prefix: str | None) -> Iterator[Question]:
    try:
        samples = source.read(file).samples
    except DataError as error:
        if found := foreign_keys(file.path):
            raise DataError(f"{error}; found {found}; {EXPECTED}") from error
        raise
    if samples and not all(any(key in sample.row for sample in samples) for key in source.question_keys):
        raise DataError(f"{file.path}: found {foreign_keys(file.path)}; {EXPECTED}")
    for sample in samples:
        name = f"{source.name}/{sample.id}" if prefix is None else f"{prefix}/{sample.index:06d}"
        yield _from_sample(source, sample, name)


def _from_sample(source: Source, sample: Sample, name: str) -> Question:
    text, images = "", tuple[Path, ...]()
    found = sample.problem("question", "images")
    problem = found.detail if found else None
    if problem is None:
        try:
            images = tuple(image_path(source, sample.file, image) for image in sample.images)
            text = sample.question
            tags = [tag for tag in MEDIA_TAGS if tag in text]
            problem = f"the question holds a literal {tags[0]}, which stands for an image" if tags else _problem(text)
        except OutsideError as error:
            problem = str(error)
    return Question(
        id=name,
        dataset=sample.dataset,
        text=text,
        head=f"{IMAGE_TAG}\n" * len(images),
        images=images,
        normalised=False,
        task=sample.task,
        size=None,
        file=sample.file.path,
        index=sample.index,
        problem=problem,
    )


def holds_control_tokens(found: Sequence[str]) -> str:
    """Why a question with these control tokens is not asked."""
    return f"the question holds {', '.join(found)}, which the model does not read as text; write it in other words"


def _problem(text: str) -> str | None:
    found = control_tokens(text)
    return holds_control_tokens(found) if found else None


def _records(path: Path, instructions: Mapping[Task, Instruction]) -> list[Record]:
    manifest = manifest_of(path)
    stated = manifest.options.profiles_fingerprint if manifest else None
    if stated is not None and stated != fingerprint(instructions):
        raise DataError(
            f"{path}: its questions hold the instructions of other profiles; give the --profiles file that "
            "preprocess script was given, or predict from the source's tree"
        )
    try:
        return read_records(path)
    except RecordError as error:
        raise DataError(f"{error}; found {foreign_keys(path)}; {EXPECTED}") from error


def _from_record(record: Record, instructions: Mapping[Task, Instruction]) -> Question:
    head, text, problem = "", "", None
    speakers = [turn.speaker for turn in record.conversations]
    if speakers != ["human", "gpt"]:
        problem = f"expected a human turn and a gpt turn, found {speakers}"
    else:
        prompt = record.conversations[0].value
        head, text = split_prompt(prompt)
        if prompt.count(IMAGE_TAG) != len(record.images):
            problem = f"{prompt.count(IMAGE_TAG)} {IMAGE_TAG} tags but {len(record.images)} images"
        else:
            problem = _problem(prompt)
    try:
        task = canonical_task(record.task)
    except UnknownNameError:
        task = None
    asked = record.source.question
    return Question(
        id=record.id,
        dataset=record.dataset,
        text=without_instruction(text, instructions.get(task) if task else None) if asked is UNSET else asked,
        head=head,
        images=tuple(map(Path, record.images)),
        normalised=True,
        task=task,
        size=record.source.sizes[0] if record.source.sizes else None,
        file=Path(record.source.file),
        index=record.source.index,
        problem=problem,
        frame=Frame.PIXEL if record.source.frame is UNSET else record.source.frame,
    )


def _from_foreign(record: ForeignRecord, path: Path) -> Question:
    return Question(
        id=record.id,
        dataset=path.stem,
        text=record.question,
        head=f"{IMAGE_TAG}\n" * len(record.images),
        images=record.images,
        normalised=False,
        task=record.task if record.stated else None,
        size=None,
        file=path,
        index=record.index,
        problem=record.problem or _problem(record.question),
    )


def choose(questions: Sequence[Question], limit: int | None, shard: tuple[int, int]) -> list[Question]:
    """The first `limit` questions; of these, every n-th from the i-th on, for `shard` (i, n)."""
    first, step = shard
    return list(questions[:limit][first - 1 :: step])


def source_rows(questions: Iterable[Question]) -> Iterator[dict[str, Any]]:
    """The row of its question file that each question comes from, untouched.

    Raises:
        DataError: a file is not there any more, or has changed.
    """
    files: dict[Path, list[Sample]] = {}
    for question in questions:
        if question.file not in files:
            try:
                source, file = file_at(question.file)
                files[question.file] = source.read(file).samples
            except (OSError, DataError) as error:
                raise DataError(
                    f"{question.id}: the challenge's format holds rows of question files: {error}; give the tree as "
                    "--data"
                ) from error
        samples = files[question.file]
        asked = samples[question.index] if question.index < len(samples) else None
        if question.problem is None and (asked is None or asked.question.strip() != question.text.strip()):
            raise DataError(
                f"{question.id}: {question.file}, row {question.index}, asks something else; the file has changed "
                "since the records were made, run the preprocess script again"
            )
        yield dict(asked.row) if asked else {}
