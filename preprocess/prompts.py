"""`--profiles`: the questions of all records as prediction will ask them. Verbatim without it."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from medvl.errors import UsageError
from medvl.instructions import Instruction, instruct_record
from medvl.profiles import read_profiles
from medvl.tasks import Task
from preprocess.results import DatasetResult


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """The options of this module."""
    group = arguments.add_argument_group("prompts")
    group.add_argument(
        "--profiles",
        type=Path,
        metavar="YAML",
        help="add the answer instruction of every task's profile to its questions, as prediction does with the same "
        "file (default: questions verbatim)",
    )


def chosen_instructions(args: argparse.Namespace) -> dict[Task, Instruction]:
    """The instructions of the profiles file; none without one.

    Raises:
        UsageError: a file that cannot be followed.
    """
    if args.profiles is None:
        return {}
    try:
        return read_profiles(args.profiles).instructions
    except ValueError as error:
        raise UsageError(f"--profiles {error}") from error


def instruct_all(parts: Sequence[DatasetResult], instructions: Mapping[Task, Instruction]) -> list[DatasetResult]:
    """The parts with the questions of their records as they are asked, in all splits."""
    if not instructions:
        return list(parts)
    return [
        msgspec.structs.replace(part, records=[instruct_record(record, instructions) for record in part.records])
        for part in parts
    ]
