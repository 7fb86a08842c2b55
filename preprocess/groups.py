"""Which dataset_info entry holds which records: one per dataset, task, category and for all, in every split."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from medvl.sharegpt import Record
from preprocess.report import Converted


class Entry(NamedTuple):
    """An entry: the records of one dataset, task or category, or all, in one split."""

    kind: Literal["dataset", "task", "category", "all"]
    of: str
    split: str

    def name(self, first: str) -> str:
        """Its name in dataset_info.json: `flare_busi_det_train`."""
        return f"{first}_{slug(self.of)}_{self.split}"


Groups = dict[Entry, list[Record]]


def slug(name: str) -> str:
    """A dataset's, category's or task's part of entry names: `BUSI-det` is `busi_det`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def group_records(parts: Sequence[Converted], split_of: Mapping[str, str]) -> Groups:
    """Records by entry, none of them empty.

    A dataset that is called like its category, say, has the name for itself, and there is no entry for the category.
    """
    groups: Groups = defaultdict(list)
    datasets = {slug(part.dataset) for part in parts}
    tasks = {slug(record.task) for part in parts for record in part.records} - datasets
    for part in parts:
        for record in part.records:
            split = split_of[record.id]
            groups[Entry("dataset", part.dataset, split)].append(record)
            groups[Entry("all", "all", split)].append(record)
            if slug(record.task) in tasks:
                groups[Entry("task", record.task, split)].append(record)
            if slug(part.category) not in datasets | tasks:
                groups[Entry("category", part.category, split)].append(record)
    return dict(groups)
