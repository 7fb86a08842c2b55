#!/usr/bin/env python
r"""FLARE-Task5-MLLM-2D to LLaMA-Factory: records, dataset_info entries and a report.

examples:
  python preprocess/flare.py --root FLARE-MLLM-2D
  python preprocess/flare.py --root FLARE-MLLM-2D --datasets retino BUSI-det --splits train val --out data/starter --name starter
  python preprocess/flare.py --root FLARE-MLLM-2D --frame pixel --box-style flare      # as the public baselines train

Every row ends up kept, dropped or quarantined; the last two with a coded reason in OUT/report.json.
"""  # noqa: E501  (examples are lines to copy)

import argparse
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console

from medvl.answers import parse_answer, target_text
from medvl.box_text import BoxStyle, ParsedBoxes
from medvl.boxes import FRAMES, Boxes, Frame, Size, area, clip, order_corners
from medvl.flare import (
    FlareError,
    OutsideError,
    Question,
    QuestionFile,
    find_question_files,
    picture_path,
    read_questions,
)
from medvl.sharegpt import Record, RecordError, Source, make_record
from medvl.tasks import UnknownNameError, label_separator
from preprocess.pictures import Picture, inspect_all
from preprocess.report import Action, Converted, Finding, print_report, write_outputs

REPOSITORY = Path(__file__).resolve().parent.parent
ON_MISSING = ("drop", "error", "keep-sample-drop-image")

# FLARE's box answers do not name what they enclose; its questions do, in these words. Others stay without a name.
_STRUCTURE = re.compile(r"fetal head|pubic symphysis|lesion", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """What decides how a row is converted.

    Attributes:
        frame: Frame of the boxes in the answers.
        box_style: Style of the boxes in the answers.
        on_missing: What to do with a record whose picture is missing or broken.
        name: First part of record ids and entry names.
    """

    frame: Frame
    box_style: BoxStyle
    on_missing: str
    name: str


class _RefusedError(Exception):
    """A row that does not become a record."""

    def __init__(self, code: str, action: Action, detail: str) -> None:
        super().__init__(detail)
        self.code, self.action, self.detail = code, action, detail


def slug(dataset: str) -> str:
    """The dataset's part of entry names: `BUSI-det` is `busi_det`."""
    return re.sub(r"[^a-z0-9]+", "_", dataset.lower()).strip("_")


def choose_rows(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """All rows, or a sample of `limit` of them in their order: the first rows of a file are often of one class."""
    if limit is None or limit >= len(questions):
        return list(questions)
    # The file's place is part of the seed, so that a file's sample does not depend on which others are converted.
    chosen = random.Random(f"{seed}/{questions[0].id}").sample(range(len(questions)), limit)
    return [questions[index] for index in sorted(chosen)]


def convert(question: Question, pictures: dict[Path, Picture], options: Options) -> tuple[Record | None, list[Finding]]:
    """One row as a record, with what there is to know about it.

    Args:
        question: The row.
        pictures: What was found at each picture's path.
        options: Frame, style and policy.

    Returns:
        The record, or None if it was dropped or quarantined, and its findings.
    """
    findings: list[Finding] = []

    def note(code: str, detail: str, action: Action = "kept") -> None:
        where = f"{options.name}/{question.id}"
        findings.append(
            Finding(
                id=where,
                code=code,
                action=action,
                detail=f"{where}: {detail}",
                file=str(question.file.path),
                index=question.index,
            )
        )

    try:
        usable = []
        for picture in _pictures(question, pictures, options.on_missing):
            if picture.problem:
                note("EXIF_ROTATED" if picture.size else "IMAGE_DROPPED", picture.detail)
            if picture.size:
                usable.append((picture.path, picture.size))
        target, notes = _target(question, usable[0][1], options)
        for code, detail in notes:
            note(code, detail)
        return _record(question, target, usable, options), findings
    except _RefusedError as refused:
        note(refused.code, refused.detail, refused.action)
        return None, findings


def _pictures(question: Question, pictures: dict[Path, Picture], on_missing: str) -> list[Picture]:
    try:
        found = [pictures[picture_path(question.file, name)] for name in question.images]
    except OutsideError as error:
        raise _RefusedError("IMAGE_OUTSIDE", "quarantined", str(error)) from error
    except FlareError as error:
        raise _RefusedError("IMAGE_NAME", "quarantined", str(error)) from error
    unusable = [picture for picture in found if picture.size is None]
    if unusable and (on_missing != "keep-sample-drop-image" or len(unusable) == len(found)):
        action: Action = "dropped" if unusable[0].problem == "IMAGE_MISSING" else "quarantined"
        raise _RefusedError(unusable[0].problem or "", action, "; ".join(picture.detail for picture in unusable))
    return found


def _target(question: Question, size: Size, options: Options) -> tuple[str, list[tuple[str, str]]]:
    """The text to train on, and codes with details of what is unusual about it. Boxes refer to the first picture."""
    try:
        task, text = question.task, question.text
    except UnknownNameError as error:
        raise _RefusedError("TASK_UNKNOWN", "quarantined", str(error)) from error
    except FlareError as error:
        raise _RefusedError("QUESTION_EMPTY", "dropped", str(error)) from error
    if not question.answer:
        if question.file.split.name in ("train", "val"):
            raise _RefusedError("ANSWER_EMPTY", "dropped", "no answer")
        return "", []
    dataset = question.file.dataset
    answer = parse_answer(question.answer, task, question=text, separator=label_separator(dataset))
    if not answer.parsed:
        detail = f"{answer.reason}: {question.answer[:200]!r}"
        if task.has_boxes or task.is_number:
            raise _RefusedError("ANSWER_UNUSABLE", "quarantined", detail)
        return question.answer, [("ANSWER_UNUSUAL", detail)]
    structure = _STRUCTURE.search(text)
    label = structure[0].lower() if structure else None
    notes = _box_notes(answer.value.boxes, size) if isinstance(answer.value, ParsedBoxes) else []
    style = options.box_style
    return target_text(answer, question.answer, size=size, frame=options.frame, style=style, label=label), notes


def _box_notes(boxes: Boxes, size: Size) -> list[tuple[str, str]]:
    ordered = order_corners(boxes)
    odd = {
        "INVERTED_BOX": (boxes != ordered).any(axis=1),
        "ZERO_AREA_BOX": area(ordered) == 0,
        "BOX_OUTSIDE": (clip(boxes, size) != boxes).any(axis=1),
    }
    return [
        (code, f"{mask.sum()} of {len(boxes)} boxes, {boxes[mask].tolist()}, in a picture of {size[0]} x {size[1]}")
        for code, mask in odd.items()
        if mask.any()
    ]


def _record(question: Question, target: str, pictures: list[tuple[Path, Size]], options: Options) -> Record:
    source = Source(
        split=question.file.split.folder,
        file=str(question.file.path),
        index=question.index,
        sizes=[size for _, size in pictures],
        answer=question.answer,
    )
    try:
        return make_record(
            question=question.text,
            answer=target,
            images=[str(path) for path, _ in pictures],
            id=f"{options.name}/{question.id}",
            task=str(question.task),
            dataset=question.file.dataset,
            source=source,
        )
    except RecordError as error:
        raise _RefusedError("LITERAL_TAG", "quarantined", str(error)) from error


def run(
    files: Sequence[QuestionFile], options: Options, *, limit: int | None, seed: int, workers: int, out: Path
) -> list[Converted]:
    """Convert question files, pictures first and all at once."""
    chosen = {file: choose_rows(read_questions(file), limit, seed) for file in files}
    wanted = [
        (path, str(path.parent.relative_to(file.path.parents[3])))
        for file, questions in chosen.items()
        for question in questions
        for path in _wanted(question)
    ]
    pictures = inspect_all(wanted, out / "upright", workers)
    converted = []
    for file, questions in chosen.items():
        outcomes = [convert(question, pictures, options) for question in questions]
        converted.append(
            Converted(
                dataset=file.dataset,
                split=file.split.folder,
                category=file.category,
                file=str(file.path),
                rows=len(questions),
                records=[record for record, _ in outcomes if record],
                findings=[finding for _, findings in outcomes for finding in findings],
            )
        )
    return converted


def _wanted(question: Question) -> Iterator[Path]:
    try:
        yield from [picture_path(question.file, name) for name in question.images]
    except FlareError:
        return  # `convert` meets the same error and reports it with the record


def group_records(files: Sequence[QuestionFile], converted: Sequence[Converted], name: str) -> dict[str, list[Record]]:
    """Records by entry: `<name>_<dataset>_<split>`, and over all datasets `<name>_all_<split>`; none of them empty."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for file, part in zip(files, converted, strict=True):
        groups[f"{name}_{slug(file.dataset)}_{file.split.name}"] += part.records
        groups[f"{name}_all_{file.split.name}"] += part.records
    return {entry: records for entry, records in groups.items() if records}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    arguments = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = arguments.add_argument
    add(
        "--root",
        type=Path,
        required=True,
        help="the FLARE tree: the folder that holds training/, validation-public/, …",
    )
    add("--out", type=Path, default=REPOSITORY / "data" / "flare", help="output folder (default: data/flare)")
    add("--datasets", nargs="+", default=[], metavar="NAME", help="datasets by folder name (default: all there are)")
    add("--splits", nargs="+", default=[], metavar="SPLIT", help="train, val, hidden, test (default: all there are)")
    add("--frame", choices=FRAMES, default="norm1000", help="frame of boxes in answers (default: norm1000)")
    add(
        "--box-style",
        choices=[style for style in get_args(BoxStyle) if style != "map"],
        default="json",
        help="text style of boxes (default: json). Instance answers stay maps in json and flare",
    )
    add("--limit", type=int, metavar="N", help="at most N rows per dataset and split, sampled with --seed")
    add("--seed", type=int, default=0, help="for --limit (default: 0)")
    add("--workers", type=int, default=4, help="processes that decode pictures (default: 4)")
    add(
        "--on-missing",
        choices=ON_MISSING,
        default="drop",
        help="a missing or broken picture: drop the record (default), stop with an error, or go on with its others",
    )
    add("--name", default="flare", help="first part of ids and entry names (default: flare)")
    add(
        "--dataset-info",
        type=Path,
        default=REPOSITORY / "dataset_info" / "dataset_info.json",
        help="registry to merge the entries into (default: dataset_info/dataset_info.json)",
    )
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a tree. Returns 0, 2 for wrong arguments, 3 if the data was refused."""
    args = parser().parse_args(argv)
    errors = Console(stderr=True)
    options = Options(args.frame, args.box_style, args.on_missing, args.name)
    out = args.out.resolve()
    try:
        files = list(find_question_files(args.root.resolve(), args.splits, args.datasets))
        converted = run(files, options, limit=args.limit, seed=args.seed, workers=args.workers, out=out)
    except UnknownNameError as error:
        errors.print(f"error: {error}", markup=False)
        return 2
    except FlareError as error:
        errors.print(f"error: {error}", markup=False)
        return 3
    print_report(converted, Console())
    missing = [
        finding
        for part in converted
        for finding in part.findings
        if finding.action != "kept" and finding.code.startswith("IMAGE_")
    ]
    if missing and options.on_missing == "error":
        errors.print(
            f"error: {len(missing)} records lack a usable picture and nothing was written; "
            "run with --on-missing drop to go on without them",
            markup=False,
        )
        return 3
    groups = group_records(files, converted, options.name)
    stated = {
        "frame": options.frame,
        "box_style": options.box_style,
        "on_missing": options.on_missing,
        "datasets": args.datasets,
        "splits": args.splits,
        "limit": args.limit,
        "seed": args.seed,
        "name": options.name,
    }
    moved = write_outputs(
        out,
        converted,
        groups,
        source="flare",
        root=args.root.resolve(),
        options=stated,
        dataset_info=args.dataset_info.resolve(),
    )
    for name in moved:
        errors.print(f"note: {name} pointed at another file before", markup=False)
    Console().print(f"{len(groups)} entries in {args.dataset_info}, files in {args.out}", markup=False, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
