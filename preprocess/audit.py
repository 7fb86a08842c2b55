"""Rows a person should judge: odd answers, odd numbers, rows that contradict each other. Nothing is changed here.

The reasons are those of the audit behind the strongest published FLARE system (Hexapus), which found 73 rows of the
training split worth a look. Reasons that need no look at other rows, such as a broken box, are found by `flare_rows`.
"""

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from medvl.answers import parse_answer
from medvl.box_text import parse_boxes
from medvl.choices import normal, options
from medvl.errors import UsageError
from medvl.normalisation import normalise
from medvl.sharegpt import Record
from medvl.sources import label_separator
from medvl.tasks import Task
from preprocess.report import DatasetResult, Finding, leave_out

Issue = tuple[str, str]  # code, words
AUDIT_FILE = "audit.csv"
_MARKED = "audit.marked.csv"
_COMPARED = ("ROWS_CONTRADICT", "ROW_REPEATED")
_LETTERS = re.compile(r"[A-Z](?:[ ,;/&]+[A-Z])*")
_WITH_BOXES = frozenset(str(task) for task in Task if task.has_boxes)
_CLASSES_FROM = 10  # rows: in fewer, an answer that occurs once says nothing
_NUMBERS_FROM = 8  # rows: for quartiles

# Questions are templates, 120 of them in 4,206 rows of dental, and answers letters.
_options = lru_cache(maxsize=4096)(options)
_normal = lru_cache(maxsize=4096)(normal)


@lru_cache(maxsize=4096)
def _single_spaced(question: str) -> str:
    return " ".join(question.split())


def audit(part: DatasetResult) -> DatasetResult:
    """The part with a finding for everything odd about its records; all of them are kept."""
    checks = [_row_issues(part.records), _outliers(part.records), _singletons(part.records), _repeated(part.records)]
    found = [finding for check in checks for finding in _findings(part, check)]
    found.sort(key=lambda finding: (finding.index, finding.code))
    return leave_out(part, found)


def _findings(part: DatasetResult, issues: Iterable[tuple[Record, Issue]]) -> list[Finding]:
    return [
        Finding(
            id=record.id,
            code=code,
            action="kept",
            detail=f"{record.id}: {words}",
            file=part.file,
            index=record.source.index,
        )
        for record, (code, words) in issues
    ]


def _row_issues(records: Iterable[Record]) -> Iterator[tuple[Record, Issue]]:
    for record in records:
        if answer := _said(record):
            for issue in _CHECKS[record.task](record, answer):
                yield record, issue


def _said(record: Record) -> str:
    """The answer as it is trained on, in one width; of boxes the source's own, which has them in pixels."""
    return record.source.answer.strip() if record.task in _WITH_BOXES else normalise(record.target)


def _choice(record: Record, answer: str) -> Iterator[Issue]:
    choices = _options(record.question)
    if choices and answer not in choices:
        picked = parse_answer(answer, Task.CLASSIFICATION, question=record.question).value
        if picked and normal(answer) != normal(str(picked)):
            yield "OPTION_TEXT", f"{answer[:80]!r} instead of the letter {picked}"
    elif not choices and _LETTERS.fullmatch(answer):
        code = "LETTER_WITHOUT_OPTIONS" if len(answer) == 1 else "SEVERAL_LETTERS"
        yield code, f"answer {answer!r}, but the question offers no letters"
    yield from _unexpected_boxes(record, answer)


def _labels(record: Record, answer: str) -> Iterator[Issue]:
    separator = label_separator(record.dataset) or (";" if ";" in answer else ",")
    labels = [label for label in map(_normal, answer.split(separator)) if label]
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        yield "LABEL_REPEATED", f"{', '.join(repeated)} more than once"
    if len(labels) > 1 and any(label in ("normal", "no finding", "no findings") for label in labels):
        yield "NORMAL_WITH_FINDINGS", f"normal beside findings: {answer[:200]!r}"
    yield from _unexpected_boxes(record, answer)


def _unexpected_boxes(_: Record, answer: str) -> Iterator[Issue]:
    if "[" in answer and len(boxes := parse_boxes(answer).boxes):
        yield "BOXES_UNEXPECTED", f"{len(boxes)} boxes in the answer to a question that asks for none"


def _report(record: Record, answer: str) -> Iterator[Issue]:
    if len(answer.split()) < 2:
        yield "REPORT_SHORT", f"a report of one word: {answer[:80]!r}"
    yield from _unexpected_boxes(record, answer)


def _number(record: Record) -> float | None:
    value = parse_answer(_said(record), Task(record.task)).value
    return value if isinstance(value, float) else None


def _quantity(record: Record, answer: str) -> Iterator[Issue]:
    number = _number(record)
    if number is not None and number < 0:
        yield "NEGATIVE_NUMBER", f"{answer[:80]} is negative"
    if number is not None and record.task == Task.COUNTING and not number.is_integer():
        yield "COUNT_NOT_WHOLE", f"a count of {answer[:80]}"
    yield from _unexpected_boxes(record, answer)


def _boxes(record: Record, answer: str) -> Iterator[Issue]:
    if record.task == Task.INSTANCE_DETECTION and not _is_map(answer):
        yield "MAP_MALFORMED", f"not a JSON map of identifiers to boxes: {answer[:200]!r}"


def _is_map(answer: str) -> bool:
    try:
        msgspec.json.decode(answer, type=dict[str, list[tuple[Any, Any, Any, Any]]])
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


_CHECKS: dict[str, Callable[[Record, str], Iterator[Issue]]] = {
    Task.CLASSIFICATION: _choice, Task.MULTI_LABEL: _labels, Task.DETECTION: _boxes, Task.INSTANCE_DETECTION: _boxes,
    Task.COUNTING: _quantity, Task.REGRESSION: _quantity, Task.REPORT: _report,
}  # fmt: skip


def _outliers(records: Iterable[Record]) -> Iterator[tuple[Record, Issue]]:
    """Regression values above Q3 + 3 IQR and above ten times the median. Counts are exempt: their long tail is real."""
    numbers = [(record, _number(record)) for record in records if record.task == Task.REGRESSION]
    known = [(record, number) for record, number in numbers if number is not None]
    if len(known) < _NUMBERS_FROM:
        return
    low, median, high = np.percentile([number for _, number in known], [25, 50, 75])
    limit = max(high + 3 * (high - low), 10 * median)
    for record, number in known:
        if number > limit:
            yield record, ("NUMBER_OUTLIER", f"{number:g}, but the median is {median:g} and Q3 + 3 IQR, 10 x median "
                           f"are below {limit:g}")  # fmt: skip


def _singletons(records: Iterable[Record]) -> Iterator[tuple[Record, Issue]]:
    """Answers that only one row gives, among the rows with the same options."""
    groups: dict[tuple[str, ...], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.task == Task.CLASSIFICATION and record.source.answer:
            offered = tuple(_options(record.question).values())
            groups[offered][_normal(_said(record))].append(record)
    for answers in groups.values():
        total = sum(map(len, answers.values()))
        for rows in answers.values():
            if len(rows) == 1 and total >= _CLASSES_FROM:
                words = f"the only one of {total} rows that answers {rows[0].source.answer[:80]!r}"
                yield rows[0], ("CLASS_SINGLETON", words)


def _repeated(records: Iterable[Record]) -> Iterator[tuple[Record, Issue]]:
    """Rows that ask the same of the same images: the later ones of those that agree, all of those that do not."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.source.answer:
            groups[(_single_spaced(record.question), *record.images)].append(record)
    for rows in groups.values():
        if len(rows) == 1:
            continue
        answers = {_normal(_said(record)) for record in rows}
        if len(answers) > 1:
            for record in rows:
                others = ", ".join(str(other.source.index) for other in rows if other is not record)
                words = f"{record.source.answer[:80]!r}, but another answer in row {others}"
                yield record, ("ROWS_CONTRADICT", words)
        else:
            for record in rows[1:]:
                yield record, ("ROW_REPEATED", f"the same as row {rows[0].source.index}")


def review_table(parts: Sequence[DatasetResult], answers: Mapping[str, str], reviewed: Set[str]) -> bytes:
    """All findings about records as a table for a spreadsheet: mark rows in `exclude`, pass it to --exclude-audit.

    Args:
        parts: The outcome per dataset and split.
        answers: Answer of every record, those that were left out after review among them.
        reviewed: Ids of these. They stay in the table with their marks, so that it can be handed back again.
    """
    listed = {record.id for part in parts for record in part.records} | (reviewed & answers.keys())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["exclude", "id", "code", "answer", "detail"])
    for part in parts:
        for finding in part.findings:
            if finding.id in listed and (finding.action == "kept" or finding.code == "EXCLUDED"):
                mark = "x" if finding.id in reviewed else ""
                # A cell that starts with "=" would be run as a formula.
                writer.writerow([mark, finding.id, finding.code, f" {answers[finding.id]}"[:500], finding.detail])
    return text.getvalue().encode()


def read_reviewed(path: Path) -> set[str]:
    """Ids of records to leave out: the marked rows of a review table, or a plain list with one id per line.

    Raises:
        UsageError: the file cannot be read, or holds neither.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--exclude-audit {path}: {error}") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    heading = lines[0] if lines else ""
    # Spreadsheets separate by semicolons where the comma is the decimal mark.
    separator = next((mark for mark in ",;\t" if {"exclude", "id"} <= set(heading.replace('"', "").split(mark))), None)
    if separator:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        return {row["id"] for row in rows if (row["exclude"] or "").strip()}
    if "," in heading:
        raise UsageError(
            f"--exclude-audit {path}: expected the columns exclude and id of {AUDIT_FILE}, or an id per line"
        )
    return {line.split()[0] for line in lines}


def set_marked_aside(folder: Path, reviewed: Set[str]) -> list[str]:
    """Rename a review table that is about to be replaced, if somebody marked rows of it that are not left out now.

    Returns:
        What the user should know about it.
    """
    table = folder / AUDIT_FILE
    try:
        forgotten = table.is_file() and read_reviewed(table) - reviewed
    except UsageError:  # damaged, but perhaps somebody's work
        forgotten = {AUDIT_FILE}
    if not forgotten:
        return []
    aside = table.replace(folder / _MARKED)
    return [f"{table} had rows marked that this run keeps; it is now {aside}"]


def exclude(part: DatasetResult, reviewed: Set[str]) -> DatasetResult:
    """The part without the records that a person chose to leave out; what is left of it is compared anew."""
    gone = [record for record in part.records if record.id in reviewed] if reviewed else []
    if not gone:
        return part
    left = leave_out(
        part,
        [
            Finding(
                id=record.id,
                code="EXCLUDED",
                action="dropped",
                detail=f"{record.id}: left out after review",
                file=part.file,
                index=record.source.index,
            )
            for record in gone
        ],
    )
    ids = {record.id for record in left.records}
    others = [finding for finding in left.findings if not (finding.id in ids and finding.code in _COMPARED)]
    return msgspec.structs.replace(left, findings=others + _findings(left, _repeated(left.records)))
