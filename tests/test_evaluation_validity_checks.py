"""Validity checks: what it finds, what it refuses, and what --force makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.run import main
from preprocess.flare import main as convert
from tests.support.scored_tree import Row, score, write_json

QUESTION = "Which grade of change does this image of a retina show? A: None, B: Mild, C: Severe"


def rows(n: int = 40) -> list[Row]:
    return [
        {"TaskType": "Classification", "Modality": "Fundus", "ImageName": f"imagesVal/Retino_{index}.png",
         "Question": QUESTION, "Answer": "ABC"[index % 3], "Split": "val"}
        for index in range(n)
    ]  # fmt: skip


def changed(n: int, answer: Any) -> list[Row]:
    """The right answers, the first n replaced."""
    return [row | {"Answer": answer} if index < n else row for index, row in enumerate(rows())]


# Predictions, the code of the finding, how many, whether it is fatal.
FILES: dict[str, tuple[list[Row], str, int, bool]] = {
    "a few missing": (rows()[4:], "missing", 4, False),
    "many missing": (rows()[5:], "missing", 5, True),
    "null is missing": (changed(5, None), "missing", 5, True),
    "a few blank": (changed(4, " "), "empty", 4, False),
    "many blank": (changed(5, ""), "empty", 5, True),
    "error messages": (changed(5, "Error: CUDA out of memory"), "errors", 5, True),
    "a traceback": (changed(5, "Traceback (most recent call last):\n …"), "errors", 5, True),
    "many duplicates": (rows() + rows()[:5], "duplicates", 5, True),
    "extra predictions never stop": (
        rows() + [row | {"Question": "Another?"} for row in rows()], "extra", 40, False),
    "the question in the answer": (changed(5, f"{QUESTION}\nB"), "prompt_leaked", 5, True),
    "marks of the chat template": (changed(5, "<|im_start|>assistant\nB"), "prompt_leaked", 5, True),
    "one answer everywhere": (changed(40, "The image is not visible."), "repeated", 40, True),
}  # fmt: skip


@pytest.mark.parametrize(("predictions", "code", "count", "fatal"), FILES.values(), ids=FILES)
def test_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], predictions: list[Row], code: str, count: int, fatal: bool
) -> None:
    references = write_json(tmp_path / "references.json", rows())
    path = write_json(tmp_path / "predictions.json", predictions)
    status = main([str(path), "--references", str(references), "--out", str(tmp_path / "refused"), "--bootstrap", "0"])
    assert status == (3 if fatal else 0)
    error = capsys.readouterr().err
    assert str(count) in error and ("--force scores it as it is" in error) == fatal
    assert (tmp_path / "refused").exists() != fatal
    metrics = score(path, references, tmp_path / "out", "--force", "--bootstrap", "0")
    found = metrics["provenance"]["gate"][code]
    assert (found["count"], found["fatal"]) == (count, fatal) and metrics["provenance"]["forced"]


def test_a_good_file_has_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_json(tmp_path / "references.json", rows())
    assert score(path, path, tmp_path / "out")["provenance"]["gate"] == {}
    assert "note" not in capsys.readouterr().err


def test_one_answer_everywhere_is_no_fault_where_it_is_right(tmp_path: Path) -> None:
    path = write_json(tmp_path / "references.json", [row | {"Answer": "A"} for row in rows()])
    assert score(path, path, tmp_path / "out")["provenance"]["gate"] == {}


def test_all_reasons_are_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = write_json(tmp_path / "references.json", rows())
    path = write_json(tmp_path / "predictions.json", [*changed(10, "")[:30]])
    assert main([str(path), "--references", str(references)]) == 3
    error = capsys.readouterr().err
    assert "10 references have no prediction" in error and "10 answers are blank" in error
    assert "challenge" not in json.dumps(error) and "references/000030" in error


@pytest.mark.subprocess
@pytest.mark.parametrize("converted", [False, True], ids=["tree", "converted records"])
@pytest.mark.parametrize(
    ("answer", "frame"),
    [
        pytest.param("[[0.1, 0.2, 0.5, 0.6]]", "norm1", id="shares"),
        pytest.param('{"cell": [[0.1, 0.2, 0.5, 0.6]]}', "norm1", id="shares with a name"),
        pytest.param("[[100, 200, 900, 950]]", "norm1000", id="thousandths"),
        pytest.param("[[10, 20, 60, 70]]", None, id="pixels"),
        pytest.param('[{"box_2d": [100, 200, 900, 950]}]', None, id="a text that states its frame"),
        pytest.param("[]", None, id="no boxes"),
    ],
)
def test_references_that_are_no_pixels_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: str, frame: str | None, converted: bool
) -> None:
    folder = tmp_path / "tree" / "validation-public" / "Microscopy" / "cells"
    rows = [{"TaskType": "Detection", "Modality": "M", "ImageName": "imagesVal/a.png", "Question": "Where?",
             "Answer": answer, "Split": "val"}]  # fmt: skip
    write_json(folder / "cells_questions_val.json", rows)
    (folder / "imagesVal").mkdir()
    Image.new("RGB", (120, 80)).save(folder / "imagesVal" / "a.png")
    references = tmp_path / "tree"
    if converted:
        options = ["--root", str(references), "--out", str(tmp_path / "data"), "--workers", "1"]
        assert convert([*options, "--dataset-info", str(tmp_path / "data" / "info.json")]) == 0
        references = tmp_path / "data" / "flare_cells_val.json"
    metrics = score(write_json(tmp_path / "said.json", rows), references, tmp_path / "out", "--bootstrap", "0")
    found = {code: entry for code, entry in metrics["provenance"]["gate"].items() if code.startswith("references_")}
    assert found.keys() == ({f"references_{frame}"} if frame else set())
    assert frame is None or f"convert the tree with --source-frame {frame}" in capsys.readouterr().err
