"""Converted records edited after conversion: trained on one answer and scored by another, so they are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.run import main
from medvl.sharegpt import Source, encode_records, file_sha256, make_record
from medvl.tasks import Task
from tests.support.scored_tree import score

QUESTIONS = {Task.CLASSIFICATION: "Normal? A: No, B: Yes", Task.MULTI_LABEL: "Select all that apply"}
# Task, source's answer, target as it was converted (norm1000 of 200 x 100), target as edited; None: not edited.
EDITED: dict[str, tuple[Task, str, str, str | None]] = {
    "class": (Task.CLASSIFICATION, "A", "A", "B"),
    "class, another spelling": (Task.CLASSIFICATION, "A", "A", None),
    "number": (Task.COUNTING, "11", "11", "12"),
    "number written otherwise": (Task.REGRESSION, "34.70", "34.7", None),
    "label left out": (Task.MULTI_LABEL, "a; b", "a; b", "a"),
    "labels in another order": (Task.MULTI_LABEL, "a; b", "b; a", None),
    "box moved": (Task.DETECTION, "[[20, 10, 100, 90]]", "[[100, 100, 500, 900]]", "[[120, 100, 500, 900]]"),
    "box in the source's pixels": (
        Task.DETECTION, "[[20, 10, 100, 90]]", "[[100, 100, 500, 900]]", "[[20, 10, 100, 90]]"),
    "box added": (Task.DETECTION, "[]", "[]", "[[100, 100, 500, 900]]"),
    "boxes as objects": (
        Task.DETECTION, "[[20, 10, 100, 90]]", '[{"bbox_2d": [100, 100, 500, 900], "label": "x"}]', None),
    "instance renamed": (
        Task.INSTANCE_DETECTION, '{"1": [[20, 10, 100, 90]]}', '{"1": [[100, 100, 500, 900]]}',
        '{"2": [[100, 100, 500, 900]]}'),
    "report": (Task.REPORT, "Heart size is normal.", "Heart size is normal.", "The heart is large."),
}  # fmt: skip


def converted(folder: Path, task: Task, answer: str, target: str, *, manifest: bool = True) -> Path:
    """Two records of a task in a folder as a conversion leaves it; the edit is to the first."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        make_record(
            question=f"{QUESTIONS.get(task, 'What?')} ({row})", answer=target, images=[str(folder / f"{row}.png")],
            id=f"r{row}", task=task.value, dataset="d",
            source=Source(split="validation-public", file="/q.json", index=row, sizes=[(200, 100)], answer=answer),
        ) for row in (0, 1)
    ]  # fmt: skip
    path = folder / "d_val.json"
    path.write_bytes(encode_records(records))
    if manifest:
        listed = {"sha256": file_sha256(path), "records": 2, "entry": "d_val"}
        made = {"schema": 1, "source": "flare", "root": "/", "options": {"frame": "norm1000", "box_style": "json"},
                "files": {path.name: listed}}  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(made))
    return path


def edit(path: Path, target: str | None) -> None:
    """Change the first target, or nothing but the layout of the file, as an editor does that saves it anew."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    if target is not None:
        rows[0]["conversations"][1]["value"] = target
    path.write_text(json.dumps(rows, indent=3))


def predicted(path: Path) -> Path:
    rows = json.loads(path.read_text())
    said = path.with_name("predictions.jsonl")
    lines = [{"id": row["id"], "prediction": row["conversations"][1]["value"], "frame": "norm1000"} for row in rows]
    said.write_text("\n".join(map(json.dumps, lines)))
    return said


@pytest.mark.parametrize(("task", "answer", "target", "edited"), EDITED.values(), ids=EDITED)
def test_edited_answers_are_refused_and_others_scored(
    task: Task, answer: str, target: str, edited: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = converted(tmp_path / "data", task, answer, target)
    edit(path, edited)
    code = main([str(predicted(path)), "--references", str(path), "--out", str(tmp_path / "out"), "--no-page"])
    error = " ".join(capsys.readouterr().err.split())
    assert code == (0 if edited is None else 3), error
    if edited is not None:
        assert "1 converted records were edited: they train on one answer and are scored by another" in error
        assert f"r0: its answer is {edited!r}, its source.answer {answer!r}" in error
        assert "change the source and convert it again" in error


@pytest.mark.parametrize(("name", "code"), [("class", 3), ("box added", 3), ("boxes as objects", 0)])
def test_without_a_manifest_edits_are_seen_too(name: str, code: int, tmp_path: Path) -> None:
    task, answer, target, edited = EDITED[name]
    path = converted(tmp_path / "data", task, answer, target, manifest=False)
    edit(path, edited)
    assert main([str(predicted(path)), "--references", str(path), "--out", str(tmp_path / "out"), "--no-page"]) == code


def test_an_edited_source_answer_is_refused_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = converted(tmp_path / "data", Task.COUNTING, "11", "11")
    rows = json.loads(path.read_text())
    rows[1]["source"]["answer"] = "12"
    path.write_text(json.dumps(rows))
    assert main([str(predicted(path)), "--references", str(path), "--out", str(tmp_path / "out"), "--no-page"]) == 3
    assert "r1: its answer is '11', its source.answer '12'" in capsys.readouterr().err


def test_force_scores_the_source_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = converted(tmp_path / "data", Task.COUNTING, "11", "11")
    edit(path, "12")
    metrics = score(predicted(path), path, tmp_path / "out", "--force")
    assert metrics["tasks"]["counting"]["mae"]["value"] == 0.5
    assert metrics["provenance"]["gate"]["references_edited"]["fatal"] is True
    assert "1 converted records were edited" in capsys.readouterr().err


@pytest.mark.parametrize(("edited", "code"), [(None, 0), ("C", 3)], ids=["as cleaned", "edited after"])
def test_what_clean_changed_is_no_edit(edited: str | None, code: int, tmp_path: Path) -> None:
    """A conversion with --clean trains on `D` where the source says `T`; report.json lists it."""
    path = converted(tmp_path / "data", Task.CLASSIFICATION, "T", "D")
    changes = [{"id": f"r{row}", "codes": ["LETTER_NOT_OPTION"], "before": "T", "after": "D"} for row in (0, 1)]
    (path.parent / "report.json").write_text(json.dumps({"changes": changes}))
    said = predicted(path)
    command = [str(said), "--references", str(path), "--out", str(tmp_path / "out"), "--no-page", "--bootstrap", "0"]
    assert main(command) == 0  # as it was written
    edit(path, edited)
    assert main(command) == code
