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
    tasks = {slug(task) for task in {record.task for part in parts for record in part.records}} - datasets
    for part in parts:
        homes: dict[tuple[str, str], list[list[Record]]] = {}
        for record in part.records:
            split, task = split_of[record.id], record.task
            if (split, task) not in homes:
                entries = [Entry("dataset", part.dataset, split), Entry("all", "all", split)]
                entries += [Entry("task", task, split)] if slug(task) in tasks else []
                entries += (
                    [Entry("category", part.category, split)] if slug(part.category) not in datasets | tasks else []
                )
                homes[split, task] = [groups[entry] for entry in entries]
            for home in homes[split, task]:
                home.append(record)
    return dict(groups)
