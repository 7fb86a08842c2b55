"""predictions.json: every row untouched but for its answer, which is in the challenge's own form."""

# ruff: noqa: RUF001 (characters that look like ASCII are tested)

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.predictions import read_predictions
from medvl.errors import DataError, UsageError
from medvl.predict.challenge import answer_for, check_challenge, write_challenge
from medvl.predict.questions import Question, read_questions
from medvl.predict.writer import Row
from medvl.profiles import read_profiles

PROFILES = read_profiles(None)
OPTIONS = "What is it? A: Normal, B: Glaucoma"


def row(task: str, text: str, frame: str = "norm1000", error: str | None = None) -> Row:
    return Row(id="q", prediction=text, task=task, confidence=1.0, source="rules", adapter=None, frame=frame,
               finish=None if error else "stop", fingerprint="f", error=error)  # fmt: skip


def asked(text: str = OPTIONS, dataset: str = "mixed", **changes: Any) -> Question:
    fields = {"images": (Path("x.png"),), "normalised": True, "task": None, "size": (500, 200), "file": Path("q.json")}
    return Question(id="q", dataset=dataset, text=text, head="<image>\n", index=0, **(fields | changes))


@pytest.mark.parametrize(
    ("task", "text", "expected"),
    [
        pytest.param("classification", "The answer is B.", "B", id="a letter"),
        pytest.param("classification", "I see a retina.\nNo letter.", "I see a retina.\nNo letter.", id="not valid"),
        pytest.param("counting", "12 cells", "12", id="a count"),
        pytest.param("counting", "many", "many", id="no zero is made up"),
        pytest.param("regression", " 34.70 ", "34.7", id="a number"),
        pytest.param("detection", '[{"bbox_2d":[100,500,200,1000],"label":"x"}]', "[[50, 100, 100, 200]]", id="boxes"),
        pytest.param("detection", '[{"bbox_2d":[200,1000,100,500]}]', "[[50, 100, 100, 200]]", id="corners in order"),
        pytest.param("detection", '[{"bbox_2d":[0,0,1200,1000]}]', "[[0, 0, 500, 200]]", id="within the image"),
        pytest.param("detection", "[]", "[]", id="no boxes"),
        pytest.param(
            "instance_detection",
            '{"1":[[0,0,100,100],[2,0,4,1000]],"X":[[500,500,1000,1000]]}',
            '{"1":[[0,0,50,20],[1,0,2,200]],"X":[[250,100,500,200]]}',
            id="a map of boxes",
        ),
        pytest.param("report_generation", "Heart size is normal.\nNo effusion.", "Heart size is normal.\nNo effusion.",
                     id="a report keeps its first line"),
        pytest.param("general", "The answer is B.", "The answer is B.", id="general alters nothing"),
        pytest.param("general", '[{"bbox_2d":[100,500,200,1000]}]', "[[50, 100, 100, 200]]", id="boxes have a frame"),
        pytest.param("general", '{"1":[[0,0,1000,1000]]}', '{"1":[[0,0,500,200]]}', id="maps too"),
        pytest.param("general", '```json\n[{"bbox_2d":[100,500,200,1000]}]\n```', "[[50, 100, 100, 200]]", id="fenced"),
        pytest.param("general", '{"bbox_2d":[100,500,200,1000],"label":"x"}', "[[50, 100, 100, 200]]", id="one box"),
        pytest.param("general", 'Hm.</think>[{"bbox_2d":[100,500,200,1000]}]', "[[50, 100, 100, 200]]", id="thoughts"),
        pytest.param("general", '["A"]', '["A"]', id="general alters no data"),
        pytest.param("report_generation", "Hm.</think>\nNo effusion.", "No effusion.", id="a report without thoughts"),
        pytest.param("classification", "答案：Ｂ。", "B", id="a letter in another script"),
        pytest.param("counting", "１２", "12", id="a count in full width"),
        pytest.param("general", "At [100, 500, 200, 1000].", "At [100, 500, 200, 1000].", id="prose stays"),
    ],
)  # fmt: skip
def test_answers_are_tidied_and_never_destroyed(task: str, text: str, expected: str) -> None:
    assert answer_for(asked(), {"q": row(task, text)}, PROFILES) == expected


def test_labels_are_joined_as_their_dataset_does() -> None:
    question = "Select all that apply from the following: Nodule; Fibrosis."
    for dataset, expected in (("chestdr", "Nodule, Fibrosis"), ("periapical", "Nodule; Fibrosis")):
        rows = {"q": row("multi_label_classification", "Nodule\nFibrosis")}
        assert answer_for(asked(question, dataset), rows, PROFILES) == expected


def test_failures_are_empty_and_never_an_error_message() -> None:
    assert answer_for(asked(), {}, PROFILES) == ""
    assert answer_for(asked(), {"q": row("counting", "", error="no memory")}, PROFILES) == ""


@pytest.mark.parametrize(("frame", "expected"), [("pixel", "[[1, 2, 3, 4]]"), ("norm1", "[[500, 200, 500, 200]]")])
def test_boxes_are_read_in_the_frame_of_their_adapter(frame: str, expected: str) -> None:
    assert answer_for(asked(), {"q": row("detection", "[[1, 2, 3, 4]]", frame)}, PROFILES) == expected


@pytest.mark.parametrize("task", ["detection", "general"])
@pytest.mark.parametrize("frame", ["pixel", "norm1000", "norm1"])
def test_a_key_that_states_its_own_frame_is_read_in_it(task: str, frame: str) -> None:
    text = '[{"box_2d": [500, 100, 1000, 200], "label": "lesion"}]'
    assert answer_for(asked(), {"q": row(task, text, frame)}, PROFILES) == "[[50, 100, 100, 200]]"


def test_an_instance_without_boxes_is_handed_in_by_its_name() -> None:
    text = '{"RBC": [[100, 500, 200, 1000]], "WBC": []}'
    answer = answer_for(asked(), {"q": row("instance_detection", text)}, PROFILES)
    assert answer == '{"RBC":[[50,100,100,200]],"WBC":[]}'


def test_an_unknown_frame_is_refused() -> None:
    with pytest.raises(DataError, match="norm7"):
        answer_for(asked(), {"q": row("detection", "[[1, 2, 3, 4]]", "norm7")}, PROFILES)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(6, "[[0, 0, 500, 200]]"), (8, "[[0, 0, 500, 200]]"), (3, "[[0, 0, 200, 500]]"), (9, "[[0, 0, 200, 500]]")],
    ids=["on its side", "on its other side", "upside down", "of no meaning"],
)
def test_a_rotated_image_has_the_size_it_is_shown_in(tmp_path: Path, orientation: int, expected: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (200, 500)).save(tmp_path / "x.jpg", exif=exif)
    question = asked(images=(tmp_path / "x.jpg",), size=None, normalised=False)
    rows = {"q": row("detection", '[{"bbox_2d":[0,0,1000,1000]}]')}
    assert answer_for(question, rows, PROFILES) == expected


def test_what_cannot_be_handed_in_is_said_before_anything_is_asked(question_tree: Path, tmp_path: Path) -> None:
    questions = read_questions(question_tree)
    check_challenge(tmp_path / "predictions.json", questions)
    (tmp_path / "folder").mkdir()
    for place in (Path("/proc/predictions.json"), tmp_path / "folder"):
        with pytest.raises(UsageError, match="--challenge"):
            check_challenge(place, questions)
    with pytest.raises(DataError, match="2 records come from it"):
        check_challenge(tmp_path / "predictions.json", [*questions, questions[-1]])
    with pytest.raises(DataError, match="would be overwritten"):
        check_challenge(questions[0].file, questions)
    with pytest.raises(DataError, match="asks something else"):
        check_challenge(tmp_path / "predictions.json", [*questions[:-1], replace(questions[-1], text="Why?")])


def test_rows_are_untouched_and_in_order(question_tree: Path, tmp_path: Path) -> None:
    questions = read_questions(question_tree)
    source = json.loads((question_tree / "validation-public/Xray/mixed/mixed_questions_val.json").read_text())
    rows = {question.id: row("general", f"answer {question.index}") for question in questions}
    write_challenge(tmp_path / "predictions.json", questions, rows, PROFILES)
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert written == [expected | {"Answer": f"answer {index}"} for index, expected in enumerate(source)]
    assert [list(item) for item in written] == [list(item) for item in source]
    assert read_predictions(tmp_path / "predictions.json").shape.name == "challenge"
