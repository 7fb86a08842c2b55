"""Boxes in questions: converted where there is no doubt, and the same in training, prediction, serving and scoring."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.references import read_references
from medvl.boxes import Frame, Size
from medvl.images import shown_size_of
from medvl.predict.adapter_spec import AdapterSpec
from medvl.predict.plan import ask
from medvl.predict.questions import read_questions, source_rows
from medvl.profiles import read_profiles
from medvl.question_boxes import rewrite
from medvl.router.route import abstain
from medvl.serve.conversation import Conversation, Turn
from medvl.sharegpt import read_records
from preprocess.flare import main

SIZE = (640, 480)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Given the nucleus box [64,48,320,240], is it?", "Given the nucleus box [100,100,500,500], is it?"),
        ("Boxes: [[64, 48, 320, 240], [0, 0, 640, 480]]", "Boxes: [[100, 100, 500, 500], [0, 0, 1000, 1000]]"),
        ("What is in region (64, 48), (320, 240)?", "What is in region (100, 100), (500, 500)?"),
        ("The area from (64,48) to (320,240)?", "The area from (100,100) to (500,500)?"),
        ("Bounding box: 64, 48, 320, 240. Benign?", "Bounding box: 100, 100, 500, 500. Benign?"),
        ("In box x1=64, y1=48, x2=320, y2=240?", "In box x1=100, y1=100, x2=500, y2=500?"),
        ('ROI {"bbox_2d": [64, 48, 320, 240]}', 'ROI {"bbox_2d": [100, 100, 500, 500]}'),
        ("<ref>a</ref><box>[[64,48,320,240]]</box>?", "<ref>a</ref><box>[[100,100,500,500]]</box>?"),
        ("Coordinates [64.4, 48, 320, 240] hold", "Coordinates [101, 100, 500, 500] hold"),
    ],
    ids=["list", "nested", "corners", "corners-in-words", "bare", "keyed", "json", "internvl", "decimals"],
)
def test_boxes_beyond_doubt_are_converted(question: str, expected: str) -> None:
    asked = rewrite(question, [SIZE], "pixel", "norm1000")
    assert (asked.text, asked.doubt) == (expected, None)
    assert asked.boxes


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        pytest.param("Rate it on the scale [0, 1, 2, 3].", "nothing says", id="no-word-for-a-box"),
        pytest.param("Give the box, e.g. [10, 20, 30, 40].", "example", id="example"),
        pytest.param("Give the lesion's location in the format [10, 20, 30, 40].", "example", id="format"),
        pytest.param("Box [64, 48, 320, 240] in pixels: benign?", "frame of its own", id="pixels-stated"),
        pytest.param("Normalized box [0.1, 0.1, 0.5, 0.5]: benign?", "frame of its own", id="shares-stated"),
        pytest.param('{"box_2d": [64, 48, 320, 240]} region', "frame of its own", id="y-first-key"),
        pytest.param("Box [x, y, w, h] = [64, 48, 320, 240]?", "width and height", id="sides"),
        pytest.param("Box [64, 48, 320, 240] in image 2?", "images apart", id="image-named"),
        pytest.param("Box [320, 240, 64, 48]?", "no box in an image", id="inverted"),
        pytest.param("Box [64, 48, 64, 240]?", "no box in an image", id="no-area"),
        pytest.param("Box [64, 48, 900, 240]?", "no box in an image", id="outside"),
        pytest.param("Box [64, 48, 320, 240] or box [0, 0, 900, 900]?", "no box in an image", id="one-of-two"),
    ],
)
def test_doubtful_numbers_stay_and_are_told(question: str, reason: str) -> None:
    asked = rewrite(question, [SIZE], "pixel", "norm1000")
    assert asked.text == question
    assert reason in (asked.doubt or "")


@pytest.mark.parametrize(
    "question",
    ["Coordinates ([x_min, y_min, x_max, y_max]) of lesions?", "A: 1, B: 2, C: 3, D: 4", "Patient (age 40, 80 kg)?",
     "Count cells 1, 2, 3, 4, 5 in the box."],
)  # fmt: skip
def test_other_questions_are_not_looked_at(question: str) -> None:
    assert rewrite(question, [SIZE], "pixel", "norm1000") == rewrite(question, [], "pixel", "norm1000")
    assert rewrite(question, [], "pixel", "norm1000").doubt is None


@pytest.mark.parametrize(
    ("sizes", "converted"),
    [([SIZE, SIZE], True), ([SIZE, (480, 640)], False), ([None], False), ([], False)],
    ids=["same", "different", "unreadable", "no-image"],
)
def test_the_image_must_be_known(sizes: list[Size | None], converted: bool) -> None:
    asked = rewrite("Box [64, 48, 320, 240]?", sizes, "pixel", "norm1000")
    assert (asked.text == "Box [100, 100, 500, 500]?", asked.doubt is None) == (converted, converted)


@pytest.mark.parametrize(
    ("source", "frame", "expected"),
    [("pixel", "pixel", "[64, 48, 320, 240]"), ("norm1000", "norm1000", "[64, 48, 320, 240]"),
     ("norm1000", "pixel", "[40.96, 23.04, 204.8, 115.2]"), ("pixel", "norm1", "[0.1, 0.1, 0.5, 0.5]")],
)  # fmt: skip
def test_every_frame(source: Frame, frame: Frame, expected: str) -> None:
    assert rewrite("Box [64, 48, 320, 240]?", [SIZE], source, frame).text == f"Box {expected}?"


@pytest.mark.parametrize(("orientation", "size"), [(1, (64, 48)), (3, (64, 48)), (4, (64, 48)), (6, (48, 64))])
def test_a_turned_image_has_its_shown_size(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "b.jpg").write_bytes(b"no image")
    assert [shown_size_of(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")] == [size, None, None]


QUESTION = "Which finding does the box [64, 48, 320, 240] show? A: cyst, B: mass"
ASKED = "Which finding does the box [100, 100, 500, 500] show? A: cyst, B: mass"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree/validation-public/Ultrasound/BUSI"
    (folder / "imagesVal").mkdir(parents=True)
    Image.new("RGB", SIZE).save(folder / "imagesVal/a.png")
    row = {"TaskType": "classification", "Modality": "x", "ImageName": "imagesVal/a.png", "Question": QUESTION,
           "Answer": "A", "Split": "val"}  # fmt: skip
    (folder / "BUSI_questions_val.json").write_text(json.dumps([row]))
    return tmp_path / "tree"


def converted(tree: Path, frame: Frame) -> tuple[Path, dict[str, Any]]:
    out = tree.parent / frame
    assert main(["--root", str(tree), "--out", str(out), "--dataset-info", str(out / "dataset_info.json"),
                 "--workers", "1", "--frame", frame]) == 0  # fmt: skip
    return out / "flare_all_val.json", json.loads((out / "report.json").read_text())


@pytest.mark.subprocess
@pytest.mark.parametrize("frame", ["norm1000", "norm1", "pixel"])
def test_training_and_prediction_ask_alike(tree: Path, frame: Frame) -> None:
    file, _ = converted(tree, frame)
    (record,) = read_records(file)
    served = AdapterSpec(None, None, "", None, None, 0, False, None, frame, None)
    for source in (tree, file):
        (question,) = read_questions(source)
        assert question.text == QUESTION  # what the router reads, and what the challenge's file is checked against
        asked = ask(question, abstain("test"), read_profiles(None), lambda _: served, "")
        assert asked.prompt == record.conversations[0].value
        assert next(source_rows([question]))["Question"] == QUESTION


@pytest.mark.subprocess
@pytest.mark.parametrize("of_data", ["norm1000", "pixel"])
def test_prediction_follows_the_frame_of_the_model_not_of_the_data(tree: Path, of_data: Frame) -> None:
    (question,) = read_questions(converted(tree, of_data)[0])
    served = AdapterSpec(None, None, "", None, None, 0, False, None, "norm1000", None)
    asked = ask(question, abstain("test"), read_profiles(None), lambda _: served, "")
    assert asked.prompt == f"<image>\n{ASKED}"


@pytest.mark.subprocess
def test_conversion_tells_and_scoring_joins(tree: Path) -> None:
    file, report = converted(tree, "norm1000")
    assert [finding["code"] for finding in report["findings"]] == ["QUESTION_BOX"]
    assert read_records(file)[0].question == ASKED
    assert [reference.question for reference in read_references(file).items] == [QUESTION]


def test_a_server_asks_as_training_did() -> None:
    conversation = Conversation((Turn("user", f"<image>\n{QUESTION}"),), (), None)
    assert conversation.in_frame("norm1000", [SIZE]).turns[-1].text == f"<image>\n{ASKED}"
    assert conversation.in_frame("pixel", [SIZE]) == conversation


def test_a_box_that_the_model_has_said_is_in_its_frame_already() -> None:
    turns = (Turn("user", "<image>\nWhere?"), Turn("assistant", "In [64, 48, 320, 240]"), Turn("user", QUESTION))
    conversation = Conversation(turns, (), None)
    assert conversation.in_frame("norm1000", [SIZE]) == conversation


@pytest.mark.subprocess
def test_a_records_own_question_is_left_out_where_the_prompt_says_it(tree: Path) -> None:
    for frame, kept in (("norm1000", True), ("pixel", False)):
        file, _ = converted(tree, frame)  # type: ignore[arg-type]
        assert ('"question":' in file.read_text()) is kept


@pytest.mark.subprocess
def test_prediction_knows_what_it_left_as_it_is(tree: Path) -> None:
    file = tree / "validation-public/Ultrasound/BUSI/BUSI_questions_val.json"
    file.write_text(file.read_text().replace("the box", "the box in pixels"))
    (question,) = read_questions(tree)
    served = AdapterSpec(None, None, "", None, None, 0, False, None, "norm1000", None)
    asked = ask(question, abstain("test"), read_profiles(None), lambda _: served, "")
    assert asked.prompt == f"<image>\n{question.text}"
    assert "frame of its own" in (asked.doubt or "")
    assert [finding["code"] for finding in converted(tree, "norm1000")[1]["findings"]] == ["QUESTION_BOX_UNCLEAR"]
