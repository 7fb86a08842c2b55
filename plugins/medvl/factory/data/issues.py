"""Says which record of which dataset LLaMA-Factory stumbled over, and what to do.

LLaMA-Factory's and Arrow's own errors name neither: an empty file is `Instruction "train" corresponds to no data!`,
`images` as a list and as text in one file is `An error occurred while generating the dataset`. Its data is looked at
here only after it has failed, or has dropped records.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from medvl.factory.data.entries import CONVERT, count_records, read_entries, read_rows, registry
from medvl.sharegpt import IMAGE_TAG
from medvl.wording import few, listed

MOST_TOLD = 5  # sentences of one kind
_COLUMNS = {
    "sharegpt": ("messages", "images", "videos", "audios", "system", "tools"),
    "openai": ("messages", "images", "videos", "audios"),
    "alpaca": ("prompt", "query", "response", "history", "images", "videos", "audios", "system", "tools"),
}
Located = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Dataset:
    """One entry of dataset_info.json.

    Attributes:
        name: The entry's.
        form: LLaMA-Factory's reading of the entry (`DatasetAttr`).
        files: Its local files; empty for a dataset of a hub.
    """

    name: str
    form: Any
    files: tuple[Path, ...]

    def size(self) -> int:
        """Number of records."""
        return sum(count_records(file) or 0 for file in self.files)

    def records(self) -> list[Located]:
        """Every record with words that name it; ValueError for a file that is no JSON or JSON lines."""
        return [
            (f"`{self.name}`, {_named(record)} of {file}, record {index}", record)
            for file in self.files
            for index, record in enumerate(read_rows(file))
        ]


def explain(names: list[str], dataset_dir: Any, media_dir: Any) -> list[str]:
    """Sentences about what is wrong with these entries' data, the first few of each kind; empty if nothing is found.

    Args:
        names: Entries of dataset_info.json.
        dataset_dir: The folder with that file.
        media_dir: The folder that image paths may be relative to.
    """
    found = []
    for name in dict.fromkeys(names):
        try:
            dataset = find_dataset(name, dataset_dir)
            if dataset is not None:
                found += few(list(_problems(dataset, Path(str(media_dir)))), MOST_TOLD)
        except ValueError as error:
            found.append(str(error))
    return found


def find_dataset(name: str, dataset_dir: Any) -> Dataset | None:
    """The entry and its local files; None for data that is not in local files. ValueError if either is not there."""
    from llamafactory.data.parser import get_dataset_list

    if not isinstance(dataset_dir, str | Path) or not (info := registry(dataset_dir)).is_file():
        return None
    (entry,) = read_entries([name], dataset_dir)
    if not entry.content:
        raise ValueError(f"`{name}`: {info} has no such entry; {_nearest(name, info)}")
    (form,) = get_dataset_list([name], str(dataset_dir))
    if form.load_from != "file" or entry.location is None:
        return None
    if not entry.location.exists():
        raise ValueError(f"`{name}`: {entry.location} is not there; {CONVERT}, or correct `file_name` in {info}")
    return Dataset(name, form, tuple(entry.files)) if entry.readable == entry.files else None


def _nearest(name: str, info: Path) -> str:
    entries = json.loads(info.read_bytes())
    near = difflib.get_close_matches(name, entries, n=1)
    return f"did you mean `{near[0]}`?" if near else f"it has {listed(sorted(entries), MOST_TOLD)}"


def malformed(dataset: Dataset) -> Iterator[str]:
    """A sentence per record whose turns LLaMA-Factory drops or fails on."""
    for where, record in dataset.records():
        if reason := _turn_problem(dataset.form, record):
            yield f"{where}: {reason}"


def _problems(dataset: Dataset, media_dir: Path) -> Iterator[str]:
    """The first kind of fault that explains a failure, so that one cause is not told as many."""
    located = dataset.records()
    if not located:
        yield (
            f"`{dataset.name}`: {', '.join(map(str, dataset.files))} holds no record; leave the entry out of `dataset` "
            "or `eval_dataset` (then without `do_eval` and `eval_strategy`), or convert it again"
        )
        return
    for kind in (_no_objects, _missing_columns, _mixed_values):
        if sentences := list(kind(dataset, located)):
            yield from sentences
            return
    for where, record in located:
        reason = _turn_problem(dataset.form, record) or _image_problem(dataset.form, record, media_dir)
        if reason:
            yield f"{where}: {reason}"


def _no_objects(_dataset: Dataset, located: list[Located]) -> Iterator[str]:
    for where, record in located:
        if not isinstance(record, dict):
            yield f"{where}: a record is an object with keys, this is a {_kind(record)}; {CONVERT}"


def _missing_columns(dataset: Dataset, located: list[Located]) -> Iterator[str]:
    """Columns that the entry names and no record has."""
    there = Counter(key for _, record in located for key in record)
    for role in _COLUMNS.get(dataset.form.formatting, ()):
        column = getattr(dataset.form, role)
        if column and column not in there:
            yield (
                f"`{dataset.name}`: dataset_info.json reads {role} from the column `{column}`, which no record of "
                f"{', '.join(map(str, dataset.files))} has; they have {', '.join(sorted(there))}. Correct `columns`"
                + (", or set `formatting: sharegpt`" if dataset.form.formatting == "alpaca" else "")
            )
    if dataset.form.formatting == "alpaca" and not dataset.form.prompt:
        yield f"`{dataset.name}`: dataset_info.json says no `formatting`; set `formatting: sharegpt`"


def _mixed_values(_dataset: Dataset, located: list[Located]) -> Iterator[str]:
    """Values of one key that are of different kinds, which one Arrow column cannot hold."""
    first: dict[str, tuple[str, str]] = {}
    told = set()
    for where, record in located:
        for path, kind in _kinds(record, ""):
            other, known = first.setdefault(path, (where, kind))
            if known != kind and path not in told:
                told.add(path)
                yield f"`{path}` is a {known} in {other}, and a {kind} in {where}; write all of them in one form"


def _kinds(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every place in a record and what stands there; nothing for null, which fits everywhere."""
    if value is None:
        return
    if path:
        yield path, _kind(value)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _kinds(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for item in value:
            yield from _kinds(item, f"{path}[]")


def _kind(value: Any) -> str:
    names = {bool: "truth value", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), "null")


def _turn_problem(form: Any, record: dict[str, Any]) -> str | None:
    """Why the turns of a sharegpt or openai record are not question, answer, …, or an alpaca record has no answer."""
    if form.formatting == "alpaca" and not form.ranking:
        answer = record.get(form.response)
        if isinstance(answer, str):
            return None
        return f"its answer `{form.response}` is a {_kind(answer)} and no text, so that it is dropped; {CONVERT}"
    if form.formatting not in ("sharegpt", "openai"):
        return None
    turns = record.get(form.messages)
    if not isinstance(turns, list) or not turns:
        return f"`{form.messages}` is no list of turns; {CONVERT}"
    for turn in turns:
        absent = [tag for tag in (form.role_tag, form.content_tag) if not isinstance(turn, dict) or tag not in turn]
        if absent:
            keys = ", ".join(turn) if isinstance(turn, dict) else _kind(turn)
            return f"a turn has no `{absent[0]}` but {keys}; set `tags` in dataset_info.json, or convert it again"
    roles = [turn[form.role_tag] for turn in turns]
    if form.system_tag and roles[0] == form.system_tag:
        roles = roles[1:]
    asks, answers = (form.user_tag, form.observation_tag), (form.assistant_tag, form.function_tag)
    if len(roles) % 2 or any(role not in (answers if place % 2 else asks) for place, role in enumerate(roles)):
        wanted = f"{form.user_tag}, {form.assistant_tag}"
        return f"its turns are {', '.join(map(str, roles))} and not {wanted} in turn, so that it is dropped; {CONVERT}"
    return None


def _image_problem(form: Any, record: dict[str, Any], media_dir: Path) -> str | None:
    """Why its images cannot be read, or do not fit its `<image>` tags."""
    value = record.get(form.images) if form.images else None
    images = value if isinstance(value, list) else [value] if value else []
    turns = record.get(form.messages) if form.formatting in ("sharegpt", "openai") else None
    if turns:
        tags = sum(str(turn.get(form.content_tag)).count(IMAGE_TAG) for turn in turns if isinstance(turn, dict))
        if tags != len(images):
            return f"{tags} {IMAGE_TAG} tags but {len(images)} images; {CONVERT}"
    for image in images:
        if isinstance(image, str):
            path = media_dir / image if (media_dir / image).is_file() else Path(image)
            try:
                with Image.open(path) as opened:
                    opened.load()
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                return f"{path} cannot be read ({error}); {CONVERT}"
    return None


def _named(record: Any) -> str:
    return f"{record['id']}" if isinstance(record, dict) and record.get("id") else "a record without id"
