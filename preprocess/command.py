"""The command line of a preprocess script."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from medvl.argument_types import positive, registry_file
from medvl.box_text import BoxStyle
from medvl.boxes import Frame
from medvl.sources.base import Source
from medvl.sources.given import GivenSource
from preprocess import entries, filtering, scans
from preprocess.options import OnMissing

Add = Callable[..., Any]  # `add_argument` of a group


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
    scans.add_arguments(arguments)
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
    add(
        "--frame",
        choices=[*map(str, Frame)],
        default=Frame.NORM1000,
        help="frame of boxes in answers (default: norm1000)",
    )
    add(
        "--source-frame",
        choices=[*map(str, Frame), "auto"],
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
    add("--max-images-per-sample", type=positive, metavar="N", help="at most N images per record, evenly spaced")
    add("--number-images", action="store_true", help="number several images in the prompt: Image-1: <image>")


def _output_arguments(source: Source, add: Add) -> None:
    own_ids = (
        f". Predictions for another are scored against the converted file; the tree's own begin with {source.name}"
    )
    of_tree = "" if isinstance(source, GivenSource) else own_ids
    add("--out", type=Path, help="output folder (default: data/ and the --name)")
    add(
        "--name",
        type=entry_name,
        default=source.name,
        help=f"first part of ids and entry names: NAME_all_train, … (default: {source.name}){of_tree}",
    )
    add(
        "--dataset-info",
        type=registry_file,
        help="registry to merge the entries into, a file or its folder (default: dataset_info/dataset_info.json; with "
        "--validate the one that the manifest names)",
    )
    add("--dry-run", action="store_true", help="show ten records as they would be, and write and register no entries")
