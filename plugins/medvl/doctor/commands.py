"""`medvl doctor`: the report of what would go wrong here, as a table or as JSON.

Exit code 0 when training can start, 1 when something stops it. A machine without a GPU is fine, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import warnings
from collections.abc import Iterator

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medvl.doctor.check_result import CheckResult
from medvl.doctor.checks import judge
from medvl.doctor.facts import look
from medvl.factory import arguments

STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `medvl doctor`."""
    parser.add_argument("--hub", action="store_true", help="also try to reach the model hub (5 seconds at most)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 when a finding stops training, else 0."""
    with _quiet():
        results = judge(look(ask_hub=args.hub))
    healthy = all(result.level != "problem" for result in results)
    if args.json:
        report = {"ok": healthy, "findings": results, "recipe_keys": list(arguments.defaults())}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    else:
        _print(results, healthy)
    return 0 if healthy else 1


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the probed libraries print at import off the report; their failures are in it."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _print(results: list[CheckResult], healthy: bool) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "finding", "cure"):
        table.add_column(column, overflow="fold")
    for result in results:
        # As Text, since messages hold other programs' words, where a `[` is no markup.
        row = (result.subject, result.message, result.cure)
        table.add_row(Text(result.level, STYLES[result.level]), *map(Text, row))
    console = Console()
    console.print(table)
    console.print(f"\nRecipe keys medvl adds: {', '.join(arguments.defaults())}")
    verdict = "[green]Training can start.[/]" if healthy else "[bold red]Something above stops training.[/]"
    console.print(verdict)
