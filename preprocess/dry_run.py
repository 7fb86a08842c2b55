"""`--dry-run`: some records as they would be, in the terminal and on a page; nothing is written that a recipe reads."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from medvl.sharegpt import Record, to_json, write_atomic
from medvl.sources.base import Sample, Source, SourceFile
from preprocess.page import render_page
from preprocess.report import summary
from preprocess.results import DatasetResult, Prepared

PAGE = "dry_run.html"
_SHOWN = 10


def some(rows: Mapping[SourceFile, Sequence[Sample]]) -> dict[SourceFile, list[Sample]]:
    """Ten rows, evenly spaced over all of them; the files with none are left out."""
    places = [(file, sample) for file, samples in rows.items() for sample in samples]
    step = max(len(places) / _SHOWN, 1)
    chosen: dict[SourceFile, list[Sample]] = {}
    for number in range(min(_SHOWN, len(places))):
        file, sample = places[int(number * step)]
        chosen.setdefault(file, []).append(sample)
    return chosen


def show(
    source: Source,
    args: argparse.Namespace,
    parts: Sequence[DatasetResult],
    total: int,
    images: Mapping[str, Sequence[Path]],
    console: Console,
) -> None:
    """Print the records and what was found about them, and write the page.

    Args:
        source: Where they come from.
        args: The command line.
        parts: The converted rows.
        total: How many rows there are in all.
        images: Id of a record that was left out -> its image files.
        console: Where they are printed.
    """
    for line in _lines(parts):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    report = {"source": source.name, "root": str(args.root), "options": {"frame": args.frame}, "outputs": {}}
    contents = msgspec.json.decode(to_json(report | summary(parts)))
    prepared = Prepared(list(parts), {})
    page = args.out.resolve() / PAGE
    write_atomic(page, render_page(contents, prepared, images, every_record=True).encode())
    rows = sum(part.rows for part in parts)
    said = f"{rows} of {total} rows, shown as they would be; no entry was written. Look at them: {page}"
    console.print(said, markup=False, highlight=False, soft_wrap=True)


def _lines(parts: Sequence[DatasetResult]) -> Iterator[str]:
    for part in parts:
        for record in part.records:
            yield from _record_lines(record)
        for finding in part.findings:
            yield f"{finding.code}: {finding.action} {finding.detail}"


def _record_lines(record: Record) -> Iterator[str]:
    yield f"{record.id} ({record.task})"
    for name, text in (("question", record.conversations[0].value), ("answer", record.target)):
        yield f"  {name}: " + text.replace("\n", "\n    ")
    for image in record.images:
        yield f"  image: {image}"
    yield ""
