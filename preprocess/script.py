"""What every preprocess script does: convert the tree of a source, unless nothing has changed since the last run."""

import argparse
import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medvl.console import accept_all_text
from preprocess import unchanged

if TYPE_CHECKING:
    from medvl.sources.base import Source
    from medvl.sources.given import GivenSource


def main(source: str, about: str, argv: Sequence[str] | None = None) -> int:
    """Convert a tree.

    Args:
        source: Name of the data source, see `medvl.sources.source_named`. Not the source itself: what it needs takes
            longer to import than to find that nothing has changed.
        about: What the script does, and examples, for `--help`.
        argv: Words of the command line; those of this process if None.

    Returns:
        0, 2 for wrong arguments, 3 if the data was refused, 130 after Ctrl-C.
    """
    accept_all_text()
    try:
        return _convert(source, about, sys.argv[1:] if argv is None else list(argv))
    except KeyboardInterrupt:
        print("stopped; the same command starts over", file=sys.stderr)  # noqa: T201  (see below)
        return 130


def _convert(source: str, about: str, words: Sequence[str]) -> int:
    command = unchanged.read_command(source, words)
    if command and (summary := unchanged.summary_if_unchanged(command)):
        print(f"nothing has changed since the last run: {summary}")  # noqa: T201  (rich would take longer to import)
        return 0
    inputs = unchanged.Inputs(command) if command else None
    from medvl.sources import source_named
    from preprocess.command import parser  # this and what follows take as long to import as the inputs to list

    named = source_named(source)
    arguments = parser(named, about)
    args = arguments.parse_args(words)
    return _validate(args) if args.validate else _run(named, arguments, args, inputs)


def _validate(args: argparse.Namespace) -> int:
    from rich.console import Console

    from preprocess.defects import defects_json, print_defects
    from preprocess.validate import validate

    defects = validate(args.validate.resolve(), args.dataset_info and args.dataset_info.resolve())
    if args.json:
        sys.stdout.write(defects_json(defects))
    else:
        print_defects(defects, args.validate, Console())
    return 3 if any(defect.level == "error" for defect in defects) else 0


def _print_overview(source: "GivenSource") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if facts := source.overview():
        table = Table("what", "value", "how it is known", title="What the data is taken for")
        for row in facts:
            table.add_row(*map(escape, row))
        Console().print(table)


def _run(
    source: "Source", arguments: argparse.ArgumentParser, args: argparse.Namespace, inputs: unchanged.Inputs | None
) -> int:
    from rich.console import Console

    from medvl.errors import UsageError
    from medvl.sources.given import GivenSource
    from medvl.tasks import UnknownNameError
    from preprocess.conversion import convert_tree
    from preprocess.outputs import locked

    errors = Console(stderr=True)
    args.dataset_info = args.dataset_info or unchanged.DATASET_INFO
    args.out = args.out or unchanged.default_out(args.name)
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
