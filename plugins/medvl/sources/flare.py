"""The FLARE-Task5-MLLM-2D tree: which question files there are, and their rows as typed questions.

Layout: `<root>/<split>/<Category>/<dataset>/<dataset>_questions_<train|val|test>.json` beside `images<Tr|Val|Ts>/`.
A row has `TaskType, Modality, ImageName, Question, Answer, Split` and no id. Shared by preprocessing and scoring.
"""

import json
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from medvl.answers import WrittenNumber, answer_text
from medvl.files import not_utf8, read_file
from medvl.tasks import Task, canonical_task, unknown_name


@dataclass(frozen=True)
class Split:
    """A split folder.

    Attributes:
        name: Short name, used for entries and options: train, val, hidden, test.
        folder: Folder under the root.
        stem: What the question file's name ends in.
        images: Folder of the images beside it.
    """

    name: str
    folder: str
    stem: str
    images: str


SPLITS: dict[str, Split] = {
    split.name: split
    for split in (
        Split("train", "training", "train", "imagesTr"),
        Split("val", "validation-public", "val", "imagesVal"),
        Split("hidden", "validation-hidden", "val", "imagesVal"),
        Split("test", "testing", "test", "imagesTs"),
    )
}


_PLAIN_NAME = re.compile(
    r"[\w-]+/[\w-]+\.\w+"
)  # imagesTr/BUSI_00012.png, as nearly all are: there is nothing to resolve
# Keys under which loaders of other projects accept the list of rows.
_WRAPPERS = ("data", "questions", "annotations", "items")
_ROW_KEYS = {"TaskType", "ImageName", "Question", "Answer"}


class FlareError(ValueError):
    """A FLARE tree or question file that cannot be read; the message names it and says what was expected."""


class OutsideError(FlareError):
    """An image name that leads out of its dataset's folder."""


@dataclass(frozen=True)
class QuestionFile:
    """One question file: `path` holds the questions of `dataset` in `split`."""

    split: Split
    category: str
    dataset: str
    path: Path


@dataclass(frozen=True)
class Question:
    """One row of a question file.

    Attributes:
        file: Where it stands.
        index: Row in the file, from 0.
        row: The row as it is, untouched.
    """

    file: QuestionFile
    index: int
    row: dict[str, Any]

    @property
    def id(self) -> str:
        """Unique in a tree: `<split folder>/<category>/<dataset>/<row>`."""
        return f"{self.file.split.folder}/{self.file.category}/{self.file.dataset}/{self.index:06d}"

    @property
    def task(self) -> Task:
        """The canonical task of `TaskType`; raises `medvl.tasks.UnknownNameError`."""
        return canonical_task(str(self.row.get("TaskType", "")))

    @cached_property
    def images(self) -> tuple[str, ...]:
        """Image names as written, relative to the file's folder; a string there means one image."""
        names = self.row.get("ImageName")
        listed = [names] if isinstance(names, str) else names
        if not isinstance(listed, list) or not listed or not all(isinstance(name, str) and name for name in listed):
            raise FlareError(f"{self.id}: ImageName is {names!r}; expected a file name or a list of file names")
        return tuple(listed)

    @property
    def text(self) -> str:
        """The question, verbatim."""
        question = self.row.get("Question")
        if not isinstance(question, str) or not question.strip():
            raise FlareError(f"{self.id}: Question is {question!r}; expected text")
        return question

    @property
    def answer(self) -> str:
        """The answer as text, verbatim; empty where it is blank, null or absent, as in public copies of hidden data."""
        answer = self.row.get("Answer")
        text = "" if answer is None else answer_text(answer)
        return text if text.strip() else ""


def find_question_files(root: Path, splits: Sequence[str] = (), datasets: Sequence[str] = ()) -> Iterator[QuestionFile]:
    """The question files of a tree, one per split and dataset, in the order of `SPLITS`, category and dataset.

    Args:
        root: The tree.
        splits: Names or folders of splits; all if empty.
        datasets: Names of datasets; all that are there if empty.

    Raises:
        FlareError: no split folder under `root`, or no dataset in it; or, after the last file, dataset folders without
            a question file, with several that could be meant or with a name that is not UTF-8, a line for each.
        UnknownNameError: a split or dataset that is asked for is not there.
    """
    chosen = _chosen_splits(root, splits)
    dataset_folders = [(split, folder) for split in chosen for folder in sorted((root / split.folder).glob("*/*"))
               if folder.is_dir() and not _is_litter(folder)]  # fmt: skip
    known = sorted({folder.name for _, folder in dataset_folders})
    for name in datasets:
        if name not in known:
            raise unknown_name("dataset", name, known)
    refused = []
    if not dataset_folders:
        folders = ", ".join(split.folder for split in chosen)
        raise FlareError(f"{root}: no dataset in {folders}; expected {chosen[0].folder}/<Category>/<dataset>/ there")
    for split, folder in dataset_folders:
        if not datasets or folder.name in datasets:
            try:
                str(folder).encode()
                path = _question_file(folder, split)
            except UnicodeEncodeError:  # records could not be written
                refused.append(f"{os.fsencode(folder)!r}: its name is not UTF-8; rename the folder")
                continue
            except FlareError as error:
                refused.append(str(error))
                continue
            yield QuestionFile(split, folder.parent.name, folder.name, path)
    if refused:  # after all others, so that a caller sees every problem of a tree at once
        raise FlareError("\n".join(refused))


def trees_below(folder: Path) -> Iterator[Path]:
    """The roots of the trees somewhere below a folder that is none itself. What tools leave behind is passed over."""
    for place, names, _ in os.walk(folder):
        root = Path(place)
        if root != folder and any(any((root / split.folder).glob("*/*/*.json")) for split in SPLITS.values()):
            yield root
            names.clear()  # nothing is looked for inside a tree
        names[:] = sorted(name for name in names if not _is_litter_name(name))


def _is_litter(folder: Path) -> bool:
    return _is_litter_name(folder.parent.name) or _is_litter_name(folder.name)


def _is_litter_name(name: str) -> bool:
    """Whether tools leave behind folders of that name: `.ipynb_checkpoints`, a Mac zip's `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def _chosen_splits(root: Path, splits: Sequence[str]) -> list[Split]:
    present = [split for split in SPLITS.values() if (root / split.folder).is_dir()]
    if not present:
        folders = ", ".join(split.folder for split in SPLITS.values())
        raise FlareError(f"{root}: no FLARE tree; expected one of the folders {folders} in it")
    by_name = {name: split for split in SPLITS.values() for name in (split.name, split.folder)}
    for name in splits:
        if name not in by_name:
            raise unknown_name("split", name, by_name)
        if by_name[name] not in present:
            raise FlareError(f"{root}: no folder {by_name[name].folder}, so there is no split {name}")
    return [split for split in present if not splits or split in [by_name[name] for name in splits]]


def question_file(path: Path) -> QuestionFile:
    """The question file at `path`, its split, category and dataset read off the folders above it."""
    by_folder = {split.folder: split for split in SPLITS.values()}
    split = next((by_folder[part] for part in reversed(path.resolve().parts) if part in by_folder), None)
    if split is None:
        split = next((split for split in SPLITS.values() if split.stem in path.stem.lower()), SPLITS["val"])
    folder = path.resolve().parent
    return QuestionFile(split, folder.parent.name, folder.name, path)


def _question_file(folder: Path, split: Split) -> Path:
    """The file to read; the one with answers instead of the blank copy, never both.

    Some revisions have other names (`IU_XRay_all_train.json`), so any JSON file of that split counts if it is the one.
    """
    canonical = f"{folder.name}_questions_{split.stem}"
    for name in (f"{canonical}_withGT.json", f"{canonical}.json"):
        if (folder / name).is_file():
            return folder / name
    others = [
        path
        for path in sorted(folder.glob("*.json"))
        if split.stem in path.stem.lower() and "predictions" not in path.stem and path.stem != "dataset_info"
    ]
    others = [path for path in others if "withGT" in path.stem] or others
    if len(others) != 1:
        found = ", ".join(path.name for path in others) or "none"
        raise FlareError(f"{folder}: expected {canonical}.json, or one other *{split.stem}*.json; found {found}")
    return others[0]


def read_questions(file: QuestionFile) -> list[Question]:
    """The rows of a question file.

    Raises:
        FlareError: cannot be read, not UTF-8 JSON, a key twice in an object, or not a list of objects.
    """
    return read_wrapped(file)[0]


def read_wrapped(file: QuestionFile) -> tuple[list[Question], str | None]:
    """The rows of a question file, and the key of the object around their list; None where it is bare as in FLARE.

    Raises:
        FlareError: as `read_questions`.
    """
    try:
        content = read_file(str(file.path))[1].removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise FlareError(f"{file.path}: {error.strerror}") from error
    try:
        rows = msgspec.json.decode(content)
        # Of repeated keys msgspec keeps the last silently. Where what it kept is all there was, none was repeated.
        if msgspec.json.encode(rows) != msgspec.json.format(content, indent=-1):
            json.loads(content, object_pairs_hook=_refuse_repeated_keys)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        nan = re.search(rb"[:,\[]\s*NaN\b", content)
        hint = "; NaN is not JSON: write null where a value is missing" if nan else ""
        raise FlareError(f"{file.path}: not JSON: {not_utf8(content) or error}{hint}") from error
    wrapper = _wrapper(file.path, rows) if isinstance(rows, dict) else None
    rows = rows[wrapper] if wrapper else rows
    if not isinstance(rows, list):
        raise FlareError(f"{file.path}: expected a JSON list of question objects")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise FlareError(f"{file.path}: expected a JSON list of question objects; row {index} is {str(row)[:80]!r}")
    if any(isinstance(row.get("Answer"), float) for row in rows):
        _remember_how_numbers_are_written(rows, content, wrapper)
    return [Question(file, index, row) for index, row in enumerate(rows)], wrapper


def _wrapper(path: Path, content: dict[str, Any]) -> str | None:
    """The key of an object under which its rows stand; raises `FlareError` if some stand under others too."""
    found = [key for key in _WRAPPERS if key in content]
    found += [key for key, value in content.items() if key not in _WRAPPERS and _holds_rows(value)]
    if len(found) > 1:
        raise FlareError(f"{path}: rows stand under several keys, {', '.join(found)}; put them into one list")
    return found[0] if found and found[0] in _WRAPPERS else None


def _holds_rows(value: object) -> bool:
    """Whether a value has question rows in it: a list of them, or lists of them in an object or list."""
    if isinstance(value, dict):
        return bool(_ROW_KEYS & value.keys()) or any(map(_holds_rows, value.values()))
    return isinstance(value, list) and any(map(_holds_rows, value))


def _remember_how_numbers_are_written(rows: list[dict[str, Any]], content: bytes, wrapper: str | None) -> None:
    """Replace answers that are numbers with a decimal point by what keeps their spelling."""
    again = msgspec.json.Decoder(float_hook=WrittenNumber).decode(content)
    for row, written in zip(rows, again[wrapper] if wrapper else again, strict=True):
        if isinstance(row.get("Answer"), float):
            row["Answer"] = written["Answer"]


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {repeated!r} twice: {str(dict(pairs))[:200]}")


def image_path(file: QuestionFile, name: str) -> Path:
    """Where an image lies: at the first of its `image_places` that is a file, else where it is written to be.

    Raises:
        OutsideError: the name leads out of the dataset's folder.
    """
    places = image_places(str(file.path.parent), file.split.images, name)
    return Path(next(filter(os.path.isfile, places), places[0]))


def image_places(folder: str, images: str, name: str) -> tuple[str, ...]:
    """Where an image may lie: as written, or by its bare name in the split's image folder, once or twice nested.

    Names are relative to the folder, and stay in it; an absolute one may lead anywhere in the tree.

    Args:
        folder: Where the question file lies.
        images: Name of the split's image folder.
        name: As written in the row.

    Raises:
        OutsideError: the name leads out of the folder.
    """
    normal = name
    if not _PLAIN_NAME.fullmatch(name):
        normal = posixpath.normpath(name.replace("\\", "/"))
        absolute = normal.startswith("/") and "\0" not in name and _in_tree(folder, normal)
        outside = normal.startswith(("/", "../")) or normal == ".." or "\0" in name or re.match(r"[A-Za-z]:", normal)
        if outside and not absolute:
            raise OutsideError(f"{name!r} leads out of {folder}")
    bare = normal.rpartition("/")[2]
    written = normal if normal.startswith("/") else f"{folder}/{normal}"
    return written, f"{folder}/{images}/{bare}", f"{folder}/{images}/{images}/{bare}"


def _in_tree(folder: str, path: str) -> bool:
    """Whether an absolute path lies in the tree of a dataset's folder; in the folder, where that is in no tree."""
    here = Path(folder).absolute()
    in_a_tree = here.parent.parent.name in {split.folder for split in SPLITS.values()}
    root = here.parents[2] if in_a_tree else here
    return Path(path).is_relative_to(root) or Path(path).resolve().is_relative_to(root.resolve())
