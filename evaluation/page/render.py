"""From runs to the bytes of the page."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import medvl
from evaluation import numbers
from evaluation.differences import differences
from evaluation.findings import Worst
from evaluation.page import charts, failures, images
from evaluation.page.text import script_json, visible
from evaluation.tables import ResultTable, Row, Run

OfTask = TypeVar("OfTask", Row, Worst)

_HERE = Path(__file__).parent
_BASE_STYLE = Path(medvl.__file__).with_name("page.css")
# What other sections of the page show.
_SHOWN_ELSEWHERE = ("gate", "invalid_reasons")
_TEXT = 400


def render_page(table: ResultTable, *, most_images: int = 24, pages: Mapping[str, str] | None = None) -> bytes:
    """The page: tables compare all runs, everything else is about the first. The same table gives the same bytes.

    Nothing in it is fetched and no script but its own runs: its policy names the hashes of its style and script.

    Args:
        table: The scores.
        most_images: How many images are put into it.
        pages: Name -> address of a page of its own for every file that is compared; then this one holds tables alone.
    """
    first = table.runs[0]
    style = "\n".join(path.read_text(encoding="utf-8") for path in (_BASE_STYLE, _HERE / "page.css"))
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    drawn = [] if pages else images.collect(first.scores, max(0, most_images), first.image)
    collected = None if pages else failures.collect(first.scores)
    page = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            policy=_policy(style, script),
            style=Markup(style),
            script=Markup(script),
            table=table,
            first=first,
            pages=pages or {},
            findings=() if pages else first.findings,
            diagnosis=None if pages else first.diagnosis,
            worst=_by_task(first.diagnosis.worst) if first.diagnosis else [],
            cards=_by_task(table.task_rows),
            groups={task.value: part.groups for task, part in first.scores.items() if part.groups},
            comparison_rows=[] if pages or first.comparison is None else differences(first.comparison),
            failures=collected,
            failures_json=script_json(collected.shown) if collected else "",
            images=drawn,
            absent=sum(image.absent is not None for image in drawn),
            provenance=[(run.file, list(_facts(run.provenance))) for run in _files(table.runs)],
        )
    )
    return page.encode("utf-8", errors="replace")


def _files(runs: Sequence[Run]) -> list[Run]:
    """One run per prediction file: sets of rules share their provenance."""
    return list({str(run.provenance): run for run in reversed(runs)}.values())[::-1]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": numbers.number,
        "signed": numbers.signed,
        "interval": numbers.interval,
        "words": numbers.words,
        "title_of": numbers.title,
        "visible": lambda text: visible(str(text), _TEXT),
    }
    environment.globals |= {
        "bars": charts.bars, "whisker": charts.whisker,
        "matrix_rows": charts.matrix_rows, "chart_width": charts.WIDTH, "chart_height": charts.HEIGHT,
    }  # fmt: skip
    return environment


def _policy(style: str, script: str) -> str:
    """Content security policy: nothing at all but images within the page, this style and this script."""
    return (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _by_task(rows: Iterable[OfTask]) -> list[tuple[str, list[OfTask]]]:
    return [(task, list(group)) for task, group in groupby(rows, key=lambda row: row.task)]


def _facts(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Provenance as a flat list of names and values, in its own order."""
    if isinstance(value, Mapping):
        items: Mapping[Any, Any] = value
        for key, part in items.items():
            if name or key not in _SHOWN_ELSEWHERE:
                yield from _facts(part, f"{name} / {key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, " ".join(str(part) for part in value) or "-"
    else:
        yield name, "-" if value is None else str(value)
