"""How often a training record is to be seen, as the command line says it."""

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medvl.errors import UsageError
from medvl.tasks import Task, UnknownNameError, canonical_task

Balance = Literal["small", "classes", "datasets"]
# FLARE26-Hexapus' rule "K2a": an answer of a dataset with n < 250 rows is repeated to min(6n, 250) of them.
SMALL = 250
SMALL_TIMES = 6


@dataclass(frozen=True)
class OversamplingSource:
    """Rows of another dataset that are added to the training entry of a task."""

    task: Task
    dataset: str
    rows: int


@dataclass(frozen=True)
class Sampling:
    """What is asked for.

    Attributes:
        rates: Dataset -> how often its records are seen per epoch.
        balance: What is evened, or None.
        oversampling: Rows of other datasets per task.
        flatten: Whether a record with several images becomes one per image.
        seed: Decides what is drawn.
    """

    rates: dict[str, float]
    balance: Balance | None
    oversampling: tuple[OversamplingSource, ...]
    flatten: bool
    seed: int

    @property
    def active(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.rates or self.balance or self.oversampling or self.flatten)

    def draw(self, name: str, items: Sequence[int], count: int) -> list[int]:
        """`count` of the items, each at most once; the name makes it independent of other draws."""
        return random.Random(f"{self.seed}/{name}").sample(items, count)


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """The options of this module."""
    group = arguments.add_argument_group("how often a training record is seen")
    add = group.add_argument
    add(
        "--sample",
        nargs="+",
        type=_rate,
        default=[],
        metavar="DATASET=RATE",
        help="e.g. retino=0.5 endo=4: num_samples of the dataset's entry, and as many records in entries of several",
    )
    add(
        "--balance",
        choices=("small", "classes", "datasets"),
        help=f"repeat classification answers of a dataset with n < {SMALL} rows to min({SMALL_TIMES}n, {SMALL}); or "
        "every answer to a question to the most frequent one's number; or every dataset to the largest one's, in "
        "entries of several",
    )
    add(
        "--oversample",
        nargs="+",
        type=_oversampling_source,
        default=[],
        metavar="TASK=DATASET:ROWS",
        help="add rows of another dataset to the entry of a task, e.g. regression=bcn20000:5000",
    )
    add("--flatten-multi-image", action="store_true", help="one record per image, but for answers with boxes")


def chosen_sampling(args: argparse.Namespace) -> Sampling:
    """What the command line asks for.

    Raises:
        UsageError: a dataset has two rates, or is the donor of a task twice.
    """
    rates = dict(args.sample)
    if len(rates) < len(args.sample):
        raise UsageError("--sample names a dataset twice")
    if len({(origin.task, origin.dataset) for origin in args.oversample}) < len(args.oversample):
        raise UsageError("--oversample names a dataset twice for one task")  # the same rows could be drawn twice
    return Sampling(rates, args.balance, tuple(args.oversample), args.flatten_multi_image, args.seed)


def _rate(text: str) -> tuple[str, float]:
    name, _, rate = text.partition("=")
    if not name or not 0 < float(rate) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected DATASET=RATE with a finite rate above 0")
    return name, float(rate)


def _oversampling_source(text: str) -> OversamplingSource:
    task, _, rest = text.partition("=")
    dataset, _, rows = rest.rpartition(":")
    if not dataset or not int(rows) > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected TASK=DATASET:ROWS")
    try:
        return OversamplingSource(canonical_task(task), dataset, int(rows))
    except UnknownNameError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
