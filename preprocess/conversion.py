"""All steps from the tree of a data source to LLaMA-Factory's files."""

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from medvl.boxes import Frame
from medvl.control_tokens import KNOWN
from medvl.errors import DataError
from medvl.sharegpt import Record, write_atomic
from medvl.sources.base import Sample, Source, SourceFile, image_path
from medvl.sources.places import OutsideError
from preprocess import dry_run, entries, filtering, prompts, scans, source_frames, unchanged
from preprocess.archives import unpack_all
from preprocess.audit import AUDIT_FILE, audit, review_table, set_marked_aside
from preprocess.decoding import Rendering
from preprocess.download import download, tree_in
from preprocess.images import ImageCache, all_frames, look_at_images
from preprocess.options import Options
from preprocess.outputs import Provenance, check_name, write_outputs
from preprocess.parallel import convert_rows
from preprocess.report import REPORT, print_report
from preprocess.results import DatasetResult, Finding, counts_of
from preprocess.rows import convert
from preprocess.tokens.formula import record_text_tokens
from preprocess.tokens.recipe import chosen_tokens


def choose_rows(samples: Sequence[Sample], limit: int | None, seed: int) -> list[Sample]:
    """All rows, or a sample of `limit` of them in their order: the first rows of a file are often of one class."""
    if limit is None or limit >= len(samples):
        return list(samples)
    # The file's place is part of the seed, so that a file's sample does not depend on which others are converted.
    chosen = random.Random(f"{seed}/{samples[0].id}").sample(range(len(samples)), limit)
    return [samples[index] for index in sorted(chosen)]


def find_files(
    source: Source, args: argparse.Namespace, root: Path
) -> tuple[tuple[SourceFile, ...], list[str], list[Path]]:
    """The files of the tree, a line for every file or archive refused, and the folders unpacked from archives.

    Raises:
        UnknownNameError: a dataset or split that is asked for is not there.
    """
    found = source.find(root, args.splits, args.datasets)
    refused, unpacked = list(found.refused), list[Path]()
    try:
        unpacked = unpack_all(source, found.files)
    except DataError as error:
        refused.append(str(error))
    return found.files, refused, unpacked


def read_rows(
    source: Source, files: Sequence[SourceFile], refused: Sequence[str], name: str
) -> tuple[dict[SourceFile, list[Sample]], list[Finding]]:
    """The rows of every file, and what is unusual about the files.

    Raises:
        DataError: files that cannot be read; the message has a line for each of them, after those `refused` before.
    """
    rows, findings, lines = {}, [], list(refused)
    for file in files:
        try:
            rows[file], notes = source.read(file)
        except DataError as error:
            lines.append(str(error))
            continue
        where = f"{name}/{file.home}"
        findings += [
            Finding(id=where, code=code, action="kept", detail=f"{where}: {said}", file=str(file.path), index=-1)
            for code, said in notes
        ]
    if lines:
        raise DataError("\n".join(lines))
    return rows, findings


def convert_tree(source: Source, args: argparse.Namespace, errors: Console, inputs: unchanged.Inputs | None) -> None:
    """All steps, in order.

    Args:
        source: Whose tree it is.
        args: The command line.
        errors: Where notes go.
        inputs: By which the next run tells whether there is anything to do.

    Raises:
        UnknownNameError: a dataset or split that is asked for is not there.
        UsageError: options that cannot be followed, or the folder holds the output of another name.
        DataError: the data was refused; nothing was written.
    """
    check_name(args.out.resolve(), args.name, source.name)
    if args.download:
        download(source, args.root, args.splits)
    root, out, info = tree_in(source, args.root.resolve()), args.out.resolve(), args.dataset_info.resolve()
    plan = entries.plan(source, args)
    options = Options(
        source, Frame(args.frame), args.box_style, args.on_missing, args.name, args.max_images_per_sample,
        args.number_images, chosen_tokens(args),
    )  # fmt: skip
    options = source_frames.stated(options, args.source_frame)
    filtered = filtering.plan(source, args)
    files, refused, unpacked = find_files(source, args, root)
    command = inputs.command if inputs and _repeatable(args, inputs.command) else None
    state = _state(inputs, command, unpacked)
    read, file_findings, before = _read_and_list(source, files, refused, args.name, state)
    rows = {file: choose_rows(samples, args.limit, args.seed) for file, samples in read.items()}
    total = sum(map(len, rows.values()))
    rows = dry_run.some(rows) if args.dry_run else rows
    rendering = Rendering(source.max_side, scans.chosen(args))
    rows = all_frames(source, rows, rendering.scans) if args.slices == "all" else rows
    cache, converted = ImageCache(out, rendering), []
    options = source_frames.found(options, rows) if args.source_frame == "auto" else options
    look = partial(
        look_at_images,
        source=source,
        root=root,
        known=cache.seen,
        out=out,
        hashes=args.hash_images,
        rendering=rendering,
    )
    for part in convert_rows(rows, partial(convert, options=options), look, cache, args.workers):
        where = f"{args.name}/{part.split}/{part.category}/{part.dataset}"
        part.findings[:0] = [finding for finding in file_findings if finding.id == where]
        part.findings += source_frames.findings(part, options, auto=args.source_frame == "auto")
        converted.append(audit(part))
        for record in part.records:
            record_text_tokens(record)  # while the workers are at the next files
    if args.on_missing == "error":
        refuse_missing(converted)

    def convert_again(sample: Sample) -> tuple[Record | None, list[Finding]]:
        normalised = replace(options, source_frame=Frame.PIXEL, source_frames={})  # cleaning writes pixels
        return convert(sample, {name: seen.image for name, seen in look([sample]).items()}, normalised)

    answers = {record.id: record.source.truth for part in converted for record in part.records}
    converted, changes = filtering.apply(filtered, converted, rows, convert_again, partial(_ids, read, args.name))
    if args.dry_run:
        shown = prompts.instruct_all(converted, plan.instructions)
        dry_run.show(source, args, shown, total, refused_images(source, rows, shown), Console())
        return
    prepared = entries.shape(plan, converted, out)
    prepared.sections.update(source.sections(rows))
    prepared.sections["changes"] = changes
    print_report(prepared.converted, Console())
    more_tokens = sorted(options.control_tokens - KNOWN)
    stated = recorded_options(args) | dict(source.stated) | ({"control_tokens": more_tokens} if more_tokens else {})
    provenance = Provenance(source.name, root, stated, source.licence)
    notes = set_marked_aside(out, filtered.reviewed)
    write_atomic(out / AUDIT_FILE, review_table(prepared.converted, answers, filtered.reviewed))
    notes += prepared.notes
    left_out = refused_images(source, rows, prepared.converted)
    digests = {seen.image.path: seen.image.sha256 for seen in cache.seen.values()}
    notes += write_outputs(out, prepared, provenance, images=left_out, digests=digests, dataset_info=info)
    for note in notes:
        errors.print(f"note: {note}", markup=False)
    if not prepared.groups:
        raise DataError(f"{root}: no record was kept; {out / REPORT} says why")
    counts = ", ".join(f"{count} {name}" for name, count in counts_of(prepared.converted).items())
    summary = f"rows: {counts}; {len(prepared.groups)} entries in {info}, files in {out}"
    if command and before:
        unchanged.write_stamp(command, before, list(prepared.groups), summary)
    else:
        (out / unchanged.STAMP).unlink(missing_ok=True)
    whole = (name for name in prepared.groups if name.startswith(f"{args.name}_all_"))
    sizes = ", ".join(f"{name} ({len(prepared.groups[name])} records)" for name in whole)
    Console().print(f"for recipes: {sizes}", markup=False, highlight=False, soft_wrap=True)
    Console().print(summary, markup=False, highlight=False, soft_wrap=True)


def _ids(rows: Mapping[SourceFile, Sequence[Sample]], name: str) -> set[str]:
    return {f"{name}/{sample.id}" for samples in rows.values() for sample in samples}


def _read_and_list(
    source: Source, files: Sequence[SourceFile], refused: Sequence[str], name: str, state: Callable[[], str]
) -> tuple[dict[SourceFile, list[Sample]], list[Finding], str]:
    """What `read_rows` gives, and the state of all inputs, which a child process may list meanwhile.

    The state is empty if question files have changed since: what was read need not be what was listed.
    """
    changed = _times_of_change(files)
    rows, findings = read_rows(source, files, refused, name)
    listed = state()
    return rows, findings, listed if _times_of_change(files) == changed else ""


def _state(
    inputs: unchanged.Inputs | None, command: unchanged.Command | None, unpacked: Sequence[Path]
) -> Callable[[], str]:
    """Asks for the state of all inputs; that is empty where the next run works again whatever it is."""
    if inputs is None or command is None:
        return str
    return partial(unchanged.input_state, command) if unpacked else inputs.state


def _times_of_change(files: Sequence[SourceFile]) -> list[int]:
    return [file.path.stat().st_mtime_ns for file in files]


def _repeatable(args: argparse.Namespace, command: unchanged.Command) -> bool:
    """Whether the next run can tell from the command and the tree alone that there is nothing to do."""
    if args.hash_images or args.download or args.recipe or args.processor:  # asked to look; or a checkpoint is read
        return False
    # An option may be abbreviated.
    return list(command[:3]) == [str(path.resolve()) for path in (args.root, args.out, args.dataset_info)]


def refused_images(
    source: Source, rows: Mapping[SourceFile, Sequence[Sample]], converted: Sequence[DatasetResult]
) -> dict[str, list[Path]]:
    """The image files of records that were left out, by id."""
    left_out: dict[str, dict[int, str]] = defaultdict(dict)  # file -> row -> id
    for part in converted:
        for finding in part.findings:
            if finding.action != "kept":
                left_out[part.file][finding.index] = finding.id
    return {
        left_out[str(file.path)][sample.index]: list(_paths(source, sample))
        for file, samples in rows.items()
        for sample in samples
        if sample.index in left_out[str(file.path)]
    }


def _paths(source: Source, sample: Sample) -> Iterator[Path]:
    for name in sample.images:
        with suppress(OutsideError):  # a name that leads out of the tree is not shown
            yield image_path(source, sample.file, name)


def refuse_missing(converted: Sequence[DatasetResult]) -> None:
    """Raise `DataError` if a record was lost to an image."""
    findings = [finding for part in converted for finding in part.findings]
    lost = [finding for finding in findings if finding.action != "kept" and finding.code.startswith("IMAGE_")]
    if lost:
        raise DataError(
            f"{len(lost)} records lack a usable image and nothing was written; "
            "run with --on-missing drop to go on without them"
        )


def recorded_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that decide what is written, for report and manifest."""
    names = ("frame", "box_style", "on_missing", "max_images_per_sample", "number_images", "clean", "clean_splits",
             "datasets", "splits", "limit", "seed", "name")  # fmt: skip
    stated = {name: getattr(args, name) for name in names}
    if args.source_frame != Frame.PIXEL:
        stated["source_frame"] = args.source_frame
    return stated | scans.recorded(args)
