"""Chat files that another tool made are asked and scored as they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.references import read_references
from evaluation.run import main as score
from medvl.errors import DataError
from medvl.predict.questions import read_questions
from medvl.tasks import Task


def sharegpt(question: str, answer: str, *images: str, **more: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>" * len(images) + question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, "images": list(images), **more}


def messages(question: str, answer: str, *images: str, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "<image>" * len(images) + question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "images": list(images), **more}


def alpaca(question: str, answer: str, *images: str, **more: Any) -> dict[str, Any]:
    asked = {"instruction": "<image>" * len(images) + question, "input": ""}
    return {**asked, "output": answer, "images": [*images], **more}


ROWS = [("Is it normal? A: yes B: no", "A", "a.png"), ("Where is it?", "left lobe", "a.png", "b.png"),
        ("What is seen?", "word " * 40, "b.png")]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (640, 480), "pink").save(tmp_path / name)
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]], *, lines: bool = False) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    return path


@pytest.mark.parametrize("lines", [False, True], ids=["JSON", "JSON Lines"])
@pytest.mark.parametrize("form", [sharegpt, messages, alpaca])
def test_questions_and_references_have_the_same_given_ids(
    folder: Path, form: Callable[..., dict[str, Any]], lines: bool
) -> None:
    path = write(folder / f"their.json{'l' if lines else ''}", [form(*row) for row in ROWS], lines=lines)
    before = path.read_bytes()
    questions, references = read_questions(path), read_references(path)
    assert [question.id for question in questions] == ["their/000000", "their/000001", "their/000002"]
    assert [item.id for item in references.items] == [question.id for question in questions]
    assert [question.text for question in questions] == [row[0] for row in ROWS]
    assert questions[1].head == "<image>\n<image>\n"
    assert questions[1].images == (folder / "a.png", folder / "b.png")
    assert not any(question.problem or question.normalised for question in questions)
    assert [item.task for item in references.items] == [Task.CLASSIFICATION, Task.VQA, Task.REPORT]
    told = (
        "by their questions and answers: 1 classification, 1 vqa, 1 report_generation. A key `task` in each row says it"
    )
    assert references.notes == (f"{path.name} says no tasks; {told}",)
    assert path.read_bytes() == before
    assert sorted(folder.iterdir()) == sorted([path, folder / "a.png", folder / "b.png"])


def test_a_row_may_say_its_task(folder: Path) -> None:
    path = write(folder / "their.json", [sharegpt("How many?", "3", "a.png", task="counting")])
    (question,), (item,) = read_questions(path), read_references(path).items
    assert question.task is item.task is Task.COUNTING
    assert read_references(path).notes == ()
    path = write(folder / "their.json", [sharegpt("How many?", "3", "a.png", task="conting")])
    assert read_questions(path)[0].problem == "unknown task 'conting'; did you mean 'counting'?"
    with pytest.raises(DataError, match="their/000000: unknown task"):
        read_references(path)


def test_a_conversation_that_cannot_be_used_is_not_asked_and_not_scored(folder: Path) -> None:
    path = write(folder / "their.json", [sharegpt("x", "y", "a.png"), {**sharegpt("x", "y", "a.png"), "images": []}])
    assert [bool(question.problem) for question in read_questions(path)] == [False, True]
    with pytest.raises(DataError, match=r"1 references cannot be used, mend their rows: their/000001: .*image"):
        read_references(path)


def test_boxes_are_read_in_the_frame_that_all_of_them_tell(folder: Path) -> None:
    boxes = [[40 * place, 20 * place, 40 * place + 60, 20 * place + 60] for place in range(24)]
    rows = [sharegpt("Box?", json.dumps([{"bbox_2d": box, "label": "cyst"}]), "a.png") for box in boxes]
    references = read_references(write(folder / "their.json", rows))
    assert references.frame == "norm1000"  # some lie below the image in pixels
    assert json.loads(references.items[1].answer) == {"cyst": [[25.6, 9.6, 64, 38.4]]}
    with pytest.raises(DataError, match="the frame of its boxes is unclear"):
        read_references(write(folder / "their.json", rows[:2]))


def test_predictions_for_it_are_scored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder / "their.json", [sharegpt(*row) for row in ROWS])
    given = ["A", "right lobe", "word " * 40]
    predictions = [{"id": f"their/{place:06d}", "prediction": text} for place, text in enumerate(given)]
    write(folder / "predictions.jsonl", predictions, lines=True)
    assert score([str(folder / "predictions.jsonl"), "--references", str(path), "--out", str(folder / "scores")]) == 0
    metrics = json.loads((folder / "scores/metrics.json").read_text())
    assert metrics["counts"]["matched"] == 3
    assert metrics["tasks"]["classification"]["accuracy"]["value"] == 1
    assert metrics["tasks"]["vqa"]["exact_match"]["value"] == 0
