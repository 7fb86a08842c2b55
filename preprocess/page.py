"""report.html: one file that shows a conversion, readable without a network, by day and by night, on a phone."""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

import medvl.images
from medvl.answers import parse_answer
from medvl.box_text import ParsedBoxes
from medvl.boxes import Frame, Size
from medvl.sharegpt import Record
from medvl.tasks import Task
from preprocess.results import Prepared
from preprocess.tokens.statistics import EDGES

PAGE = "report.html"
TEMPLATE = "page.html.j2"
BASE_STYLE = Path(medvl.__file__).parent / "page.css"  # the look that all pages of the project share
# A page must open on a phone: what goes beyond is in report.json.
MAX_FINDINGS = 500
MAX_PER_CODE = 60
MAX_CONTAMINATIONS = 24
MAX_REFUSED = 48
MAX_EXAMPLES = 40
MAX_ANSWERS = 12


def render_page(
    report: Mapping[str, Any],
    prepared: Prepared,
    images: Mapping[str, Sequence[Path]],
    *,
    every_record: bool = False,
) -> str:
    """The page; the same input gives the same bytes.

    Args:
        report: Contents of report.json.
        prepared: The records, for examples.
        images: Id of a record that was left out -> its image files.
        every_record: Whether all records are examples, not only the first of every dataset and task.
    """
    findings, shown = _shown_findings(report["findings"])
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    return _template().render(
        policy=_policy(script),
        script=script,
        base_style=BASE_STYLE.read_text(encoding="utf-8"),
        report=report,
        findings=findings,
        code_counts=Counter(finding["code"] for finding in report["findings"]),
        shown=shown,
        contamination=[pair | {"thumbnails": [thumbnail(Path(pair[key]), 200) for key in ("picture", "other_picture")]}
               for pair in report.get("leaks", [])[:MAX_CONTAMINATIONS]],
        refused=_refused(report["findings"], images),
        examples=_examples(prepared, Frame(report["options"].get("frame", Frame.PIXEL)), every_record),
        answers=[chart for part in report["datasets"] for chart in _answer_charts(part)],
        token_bars=token_bars,
        every_record=every_record,
    )  # fmt: skip


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # questions and answers are untrusted text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _policy(script: str) -> str:
    """Content security policy: nothing from elsewhere, and no script but this one; bars have styles of their own."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def bars(counts: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    """Rows of a bar chart, widths in percent of the longest."""
    rows = list(counts)
    longest = max((count for _, count in rows), default=0) or 1
    return [
        {"label": label, "count": count, "width": round(100 * count / longest, 2), "over": False}
        for label, count in rows
    ]


def token_bars(histogram: Sequence[Mapping[str, Any]], cutoff_len: int | None) -> list[dict[str, Any]]:
    """A token histogram as bars; those that lie beyond the limit as a whole are marked."""
    rows = []
    for bar, drawn in zip(histogram, bars(("", bar["records"]) for bar in histogram), strict=True):
        end = bar["up_to"]
        below = max((edge for edge in EDGES if end is None or edge < end), default=0)
        over = cutoff_len is not None and below >= cutoff_len
        rows.append(drawn | {"label": f"to {end:,}" if end else f"above {below:,}", "over": over})
    return rows


def _shown_findings(findings: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The findings on the page, what was left out first, and how many of each code those are."""
    order = sorted(findings, key=lambda finding: finding["action"] == "kept")
    shown: Counter[str] = Counter()
    chosen: list[dict[str, Any]] = []
    for finding in order:
        if shown[finding["code"]] < MAX_PER_CODE and len(chosen) < MAX_FINDINGS:
            shown[finding["code"]] += 1
            chosen.append(finding)
    return chosen, shown


def _refused(findings: Sequence[dict[str, Any]], images: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    """Records that were left out and name images, quarantined ones first."""
    left_out = [finding for finding in findings if finding["action"] != "kept" and images.get(finding["id"])]
    left_out.sort(key=lambda finding: finding["action"] != "quarantined")
    return [finding | {"thumbnail": thumbnail(images[finding["id"]][0], 160)} for finding in left_out[:MAX_REFUSED]]


def _answer_charts(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    charts = []
    for task, answers in part["answers"].items():
        if len(answers) > 1:
            numbers = Task(task).is_number  # an axis, not a ranking
            rows = sorted(answers.items(), key=lambda item: (_number(item[0]) if numbers else -item[1], item[0]))
            name = f"{part['dataset']}, {part['split']}: {task}"
            charts.append({"name": name, "rows": bars(rows[:MAX_ANSWERS]), "more": max(0, len(rows) - MAX_ANSWERS)})
    return charts


def _number(text: str) -> float:
    try:
        return float(text.rstrip(" %"))
    except ValueError:
        return math.inf


def _examples(prepared: Prepared, frame: Frame, every_record: bool) -> list[dict[str, Any]]:
    """Records as the model will see them, the first of every dataset and task; boxes drawn from their own targets."""
    first: dict[tuple[str, ...], Record] = {}
    for part in prepared.converted:
        for record in part.records:
            first.setdefault((record.dataset, record.task, record.id if every_record else ""), record)
    return [_example(record, frame) for record in list(first.values())[:MAX_EXAMPLES]]


def _example(record: Record, frame: Frame) -> dict[str, Any]:
    images: list[dict[str, Any]] = [
        {"thumbnail": thumbnail(Path(path), 420), "size": size, "boxes": []}
        for path, size in zip(record.images, record.source.sizes, strict=True)
    ]
    if images:  # answers refer to the first
        images[0]["boxes"] = _boxes(record, record.source.sizes[0], frame)
    return {"id": record.id, "task": record.task, "dataset": record.dataset, "prompt": record.conversations[0].value,
            "target": record.target, "images": images}  # fmt: skip


def _boxes(record: Record, size: Size, frame: Frame) -> list[dict[str, Any]]:
    task = Task(record.task)
    if not task.has_boxes:
        return []
    answer = parse_answer(record.target, task, question=record.question)
    if not isinstance(answer.value, ParsedBoxes):
        return []
    boxes = answer.value.pixels(size, frame).round(1).tolist()
    return [
        {"x": x1, "y": y1, "width": max(x2 - x1, 0), "height": max(y2 - y1, 0), "label": label or ""}
        for (x1, y1, x2, y2), label in zip(boxes, answer.value.labels, strict=True)
    ]


def thumbnail(path: Path, side: int) -> str | None:
    """`medvl.images.thumbnail`, or None where there is nothing to show."""
    try:
        return medvl.images.thumbnail(path, side)[0]
    except (OSError, ValueError):  # missing or broken: that may be why
        return None
