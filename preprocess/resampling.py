"""Training records as often as they are to be seen: rates per dataset, balance, donors, one record per image.

Validation and test entries are never touched. Copies carry `#copy2`, `#copy3`, … after the id, flattened views
`#image1`, …, so that ids stay unique. The seed decides what is drawn.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from medvl.choices import options
from medvl.errors import DataError
from medvl.sharegpt import IMAGE_TAG, Record, Turn
from medvl.tasks import Task, unknown_name
from preprocess.results import Entry, Groups
from preprocess.sampling import SMALL, SMALL_TIMES, Sampling


def views(record: Record) -> list[Record]:
    """A record with several images as one per image, same question and answer; box answers lie on the first.

    An image keeps the name that the data gives it, `Fig-1: <image>`, by which question and answer may call it.
    """
    if len(record.images) < 2 or Task(record.task).has_boxes:
        return [record]
    prompt, answer = record.conversations
    *titles, question = prompt.value.split(IMAGE_TAG)
    titles = ["" if title.strip() == f"Image-{place}:" else title.lstrip("\n") for place, title in enumerate(titles, 1)]
    return [
        msgspec.structs.replace(
            record,
            id=f"{record.id}#image{place}",
            conversations=[Turn("human", titles[place - 1] + IMAGE_TAG + question), answer],
            images=[image],
            source=msgspec.structs.replace(record.source, sizes=[size]),
        )
        for place, (image, size) in enumerate(zip(record.images, record.source.sizes, strict=True), 1)
    ]


def resample(
    groups: Groups, sampling: Sampling, splits: Sequence[str]
) -> tuple[Groups, dict[Entry, int], list[tuple[Entry, dict[str, Any]]]]:
    """Training entries with their records as often as asked for.

    The entries of the split `train` are replaced. Those of a split with a name of its own stay, since it may be tested
    on too, and get a twin for training: `flare_all_A` and `flare_all_A_train`.

    Args:
        groups: Records by entry.
        sampling: What is asked for.
        splits: Splits to train on.

    Returns:
        The groups, `num_samples` of entries that have one, and a line for the report per entry.

    Raises:
        UnknownNameError: a dataset that is not there.
        DataError: a donor has fewer rows than are asked of it, or there are no rows that its own could join.
    """
    known = sorted({entry.of for entry in groups if entry.kind == "dataset"})
    for name in (*sampling.rates, *(origin.dataset for origin in sampling.oversampling)):
        if name not in known:
            raise unknown_name("dataset", name, known)
    _check_twins(groups, splits)
    for origin in sampling.oversampling:
        if not any(Entry("task", origin.task, split) in groups for split in splits):
            raise DataError(
                f"--oversample {origin.task}={origin.dataset}:{origin.rows}: no training record is {origin.task}"
            )
    resampled = dict(groups)
    samples: dict[Entry, int] = {}
    lines = []
    for split in splits:
        everything = [
            view for record in groups.get(Entry("all", "all", split), []) for view in _views(record, sampling)
        ]
        classes, total = _copies(everything, sampling)
        for entry, records in groups.items():
            if entry.split != split:
                continue
            alone = entry.kind == "dataset"
            chosen = [view for record in records for view in _views(record, sampling)]
            chosen = _repeat(chosen, classes if alone else total)
            chosen += _donated(groups, entry, sampling)
            made = entry if split == "train" else entry._replace(split=f"{split}_train")
            resampled[made] = chosen
            if alone and entry.of in sampling.rates:
                samples[made] = max(1, round(sampling.rates[entry.of] * len(chosen)))
            if chosen != records or made in samples:
                lines.append((made, _line(chosen, samples.get(made))))
    return {entry: records for entry, records in resampled.items() if records}, samples, lines


def _check_twins(groups: Groups, splits: Sequence[str]) -> None:
    """Raise `DataError` if a twin would have the name of a split: its records would be lost."""
    taken = {entry.split for entry in groups} & {f"{split}_train" for split in splits if split != "train"}
    if taken:
        raise DataError(
            f"{', '.join(sorted(taken))} would be both a split and another split's twin to train on: rename it"
        )


def _views(record: Record, sampling: Sampling) -> list[Record]:
    return views(record) if sampling.flatten else [record]


def _line(records: Sequence[Record], num_samples: int | None) -> dict[str, Any]:
    copies = sum("#copy" in record.id for record in records)
    rows = len({record.id.partition("#")[0] for record in records})
    return {"records": len(records), "rows": rows, "copies": copies, "num_samples": num_samples}


def _copies(records: Sequence[Record], sampling: Sampling) -> tuple[Counter[str], Counter[str]]:
    """How often every record stands in the entry of its dataset, and in entries of several datasets."""
    classes = Counter({record.id: 1 for record in records})
    if sampling.balance in ("small", "classes"):
        key = _answer_of if sampling.balance == "small" else _class_of
        _even(records, classes, sampling, key)
    total = Counter(classes)
    by_dataset: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_dataset[record.dataset].append(record)
    sizes = {name: sum(classes[record.id] for record in members) for name, members in by_dataset.items()}
    largest = max(sizes.values(), default=0)
    for name, members in by_dataset.items():
        wanted = largest if sampling.balance == "datasets" else sizes[name]
        _spread(members, total, round(sampling.rates.get(name, 1.0) * wanted), name, sampling)
    return classes, total


def _answer_of(record: Record) -> tuple[object, ...]:
    return record.dataset, record.target


def _class_of(record: Record) -> tuple[object, ...]:
    """Dataset, what the question offers, and what the letter stands for: A of one question is not A of another."""
    offered = options(record.question)
    return record.dataset, tuple(sorted(offered.values())), offered.get(record.target, record.target)


def _even(
    records: Sequence[Record], copies: Counter[str], sampling: Sampling, key: Callable[[Record], tuple[object, ...]]
) -> None:
    """Repeat rare answers of classification questions."""
    groups: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.task == Task.CLASSIFICATION:
            groups[key(record)].append(record)
    largest: Counter[tuple[object, ...]] = Counter()
    for name, members in groups.items():
        largest[name[:-1]] = max(largest[name[:-1]], len(members))
    for name, members in groups.items():
        small = min(SMALL_TIMES * len(members), SMALL) if len(members) < SMALL else len(members)
        _spread(members, copies, small if sampling.balance == "small" else largest[name[:-1]], repr(name), sampling)


def _spread(members: Sequence[Record], copies: Counter[str], wanted: int, name: str, sampling: Sampling) -> None:
    """Set the copies of some records so that they are `wanted` in all: whole rounds, and for the rest a draw."""
    slots = [record.id for record in members for _ in range(copies[record.id])]
    if len(slots) == wanted or not slots:
        return
    rounds, rest = divmod(wanted, len(slots))
    drawn = Counter(slots[place] for place in sampling.draw(name, range(len(slots)), rest))
    for name, times in Counter(slots).items():
        copies[name] = rounds * times + drawn[name]


def _repeat(records: Sequence[Record], copies: Mapping[str, int]) -> list[Record]:
    return [
        record if place == 1 else msgspec.structs.replace(record, id=f"{record.id}#copy{place}")
        for record in records
        for place in range(1, copies[record.id] + 1)
    ]


def _donated(groups: Groups, entry: Entry, sampling: Sampling) -> list[Record]:
    rows: list[Record] = []
    for origin in sampling.oversampling:
        if entry.kind != "task" or entry.of != origin.task:
            continue
        given = (members for given, members in groups.items() if given[:3] == ("dataset", origin.dataset, entry.split))
        source = [view for record in next(given, []) if record.task != origin.task for view in _views(record, sampling)]
        if len(source) < origin.rows:
            raise DataError(
                f"--oversample {origin.task}={origin.dataset}:{origin.rows}: "
                f"split {entry.split} has {len(source)} rows of it"
            )
        name = f"{origin.task}/{origin.dataset}"
        rows += [source[place] for place in sorted(sampling.draw(name, range(len(source)), origin.rows))]
    return rows
