"""What is asked: the questions of a source's tree, of question files, or of records that a preprocess script wrote."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from medvl.boxes import Frame, Size
from medvl.control_tokens import control_tokens
from medvl.errors import DataError
from medvl.instructions import Instruction, fingerprint
from medvl.predict.foreign import EXPECTED, QUESTION_KEYS, foreign_files, foreign_keys
from medvl.sharegpt import IMAGE_TAG, MEDIA_TAGS, Record, RecordError, read_manifest, read_records
from medvl.sources import Tree, file_at, tree_at, trees_below
from medvl.sources.base import OutsideError, Sample, Source, SourceFile, image_path
from medvl.sources.foreign_records import ForeignRecord, foreign_records
from medvl.tasks import Task, UnknownNameError, canonical_task

_RECORD_KEYS = ("conversations", "images")
# Written by tools into folders of question files; none of them holds questions. `report_generation.json` may.
_NOT_QUESTIONS = ("dataset_info", "manifest", "report")


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
    frame: Frame = "pixel"


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
        for source, file, prefix in _files(path, splits):
            yield from _asked(source, file, prefix)
    elif not path.is_file():
        raise DataError(f"{path}: there is no such file or folder")
    elif splits:
        raise DataError(f"{path}: a file has no splits to choose from; remove --splits")
    elif (foreign := foreign_records(path)) is not None:
        yield from (_from_foreign(record, path) for record in foreign)
    elif _holds(path, _RECORD_KEYS):
        yield from (_from_record(record, instructions) for record in _records(path, instructions))
    else:
        yield from _asked(*file_at(path), None if tree_at(path) else path.stem)


def _files(folder: Path, splits: Sequence[str]) -> Iterator[tuple[Source, SourceFile, str | None]]:
    """Question files, each with its source and the first part of its ids; None where the tree names them."""
    tree = tree_at(folder)
    inside = folder.resolve()
    if tree is None:
        loose = [path for path in sorted(inside.rglob("*.json")) if _is_loose_file(path, inside)]
        if trees := list(trees_below(inside)):
            tree = _only_tree(folder, trees, loose)
    if tree is not None:
        if tree.split and splits and not {tree.split.folder, tree.split.name} & set(splits):
            raise DataError(f"{folder}: lies in the split {tree.split.folder}; remove --splits")
        yield from ((tree.source, file, None) for file in _tree_files(tree, splits))
    elif splits:
        raise DataError(f"{folder}: no tree of a data source, so that it has no splits; remove --splits")
    else:
        answered = {path.with_name(path.name.replace("_withGT", "")) for path in loose if "_withGT" in path.name}
        for path in loose:
            if path not in answered:
                yield *file_at(path), path.relative_to(inside).with_suffix("").as_posix()


def _tree_files(tree: Tree, splits: Sequence[str]) -> list[SourceFile]:
    files = tree.files(splits)
    rest = [file for file in files if file.split.role != "train"]
    return files if splits or tree.split else rest or files


def _only_tree(folder: Path, trees: Sequence[Tree], loose: Iterable[Path]) -> Tree:
    """The tree below a folder, where it is all there is.

    Read as loose files, it would be asked for its training split too, and under ids that scoring does not know.

    Raises:
        DataError: there are several, or other question files beside it.
    """
    beside = [path for path in loose if not any(path.is_relative_to(tree.root) for tree in trees)]
    if len(trees) == 1 and not beside:
        return trees[0]
    found = ", ".join(map(str, [*(tree.root for tree in trees), *beside[:1]]))
    title = trees[0].source.title
    number = f"{len(trees)} {title} trees lie" if len(trees) > 1 else f"a {title} tree lies"
    others = " and question files beside" if beside else ""
    raise DataError(f"{folder}: {number} below it{others}: {found}; give one of them as --data")


def _is_loose_file(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)
    named = path.stem.lower() in _NOT_QUESTIONS or "predictions" in path.stem.lower()
    return not hidden and not named and _holds(path, QUESTION_KEYS, broken=True)


def _holds(path: Path, keys: Iterable[str], *, broken: bool = False) -> bool:
    """Whether a file is a JSON list of objects with these keys; `broken` for one that is not JSON.

    A broken file counts as questions in a folder, so that reading it refuses it: questions would be lost silently.
    """
    try:
        content = msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return broken
    if isinstance(content, dict):
        content = next((value for value in content.values() if isinstance(value, list)), [])
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and set(keys) <= set(content[0])


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
    manifest = read_manifest(path.parent)
    stated = manifest.options.profiles_fingerprint if manifest and path.name in manifest.files else None
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
        before, tag, text = prompt.rpartition(IMAGE_TAG)
        head = before + tag
        if tag and text.startswith("\n"):
            head, text = f"{head}\n", text[1:]
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
        text=_without(text, instructions.get(task) if task else None) if asked is UNSET else asked,
        head=head,
        images=tuple(map(Path, record.images)),
        normalised=True,
        task=task,
        size=record.source.sizes[0] if record.source.sizes else None,
        file=Path(record.source.file),
        index=record.source.index,
        problem=problem,
        frame="pixel" if record.source.frame is UNSET else record.source.frame,
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


def _without(text: str, instruction: Instruction | None) -> str:
    """The question before the instruction of its task was added."""
    if instruction is None:
        return text
    if instruction.position == "suffix":
        return text.removesuffix(f"\n{instruction.text}")
    return text.removeprefix(f"{instruction.text}\n")


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
