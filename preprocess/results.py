"""What a conversion is made of on its way: findings, the outcome per dataset, entries, and all that is written."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from medvl.sharegpt import Record
from medvl.tasks import Task

Action = Literal["kept", "dropped", "quarantined"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one row of a file, and why; of the whole file if `index` is -1."""

    id: str
    code: str
    action: Action
    detail: str
    file: str
    index: int

    @classmethod
    def about(cls, record: Record, code: str, said: str, action: Action = "kept") -> "Finding":
        """What is to be known about a converted record; its id stands before what is said."""
        source = record.source
        detail = f"{record.id}: {said}"
        return cls(id=record.id, code=code, action=action, detail=detail, file=source.file, index=source.index)


class DatasetResult(msgspec.Struct, kw_only=True):
    """The outcome for one dataset and split: `rows` = kept + dropped + quarantined."""

    dataset: str
    split: str
    category: str
    file: str
    rows: int
    records: list[Record]
    findings: list[Finding]

    def count(self, action: Action) -> int:
        """How many records were kept, dropped or quarantined."""
        if action == "kept":
            return len(self.records)
        return len({finding.id for finding in self.findings if finding.action == action})


def leave_out(part: DatasetResult, findings: Sequence[Finding]) -> DatasetResult:
    """The part with more findings, and without the records that they drop or quarantine."""
    gone = {finding.id for finding in findings if finding.action != "kept"}
    kept = [record for record in part.records if record.id not in gone] if gone else part.records
    return msgspec.structs.replace(part, records=kept, findings=[*part.findings, *findings])


def counts_of(parts: Sequence[DatasetResult]) -> dict[str, int]:
    """Rows in, and records kept, dropped and quarantined."""
    actions: tuple[Action, ...] = get_args(Action)
    return {"in": sum(part.rows for part in parts)} | {
        action: sum(part.count(action) for part in parts) for action in actions
    }


class Entry(NamedTuple):
    """An entry: the records of one dataset, task or category, or all, in one split.

    `says_kind`: whether its name says what it is of, as `flare_dataset_counting_train`, since another entry has the
    short name.
    """

    kind: Literal["dataset", "task", "category", "all"]
    of: str
    split: str
    says_kind: bool = False

    def name(self, first: str) -> str:
        """Its name in dataset_info.json: `flare_busi_det_train`."""
        kind = f"{self.kind}_" if self.says_kind else ""
        return f"{first}_{kind}{slug(self.of)}_{self.split}"


Groups = dict[Entry, list[Record]]


def slug(name: str) -> str:
    """A dataset's, category's or task's part of entry names: `BUSI-det` is `busi_det`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def group_records(parts: Sequence[DatasetResult], split_of: Mapping[str, str]) -> Groups:
    """Records by entry, none of them empty.

    A task has its name for itself, since recipes train on it, and so has "all": a category or dataset of that name says
    what it is, and so does a dataset that is called like the category of others.
    """
    groups: Groups = defaultdict(list)
    reserved = {"all", *map(slug, Task)}
    names = [(slug(part.category), slug(part.dataset)) for part in parts]
    categories = {category for category, dataset in names if category != dataset}
    for part in parts:
        homes: dict[tuple[str, str], list[list[Record]]] = {}
        for record in part.records:
            split, task = split_of[record.id], record.task
            if (split, task) not in homes:
                entries = [
                    Entry("dataset", part.dataset, split, slug(part.dataset) in reserved | categories),
                    Entry("all", "all", split),
                    Entry("task", task, split),
                ]
                if slug(part.category) in categories:  # else it is the dataset of that name, and nothing more
                    entries.append(Entry("category", part.category, split, slug(part.category) in reserved))
                homes[split, task] = [groups[entry] for entry in entries]
            for home in homes[split, task]:
                home.append(record)
    return dict(groups)


@dataclass(frozen=True)
class Prepared:
    """Everything that is written.

    Attributes:
        converted: The outcome per dataset and split, less what was left out, with the findings of this step.
        groups: Entry name -> its records.
        sections: Further parts of report.json.
        options: Options of this step, for the manifest.
        samples: Entry name -> `num_samples`.
        notes: What the user should know about the entries.
    """

    converted: list[DatasetResult]
    groups: dict[str, list[Record]]
    sections: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
