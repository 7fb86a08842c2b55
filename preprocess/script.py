"""What every preprocess script does: convert the tree of a source, unless nothing has changed since the last run."""

import sys
from collections.abc import Sequence

from medvl.console import accept_all_text
from preprocess import unchanged


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
    from preprocess.command import run  # takes as long to import as the inputs to list

    return run(source_named(source), words, about, inputs)
