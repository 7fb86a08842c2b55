"""Which dataset_info entry holds which records: one per dataset, task, category and for all, in every split."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from medvl.sharegpt import Record
from medvl.tasks import Task
from preprocess.results import DatasetResult, Entry, Groups, slug


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
