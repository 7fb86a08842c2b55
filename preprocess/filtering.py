"""From audited rows to those worth training on: without what a person excluded, then what `--clean` may mend."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medvl.errors import UsageError
from medvl.sharegpt import Record
from medvl.sources.base import Repair, Sample, Source, SourceFile
from medvl.sources.folders import split_named
from preprocess.audit import exclude, read_reviewed
from preprocess.cleaning import REPAIRS, Change, clean
from preprocess.results import DatasetResult, Finding


@dataclass(frozen=True)
class Filtering:
    """What the command line asks of this step.

    Attributes:
        reviewed: Ids of records that a person chose to leave out.
        cleaned: Folders of the splits that are cleaned.
        repairs: What is done there, by code of finding.
    """

    reviewed: frozenset[str]
    cleaned: frozenset[str]
    repairs: Mapping[str, Repair]


def add_arguments(source: Source, arguments: argparse.ArgumentParser) -> None:
    """The options of this step."""
    repairs = dict.fromkeys(repair.words for repair in (REPAIRS | dict(source.repairs())).values())
    add = arguments.add_argument_group("what is left out or fixed").add_argument
    add(
        "--exclude-audit",
        type=Path,
        metavar="FILE",
        help="leave out these records: OUT/audit.csv with marks in its column `exclude`, or an id per line",
    )
    add(
        "--clean",
        action="store_true",
        help=f"training data: {', '.join(repairs)}. Every change is listed in report.json",
    )
    add("--clean-splits", nargs="+", default=["train"], metavar="SPLIT", help="splits to clean (default: train)")


def plan(source: Source, args: argparse.Namespace) -> Filtering:
    """Check the options of `add_arguments`.

    Raises:
        UsageError, UnknownNameError: options that cannot be followed.
    """
    splits = [split_named(source, name) for name in args.clean_splits]
    if args.clean_splits != ["train"] and not args.clean:
        raise UsageError("--clean-splits says where to clean, and needs --clean")
    reviewed = read_reviewed(args.exclude_audit) if args.exclude_audit else set()
    folders = {split.folder for split in splits} if args.clean else set()
    return Filtering(frozenset(reviewed), frozenset(folders), REPAIRS | dict(source.repairs()))


def apply(
    filtering: Filtering,
    parts: Sequence[DatasetResult],
    rows: Mapping[SourceFile, Sequence[Sample]],
    convert: Callable[[Sample], tuple[Record | None, list[Finding]]],
    known: Callable[[], set[str]],
) -> tuple[list[DatasetResult], list[Change]]:
    """Leave out what was reviewed, clean what may be cleaned.

    Args:
        filtering: What is asked for.
        parts: The audited outcome per question file, in the order of `rows`.
        rows: The rows of every file.
        convert: Makes a record of a row.
        known: The ids of all rows of these files, those that --limit left out among them.

    Raises:
        UsageError: a reviewed id has another first part, or is no row of its dataset though that was converted.
    """
    filtered, changes = [], []
    if filtering.reviewed:
        _check_reviewed(filtering.reviewed, known())
    for part, samples in zip(parts, rows.values(), strict=True):
        audited = exclude(part, filtering.reviewed)
        if part.split in filtering.cleaned:
            audited, more = clean(audited, filtering.repairs, {sample.index: sample for sample in samples}, convert)
            changes += more
        filtered.append(audited)
    return filtered, changes


def _check_reviewed(reviewed: frozenset[str], known: set[str]) -> None:
    folders, firsts = {name.rpartition("/")[0] for name in known}, {name.partition("/")[0] for name in known}
    unknown = sorted(
        name for name in reviewed - known if name.rpartition("/")[0] in folders or name.partition("/")[0] not in firsts
    )
    if unknown:
        names = ", ".join(unknown[:5])
        raise UsageError(f"--exclude-audit: no such records: {names}; was it made from another tree, or --name?")
