#!/usr/bin/env python
r"""FLARE-Task5-MLLM-2D to LLaMA-Factory: records, dataset_info entries and a report.

examples:
  python preprocess/flare.py --root FLARE-MLLM-2D
  python preprocess/flare.py --root FLARE-MLLM-2D --datasets retino BUSI-det --splits train val --out data/starter --name starter
  python preprocess/flare.py --root FLARE-MLLM-2D --download                           # gated: says how to get access
  python preprocess/flare.py --root FLARE-MLLM-2D --clean --exclude-audit reviewed.csv # reviewed is a marked audit.csv
  python preprocess/flare.py --root FLARE-MLLM-2D --frame pixel --box-style flare      # as the public baselines train

Every row ends up kept, dropped or quarantined; the last two with a coded reason in OUT/report.json.
"""  # noqa: E501  (examples are lines to copy)

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock, Timeout
from rich.console import Console

from medvl.box_text import BoxStyle
from medvl.boxes import FRAMES
from medvl.flare import (
    FlareError,
    Question,
    QuestionFile,
    find_question_files,
    picture_path,
    picture_place,
    read_wrapped,
)
from medvl.sharegpt import TEMPORARY, write_atomic
from medvl.tasks import UnknownNameError
from preprocess import entries, judgement, unchanged
from preprocess.archives import unpack_all
from preprocess.audit import AUDIT_FILE, review_table
from preprocess.decoding import Picture
from preprocess.download import download, tree_in
from preprocess.errors import RefusedError, UsageError
from preprocess.flare_rows import OnMissing, Options, Pictures, convert
from preprocess.outputs import Provenance, write_outputs
from preprocess.pictures import inspect_each
from preprocess.report import REPORT, Converted, Finding, counts_of, print_report
from preprocess.validate import print_flaws, validate

Add = Callable[..., Any]  # `add_argument` of a group
LICENCE = (
    "The records quote questions and answers of FLARE-Task5-MLLM-2D and name its picture files. That release is gated "
    "and made of 19 datasets with licences of their own: what its terms of access say holds for these files too, and "
    "they may not be passed on where the originals may not."
)
REPOSITORY = Path(__file__).resolve().parent.parent


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


def look_at_pictures(
    rows: Mapping[QuestionFile, Sequence[Question]], args: argparse.Namespace, out: Path
) -> Iterator[Pictures]:
    """The pictures of every file, one file after the other, decoded by workers that are ahead of the caller.

    Mended copies go to `out`/copies/<split>/<category>/<dataset>/….
    """
    places: list[dict[tuple[str, str], str]] = []

    def groups() -> Iterator[dict[str, str]]:
        for file, questions in rows.items():  # taken one by one, so that workers begin at once
            root = f"{file.path.parents[3]}/"
            places.append(dict(_places(file, questions)))
            yield {path: f"{out}/copies/{path.removeprefix(root)}.png" for path in places[-1].values()}

    for number, found in enumerate(inspect_each(groups(), out, args.workers, hashes=args.hash_pictures)):
        yield {place: found[path] for place, path in places[number].items()}


def _places(file: QuestionFile, questions: Sequence[Question]) -> Iterator[tuple[tuple[str, str], str]]:
    folder = str(file.path.parent)
    for name in dict.fromkeys(name for question in questions for name in _names(question)):
        with suppress(FlareError):  # `convert` meets the same error and reports it with the record
            yield (folder, name), picture_place(folder, file.split.images, name)


def _names(question: Question) -> tuple[str, ...]:
    try:
        return question.images
    except FlareError:
        return ()  # `convert` meets the same error and reports it with the record


def convert_rows(file: QuestionFile, questions: Sequence[Question], pictures: Pictures, options: Options) -> Converted:
    """The rows of one file as records and findings."""
    outcomes = [convert(question, pictures, options) for question in questions]
    return Converted(
        dataset=file.dataset,
        split=file.split.folder,
        category=file.category,
        file=str(file.path),
        rows=len(questions),
        records=[record for record, _ in outcomes if record],
        findings=[finding for _, findings in outcomes for finding in findings],
    )


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    arguments = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--validate",
        type=Path,
        metavar="PATH",
        help="re-check an output folder against its manifest, and do nothing else",
    )
    _input_arguments(arguments.add_argument_group("what is read").add_argument)
    _record_arguments(arguments.add_argument_group("what a record is").add_argument)
    _output_arguments(arguments.add_argument_group("what is written").add_argument)
    judgement.add_arguments(arguments)
    entries.add_arguments(arguments)
    return arguments


def _input_arguments(add: Add) -> None:
    add(
        "--root",
        type=Path,
        help="the FLARE tree: the folder that holds training/, validation-public/, …",
    )
    add("--download", action="store_true", help="first fetch the gated dataset from the Hugging Face Hub to --root")
    add("--datasets", nargs="+", default=[], metavar="NAME", help="datasets by folder name (default: all there are)")
    add("--splits", nargs="+", default=[], metavar="SPLIT", help="train, val, hidden, test (default: all there are)")
    add("--limit", type=positive, metavar="N", help="at most N rows per dataset and split, sampled with --seed")
    add("--seed", type=int, default=0, help="for everything that is drawn by lot (default: 0)")
    add("--workers", type=positive, default=4, help="processes that decode pictures (default: 4)")
    add("--hash-pictures", action="store_true", help="tell unchanged pictures by content, not by size and time")


def _record_arguments(add: Add) -> None:
    add("--frame", choices=FRAMES, default="norm1000", help="frame of boxes in answers (default: norm1000)")
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
        help="a missing or broken picture: drop the record (default), stop with an error, or go on with its others",
    )
    add("--max-images-per-sample", type=int, metavar="N", help="at most N pictures per record, evenly spaced")
    add("--number-images", action="store_true", help="number several pictures in the prompt: Image-1: <image>")


def _output_arguments(add: Add) -> None:
    add("--out", type=Path, default=REPOSITORY / "data" / "flare", help="output folder (default: data/flare)")
    add("--name", default="flare", help="first part of ids and entry names (default: flare)")
    add(
        "--dataset-info",
        type=Path,
        default=REPOSITORY / "dataset_info" / "dataset_info.json",
        help="registry to merge the entries into (default: dataset_info/dataset_info.json)",
    )


def stated_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that decide what is written, for report and manifest."""
    names = ("frame", "box_style", "on_missing", "max_images_per_sample", "number_images", "clean", "clean_splits",
             "datasets", "splits", "limit", "seed", "name")  # fmt: skip
    return {name: getattr(args, name) for name in names}


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a tree. Returns 0, 2 for wrong arguments, 3 if the data was refused, 130 after Ctrl-C."""
    arguments = parser()
    args = arguments.parse_args(argv)
    errors = Console(stderr=True)
    if args.validate:
        flaws = validate(args.validate.resolve(), args.dataset_info.resolve())
        print_flaws(flaws, args.validate, Console())
        return 3 if any(flaw.level == "error" for flaw in flaws) else 0
    if args.root is None:
        arguments.error("--root is missing: the folder that holds training/, validation-public/, …")
    try:
        with locked(args.out.resolve()):
            convert_tree(args, errors)
    except (UnknownNameError, UsageError) as error:
        errors.print(f"error: {error}", markup=False)
        return 2
    except (FlareError, RefusedError, OSError, ValueError) as error:  # a damaged registry, a folder that is a file, …
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        return 3
    except KeyboardInterrupt:
        errors.print("stopped; the same command starts over")
        return 130
    return 0


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs out of the output folder.

    Raises:
        FlareError: another run is there.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FlareError(f"{out}: another run is writing there; wait for it, or choose another --out") from error
    try:
        for half_written in out.rglob(f".*{TEMPORARY}"):  # by a run that was killed
            half_written.unlink()
        yield
    finally:
        lock.release()


def convert_tree(args: argparse.Namespace, errors: Console) -> None:
    """All steps, in order.

    Raises:
        UnknownNameError: a dataset or split that is asked for is not there.
        UsageError: options that cannot be followed.
        FlareError, RefusedError: the data was refused; nothing was written.
    """
    if args.download:
        download(args.root, args.splits)
    root, out = tree_in(args.root.resolve()), args.out.resolve()
    plan = entries.plan(args)
    options = Options(
        args.frame, args.box_style, args.on_missing, args.name, args.max_images_per_sample, args.number_images
    )
    judged = judgement.plan(args)
    info = args.dataset_info.resolve()
    files, refused = find_files(args, root)
    state = unchanged.input_state(args, root)
    if not refused and (summary := unchanged.summary_if_unchanged(out, state, info)):
        Console().print(f"nothing has changed since the last run: {summary}", markup=False, highlight=False)
        return
    read, file_findings = read_rows(files, refused, args.name)
    rows = {file: choose_rows(questions, args.limit, args.seed) for file, questions in read.items()}
    pictures: dict[tuple[str, str], Picture] = {}
    converted = []
    for (file, questions), found in zip(rows.items(), look_at_pictures(rows, args, out), strict=True):
        pictures |= found
        converted.append(convert_rows(file, questions, found, options))
    for part in converted:
        part.findings[:0] = [finding for finding in file_findings if finding.file == part.file]
    if args.on_missing == "error":
        refuse_missing(converted)
    converted, changes = judgement.judge(judged, converted, rows, lambda question: convert(question, pictures, options))
    shaped = entries.shape(plan, converted, out)
    shaped.sections["changes"] = changes
    print_report(shaped.converted, Console())
    provenance = Provenance("flare", root, stated_options(args), LICENCE)
    write_atomic(out / AUDIT_FILE, review_table(shaped.converted))
    left_out = refused_pictures(rows, shaped.converted, args.name)
    for note in write_outputs(out, shaped, provenance, pictures=left_out, dataset_info=info):
        errors.print(f"note: {note}", markup=False)
    if not shaped.groups:
        raise FlareError(f"{root}: no record was kept; {out / REPORT} says why")
    counts = ", ".join(f"{count} {name}" for name, count in counts_of(shaped.converted).items())
    summary = f"rows: {counts}; {len(shaped.groups)} entries in {info}, files in {out}"
    unchanged.write_stamp(out, state, info, list(shaped.groups), summary)
    Console().print(summary, markup=False, highlight=False)


def refused_pictures(
    rows: Mapping[QuestionFile, Sequence[Question]], converted: Sequence[Converted], name: str
) -> dict[str, list[Path]]:
    """The picture files of records that were left out, by id."""
    left_out = {finding.id for part in converted for finding in part.findings if finding.action != "kept"}
    return {
        f"{name}/{question.id}": list(_paths(question))
        for questions in rows.values()
        for question in questions
        if f"{name}/{question.id}" in left_out
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


if __name__ == "__main__":
    sys.exit(main())
