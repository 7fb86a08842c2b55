"""Which task the rows are of, where nobody says it: by what is there and by the answers, and never where it is open."""

from collections import Counter
from collections.abc import Sequence

from medvl.box_text import parse_boxes
from medvl.choices import options
from medvl.errors import UsageError
from medvl.sources.tables.columns import Columns
from medvl.sources.tables.numbers import is_number
from medvl.tasks import Task

_MANY_WORDS = 12  # more on average: a report
_MAX_CLASSES = 100
_LOOKED_AT = 50  # answers, for boxes
_FEW = 4  # answers: fewer tell nothing
_SEPARATORS = ("|", ";")


def task_of_rows(columns: Columns, questions: Sequence[str], answers: Sequence[str]) -> tuple[Task, str]:
    """The task of all rows, and why.

    Args:
        columns: Which roles there are.
        questions: Of all rows, empty where they have none.
        answers: Of the rows that have one.

    Raises:
        UsageError: it is open, as between counting and regression.
    """
    if "boxes" in columns:
        return Task.DETECTION, "there are boxes"
    if "options" in columns:
        return Task.CLASSIFICATION, "there are options"
    if not answers:
        raise UsageError("no row has an answer, so that nothing says the task; say --task")
    if all(map(is_number, answers)):
        raise UsageError(
            f"all {len(answers)} answers are numbers, {answers[0]!r} the first: say --task counting, regression, "
            "or classification if they stand for classes (--labels 0=NAME names them)"
        )
    if all(len(parse_boxes(answer).boxes) for answer in answers[:_LOOKED_AT]):
        raise UsageError(f"answers are boxes, {answers[0][:80]!r} the first: say --task detection")
    asked = [question for question in questions if question]
    if asked and all(map(options, asked)):
        return Task.CLASSIFICATION, "the questions offer options"
    words = sum(len(answer.split()) for answer in answers) / len(answers)
    if words > _MANY_WORDS:
        return Task.REPORT, f"answers have {words:.0f} words on average"
    if len(set(questions)) > 1:
        return Task.VQA, "open questions with short answers"
    return _task_of_labels(answers, asked=bool(asked))


def _task_of_labels(answers: Sequence[str], *, asked: bool) -> tuple[Task, str]:
    """The task of rows that all ask the same, or nothing; `asked`: whether they ask something."""
    if separator := label_separator(answers):
        return Task.MULTI_LABEL, f"answers list labels with {separator} between"
    classes = Counter(answers)
    if len(answers) >= _FEW and 2 <= len(classes) <= min(_MAX_CLASSES, max(2, len(answers) / 2)):
        return Task.CLASSIFICATION, f"{len(classes)} answers are given again and again"
    if asked:
        return Task.VQA, "a question with short answers"
    raise UsageError(
        f"{len(classes)} different answers in {len(answers)} rows, and no questions: say --task classification, "
        "--task vqa or --task report_generation"
    )


def label_separator(answers: Sequence[str]) -> str | None:
    """What stands between labels, where the parts of answers are given again elsewhere; None where nothing does."""
    for separator in _SEPARATORS:
        listed = [answer for answer in answers if separator in answer]
        parts = Counter(part.strip() for answer in answers for part in answer.split(separator))
        if listed and sum(parts[part.strip()] > 1 for part in listed[0].split(separator)):
            return separator
    return None
