"""All steps from a FLARE tree to LLaMA-Factory's files."""

import argparse
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from medvl.flare import (
    SPLITS,
    FlareError,
    Question,
    QuestionFile,
    find_question_files,
    picture_path,
    picture_place,
    read_wrapped,
)
from medvl.sharegpt import Record, write_atomic
from preprocess import crew, entries, judgement, unchanged
from preprocess.archives import unpack_all
from preprocess.audit import AUDIT_FILE, audit, review_table
from preprocess.download import download, tree_in
from preprocess.flare_rows import Options, convert
from preprocess.outputs import Provenance, write_outputs
from preprocess.pictures import PictureCache, Seen, look_at
from preprocess.report import REPORT, Converted, Finding, counts_of, print_report

LICENCE = (
    "The records quote questions and answers of FLARE-Task5-MLLM-2D and name its picture files. That release is gated "
    "and made of 19 datasets with licences of their own: what its terms of access say holds for these files too, and "
    "they may not be passed on where the originals may not."
)
_CHUNK = 200  # rows that a worker takes at a time


class Chunk(msgspec.Struct, array_like=True):
    """What some rows of a file became, and the pictures that were looked at for them."""

    records: list[Record]
    findings: list[Finding]
    looked_at: dict[str, Seen]


def choose_rows(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """All rows, or a sample of `limit` of them in their order: the first rows of a file are often of one class."""
    if limit is None or limit >= len(questions):
        return list(questions)
    # The file's place is part of the seed, so that a file's sample does not depend on which others are converted.
    chosen = random.Random(f"{seed}/{questions[0].id}").sample(range(len(questions)), limit)
    return [questions[index] for index in sorted(chosen)]


def find_files(args: argparse.Namespace, root: Path) -> tuple[list[QuestionFile], list[str]]:
    """The question files, with the archives beside them unpacked, and a line for every file or archive refused.

    Raises:
        UnknownNameError: a dataset or split that is asked for is not there.
    """
    files: list[QuestionFile] = []
    refused = []
    try:
        for file in find_question_files(root, args.splits, args.datasets):
            files.append(file)  # noqa: PERF402  (what came before the error is looked at too)
    except FlareError as error:
        refused.append(str(error))
    try:
        unpack_all(files)
    except FlareError as error:
        refused.append(str(error))
    return files, refused


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
    rows: Mapping[QuestionFile, Sequence[Question]], options: Options, cache: PictureCache, args: argparse.Namespace
) -> Iterator[Converted]:
    """The rows of every file as records and findings, one file after the other.

    Workers look at pictures and convert the rows that show them. Mended copies of pictures go to
    OUT/copies/<split>/<category>/<dataset>/….
    """
    chunks = {file: list(_chunks(questions)) for file, questions in rows.items()}
    jobs = [chunk for of_file in chunks.values() for chunk in of_file]
    out, hashes = args.out.resolve(), args.hash_pictures
    convert_chunk = partial(_convert_chunk, options=options, known=cache.seen, out=out, hashes=hashes)
    done = crew.work(convert_chunk, jobs, args.workers, "pictures")
    for file, of_file in chunks.items():
        part = Converted(
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
            cache.add(chunk.looked_at)
            part.records += chunk.records
            part.findings += chunk.findings
        part.records.sort(key=lambda record: record.source.index)
        part.findings.sort(key=lambda finding: finding.index)
        yield part
    next(done, None)  # the progress bar ends
    cache.save()


def _chunks(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """The rows in portions; those that show the same pictures stay together, so that these are looked at once."""
    by_pictures: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_pictures[str(question.row.get("ImageName"))].append(question)
    chunk: list[Question] = []
    for together in by_pictures.values():
        chunk += together
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _convert_chunk(
    questions: Sequence[Question], *, options: Options, known: Mapping[str, Seen], out: Path, hashes: bool
) -> bytes:
    file = questions[0].file
    tree, copies = f"{file.path.parents[3]}/", f"{out}/copies"
    places = _places(questions)
    items = {place: f"{copies}/{place.removeprefix(tree)}.png" for place in places.values()}
    looked_at = look_at(items, known, hashes=hashes)
    pictures = {name: (looked_at.get(place) or known[place]).picture for name, place in places.items()}
    records, findings = [], []
    for question in questions:
        record, found = convert(question, pictures, options)
        findings += found
        if record:
            records.append(record)
    return msgspec.msgpack.encode(Chunk(records, findings, looked_at))


def _places(questions: Sequence[Question]) -> dict[str, str]:
    """Where the pictures of some rows of one file lie, by their names in the rows."""
    file = questions[0].file
    places = {}
    for name in dict.fromkeys(name for question in questions for name in _names(question)):
        with suppress(FlareError):  # `convert` meets the same error and reports it with the record
            places[name] = picture_place(str(file.path.parent), file.split.images, name)
    return places


def _names(question: Question) -> tuple[str, ...]:
    try:
        return question.images
    except FlareError:
        return ()  # `convert` meets the same error and reports it with the record


def convert_tree(args: argparse.Namespace, words: Sequence[str], errors: Console) -> None:
    """All steps, in order.

    Args:
        args: The command line.
        words: The same, unparsed, by which the next run tells whether there is anything to do.
        errors: Where notes go.

    Raises:
        UnknownNameError: a dataset or split that is asked for is not there.
        UsageError: options that cannot be followed.
        FlareError, RefusedError: the data was refused; nothing was written.
    """
    if args.download:
        download(args.root, args.splits)
    root, out, info = tree_in(args.root.resolve()), args.out.resolve(), args.dataset_info.resolve()
    plan = entries.plan(args)
    options = Options(
        args.frame, args.box_style, args.on_missing, args.name, args.max_images_per_sample, args.number_images
    )
    judged = judgement.plan(args)
    files, refused = find_files(args, root)
    command, folders = _repeatable(args, words), _folders(args.root.resolve(), root)
    before = unchanged.input_state(command, folders) if command else ""
    read, file_findings = read_rows(files, refused, args.name)
    rows = {file: choose_rows(questions, args.limit, args.seed) for file, questions in read.items()}
    cache, converted = PictureCache(out), []
    for part in convert_rows(rows, options, cache, args):
        part.findings[:0] = [finding for finding in file_findings if finding.file == part.file]
        converted.append(audit(part))  # while the workers are at the next files
    if args.on_missing == "error":
        refuse_missing(converted)

    def convert_again(question: Question) -> tuple[Record | None, list[Finding]]:
        pictures = {name: cache.seen[place].picture for name, place in _places([question]).items()}
        return convert(question, pictures, options)

    converted, changes = judgement.judge(judged, converted, rows, convert_again)
    shaped = entries.shape(plan, converted, out)
    shaped.sections["changes"] = changes
    print_report(shaped.converted, Console())
    provenance = Provenance("flare", root, stated_options(args), LICENCE)
    write_atomic(out / AUDIT_FILE, review_table(shaped.converted))
    left_out = refused_pictures(rows, shaped.converted)
    for note in write_outputs(out, shaped, provenance, pictures=left_out, dataset_info=info):
        errors.print(f"note: {note}", markup=False)
    if not shaped.groups:
        raise FlareError(f"{root}: no record was kept; {out / REPORT} says why")
    counts = ", ".join(f"{count} {name}" for name, count in counts_of(shaped.converted).items())
    summary = f"rows: {counts}; {len(shaped.groups)} entries in {info}, files in {out}"
    if command:
        names = list(shaped.groups)
        after = unchanged.output_state(command, names)
        unchanged.write_stamp(command, unchanged.Stamp(folders, before, after, names, summary))
    else:
        (out / unchanged.STAMP).unlink(missing_ok=True)
    Console().print(summary, markup=False, highlight=False)


def _repeatable(args: argparse.Namespace, words: Sequence[str]) -> unchanged.Command | None:
    """The command, if the next run can tell from it and the tree alone that there is nothing to do."""
    if args.hash_pictures or args.download or args.recipe or args.processor:  # asked to look; or a checkpoint is read
        return None
    command = unchanged.read_command(words)
    places = [str(path.resolve()) for path in (args.root, args.out, args.dataset_info)]
    return command if command and list(command[:3]) == places else None  # an option may be abbreviated


def _folders(given: Path, tree: Path) -> list[str]:
    """The folders that are looked through for changes: those of the splits, there or not, or all around a tree."""
    return [str(tree / split.folder) for split in SPLITS.values()] if tree == given else [str(given)]


def refused_pictures(
    rows: Mapping[QuestionFile, Sequence[Question]], converted: Sequence[Converted]
) -> dict[str, list[Path]]:
    """The picture files of records that were left out, by id."""
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
            yield picture_path(question.file, name)


def refuse_missing(converted: Sequence[Converted]) -> None:
    """Raise `FlareError` if a record was lost to a picture."""
    findings = [finding for part in converted for finding in part.findings]
    lost = [finding for finding in findings if finding.action != "kept" and finding.code.startswith("IMAGE_")]
    if lost:
        raise FlareError(
            f"{len(lost)} records lack a usable picture and nothing was written; "
            "run with --on-missing drop to go on without them"
        )


def stated_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that decide what is written, for report and manifest."""
    names = ("frame", "box_style", "on_missing", "max_images_per_sample", "number_images", "clean", "clean_splits",
             "datasets", "splits", "limit", "seed", "name")  # fmt: skip
    return {name: getattr(args, name) for name in names}
