"""Splitting the training records by image and patient: none on both sides, every dataset and task in its share.

An image is its content: byte-identical files under other names are one. Questions about one image stay together,
and so do records that are linked through shared images (views of a case, an image in two datasets).
"""

import argparse
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from msgspec import UNSET

from medvl.errors import DataError, UsageError
from medvl.sharegpt import Record
from medvl.sources.base import Source
from preprocess.fingerprints import Fingerprint

REST = "train"  # what is in no named split


def add_arguments(source: Source, arguments: argparse.ArgumentParser) -> None:
    """The options of this module."""
    group = arguments.add_argument_group("splits of the training records, by image")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--dev-fraction", type=_fraction, metavar="F", help="hold a share of them out as the split `dev`"
    )
    either.add_argument(
        "--split-train",
        nargs="+",
        type=partial(_share, taken=list(source.splits)),
        default=[],
        metavar="NAME=F",
        help="named splits, e.g. true_test=0.1 A=0.45 B=0.45; what is left stays `train`",
    )
    group.add_argument(
        "--by",
        choices=("patient", "image"),
        help="what stays together: all of a patient (default, where the source names patients), or of an image alone",
    )


def chosen_shares(args: argparse.Namespace) -> dict[str, float]:
    """Share of every split that is to be made of the training records; empty if they stay together.

    Raises:
        UsageError: shares above 1 together, or a name given twice.
    """
    named: list[tuple[str, float]] = [("dev", args.dev_fraction)] if args.dev_fraction else args.split_train
    shares = dict(named)
    total = sum(shares.values())
    if len(shares) < len(named):
        raise UsageError("--split-train names a split twice")
    if total > 1 + 1e-9:
        raise UsageError(f"--split-train gives out {total:g} of the training records; at most 1 is there")
    if args.by and not shares:
        raise UsageError("--by says how the training records are split, and needs --dev-fraction or --split-train")
    if shares and total < 1 - 1e-9:
        shares[REST] = 1 - total
    return shares


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _share(text: str, *, taken: Sequence[str]) -> tuple[str, float]:
    name, _, share = text.partition("=")
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name in taken:
        raise argparse.ArgumentTypeError(f"{name!r}: expected a name of letters, digits and _, none of {taken}")
    return name, _fraction(share)


def linked(records: Sequence[Record], prints: Mapping[str, Fingerprint], by: str | None = None) -> list[list[Record]]:
    """Groups of records that share images or a patient, directly or through others; in the order of their first.

    Patients do not count `by` image.
    """
    from scipy.sparse import coo_array  # a quarter of a second, which a run without splits need not wait for
    from scipy.sparse.csgraph import connected_components

    contents: dict[bytes | str, int] = {}
    rows, columns = [], []
    for row, record in enumerate(records):
        shown: list[bytes | str] = [prints[image].sha256 for image in record.images]
        alone = record.source.group is UNSET or by == "image"
        for shared in shown if alone else [*shown, str(record.source.group)]:
            rows.append(row)
            columns.append(len(records) + contents.setdefault(shared, len(contents)))
    nodes = len(records) + len(contents)
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(nodes, nodes))
    _, component = connected_components(graph, directed=False)
    groups: dict[int, list[Record]] = defaultdict(list)
    for record, number in zip(records, component.tolist(), strict=False):  # the nodes behind are images
        groups[number].append(record)
    return list(groups.values())


def split_by_image(
    records: Sequence[Record],
    prints: Mapping[str, Fingerprint],
    shares: Mapping[str, float],
    seed: int,
    by: str | None = None,
) -> dict[str, str]:
    """The split of every record, by id.

    Groups of linked records go, large ones first, to the split that lacks most of their datasets and tasks. Which
    records meet is decided by a hash of seed and image, so names of files and order of rows change nothing.

    Args:
        records: The training records.
        prints: Fingerprint of every image.
        shares: Split -> share of the records; the shares sum to 1.
        seed: Another seed, another split.
        by: `image` to part patients, `patient` to refuse where none is named.

    Raises:
        DataError: patients are to stay together, and no record names one.
    """
    if by == "patient" and all(record.source.group is UNSET for record in records):
        raise DataError("--by patient: no record names a patient; preprocess/table.py takes --columns patient=COLUMN")
    groups = sorted(linked(records, prints, by), key=lambda group: (-len(group), _draw(group, prints, seed)))
    names = sorted(shares, key=lambda name: (-shares[name], name))  # a tie goes to the largest split
    seen: Counter[tuple[str, str]] = Counter()
    given: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in names}
    chosen: dict[str, str] = {}
    for group in groups:
        strata = Counter((record.dataset, record.task) for record in group)
        seen.update(strata)
        lack = [
            sum(count * (shares[name] * seen[stratum] - given[name][stratum]) for stratum, count in strata.items())
            for name in names
        ]
        name = names[int(np.argmax(np.round(lack, 9)))]
        given[name].update(strata)
        chosen |= {record.id: name for record in group}
    return chosen


def _draw(group: Sequence[Record], prints: Mapping[str, Fingerprint], seed: int) -> bytes:
    # Records without an image are told apart by their text.
    first = min((prints[image].sha256 for record in group for image in record.images), default=None)
    return hashlib.sha256(str(seed).encode() + (first or group[0].conversations[0].value.encode())).digest()


def split_table(records: Sequence[Record], split_of: Mapping[str, str]) -> list[dict[str, object]]:
    """Records and images per split, dataset and task, for the report."""
    counts = Counter((split_of[record.id], record.dataset, record.task) for record in records)
    return [
        {"split": split, "dataset": dataset, "task": task, "records": count}
        for (split, dataset, task), count in sorted(counts.items())
    ]
