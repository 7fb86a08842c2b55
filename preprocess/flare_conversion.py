"""All steps from a FLARE tree to LLaMA-Factory's files."""

import argparse
import hashlib
import os
import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image
from rich.console import Console

from medvl.control_tokens import KNOWN
from medvl.sharegpt import Record, write_atomic
from medvl.sources.flare import (
    FlareError,
    Question,
    QuestionFile,
    find_question_files,
    image_path,
    image_places,
    read_wrapped,
)
from preprocess import entries, filtering, source_frames, unchanged, worker_pool
from preprocess.archives import unpack_all
from preprocess.audit import AUDIT_FILE, audit, review_table, set_marked_aside
from preprocess.download import download, tree_in
from preprocess.flare_rows import Options, convert
from preprocess.images import ImageCache, Seen, look_at
from preprocess.outputs import COPIES, Provenance, check_name, write_outputs
from preprocess.report import REPORT, DatasetResult, Finding, counts_of, print_report
from preprocess.special_tokens import chosen_tokens
from preprocess.token_formula import record_text_tokens

Look = Callable[[Sequence[Question]], dict[str, Seen]]  # at the images of some rows of one file, by name
LICENCE = (
    "The records quote questions and answers of FLARE-Task5-MLLM-2D and name its image files. That release is gated "
    "and made of 19 datasets with licences of their own: what its terms of access say holds for these files too, and "
    "they may not be passed on where the originals may not."
)
_LONGEST_NAME = 200  # bytes of the 255 that a file system takes
_CHUNK = 200  # rows that a worker takes at a time


class Chunk(msgspec.Struct, array_like=True):
    """What some rows of a file became, and the images that they show."""

    records: list[Record]
    findings: list[Finding]
    seen: list[Seen]


def choose_rows(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """All rows, or a sample of `limit` of them in their order: the first rows of a file are often of one class."""
    if limit is None or limit >= len(questions):
        return list(questions)
    # The file's place is part of the seed, so that a file's sample does not depend on which others are converted.
    chosen = random.Random(f"{seed}/{questions[0].id}").sample(range(len(questions)), limit)
    return [questions[index] for index in sorted(chosen)]


def find_files(args: argparse.Namespace, root: Path) -> tuple[list[QuestionFile], list[str], list[Path]]:
    """The question files, a line for every file or archive refused, and the folders unpacked from archives beside them.

    Raises:
        UnknownNameError: a dataset or split that is asked for is not there.
    """
    files: list[QuestionFile] = []
    refused, unpacked = [], []
    try:
        for file in find_question_files(root, args.splits, args.datasets):
            files.append(file)  # noqa: PERF402  (what came before the error is looked at too)
    except FlareError as error:
        refused.append(str(error))
    try:
        unpacked = unpack_all(files)
    except FlareError as error:
        refused.append(str(error))
    return files, refused, unpacked


def read_rows(
    files: Sequence[QuestionFile], refused: Sequence[str], name: str
) -> tuple[dict[QuestionFile, list[Question]], list[Finding]]:
    """The rows of every question file, and what is unusual about the files.

    Raises:
        FlareError: files that cannot be read; the message has a line for each of them, after those `refused` before.
    """
    rows, findings, lines = {}, [], list(refused)
    for file in files:
        try:
            rows[file], wrapper = read_wrapped(file)
        except FlareError as error:
            lines.append(str(error))
            continue
        if wrapper:
            where = f"{name}/{file.split.folder}/{file.category}/{file.dataset}"
            detail = f"{where}: the rows stand under the key {wrapper!r}"
            findings.append(
                Finding(id=where, code="FILE_WRAPPED", action="kept", detail=detail, file=str(file.path), index=-1)
            )
    if lines:
        raise FlareError("\n".join(lines))
    return rows, findings


def convert_rows(
    rows: Mapping[QuestionFile, Sequence[Question]], options: Options, look: Look, cache: ImageCache, workers: int
) -> Iterator[DatasetResult]:
    """The rows of every file as records and findings, one file after the other.

    Workers look at images and convert the rows that show them.
    """
    chunks = {file: list(_chunks(questions)) for file, questions in rows.items()}
    jobs = [chunk for of_file in chunks.values() for chunk in of_file]
    done = worker_pool.work(partial(_convert_chunk, options=options, look=look), jobs, workers, "images")
    for file, of_file in chunks.items():
        part = DatasetResult(
            dataset=file.dataset,
            split=file.split.folder,
            category=file.category,
            file=str(file.path),
            rows=len(rows[file]),
            records=[],
            findings=[],
        )
        for _ in of_file:
            chunk = msgspec.msgpack.decode(next(done), type=Chunk)
            cache.add(chunk.seen)
            part.records += chunk.records
            part.findings += chunk.findings
        part.records.sort(key=lambda record: record.source.index)
        part.findings.sort(key=lambda finding: finding.index)
        yield part
    next(done, None)  # the progress bar ends
    cache.save()


def _chunks(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """The rows in portions; those that show the same images stay together, so that these are looked at once."""
    by_images: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_images[str(question.row.get("ImageName"))].append(question)
    chunk: list[Question] = []
    for together in by_images.values():
        chunk += together
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _convert_chunk(questions: Sequence[Question], *, options: Options, look: Look) -> bytes:
    seen = look(questions)
    images = {name: found.image for name, found in seen.items()}
    outcomes = [convert(question, images, options) for question in questions]
    return msgspec.msgpack.encode(
        Chunk(
            records=[record for record, _ in outcomes if record],
            findings=[finding for _, findings in outcomes for finding in findings],
            seen=list(seen.values()),
        )
    )


def _look(questions: Sequence[Question], *, known: Mapping[str, Seen], out: Path, hashes: bool) -> dict[str, Seen]:
    """The images of some rows of one file, by their names in the rows."""
    file, seen = questions[0].file, {}
    folder, tree, copies = str(file.path.parent), f"{file.path.parents[3]}/", f"{out}/{COPIES}"

    def copy_of(path: str) -> str:
        return f"{copies}/{_shortened(path.removeprefix(tree))}.png"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is the limit here
        for name in dict.fromkeys(name for question in questions for name in _names(question)):
            with suppress(FlareError):  # `convert` meets the same error and reports it with the record
                places = image_places(folder, file.split.images, name)
                seen[name] = look_at(places, copy_of, known, hashes=hashes)
    return seen


def _shortened(path: str) -> str:
    """A path whose name a file system still takes with what is added while it is written; others as they are."""
    folder, _, name = path.rpartition("/")
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return path
    start = os.fsencode(name)[: _LONGEST_NAME - 33].decode(errors="ignore")
    return f"{folder}/{start}-{hashlib.md5(os.fsencode(name), usedforsecurity=False).hexdigest()}"


def _names(question: Question) -> tuple[str, ...]:
    try:
        return question.images
    except FlareError:
        return ()  # `convert` meets the same error and reports it with the record


def convert_tree(args: argparse.Namespace, errors: Console, inputs: unchanged.Inputs | None) -> None:
    """All steps, in order.

    Args:
        args: The command line.
        errors: Where notes go.
        inputs: By which the next run tells whether there is anything to do.

    Raises:
        UnknownNameError: a dataset or split that is asked for is not there.
        UsageError: options that cannot be followed, or the folder holds the output of another name.
        FlareError, DataError: the data was refused; nothing was written.
    """
    check_name(args.out.resolve(), args.name)
    if args.download:
        download(args.root, args.splits)
    root, out, info = tree_in(args.root.resolve()), args.out.resolve(), args.dataset_info.resolve()
    plan = entries.plan(args)
    options = Options(
        args.frame, args.box_style, args.on_missing, args.name, args.max_images_per_sample, args.number_images,
        chosen_tokens(args),
    )  # fmt: skip
    options = source_frames.stated(options, args.source_frame)
    filtered = filtering.plan(args)
    files, refused, unpacked = find_files(args, root)
    command = inputs.command if inputs and _repeatable(args, inputs.command) else None
    state: Callable[[], str] = str  # empty: the next run works again
    if command and inputs:
        state = partial(unchanged.input_state, command) if unpacked else inputs.state
    read, file_findings, before = _read_and_list(files, refused, args.name, state)
    rows = {file: choose_rows(questions, args.limit, args.seed) for file, questions in read.items()}
    cache, converted = ImageCache(out), []
    options = source_frames.found(options, rows) if args.source_frame == "auto" else options
    look = partial(_look, known=cache.seen, out=out, hashes=args.hash_images)
    for part in convert_rows(rows, options, look, cache, args.workers):
        part.findings[:0] = [finding for finding in file_findings if finding.file == part.file]
        part.findings += source_frames.findings(part, options, auto=args.source_frame == "auto")
        converted.append(audit(part))
        for record in part.records:
            record_text_tokens(record)  # while the workers are at the next files
    if args.on_missing == "error":
        refuse_missing(converted)

    def convert_again(question: Question) -> tuple[Record | None, list[Finding]]:
        normalised = replace(options, source_frame="pixel", source_frames={})  # cleaning writes pixels
        return convert(question, {name: seen.image for name, seen in look([question]).items()}, normalised)

    answers = {record.id: record.source.answer for part in converted for record in part.records}
    converted, changes = filtering.apply(filtered, converted, rows, convert_again, partial(_ids, read, args.name))
    prepared = entries.shape(plan, converted, out)
    prepared.sections["changes"] = changes
    print_report(prepared.converted, Console())
    more_tokens = sorted(options.control_tokens - KNOWN)
    stated = recorded_options(args) | ({"control_tokens": more_tokens} if more_tokens else {})
    provenance = Provenance("flare", root, stated, LICENCE)
    notes = set_marked_aside(out, filtered.reviewed)
    write_atomic(out / AUDIT_FILE, review_table(prepared.converted, answers, filtered.reviewed))
    notes += prepared.notes
    left_out = refused_images(rows, prepared.converted)
    digests = {seen.image.path: seen.image.sha256 for seen in cache.seen.values()}
    notes += write_outputs(out, prepared, provenance, images=left_out, digests=digests, dataset_info=info)
    for note in notes:
        errors.print(f"note: {note}", markup=False)
    if not prepared.groups:
        raise FlareError(f"{root}: no record was kept; {out / REPORT} says why")
    counts = ", ".join(f"{count} {name}" for name, count in counts_of(prepared.converted).items())
    summary = f"rows: {counts}; {len(prepared.groups)} entries in {info}, files in {out}"
    if command and before:
        unchanged.write_stamp(command, before, list(prepared.groups), summary)
    else:
        (out / unchanged.STAMP).unlink(missing_ok=True)
    Console().print(summary, markup=False, highlight=False, soft_wrap=True)


def _ids(rows: Mapping[QuestionFile, Sequence[Question]], name: str) -> set[str]:
    return {f"{name}/{question.id}" for questions in rows.values() for question in questions}


def _read_and_list(
    files: Sequence[QuestionFile], refused: Sequence[str], name: str, state: Callable[[], str]
) -> tuple[dict[QuestionFile, list[Question]], list[Finding], str]:
    """What `read_rows` gives, and the state of all inputs, which a child process may list meanwhile.

    The state is empty if question files have changed since: what was read need not be what was listed.
    """
    changed = _times_of_change(files)
    rows, findings = read_rows(files, refused, name)
    listed = state()
    return rows, findings, listed if _times_of_change(files) == changed else ""


def _times_of_change(files: Sequence[QuestionFile]) -> list[int]:
    return [file.path.stat().st_mtime_ns for file in files]


def _repeatable(args: argparse.Namespace, command: unchanged.Command) -> bool:
    """Whether the next run can tell from the command and the tree alone that there is nothing to do."""
    if args.hash_images or args.download or args.recipe or args.processor:  # asked to look; or a checkpoint is read
        return False
    # An option may be abbreviated.
    return list(command[:3]) == [str(path.resolve()) for path in (args.root, args.out, args.dataset_info)]


def refused_images(
    rows: Mapping[QuestionFile, Sequence[Question]], converted: Sequence[DatasetResult]
) -> dict[str, list[Path]]:
    """The image files of records that were left out, by id."""
    left_out: dict[str, dict[int, str]] = defaultdict(dict)  # file -> row -> id
    for part in converted:
        for finding in part.findings:
            if finding.action != "kept":
                left_out[part.file][finding.index] = finding.id
    return {
        left_out[str(file.path)][question.index]: list(_paths(question))
        for file, questions in rows.items()
        for question in questions
        if question.index in left_out[str(file.path)]
    }


def _paths(question: Question) -> Iterator[Path]:
    for name in _names(question):
        with suppress(FlareError):  # a name that leads out of the tree is not shown
            yield image_path(question.file, name)


def refuse_missing(converted: Sequence[DatasetResult]) -> None:
    """Raise `FlareError` if a record was lost to an image."""
    findings = [finding for part in converted for finding in part.findings]
    lost = [finding for finding in findings if finding.action != "kept" and finding.code.startswith("IMAGE_")]
    if lost:
        raise FlareError(
            f"{len(lost)} records lack a usable image and nothing was written; "
            "run with --on-missing drop to go on without them"
        )


def recorded_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that decide what is written, for report and manifest."""
    names = ("frame", "box_style", "on_missing", "max_images_per_sample", "number_images", "clean", "clean_splits",
             "datasets", "splits", "limit", "seed", "name")  # fmt: skip
    stated = {name: getattr(args, name) for name in names}
    return stated if args.source_frame == "pixel" else stated | {"source_frame": args.source_frame}
