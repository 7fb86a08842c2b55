"""Question files and prediction files as they go wrong: real rows, with answers, rows and references perturbed."""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.rows import decode_rows
from medvl.errors import DataError
from medvl.sources.flare import FLARE
from medvl.tasks import Task, UnknownNameError, canonical_task
from side_by_side.answers import ABSENT, ANOTHER, CHANGES, FIXED, NO_ANSWERS, VALUES, typed

Row = dict[str, Any]
_KEYS = {"TaskType", "ImageName", "Question", "Answer"}


def read_pool(sources: Sequence[Path]) -> dict[Task, list[list[Row]]]:
    """Task -> questions, each with the rows that answer it: in the files given and in all JSON files of the folders."""
    versions: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for source in sources:
        for path in sorted(source.rglob("*.json")) if source.is_dir() else [source]:
            try:
                rows = decode_rows(path.read_bytes(), path)
            except DataError:
                continue
            for row in rows:
                if row.keys() >= _KEYS and row["Answer"] is not None and str(row["Answer"]).strip():
                    versions[row["TaskType"], str(row["ImageName"]), row["Question"]].append(row)
    pool: dict[Task, list[list[Row]]] = defaultdict(list)
    for (spelled, _, _), rows in versions.items():
        try:
            pool[canonical_task(spelled)].append(rows)
        except UnknownNameError:
            continue
    return pool


def perturbed(pool: dict[Task, list[list[Row]]], draw: random.Random, most: int) -> tuple[list[Row], list[Row]]:
    """References and predictions: at most so many questions per task, both sides perturbed."""
    questions = [rows for group in pool.values() for rows in draw.sample(group, min(most, len(group)))]
    references = [dict(draw.choice(rows)) for rows in questions]
    predictions = [dict(draw.choice(rows)) for rows in questions]
    for mine, other in zip(references, predictions, strict=True):
        if draw.random() < 0.15:  # several images
            mine["ImageName"] = other["ImageName"] = [mine["ImageName"], f"imagesVal/second-{draw.randrange(9)}.png"]
    tasks: list[str | None] = [None, *dict.fromkeys(row["TaskType"] for row in predictions)]
    strings = [row["Answer"] for row in predictions]
    for change in draw.sample(CHANGES, draw.randint(1, 4)):
        share, task, fixed = draw.choice([0.02, 0.1, 0.4]), draw.choice(tasks), draw.choice([*NO_ANSWERS, *VALUES])
        for row in predictions:
            if draw.random() < share and "Answer" in row and task in (None, row["TaskType"]):
                answer = change(draw, row["Answer"])
                _set(row, fixed if answer is FIXED else draw.choice(strings) if answer is ANOTHER else answer)
    _change_rows(predictions, draw)
    if draw.random() < 0.3:
        _change_references(references, draw)
    return references, predictions


def write(root: Path, references: Sequence[Row], predictions: Sequence[Row]) -> Path:
    """A tree with one public split, and the prediction file, whose path is returned."""
    folders: dict[str, list[Row]] = defaultdict(list)
    for row in references:
        names = row["ImageName"] if isinstance(row["ImageName"], list) else [row["ImageName"]]
        folders[FLARE.dataset_of(names, Task.REPORT)].append(row)
    for dataset, rows in folders.items():
        path = root / "validation-public" / "Any" / dataset / f"{dataset}_questions_val.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
    path = root / "predictions.json"
    path.write_text(json.dumps(predictions), encoding="utf-8")
    return path


def _set(row: Row, answer: Any) -> None:
    if answer is ABSENT:
        row.pop("Answer", None)
    else:
        row["Answer"] = answer


def _change_rows(rows: list[Row], draw: random.Random) -> None:
    kinds = ["none", "none", "dropped", "again", "null again", "absent again", "shuffled", "key", "all of one"]
    kind = draw.choice(kinds)
    some = draw.sample(rows, max(1, len(rows) // draw.choice([20, 5])))
    if kind == "dropped":
        for row in some:
            rows.remove(row)
    elif kind.endswith("again"):
        for row in some:
            later = dict(row)
            _set(later, {"again": draw.choice(rows).get("Answer", ""), "null again": None}.get(kind, ABSENT))
            rows.insert(draw.randrange(len(rows) + 1), later)
    elif kind == "shuffled":
        draw.shuffle(rows)
    elif kind == "key":
        for row in some:
            _change_key(row, draw)
    elif kind == "all of one":
        gone = draw.choice(rows)["TaskType"]
        rows[:] = [row for row in rows if row["TaskType"] != gone] or rows


def _change_key(row: Row, draw: random.Random) -> None:
    name = row["ImageName"]
    kind = draw.randrange(5)
    if kind == 0:
        row["ImageName"] = name[0] if isinstance(name, list) else [name]
    elif kind == 1:
        row["Question"] += " "
    elif kind == 2 and isinstance(name, str):
        row["ImageName"] = f"/x/{name}"
    elif kind == 3:
        row["Question"] = row["Question"].upper()
    else:
        row["TaskType"], row["Split"] = "nonsense", 7  # nobody reads these in a prediction


def _change_references(rows: list[Row], draw: random.Random) -> None:
    for row in draw.sample(rows, len(rows) // 10):
        kind = draw.randrange(5)
        if kind == 0:
            row["Answer"] = typed(draw, row["Answer"])
        elif kind == 1:
            row["TaskType"] = f" {row['TaskType'].upper()} "
        elif kind == 2:
            row["TaskType"] = row["TaskType"].replace("-", "_").replace("counting", "Cell Counting")
        elif kind == 3:
            rows.append(row | {"Answer": draw.choice(rows)["Answer"]})
        elif isinstance(row["Answer"], str):
            row["Answer"] = f"\n {row['Answer']} "
