"""From converted rows to dataset_info entries: what is left out, which split a record is in, which entries hold it."""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvl.boxes import Frame
from medvl.errors import DataError, UsageError
from medvl.instructions import Instruction, fingerprint, fingerprint_each
from medvl.sharegpt import Record
from medvl.sources.base import Source
from medvl.tasks import Task
from preprocess import contamination, prompts, sampling, splits
from preprocess.fingerprint_cache import fingerprints
from preprocess.fingerprints import Fingerprint
from preprocess.noise import NoiseOptions, add_noise
from preprocess.resampling import resample, views
from preprocess.results import DatasetResult, Entry, Groups, Prepared, group_records
from preprocess.sampling import Sampling
from preprocess.tokens import budget
from preprocess.tokens.budget import Budget


@dataclass(frozen=True)
class Plan:
    """What the command line asks of this step, checked before any image is read.

    Attributes:
        source: Where the rows come from.
        args: The command line.
        shares: Split -> share of the training records; empty if they stay together.
        budgets: Ways to count tokens.
        sampling: How often training records are seen.
        instructions: What is said about the form of answers, per task.
    """

    source: Source
    args: argparse.Namespace
    shares: dict[str, float]
    budgets: list[Budget]
    sampling: Sampling
    instructions: dict[Task, Instruction]


def add_arguments(source: Source, arguments: argparse.ArgumentParser) -> None:
    """The options of this step."""
    prompts.add_arguments(arguments)
    splits.add_arguments(source, arguments)
    contamination.add_arguments(arguments)
    budget.add_arguments(arguments)
    sampling.add_arguments(arguments)


def plan(source: Source, args: argparse.Namespace) -> Plan:
    """Check the options of `add_arguments`; `--seed`, `--workers` and `--name` are read too.

    Raises:
        UsageError: options that cannot be followed.
    """
    if args.exclude_contaminated and args.contamination == "off":
        raise UsageError(
            "--exclude-contaminated needs contamination to be looked for, and --contamination off looks for none"
        )
    return Plan(
        source,
        args,
        splits.chosen_shares(args),
        budget.chosen_budgets(args),
        sampling.chosen_sampling(args),
        prompts.chosen_instructions(args),
    )


def shape(plan: Plan, converted: Sequence[DatasetResult], out: Path) -> Prepared:
    """Split, check and group the records of a conversion.

    Args:
        plan: What is asked for.
        converted: The outcome per dataset and split.
        out: Output folder; caches lie in it.

    Raises:
        DataError: the data is not what the options demand; nothing was written.
    """
    args, parts = plan.args, prompts.instruct_all(converted, plan.instructions)
    sections: dict[str, Any] = {}
    prints = _fingerprints(plan, parts, out)
    split_of = _split_of(plan, parts, prints)
    by_split = _by_split(plan, parts, split_of)
    if args.exclude_contaminated and len(by_split) < 2:
        raise DataError(
            f"--exclude-contaminated compares splits, and all records are in {', '.join(by_split) or 'none'}; nothing "
            "was written. Convert validation and test with them, or leave the option out"
        )
    if args.contamination != "off":
        found = (
            contamination.find_contamination(by_split, prints, near=args.contamination == "near")
            if len(by_split) > 1
            else []
        )
        sections["leaks"] = found
        excluded = contamination.to_exclude(found, splits.REST) if args.exclude_contaminated else {}
        parts = contamination.with_findings(parts, found, excluded)

    def in_training(record: Record) -> list[Record]:
        return views(record) if split_of[record.id] == splits.REST else [record]

    if plan.source.noise_objects:
        options = NoiseOptions(plan.source.noise_objects, args.seed, Frame(args.frame), args.box_style)
        parts = [add_noise(part, options, lambda record: split_of[record.id] == splits.REST) for part in parts]
    flattened = in_training if plan.sampling.flatten else None
    training = {split.folder for split in plan.source.splits.values() if split.role == "train"}
    parts, sections["tokens"] = budget.check_budget(parts, plan.budgets, flattened, args.over_budget, training)
    if plan.shares:
        shared = [record for part in parts for record in part.records if split_of[record.id] in plan.shares]
        sections["splits"] = splits.split_table(shared, split_of)
    by_entry = group_records(parts, split_of)
    groups, samples, lines = _sampled(by_entry, plan)
    sections |= {"sampling": lines} if plan.sampling.active else {}
    renamed = [f"{entry.kind} {entry.of} is the entry {entry.name(args.name)}: the short name is another's"
               for entry in by_entry if entry.says_kind]  # fmt: skip
    return Prepared(parts, groups, sections, recorded_options(plan), samples, renamed)


def recorded_options(plan: Plan) -> dict[str, Any]:
    """The options of this step, for report and manifest."""
    args = plan.args
    names = ("processor", "cutoff_len", "over_budget", "balance", "flatten_multi_image")
    return (
        {name: getattr(args, name) for name in names}
        | ({"by": args.by} if args.by else {})
        | {
            "leaks": args.contamination,
            "exclude_leaks": args.exclude_contaminated,
            "split_train": plan.shares,
            "recipe": str(args.recipe) if args.recipe else None,
            "profiles": str(args.profiles) if args.profiles else None,
            "profiles_fingerprint": fingerprint(plan.instructions) if args.profiles else None,
            "instructions": fingerprint_each(plan.instructions),
            "sample": plan.sampling.rates,
            "donor": [f"{source.task}={source.dataset}:{source.rows}" for source in plan.sampling.oversampling],
        }
    )


def _sampled(groups: Groups, plan: Plan) -> tuple[dict[str, list[Record]], dict[str, int], list[dict[str, Any]]]:
    """Records by entry name, `num_samples` by entry name, and the report's section on sampling."""
    samples, lines = dict[Entry, int](), list[tuple[Entry, dict[str, Any]]]()
    if plan.sampling.active:
        made = [split for split in plan.shares if split not in (splits.REST, "dev")]
        groups, samples, lines = resample(groups, plan.sampling, [splits.REST, *made])
    first = plan.args.name
    _check_names(groups, first)
    return (
        {entry.name(first): records for entry, records in groups.items()},
        {entry.name(first): count for entry, count in samples.items()},
        [{"entry": entry.name(first)} | line for entry, line in lines],
    )


def _check_names(groups: Groups, first: str) -> None:
    """Raise `DataError` if two entries would have one name: the records of one would be lost."""
    named: dict[str, Entry] = {}
    for entry in groups:
        other = named.setdefault(entry.name(first), entry)
        if other != entry:
            raise DataError(
                f"{other.kind} {other.of!r}, split {other.split}, and {entry.kind} {entry.of!r}, split {entry.split}, "
                f"would both be the entry {entry.name(first)}; rename the folder or the split of one"
            )


def _fingerprints(plan: Plan, parts: Sequence[DatasetResult], out: Path) -> dict[str, Fingerprint]:
    """Fingerprints of all images, if anything needs them: one split alone has no contamination."""
    several = len({part.split for part in parts if part.records}) > 1 or bool(plan.shares)
    compared = plan.args.contamination != "off" and several
    if not compared and not plan.shares:
        return {}
    paths = (image for part in parts for record in part.records for image in record.images)
    return fingerprints(paths, out, plan.args.workers, look=compared and plan.args.contamination == "near")


def _split_of(plan: Plan, parts: Sequence[DatasetResult], prints: Mapping[str, Fingerprint]) -> dict[str, str]:
    by_folder = {split.folder: name for name, split in plan.source.splits.items()}
    names = [by_folder[part.split] for part in parts]
    split_of = {record.id: name for part, name in zip(parts, names, strict=True) for record in part.records}
    if plan.shares:
        training = [record for part in parts for record in part.records if split_of[record.id] == splits.REST]
        split_of |= splits.split_by_image(training, prints, plan.shares, plan.args.seed, plan.args.by)
    return split_of


def _by_split(plan: Plan, parts: Sequence[DatasetResult], split_of: Mapping[str, str]) -> dict[str, list[Record]]:
    """Records by split, those to train on first and the published ones last."""
    order = {name: place for place, name in enumerate([splits.REST, *plan.shares, *plan.source.splits])}
    groups: dict[str, list[Record]] = defaultdict(list)
    for part in parts:
        for record in part.records:
            groups[split_of[record.id]].append(record)
    return {name: groups[name] for name in sorted(groups, key=lambda name: (order.get(name, len(order)), name))}
