"""The loop that writes replies as they come, its progress bar, and the table at its end."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from medvl.postprocessing import postprocess
from medvl.predict.plan import Request
from medvl.predict.reply import Reply
from medvl.predict.writer import Predictions, Row
from medvl.profiles import Profiles
from medvl.sources import label_separator

_HOPELESS = 32


class HopelessError(RuntimeError):
    """The back end failed so often without one answer that something is wrong with it, not with single questions."""


class _Rate(ProgressColumn):
    """Questions per second since the start."""

    def render(self, task: Task) -> Text:
        speed = task.completed / task.elapsed if task.elapsed else 0.0
        return Text(f"{speed:.2f}/s")


def write_answers(
    answers: Iterator[list[tuple[Request, Reply]]], predictions: Predictions, wanted: set[str], console: Console
) -> None:
    """Write every reply to a wanted question when it comes.

    Args:
        answers: Replies of a back end; a batch that was half done before a kill is answered again as a whole.
        predictions: Where they go.
        wanted: Ids that have no prediction yet.
        console: For the progress bar.

    Raises:
        HopelessError: the back end failed 32 times before it gave one answer. What was written stays.
    """
    answered = broken = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("predicting", total=len(wanted))
        for replies in answers:
            rows = [_row(asked, reply) for asked, reply in replies if asked.question.id in wanted]
            predictions.append(rows)
            broken += sum(reply.broken for _, reply in replies)
            answered += sum(reply.error is None for _, reply in replies)
            group = replies[0][0]
            progress.update(
                bar, advance=len(rows), description=f"{group.profile.name} ({group.adapter_spec.name or 'base'})"
            )
            if broken >= _HOPELESS and not answered:
                raise HopelessError(f"{broken} failures and not one answer, the last because: {replies[-1][1].error}")


def _row(request: Request, reply: Reply) -> Row:
    return Row(
        id=request.question.id,
        prediction=reply.text,
        task=request.profile.name,
        confidence=round(request.route.confidence, 6),
        source=request.route.source,
        adapter=request.adapter_spec.name,
        frame=request.adapter_spec.frame,
        finish=reply.finish,
        fingerprint=request.fingerprint,
        error=reply.error,
    )


def summary(requests: Sequence[Request], rows: Mapping[str, Row], profiles: Profiles) -> Table:
    """A line per profile: how many questions, and how many answers are not what they should be."""
    table = Table(title="Predictions")
    for heading in ("profile", "adapter"):
        table.add_column(heading, overflow="fold")
    for heading in ("questions", "no answer", "odd form", "cut off"):
        table.add_column(heading, justify="right")
    counts: dict[tuple[str, str], Counter[str]] = {}
    for item in requests:
        row = rows.get(item.question.id)
        count = counts.setdefault((item.profile.name, item.adapter_spec.name or "base model"), Counter())
        count["questions"] += 1
        if row is None or row.error is not None:
            count["errors"] += 1
        else:
            count["cut"] += row.finish == "length"
            count["odd"] += not _has_form(item, row, profiles)
    for (profile, adapter), count in sorted(counts.items()):
        table.add_row(profile, adapter, *(str(count[name]) for name in ("questions", "errors", "odd", "cut")))
    return table


def _has_form(request: Request, row: Row, profiles: Profiles) -> bool:
    question = request.question
    expected = profiles[row.task].postprocess
    return postprocess(
        row.prediction, expected, question=question.text, separator=label_separator(question.dataset)
    ).valid
