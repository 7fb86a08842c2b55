"""The command line of a preprocess script, and what becomes of its errors."""

import argparse
import gc
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medvl.box_text import BoxStyle
from medvl.boxes import FRAMES
from medvl.errors import DataError, UsageError
from medvl.sharegpt import TEMPORARY
from medvl.source_frames import SourceFrame
from medvl.sources.base import GivenSource, Source
from medvl.tasks import UnknownNameError
from preprocess import entries, filtering
from preprocess.conversion import convert_tree
from preprocess.options import OnMissing
from preprocess.unchanged import DATASET_INFO, Inputs, default_out
from preprocess.validate import issues_json, print_issues, validate

Add = Callable[..., Any]  # `add_argument` of a group


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number


def entry_name(text: str) -> str:
    """A name that files and entries can begin with, for argparse: recipes separate entries by commas."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r}: letters, digits, _, . and - only, the first a letter or digit")
    return text


def parser(source: Source, about: str) -> argparse.ArgumentParser:
    """The command line for a source; `about` is what it does, and examples."""
    description, _, examples = about.partition("\n\n")
    arguments = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--validate",
        type=Path,
        metavar="PATH",
        help="re-check an output folder against its manifest, and do nothing else",
    )
    arguments.add_argument("--json", action="store_true", help="with --validate: what is found as a JSON list")
    _input_arguments(source, arguments.add_argument_group("what is read").add_argument)
    _record_arguments(source, arguments.add_argument_group("what a record is").add_argument)
    _output_arguments(source, arguments.add_argument_group("what is written").add_argument)
    if isinstance(source, GivenSource):
        source.add_arguments(arguments)
    arguments.set_defaults(download=False)  # where there is nothing to download
    filtering.add_arguments(source, arguments)
    entries.add_arguments(source, arguments)
    return arguments


def _input_arguments(source: Source, add: Add) -> None:
    if isinstance(source, GivenSource):
        add("root", nargs="?", type=Path, metavar="DATA", help=source.layout)
    else:
        add("--root", type=Path, help=f"the {source.title} tree: {source.layout}")
    if source.hub:
        add("--download", action="store_true", help="first fetch the dataset from the Hugging Face Hub to --root")
    add("--datasets", nargs="+", default=[], metavar="NAME", help="datasets by folder name (default: all there are)")
    add("--splits", nargs="+", default=[], metavar="SPLIT", help=f"{', '.join(source.splits)} (default: all there are)")
    add("--limit", type=positive, metavar="N", help="at most N rows per dataset and split, sampled with --seed")
    add("--seed", type=int, default=0, help="for everything that is drawn by lot (default: 0)")
    add("--workers", type=positive, default=4, help="processes that decode images (default: 4)")
    add("--hash-images", action="store_true", help="tell unchanged images by content, not by size and time")


def _record_arguments(source: Source, add: Add) -> None:
    add("--frame", choices=FRAMES, default="norm1000", help="frame of boxes in answers (default: norm1000)")
    add(
        "--source-frame",
        choices=get_args(SourceFrame),
        default=source.source_frame,
        help="frame of boxes in the data: pixel (as in FLARE), norm1000, norm1, or auto: by the numbers of each file "
        f"(default: {source.source_frame})",
    )
    add(
        "--box-style",
        choices=[style for style in get_args(BoxStyle) if style != "map"],
        default="json",
        help="text style of boxes (default: json). Instance answers stay maps in json and flare",
    )
    add(
        "--on-missing",
        choices=get_args(OnMissing),
        default="drop",
        help="a missing or broken image: drop the record (default), stop with an error, or go on with its others",
    )
    add("--max-images-per-sample", type=int, metavar="N", help="at most N images per record, evenly spaced")
    add("--number-images", action="store_true", help="number several images in the prompt: Image-1: <image>")


def _output_arguments(source: Source, add: Add) -> None:
    add("--out", type=Path, help="output folder (default: data/ and the --name)")
    add(
        "--name",
        type=entry_name,
        default=source.name,
        help=f"first part of ids and entry names (default: {source.name}). Predictions for another are scored against "
        f"the converted file; the tree's own ids begin with {source.name}",
    )
    add(
        "--dataset-info",
        type=Path,
        help="registry to merge the entries into (default: dataset_info/dataset_info.json; with --validate the one "
        "that the manifest names)",
    )
    add("--dry-run", action="store_true", help="show ten records as they would be, and write and register no entries")


def run(source: Source, words: Sequence[str], about: str, inputs: Inputs | None) -> int:
    """Do what the words of the command line say. Returns the exit code of `preprocess.script.main`."""
    arguments = parser(source, about)
    args = arguments.parse_args(words)
    errors = Console(stderr=True)
    if args.validate:
        issues = validate(args.validate.resolve(), args.dataset_info and args.dataset_info.resolve())
        if args.json:
            sys.stdout.write(issues_json(issues))
        else:
            print_issues(issues, args.validate, Console())
        return 3 if any(issue.level == "error" for issue in issues) else 0
    args.dataset_info, args.out = args.dataset_info or DATASET_INFO, args.out or default_out(args.name)
    if args.root is None:
        arguments.error(f"{'DATA' if isinstance(source, GivenSource) else '--root'} is missing: {source.layout}")
    gc.disable()  # records hold no cycles, and looking for some among 58,000 takes a fifth of the time
    try:
        with locked(args.out.resolve()):
            chosen = source.configured(args) if isinstance(source, GivenSource) else source
            if isinstance(chosen, GivenSource):
                _print_overview(chosen)
            convert_tree(chosen, args, errors, inputs)
    except (UnknownNameError, UsageError) as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        return 2
    except (OSError, ValueError) as error:  # a damaged registry, a folder that is a file, …
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        return 3
    finally:
        gc.enable()
    return 0


def _print_overview(source: GivenSource) -> None:
    if facts := source.overview():
        table = Table("what", "value", "", title="What the data is taken for")
        for row in facts:
            table.add_row(*map(escape, row))
        Console().print(table)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs out of the output folder.

    Raises:
        DataError: another run is there.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"{out}: another run is writing there; wait for it, or choose another --out") from error
    try:
        for half_written in out.rglob(f".*{TEMPORARY}"):  # by a run that was killed
            half_written.unlink()
        yield
    finally:
        lock.release()
