"""Rows a person should judge: odd answers, odd numbers, rows that contradict each other. Nothing is changed here.

The reasons are those of the audit behind the strongest published FLARE system (Hexapus), which found 73 rows of the
training split worth a look. Those of a single task are in `medvl.tasks`. Reasons that need no look at other rows, such
as a broken box, are found by `flare_rows`.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from pathlib import Path

import msgspec

from medvl.choices import normal
from medvl.errors import UsageError
from medvl.normalisation import normalise
from medvl.sharegpt import Record
from medvl.sources import label_separator
from medvl.tasks import TASKS, Row, Task
from medvl.tasks.base import Issue
from preprocess.results import DatasetResult, Finding, leave_out

AUDIT_FILE = "audit.csv"
_MARKED = "audit.marked.csv"
_COMPARED = ("ROWS_CONTRADICT", "ROW_REPEATED")
_WITH_BOXES = frozenset(str(task) for task in Task if task.has_boxes)

_normal = lru_cache(maxsize=4096)(normal)  # answers are letters, and questions templates


@lru_cache(maxsize=4096)
def _single_spaced(question: str) -> str:
    return " ".join(question.split())


def audit(part: DatasetResult) -> DatasetResult:
    """The part with a finding for everything odd about its records; all of them are kept."""
    checks = [_task_issues(part.records), _repeated(part.records)]
    found = [Finding.about(record, *issue) for check in checks for record, issue in check]
    found.sort(key=lambda finding: (finding.index, finding.code))
    return leave_out(part, found)


def _task_issues(records: Sequence[Record]) -> Iterator[tuple[Record, Issue]]:
    """What each task finds odd about its rows, one by one and beside each other."""
    by_task: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_task[record.task].append(record)
    for task, asked in by_task.items():
        spec = TASKS[Task(task)]
        rows = [
            Row(record.question, _said(record), record.source.truth, label_separator(record.dataset))
            for record in asked
        ]
        for record, row in zip(asked, rows, strict=True):
            if row.said:
                for issue in spec.audit(row):
                    yield record, issue
        for place, issue in spec.audit_dataset(rows):
            yield asked[place], issue


def _said(record: Record) -> str:
    """The answer as it is trained on, in one width; of boxes the source's own, which has them in pixels."""
    return record.source.answer.strip() if record.task in _WITH_BOXES else normalise(record.target)


def _repeated(records: Iterable[Record]) -> Iterator[tuple[Record, Issue]]:
    """Rows that ask the same of the same images: the later ones of those that agree, all of those that do not."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.source.truth:
            groups[(_single_spaced(record.question), *record.images)].append(record)
    for rows in groups.values():
        if len(rows) == 1:
            continue
        answers = {_normal(_said(record)) for record in rows}
        if len(answers) > 1:
            for record in rows:
                others = ", ".join(str(other.source.index) for other in rows if other is not record)
                words = f"{record.source.truth[:80]!r}, but another answer in row {others}"
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
    left = leave_out(part, [Finding.about(record, "EXCLUDED", "left out after review", "dropped") for record in gone])
    ids = {record.id for record in left.records}
    others = [finding for finding in left.findings if not (finding.id in ids and finding.code in _COMPARED)]
    repeated = [Finding.about(record, *issue) for record, issue in _repeated(left.records)]
    return msgspec.structs.replace(left, findings=others + repeated)
