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
from medvl.sources.grounding import SOURCE
from medvl.sources.grounding_questions import position, sizes, unique
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


def ship(*numbers: Any, **more: Any) -> dict[str, Any]:
    return {"class": "ship", "bbox": list(numbers) or [0, 0, 0.5, 0.5]} | more


def test_what_has_no_name_is_among_all_objects_and_no_class_is_known_absent(convert: Convert) -> None:
    rows = [{"image": "a.png", "objects": [ship(), {"bbox": [0.5, 0.5, 1, 1]}, {"bbox": [0.6, 0.6, 1, 1]}]},
            {"image": "b.png", "objects": [ship() | {"class": "car"}]}]  # fmt: skip
    both = (
        "Locate and output bounding boxes for all objects in the image.",
        '[{"bbox_2d":[0,0,500,500],"label":"ship"},{"bbox_2d":[500,500,1000,1000]},{"bbox_2d":[600,600,1000,1000]}]',
    )
    for mode in ("all", "each"):
        assert both in asked(convert(rows, "--class-mode", mode))
    questions = [question for question, _ in asked(convert(rows, "--negatives", "3"))]
    assert [question.split()[7] for question in questions] == ["ship", "car", "ship"]


def test_a_class_in_another_row_of_the_image_is_no_negative(convert: Convert) -> None:
    rows = [{"image": "a.png", "objects": [ship()]}, {"image": "a.png", "objects": [ship() | {"class": "Car"}]},
            {"image": "b.png", "objects": [ship() | {"class": "car"}]}, {"image": "c.png", "objects": []}]  # fmt: skip
    empty = [record.images[0][-5:] for record in convert(rows, "--negatives", "9") if record.target == "[]"]
    assert empty == ["b.png", *["c.png"] * 3]


def test_classes_with_commas_are_told_apart(convert: Convert) -> None:
    (record,) = convert([{"image": "a.png", "objects": [ship() | {"class": "a, b"}, ship()]}], "--class-mode", "all")
    assert record.question.endswith(": a, b; ship.")


def codes(folder: Path) -> set[str]:
    """Codes of all findings."""
    return {finding["code"] for finding in json.loads((folder / "out/report.json").read_text())["findings"]}


@pytest.mark.parametrize(
    ("frame", "box"),
    [("pixel", [20, 10, 100, 50]), ("norm1000", [100, 100, 500, 500]), ("norm1", [0.1, 0.1, 0.5, 0.5])],
)
def test_numbers_of_another_frame(convert: Convert, tmp_path: Path, frame: str, box: list[float]) -> None:
    rows = [{"image": "a.png", "objects": [ship(*box)]}, {"image": "b.png", "question": "Where?", "answer": [box]}]
    all_of_a, one_of_a, of_b = convert(rows, "--source-frame", frame, "--refer")
    boxes = [parse_boxes(record.target).boxes.tolist() for record in (all_of_a, one_of_a, of_b)]
    assert boxes == [[[100, 100, 500, 500]]] * 3
    assert one_of_a.question == "Locate the large ship at the top-left of the image."
    assert not codes(tmp_path)


def test_a_wrong_frame_is_told_with_its_cure(convert: Convert, tmp_path: Path, capsys: Any) -> None:
    convert([{"image": "a.png", "objects": [ship(20, 10, 100, 50)]}])
    assert "COORDINATE_RANGE" in codes(tmp_path)
    convert([SHIPS], "--source-frame", "auto", code=2)
    assert "say norm1, norm1000 or pixel" in capsys.readouterr().err


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
    assert "no image has the id 9, which 1 annotations name" in capsys.readouterr().err


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


def test_odd_rows_are_told_one_by_one(convert: Convert, tmp_path: Path) -> None:
    odd: dict[str, dict[str, Any]] = {
        "ANSWER_UNUSABLE": {"objects": [ship(float("nan"), 0, 1, 1)]},
        "a whole number beyond all": {"objects": [ship(10**400, 0, 1, 1)]},
        "infinite in words": {"objects": [ship("inf", 0, 1, 1)]},
        "a truth": {"objects": [ship(True, 0, 1, 1)]},
        "a decimal comma": {"objects": [ship("0,5", 0, 1, 1)]},
        "a list as class": {"objects": [ship() | {"class": ["ship"]}]},
        "objects that are numbers": {"objects": [1, 2]},
        "captions that are numbers": {"caption": [1]},
        "ANSWER_EMPTY": {"question": "?", "answer": None},
        "without answer": {"question": "?"},
        "held back": {"queries": {"grounding_query": {"instruction": "Where?", "response": None}}},
        "QUESTION_EMPTY": {"question": None, "answer": "yes"},
    }
    rows = [{"image": f"{'abcd'[place % 4]}.png"} | row for place, row in enumerate(odd.values())]
    kept = convert([*rows, {"image": "a.png", "objects": [ship()]}])
    assert len(kept) == 1
    assert codes(tmp_path) == {"ANSWER_UNUSABLE", "ANSWER_EMPTY", "QUESTION_EMPTY"}
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["counts"] == {"in": 13, "kept": 1, "dropped": 4, "quarantined": 8}


def test_all_that_a_row_holds_is_asked(convert: Convert) -> None:
    turns = [{"from": "human", "value": "Busy?"}, {"from": "gpt", "value": "yes"}]
    row = {"image": "a.png", "objects": [ship(), ship() | {"class": 0}], "conversations": turns,
           "question": "How many?", "answer": 2, "caption": ["A ship.", "One ship."]}  # fmt: skip
    records = convert([row], "--class-mode", "each")
    assert [record.question.split()[-4] for record in records[:2]] == ["ship", "0"]
    assert [record.target for record in records[2:]] == ["2", "yes", "A ship.", "One ship."]


@pytest.mark.parametrize(
    ("name", "split"),
    [("valley", "train"), ("latest", "train"), ("VRSBench_val", "val"), ("instances_val2017", "val"),
     ("my test set", "test"), ("dev", "val"), ("trainval", "train")],
)  # fmt: skip
def test_a_word_of_the_name_says_the_split(tmp_path: Path, name: str, split: str) -> None:
    path = tmp_path / f"{name}.JSON"
    path.write_text(json.dumps([SHIPS]))
    (tmp_path / "._litter.json").write_bytes(b"\0")
    (file,) = SOURCE.find(tmp_path).files
    assert (file.split.name, file.path) == (split, path)


@pytest.mark.parametrize(("option", "word"), [("--splits", "tset"), ("--datasets", "trian"), ("--splits", "test")])
def test_splits_and_datasets_that_are_not_there(convert: Convert, capsys: Any, option: str, word: str) -> None:
    convert([SHIPS], option, "train", word, code=2)
    assert f"'{word}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "image"),
    [("deep\\a.png", "images/deep/a.png"), ("deep/a.png", "images/deep/a.png"), ("C:\\x\\a.png", "images/a.png"),
     ("/gone/a.png", "images/a.png"), ("ü b.png", "images/ü b.png")],
)  # fmt: skip
def test_where_images_lie(convert: Convert, tmp_path: Path, name: str, image: str) -> None:
    for path in ("deep/a.png", "ü b.png"):
        (tmp_path / "images/deep").mkdir(exist_ok=True)
        Image.new("RGB", (200, 100), (1, 2, 3)).save(tmp_path / "images" / path)
    (record,) = convert([{"image": name, "objects": [ship()]}])
    assert record.images == [str(tmp_path / image)]


@pytest.mark.parametrize(("name", "code"), [("a\0.png", "IMAGE_OUTSIDE"), ("../../x.png", "IMAGE_MISSING"),
                                            ("images/", "IMAGE_MISSING")])  # fmt: skip
def test_names_that_lead_nowhere(convert: Convert, tmp_path: Path, name: str, code: str) -> None:
    convert([SHIPS, {"image": name, "objects": [ship()]}])
    assert code in codes(tmp_path)


def test_damaged_files_of_a_folder_are_told_together(convert: Convert, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps({"input_image": {"image_id": "a.png"}, "queries": {}}))
    (folder / "b.json").write_text("[" * 5000)
    (folder / "c.json").write_text('{"input_image"')
    (folder / "d.json").write_text("[1]")
    assert main([str(folder), "--images", str(tmp_path / "images"), "--out", str(tmp_path / "o")]) == 3
    said = capsys.readouterr().err
    assert all(name in said for name in ("b.json: not JSON", "c.json: not JSON", "d.json: row 0 is '1'"))


def test_json_lines(convert: Convert, tmp_path: Path, capsys: Any) -> None:
    expected = convert([SHIPS, NOTHING])
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(SHIPS).encode() + b"\r\n\r\n" + json.dumps(NOTHING).encode() + b"\n")
    words = ["--images", str(tmp_path / "images"), "--out", str(tmp_path / "lines"), "--workers", "1",
             "--dataset-info", str(tmp_path / "lines.json")]  # fmt: skip
    assert main([str(path), *words]) == 0
    records = read_records(tmp_path / "lines/grounding_all_train.json")
    assert [(record.id, record.conversations) for record in records] == [
        (record.id, record.conversations) for record in expected
    ]
    path.write_text("{}\n{\n[")
    assert main([str(path), *words]) == 3
    said = capsys.readouterr().err
    assert "train.jsonl, line 2: not JSON" in said and "line 3" in said


def test_odd_annotations_of_coco(convert: Convert, tmp_path: Path) -> None:
    images = [{"id": name, "file_name": f"{name}.png", "width": 200, "height": 100} for name in "abc"]
    outline = {"id": 1, "image_id": "a", "category_id": 3, "segmentation": [[20, 10, 40, 10, 40, 30]]}
    crowd = {"id": 2, "image_id": "b", "category_id": 3, "bbox": [0, 0, 200, 50], "iscrowd": 1}
    bad = {"id": 3, "image_id": "c", "category_id": 3, "bbox": [0, 0, 200]}
    content = {"images": images, "annotations": [outline, crowd, bad], "categories": [{"id": 3, "name": "ship"}]}
    first, second = convert(content)
    assert (first.target, second.target) == (
        '[{"bbox_2d":[100,100,200,300],"label":"ship"}]', '[{"bbox_2d":[0,0,1000,500],"label":"ship"}]')  # fmt: skip
    assert codes(tmp_path) == {"BOX_CROWD", "ANSWER_UNUSABLE"}


def test_the_number_of_workers_and_rows_added_later_change_no_record(convert: Convert) -> None:
    rows = [{"image": f"{name}.png", "objects": [ship(), ship() | {"class": name}]} for name in "abcd"]
    options = ("--class-mode", "each", "--negatives", "2", "--order", "random")
    alone = convert(rows, *options)
    assert alone == convert(rows, *options, "--workers", "3")
    more = convert([*rows, {"image": "a.png", "caption": "A ship."}], *options)
    assert more[: len(alone)] == alone


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


def test_noise_that_cannot_be_written_is_refused(convert: Convert) -> None:
    convert([SHIPS], "--noise-objects", "1", "--box-style", "flare", code=2)
    with pytest.raises(SystemExit, match="2"):
        convert([SHIPS], "--noise-objects", "-1")


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
