"""Grounding sets: every form, what is asked of an image, and what becomes of rows that cannot be used."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from medvl.augment.rewriting import read_box_answer
from medvl.box_text import parse_boxes
from medvl.boxes import Frame, as_boxes, iou
from medvl.sharegpt import Record, read_records
from medvl.sources.grounding import position, sizes, unique
from preprocess.grounding import main
from preprocess.noise import draw_noise

SHIPS = {"image": "a.png", "image_path": "deep/a.png", "caption": "Two ships and a harbor.", "objects": [
    {"class": "ship", "bbox_aabb": [0.5, 0.6, 0.7, 0.8], "bbox_aabb_computed": [0.505, 0.605, 0.705, 0.805]},
    {"class": "harbor", "bbox_aabb": [0.0, 0.0, 0.25, 0.25], "obj_id": 1},
    {"class": "ship", "bbox_aabb": [0.1, 0.3, 0.2, 0.4]}]}  # fmt: skip
NOTHING = {"image": "b.png", "objects": []}
Convert = Callable[..., list[Record]]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """`convert(rows, *options)`: the records of a file of these rows; images a.png to d.png are 200 x 100."""
    (tmp_path / "images").mkdir()
    for number, name in enumerate("abcd"):
        Image.new("RGB", (200, 100), (60 * number, 90, 30)).save(tmp_path / "images" / f"{name}.png")

    def run(rows: Any, *options: str, name: str = "train", code: int = 0) -> list[Record]:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(rows))
        words = [str(path), "--images", str(tmp_path / "images"), "--out", str(tmp_path / "out"), "--dataset-info",
                 str(tmp_path / "info.json"), "--workers", "1", "--contamination", "off", *options]  # fmt: skip
        assert main(words) == code
        return read_records(tmp_path / f"out/grounding_all_{name}.json") if code == 0 else []

    return run


def asked(records: Sequence[Record]) -> list[tuple[str, str]]:
    return [(record.question, record.target) for record in records if record.task == "detection"]


def test_the_commonest_class_is_asked_for_by_its_fullest_boxes(convert: Convert, tmp_path: Path) -> None:
    boxes, caption, nothing = convert([SHIPS, NOTHING])
    assert boxes.question == "Locate and output bounding boxes for all ship in the image."
    assert boxes.target == (
        '[{"bbox_2d":[505,605,705,805],"label":"ship"},{"bbox_2d":[100,300,200,400],"label":"ship"}]'
    )
    assert boxes.images == [str(tmp_path / "images/a.png")]  # by the bare name: there is no folder `deep`
    assert (caption.task, caption.target) == ("report_generation", "Two ships and a harbor.")
    assert (nothing.target, nothing.source.row) == ("[]", 1)


def test_as_terraquery_writes_its_answers(convert: Convert) -> None:
    (boxes, *_) = convert([SHIPS], "--box-style", "qwen_vl1")
    assert boxes.target.startswith("<ref>ship</ref><box>(505,605),(705,805)</box><ref>ship</ref>")


@pytest.mark.parametrize(
    ("options", "questions"),
    [
        (["--class-mode", "all"], ["all objects in the image: ship, harbor."]),
        (["--class-mode", "each"], ["all ship in the image.", "all harbor in the image."]),
        (["--negatives", "5"], ["all ship in the image.", "all car in the image."]),
        (["--refer"], ["all ship in the image.", "the medium ship at the bottom of the image.",
                       "the large harbor at the top-left of the image.", "the medium ship at the left of the image."]),
    ],
    ids=["all", "each", "negatives", "refer"],
)  # fmt: skip
def test_what_is_asked(convert: Convert, options: list[str], questions: list[str]) -> None:
    car = {"image": "c.png", "objects": [{"class": "car", "bbox_aabb": [0, 0, 1, 1]}]}
    ship = {"image": "d.png", "objects": [{"class": "ship", "bbox_aabb": [0, 0, 1, 1]}]}
    found = [question for question, _ in asked(convert([SHIPS, car, ship], *options))]
    of_first = found[: len(questions)]
    if "--negatives" in options:  # drawn in any order
        assert "harbor" not in " ".join(of_first)
    assert [question.split(" for ")[-1].removeprefix("Locate ") for question in of_first] == questions


@pytest.mark.parametrize(
    ("order", "expected"), [("given", [505, 0, 100]), ("raster", [0, 100, 505])], ids=["given", "raster"]
)
def test_order_of_boxes(convert: Convert, order: str, expected: list[int]) -> None:
    (record, *_) = convert([SHIPS], "--class-mode", "all", "--order", order)
    assert parse_boxes(record.target).boxes[:, 0].tolist() == expected


def test_a_random_order_is_the_seeds(convert: Convert) -> None:
    many = {
        "image": "a.png",
        "objects": [{"class": "x", "bbox_aabb": [n / 20, 0, n / 20 + 0.04, 1]} for n in range(20)],
    }
    orders = [convert([many], "--order", "random", "--seed", seed)[0].target for seed in ("1", "1", "2")]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(parse_boxes(orders[0]).boxes[:, 0].tolist()) == [50 * n for n in range(20)]


def test_turns_with_boxes_of_shares(convert: Convert) -> None:
    turns = {"image": "a.png", "class": "ship", "conversations": [
        {"from": "human", "value": "<image>\nDetect all ships."},
        {"from": "gpt", "value": "[0.1,0.2,0.3,0.4;0.5,0.5,0.6,0.7]"}]}  # fmt: skip
    none = {"image": "b.png", "conversations": [{"from": "human", "value": "Ships?"}, {"from": "gpt", "value": "[]"}]}
    first, second = convert([turns, none])
    assert (first.question, second.target) == ("Detect all ships.", "[]")
    assert first.target == '[{"bbox_2d":[100,200,300,400],"label":"ship"},{"bbox_2d":[500,500,600,700],"label":"ship"}]'
    assert first.source.answer == '{"ship":[[20,20,60,40],[100,50,120,70]]}'


def test_captions_and_questions(convert: Convert) -> None:
    rows = [{"image": "a.png", "task_type": "caption", "question": "Describe it.", "answer": "A harbor."},
            {"file_name": "b.png", "task_type": "vqa", "question": "How many ships?", "answer": 3}]  # fmt: skip
    assert [(record.task, record.target) for record in convert(rows)] == [
        ("report_generation", "A harbor."),
        ("vqa", "3"),
    ]


def test_a_folder_of_the_challenge_keeps_oriented_boxes(convert: Convert, tmp_path: Path) -> None:
    corners = [0.1, 0.2, 0.2, 0.1, 0.3, 0.2, 0.2, 0.3]
    row = {"input_image": {"image_id": "a.png", "metadata": {"width": 200, "height": 100}}, "queries": {
        "caption_query": {"instruction": "Describe.", "response": "Water."},
        "grounding_query": {"instruction": "Locate ships", "response": [{"object-id": "1", "obbox": corners}]},
        "attribute_query": {"binary": {"instruction": "Is there a ship?", "response": "Yes"},
                            "numeric": {"instruction": "How many?", "response": 1},
                            "semantic": {"instruction": "Which season?", "response": "summer"}}}}  # fmt: skip
    folder = tmp_path / "tests"
    folder.mkdir()
    for name in "ab":
        row["input_image"]["image_id"] = f"{name}.png"  # type: ignore[index]
        (folder / f"{name}.json").write_text(json.dumps(row))
    words = [str(folder), "--images", str(tmp_path / "images"), "--out", str(tmp_path / "o"), "--dataset-info",
             str(tmp_path / "i.json"), "--workers", "1"]  # fmt: skip
    assert main(words) == 0
    records = read_records(tmp_path / "o/grounding_tests_test.json")
    assert [record.task for record in records[:5]] == ["report_generation", "detection", "vqa", "counting", "vqa"]
    assert len(records) == 10
    assert records[1].target == '[{"bbox_2d":[100,100,300,300]}]'
    assert records[1].source.oriented == [[20, 20, 40, 10, 60, 20, 40, 30]]
    assert records[0].source.oriented is msgspec.UNSET


def test_coco(convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    images = [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}]
    box = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [20, 10, 40, 30]}
    content = {"images": images, "annotations": [box], "categories": [{"id": 3, "name": "ship"}]}
    first, second = convert(content)
    assert first.target == '[{"bbox_2d":[100,100,300,400],"label":"ship"}]'
    assert (second.question, second.target) == (first.question, "[]")
    box["image_id"] = 9
    convert(content, code=3)
    assert "annotation 1 is of image 9, not listed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"image": "a.png", "objects": [{"class": "ship"}]}, "ANSWER_UNUSABLE"),
        ({"image": "a.png", "objects": [{"class": "ship", "bbox_aabb": [0, 0, 1]}]}, "ANSWER_UNUSABLE"),
        ({"image": "a.png", "objects": [{"class": "ship", "bbox_aabb": [0, 0, None, 1]}]}, "ANSWER_UNUSABLE"),
        ({"image": "a.png", "objects": "many"}, "ANSWER_UNUSABLE"),
        ({"image": "a.png", "objects": [{"class": "ship", "bbox_aabb": [0.5, 0, 0.2, 1]}]}, "INVERTED_BOX"),
        ({"image": "a.png", "objects": [{"class": "ship", "bbox_aabb": [0.5, 0, 1.2, 1]}]}, "BOX_OUTSIDE"),
        ({"objects": [{"class": "ship", "bbox_aabb": [0, 0, 1, 1]}]}, "IMAGE_NAME"),
        ({"image": "gone.png", "objects": [{"class": "ship", "bbox_aabb": [0, 0, 1, 1]}]}, "IMAGE_MISSING"),
        ({"image": "a.png", "title": "what is this?"}, "ANSWER_UNUSABLE"),
        ({"image": "a.png", "conversations": [{"from": "human", "value": "?"}]}, "ANSWER_UNUSABLE"),
    ],
    ids=[
        "no box",
        "three numbers",
        "null",
        "no list",
        "inverted",
        "beyond",
        "no name",
        "missing",
        "no question",
        "turns",
    ],
)
def test_no_row_is_lost(convert: Convert, tmp_path: Path, row: dict[str, Any], code: str) -> None:
    convert([SHIPS, row])
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert code in {finding["code"] for finding in report["findings"]}
    counts = report["counts"]
    assert counts["in"] == counts["kept"] + counts["dropped"] + counts["quarantined"] == 3


def test_what_terraquery_derives_from_boxes() -> None:
    boxes = np.array([[0, 0, 0.05, 0.1], [0, 0, 0.2, 0.2], [0.4, 0.4, 0.9, 0.9], [0.4, 0.4, 0.9, 0.8]])
    assert [position(box) for box in boxes.tolist()] == ["top-left", "top-left", "", ""]
    assert sizes(boxes) == ["small", "medium", "large", "large"]
    assert unique(boxes) == [True, True, False, False]


# Noise objects

CASES = {"json": [], "internvl": ["--box-style", "internvl"], "qwen_vl1": ["--box-style", "qwen_vl1"],
         "pixels": ["--frame", "pixel"], "shares": ["--frame", "norm1"]}  # fmt: skip


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_noise_objects_stand_behind_the_boxes_of_training_answers_and_no_one_reads_them(
    convert: Convert, options: list[str]
) -> None:
    plain = convert([SHIPS, NOTHING], *options)
    noisy = convert([SHIPS, NOTHING], *options, "--noise-objects", "3")
    assert [record.source for record in noisy] == [record.source for record in plain]
    for one, other in zip(plain, noisy, strict=True):
        if one.task != "detection":
            assert one == other
            continue
        before, after = parse_boxes(one.target), parse_boxes(other.target)
        assert (after.boxes == before.boxes).all()
        assert (after.labels, after.parsed) == (before.labels, True)
        assert after.notes == {**before.notes, "noise": 3}
        everything = parse_boxes(other.target, keep_noise=True)
        assert everything.labels == (*before.labels, *["#noise"] * 3)
        drawn = everything.pixels((200, 100), Frame(options[1] if "--frame" in options else "norm1000"))[-3:]
        assert (drawn >= 0).all()
        assert (drawn <= [200, 100, 200, 100]).all()
        assert (drawn[:, :2] < drawn[:, 2:]).all()


def test_noise_objects_are_the_seeds(convert: Convert) -> None:
    targets = [convert([SHIPS], "--noise-objects", "4", "--seed", seed)[0].target for seed in ("1", "1", "2")]
    assert targets[0] == targets[1] != targets[2]


def test_held_out_records_have_no_noise(convert: Convert, tmp_path: Path) -> None:
    assert "noise" not in convert([SHIPS], "--noise-objects", "3", name="val")[0].target
    rows = [SHIPS | {"image": f"{name}.png", "image_path": f"{name}.png"} for name in "abcd"]
    convert(rows, "--noise-objects", "3", "--dev-fraction", "0.5")
    train, dev = (read_records(tmp_path / f"out/grounding_all_{split}.json") for split in ("train", "dev"))
    assert ["noise" in target for _, target in asked(train)] == [True, True]
    assert ["noise" in target for _, target in asked(dev)] == [False, False]


def test_drawn_boxes_are_of_all_kinds() -> None:
    true = as_boxes([[20, 20, 60, 60]])
    drawn = draw_noise(true, (200, 100), 300, random.Random(0))
    sides = drawn[:, 2:] - drawn[:, :2]
    near = iou(true, drawn)[0] > 0.3
    shifted = (np.abs(sides - 40) < 1e-6).all(axis=1) & ~near
    assert near.sum() > 50
    assert shifted.sum() > 50
    assert (~near & ~shifted).sum() > 50
    assert len(draw_noise(as_boxes([]), (3, 2), 5, random.Random(0))) == 5


@pytest.mark.parametrize(
    ("options", "code"), [(["--noise-objects", "-1"], 2), (["--noise-objects", "1", "--box-style", "flare"], 2)]
)
def test_noise_that_cannot_be_written_is_refused(convert: Convert, options: list[str], code: int) -> None:
    convert([SHIPS], *options, code=code)


def test_a_class_of_the_reserved_name_is_refused_and_one_called_noise_is_kept(convert: Convert) -> None:
    row = {"image": "a.png", "objects": [{"class": "noise", "bbox_aabb": [0, 0, 0.5, 0.5]}]}
    (record,) = convert([row], "--noise-objects", "2")
    assert parse_boxes(record.target).labels == ("noise",)
    row["objects"][0]["class"] = "#noise"  # type: ignore[index]
    convert([row], code=3)


def test_augmentation_moves_noise_too(convert: Convert) -> None:
    (record, *_) = convert([SHIPS], "--noise-objects", "2")
    answer = read_box_answer(record.target)
    assert answer is not None
    assert len(answer.boxes) == 4
