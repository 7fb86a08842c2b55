"""FLARE-Task5-MLLM-2D: 19 medical datasets as questions about images, the data of the FLARE challenge. Gated.

Layout: `<root>/<split>/<Category>/<dataset>/<dataset>_questions_<train|val|test>.json` beside `images<Tr|Val|Ts>/` or
`images*.zip`. The hidden split has its answers in a second file, `…_withGT.json`. Some revisions have other file names,
or an object around the list of rows. Rows have no id and vary in form; made-up ones, as each of them looks:

    {"TaskType": "Classification", "Modality": "X-ray", "ImageName": "imagesTr/PXMT_00736.png", "Split": "train",
     "Question": "Class? A: I, B: II, C: Edentulous", "Answer": "B"}
    {…, "TaskType": "classification", "ImageName": ["imagesTr/D1-1.png", "imagesTr/D1-2.png"], "Answer": "Luminal a"}
    {…, "TaskType": "Multi-label Classification", "Answer": "Edema, Mass"}     (periapical separates by ;)
    {…, "TaskType": "Detection", "Question": "Boxes of lesions", "Answer": "[[10, 20, 50, 60]]"}     (pixels)
    {…, "TaskType": "Detection", "Question": "Box of the fetal head", "Answer": [[5, 6, 40, 30]]}     (no text)
    {…, "TaskType": "instance_detection", "Answer": "{\\"1\\": [[10, 10, 20, 20]], \\"X\\": [[50, 50, 60, 60]]}"}
    {…, "TaskType": "Cell Counting", "Question": "How many cells?", "Answer": 1664}
    {…, "TaskType": "regression", "Question": "Determine the ABR% in this OPG", "Answer": 34.7}
    {…, "TaskType": "report generation", "ImageName": ["imagesTr/CXR_1-0.png", …], "Answer": "Heart size is normal."}
    {…, "Answer": ""}     (hidden and test data, public copy)

Known issues, all reported by conversion: endo writes `T` for the option D, Tumor (`--clean` mends it); letters that no
option has, several letters for one, boxes without area or with swapped corners, rows that contradict each other.
"""

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from medvl.answers import WrittenNumber, answer_text
from medvl.choices import options
from medvl.errors import DataError
from medvl.files import not_utf8, read_file
from medvl.sharegpt import Record
from medvl.sources.base import Contents, Found, Problem, Repair, Row, Sample, Source, SourceFile, Split
from medvl.sources.flare_datasets import FLARE_DATASETS, IMAGE_PREFIXES, SHARED_IMAGES
from medvl.sources.folders import find_files
from medvl.sources.places import place_in
from medvl.tasks import Task, UnknownNameError, canonical_task


@dataclass(frozen=True)
class FlareSplit(Split):
    """A split folder of FLARE.

    Attributes:
        stem: What the question file's name ends in.
        images: Folder of the images beside it.
    """

    stem: str
    images: str


# Keys under which loaders of other projects accept the list of rows.
_WRAPPERS = ("data", "questions", "annotations", "items")
_ROW_KEYS = {"TaskType", "ImageName", "Question", "Answer"}
# Box answers do not name what they enclose; questions do, in these words. Others stay without a name.
_STRUCTURE = re.compile(r"fetal head|pubic symphysis|lesion", re.IGNORECASE)


class Flare(Source):
    """FLARE-Task5-MLLM-2D, and question files in its form that lie outside a tree."""

    name = "flare"
    title = "FLARE"
    layout = "the folder that holds training/, validation-public/, …"
    licence = (
        "The records quote questions and answers of FLARE-Task5-MLLM-2D and name its image files. That release is "
        "gated and made of 19 datasets with licences of their own: what its terms of access say holds for these files "
        "too, and they may not be passed on where the originals may not."
    )
    suffix = ".json"
    question_keys = ("ImageName", "Question")
    reference_keys = ("TaskType", "ImageName", "Question", "Answer")
    hub = "FLARE-MedFM/FLARE-Task5-MLLM-2D"
    splits: Mapping[str, FlareSplit] = {
        split.name: split
        for split in (
            FlareSplit("train", "training", "train", "train", "imagesTr"),
            FlareSplit("val", "validation-public", "eval", "val", "imagesVal"),
            FlareSplit("hidden", "validation-hidden", "hidden", "val", "imagesVal"),
            FlareSplit("test", "testing", "hidden", "test", "imagesTs"),
        )
    }

    def find(self, root: Path, splits: Sequence[str] = (), datasets: Sequence[str] = ()) -> Found:
        """See `Source`; several files that could be meant in a dataset's folder are refused."""
        return find_files(self, root, splits, datasets, self._question_file)

    def read(self, file: SourceFile) -> Contents:
        """See `Source`; refused: not UTF-8 JSON, a key twice in an object, or not a list of objects."""
        rows, wrapper = _read_rows(file.path)
        notes = (("FILE_WRAPPED", f"the rows stand under the key {wrapper!r}"),) if wrapper else ()
        return Contents(self.samples(file, rows), notes)

    def samples(self, file: SourceFile, rows: Sequence[Row]) -> list[Sample]:
        """See `Source`."""
        return [_sample(file, index, row) for index, row in enumerate(rows)]

    def holds(self, folder: Path) -> bool:
        """A folder of a split is enough: of an empty one `find` says what is missing."""
        return any((folder / split.folder).is_dir() for split in self.splits.values())

    def split_outside(self, path: Path) -> Split:
        """The split that the file's name says; the public one where it says none."""
        named = (split for split in self.splits.values() if split.stem in path.stem.lower())
        return next(named, self.splits["val"])

    def places(self, file: SourceFile, name: str) -> Sequence[str]:
        """As written, or by its bare name in the split's image folder, once or twice nested.

        Names are relative to the dataset's folder, and stay in it; an absolute one may lead anywhere in the tree.
        """
        folder, images = str(file.path.parent), self.splits[file.split.name].images
        absolute = name.startswith(("/", "\\")) and "\0" not in name
        inside = self._in_tree(folder, name) if absolute else None
        written = inside or place_in(folder, name)
        bare = written.rpartition("/")[2]
        return written, f"{folder}/{images}/{bare}", f"{folder}/{images}/{images}/{bare}"

    def archives(self, file: SourceFile) -> tuple[Path, list[Path]]:
        """The split's image folder; of `images*.zip` those named like it, else all."""
        folder = file.path.parent / self.splits[file.split.name].images
        found = sorted(path for path in file.path.parent.glob("images*.zip") if path.is_file())
        return folder, [path for path in found if path.stem.startswith(folder.name)] or found

    def label_separator(self, dataset: str) -> str | None:
        """See `Source`."""
        known = FLARE_DATASETS.get(dataset)
        return known.label_separator if known else None

    def dataset_of(self, images: Sequence[str], task: Task) -> str:
        """By the first part of the images' names, as in the release.

        >>> FLARE.dataset_of(["imagesVal/PXMT_00736.png"], Task.CLASSIFICATION)
        'dental'
        """
        stem = images[0].replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
        prefix = next((prefix for prefix in IMAGE_PREFIXES if stem.lower().startswith(f"{prefix}_")), None)
        if prefix is None:
            return "unknown"
        return IMAGE_PREFIXES[prefix] + ("-det" if task is Task.DETECTION and prefix in SHARED_IMAGES else "")

    def repairs(self) -> Mapping[str, Repair]:
        """See `Source`."""
        return dict.fromkeys(("LETTER_NOT_OPTION", "LETTER_WITHOUT_OPTIONS"), Repair("endo's T to D", _mend_letter))

    def _question_file(self, folder: Path, split: Split) -> Path:
        """The file to read; the one with answers instead of the blank copy, never both.

        Some revisions have other names (`IU_XRay_all_train.json`), so any JSON file of that split counts if it is the
        one.
        """
        stem = self.splits[split.name].stem
        canonical = f"{folder.name}_questions_{stem}"
        for name in (f"{canonical}_withGT.json", f"{canonical}.json"):
            if (folder / name).is_file():
                return folder / name
        others = [
            path
            for path in sorted(folder.glob("*.json"))
            if stem in path.stem.lower() and "predictions" not in path.stem and path.stem != "dataset_info"
        ]
        others = [path for path in others if "withGT" in path.stem] or others
        if len(others) != 1:
            found = ", ".join(path.name for path in others) or "none"
            raise DataError(f"{folder}: expected {canonical}.json, or one other *{stem}*.json; found {found}")
        return others[0]

    def _in_tree(self, folder: str, name: str) -> str | None:
        """An absolute path, where it lies in the tree of a dataset's folder; in the folder, where that is in none."""
        path = posixpath.normpath(name.replace("\\", "/"))
        here = Path(folder).absolute()
        in_a_tree = here.parent.parent.name in {split.folder for split in self.splits.values()}
        root = here.parents[2] if in_a_tree else here
        inside = Path(path).is_relative_to(root) or Path(path).resolve().is_relative_to(root.resolve())
        return path if inside else None


FLARE = Flare()


def _sample(file: SourceFile, index: int, row: Row) -> Sample:
    """One row; what is wrong with it is among its problems."""
    problems: list[Problem] = []
    task, question, names = None, row.get("Question"), row.get("ImageName")
    try:
        task = canonical_task(str(row.get("TaskType", "")))
    except UnknownNameError as error:
        problems.append(Problem("task", "TASK_UNKNOWN", str(error)))
    if not isinstance(question, str) or not question.strip():
        detail = f"{file.home}/{index:06d}: Question is {question!r}; expected text"
        problems.append(Problem("question", "QUESTION_EMPTY", detail))
        question = ""
    images = [names] if isinstance(names, str) else names
    if not isinstance(images, list) or not images or not all(isinstance(name, str) and name for name in images):
        detail = f"{file.home}/{index:06d}: ImageName is {names!r}; expected a file name or a list of file names"
        problems.append(Problem("images", "IMAGE_NAME", detail))
        images = []
    written = row.get("Answer")
    answer = "" if written is None else answer_text(written)
    return Sample(
        file=file,
        index=index,
        row=row,
        task=task,
        question=question,
        images=tuple(images),
        answer=answer if answer.strip() else "",  # blank in public copies of hidden data
        written=written,
        box_label=_structure(question) if task and task.has_boxes else None,
        problems=tuple(problems),
    )


@lru_cache(maxsize=4096)  # questions are templates
def _structure(question: str) -> str | None:
    """The name of what a question asks for; None for two in one question: whose box is which?"""
    structures = {name.lower() for name in _STRUCTURE.findall(question)}
    return structures.pop() if len(structures) == 1 else None


def _mend_letter(record: Record, answer: str) -> str:
    """endo writes `T` for the option D, Tumor, in some rows."""
    if record.dataset != "endo" or answer.strip() != "T":
        return answer
    offered = options(record.question)
    return "D" if not offered or offered.get("D", "").lower().startswith("tumor") else answer


def _read_rows(path: Path) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of a question file, and the key of the object around their list; None where it is bare."""
    try:
        content = read_file(str(path))[1].removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    try:
        rows = msgspec.json.decode(content)
        # Of repeated keys msgspec keeps the last silently. Where what it kept is all there was, none was repeated.
        if msgspec.json.encode(rows) != msgspec.json.format(content, indent=-1):
            json.loads(content, object_pairs_hook=_refuse_repeated_keys)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        nan = re.search(rb"[:,\[]\s*NaN\b", content)
        hint = "; NaN is not JSON: write null where a value is missing" if nan else ""
        raise DataError(f"{path}: not JSON: {not_utf8(content) or error}{hint}") from error
    wrapper = _wrapper(path, rows) if isinstance(rows, dict) else None
    rows = rows[wrapper] if wrapper else rows
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON list of question objects")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: expected a JSON list of question objects; row {index} is {str(row)[:80]!r}")
    if any(isinstance(row.get("Answer"), float) for row in rows):
        _remember_how_numbers_are_written(rows, content, wrapper)
    return rows, wrapper


def _wrapper(path: Path, content: dict[str, Any]) -> str | None:
    """The key of an object under which its rows stand; raises `DataError` if some stand under others too."""
    found = [key for key in _WRAPPERS if key in content]
    found += [key for key, value in content.items() if key not in _WRAPPERS and _holds_rows(value)]
    if len(found) > 1:
        raise DataError(f"{path}: rows stand under several keys, {', '.join(found)}; put them into one list")
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
