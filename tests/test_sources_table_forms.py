"""Every form of boxes, class folders and conversations, through the whole conversion of `preprocess/table.py`."""

import base64
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medvl.box_text import parse_boxes
from medvl.sharegpt import Record, read_records
from preprocess import script
from tests.support.box_formats import (
    SET,
    Labelled,
    write_coco,
    write_csv,
    write_cvat,
    write_images,
    write_voc,
    write_yolo,
    yolo_lines,
)

Writer = Callable[[Path], Sequence[str]]


def convert(tmp_path: Path, *words: object, code: int = 0) -> tuple[list[Record], list[dict[str, Any]]]:
    """The records of a conversion of all splits, boxes in pixels, and its findings."""
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    more = ("--out", out, "--dataset-info", tmp_path / "info.json", "--name", "mine", "--workers", 1, "--contamination",
            "off", "--frame", "pixel")  # fmt: skip
    assert script.main("table", "x", list(map(str, (*words, *more)))) == code
    if code:
        return [], []
    records = [record for file in sorted(out.glob("mine_all_*.json")) for record in read_records(file)]
    return records, json.loads((out / "report.json").read_text())["findings"]


def as_coco(folder: Path) -> Sequence[str]:
    write_coco(folder / "a.json", SET)
    return str(folder / "a.json"), "--images", str(folder / "images")


def as_voc(folder: Path) -> Sequence[str]:
    write_voc(folder / "voc", SET)
    return str(folder / "voc"), "--images", str(folder / "images")


def as_yolo(folder: Path) -> Sequence[str]:
    write_yolo(folder / "yolo", SET)
    return (str(folder / "yolo"),)


def as_csv(folder: Path) -> Sequence[str]:
    write_csv(folder / "a.csv", SET)
    return str(folder / "a.csv"), "--images", str(folder / "images"), "--source-frame", "pixel"


def as_cvat(folder: Path) -> Sequence[str]:
    write_cvat(folder / "a.xml", SET)
    return str(folder / "a.xml"), "--images", str(folder / "images")


@pytest.mark.parametrize("write", [as_coco, as_voc, as_yolo, as_csv, as_cvat])
def test_the_same_boxes_come_back_from_every_form(tmp_path: Path, write: Writer) -> None:
    write_images(tmp_path / "images", SET)
    records, _ = convert(tmp_path, *write(tmp_path))
    by_name = {Path(record.images[0]).name: record for record in records}
    assert by_name.keys() == {image.name for image in SET}
    for image in SET:
        record = by_name[image.name]
        assert record.task == "instance_detection"
        assert record.question == (
            "Locate every object of these classes in the image: RBC, white cell. Answer with a JSON map of class to a "
            "list of boxes, [x_min, y_min, x_max, y_max]."
        )
        for text in (record.target, record.source.answer):
            parsed = parse_boxes(text)
            assert parsed.parsed
            found = sorted(zip(parsed.labels, parsed.boxes.tolist(), strict=True))
            expected = sorted(zip(image.labels, map(list, image.boxes), strict=True))
            assert [label for label, _ in found] == [label for label, _ in expected]
            assert np.allclose([box for _, box in found] or 0, [box for _, box in expected] or 0, atol=0.5)


@pytest.mark.parametrize("write", [as_coco, as_voc, as_yolo, as_cvat])
def test_a_question_per_class_has_negatives(tmp_path: Path, write: Writer) -> None:
    write_images(tmp_path / "images", SET)
    records, _ = convert(tmp_path, *write(tmp_path), "--ask", "class")
    asked = {(Path(record.images[0]).name, record.question.split(" in the image")[0]): record for record in records}
    assert len(asked) == len(records) == len({record.id for record in records})
    assert {record.task for record in records} == {"detection"}
    counts = {key: len(parse_boxes(record.source.answer).boxes) for key, record in asked.items()}
    assert counts["Zelle ä 1.png", "Locate every RBC"] == counts["Zelle ä 1.png", "Locate every white cell"] == 1
    assert counts["b.png", "Locate every RBC"] == 2
    assert counts["b.png", "Locate every white cell"] == 0  # not in the image, and asked for
    assert sum(name == "c.png" for name, _ in counts) == 1  # one of the two that it does not have
    assert {record.source.row for record in records} == {0, 1, 2, 3}


def test_one_class_is_a_detection_without_names(tmp_path: Path) -> None:
    one = [Labelled("a.png", (40, 30), ((1, 2, 20, 20),), ("cyst",)), Labelled("b.png", (40, 30), (), ())]
    write_images(tmp_path / "images", one)
    write_coco(tmp_path / "a.json", one)
    records, _ = convert(tmp_path, tmp_path / "a.json")
    assert [record.task for record in records] == ["detection", "detection"]
    assert [json.loads(record.target) for record in records] == [[{"bbox_2d": [1, 2, 20, 20], "label": "cyst"}], []]


def test_a_question_of_ones_own_may_name_the_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "images", SET)
    records, _ = convert(tmp_path, *as_coco(tmp_path), "--question", "Where are {names}?")
    assert {record.question for record in records} == {"Where are RBC, white cell?"}


def test_classes_that_the_files_list_are_asked_for_in_every_part(tmp_path: Path) -> None:
    one = [Labelled("a.png", (40, 30), ((1, 2, 20, 20),), ("RBC",))]
    write_images(tmp_path, one)
    write_coco(tmp_path / "a.json", one)
    content = json.loads((tmp_path / "a.json").read_text())
    content["categories"] += [{"id": 0, "name": "cells-x1", "supercategory": "none"}, {"id": 7, "name": "WBC"}]
    content["categories"][0]["supercategory"] = "cells-x1"  # as Roboflow writes it
    (tmp_path / "a.json").write_text(json.dumps(content))
    records, _ = convert(tmp_path, tmp_path / "a.json")
    assert "classes in the image: RBC, WBC." in records[0].question
    (tmp_path / "a.json").unlink()
    write_yolo(tmp_path / "yolo", one)
    (tmp_path / "yolo" / "data.yaml").write_text("names: [RBC, WBC]\ntrain: images/train")
    records, _ = convert(tmp_path, tmp_path / "yolo")
    assert "classes in the image: RBC, WBC." in records[0].question
    write_cvat(tmp_path / "a.xml", one)
    labels = "<meta><job><labels><label><name>RBC</name></label><label><name>WBC</name></label></labels></job></meta>"
    (tmp_path / "a.xml").write_text((tmp_path / "a.xml").read_text().replace("<meta></meta>", labels))
    records, _ = convert(tmp_path, tmp_path / "a.xml")
    assert "classes in the image: RBC, WBC." in records[0].question


def test_an_image_of_another_size_than_its_annotations_say_is_set_aside(tmp_path: Path) -> None:
    write_images(tmp_path / "images", SET)
    Image.new("RGB", (32, 24)).save(tmp_path / "images" / "b.png")  # somebody made it smaller
    records, findings = convert(tmp_path, *as_coco(tmp_path))
    assert len(records) == len(SET) - 1
    (finding,) = [finding for finding in findings if finding["code"] == "SIZE_DIFFERS"]
    assert finding["action"] == "quarantined"
    assert "b.png is 32 x 24, and was 100 x 80" in finding["detail"]


def test_images_without_annotations_are_dropped_and_said(tmp_path: Path) -> None:
    as_yolo(tmp_path)
    write_images(tmp_path / "yolo" / "images" / "train", [*SET[:3], Labelled("new.png", (9, 9), (), ())])
    (tmp_path / "yolo" / "labels" / "train" / "gone.txt").write_text(yolo_lines(SET[1], {"RBC": 0}))
    records, findings = convert(tmp_path, tmp_path / "yolo")
    assert len(records) == len(SET)
    assert {(finding["code"], finding["action"]) for finding in findings if finding["action"] != "kept"} == {
        ("ANSWER_EMPTY", "dropped"), ("IMAGE_MISSING", "dropped")}  # fmt: skip


def test_bad_boxes_set_their_image_aside(tmp_path: Path) -> None:
    write_images(tmp_path, [Labelled(f"{name}.png", (40, 30), (), ()) for name in "ab"])
    content = {"images": [{"id": place, "file_name": f"{name}.png"} for place, name in enumerate("ab")],
               "categories": [{"id": 1, "name": "cyst"}],
               "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]},
                               {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [[1, 2]]}]}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    records, findings = convert(tmp_path, tmp_path / "a.json")
    assert [Path(record.images[0]).name for record in records] == ["a.png"]
    assert [(finding["code"], finding["action"]) for finding in findings if finding["action"] != "kept"] == [
        ("ANSWER_UNUSABLE", "quarantined")]  # fmt: skip


def test_what_is_refused_ends_the_run_with_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path, SET)
    as_coco(tmp_path)
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"] += [
        {"id": 90, "image_id": 77, "category_id": 1},
        {"id": 91, "image_id": 1, "category_id": 8},
    ]
    (tmp_path / "a.json").write_text(json.dumps(content))
    convert(tmp_path, tmp_path / "a.json", code=3)
    said = capsys.readouterr().err.replace("\n", " ")
    assert "77" in said
    assert "8" in said
    assert not (tmp_path / "info.json").exists()


def test_a_folder_per_class(tmp_path: Path) -> None:
    for place, name in enumerate(("train/normal/1.png", "train/cyst/a/2.PNG", "test/normal/3.png", "train/lonely.png")):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (place * 60, 0, 0)).save(tmp_path / "set" / name)
    records, findings = convert(tmp_path, tmp_path / "set", "--question", "What does the image show?")
    assert [(Path(record.images[0]).name, record.target, record.source.answer) for record in records] == [
        ("3.png", "B", "normal"), ("2.PNG", "A", "cyst"), ("1.png", "B", "normal")]  # fmt: skip
    assert records[0].question == "What does the image show?\nA: cyst\nB: normal"
    assert [finding["code"] for finding in findings if finding["action"] == "dropped"] == ["ANSWER_EMPTY"]


def test_a_folder_per_class_without_splits(tmp_path: Path) -> None:
    for name in ("normal/1.png", "cyst/2.png", "test/3.png"):  # a class may be called test
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        Image.new("RGB", (20, 20), (len(name), 0, 0)).save(tmp_path / "set" / name)
    records, _ = convert(tmp_path, tmp_path / "set", "--question", "What does the image show?")
    assert sorted(record.source.answer for record in records) == ["cyst", "normal", "test"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images."""
    write_images(tmp_path, [Labelled("1.png", (20, 20), (), ()), Labelled("2.png", (20, 20), (), ())])
    return tmp_path


def chat(folder: Path, *rows: dict[str, Any], lines: bool = False) -> tuple[list[Record], list[dict[str, Any]]]:
    file = folder / ("chat.jsonl" if lines else "chat.json")
    file.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), encoding="utf-8")
    return convert(folder, file)


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def test_sharegpt_with_several_turns(images: Path) -> None:
    records, findings = chat(
        images,
        {"id": "x", "system": "You are a radiologist.", "images": ["1.png"],
         "conversations": [human("<image>\nIs it normal?"), gpt("No."), human("What is it?"), gpt("A cyst.")]},
        {"id": "y", "conversations": [human("Compare <image> with <image>"), gpt("Alike.")],
         "images": ["1.png", "2.png"]},
    )  # fmt: skip
    assert [record.conversations[0].value for record in records] == [
        "<image>\nIs it normal?",
        "<image>\nUser: Is it normal?\nAssistant: No.\nUser: What is it?",
        "<image>\n<image>\nCompare Image-1 with Image-2",
    ]
    assert [record.target for record in records] == ["No.", "A cyst.", "Alike."]
    assert [record.source.row for record in records] == [0, 0, 1]
    codes = [finding["code"] for finding in findings]
    assert (codes.count("SYSTEM_PROMPT"), codes.count("TURNS_EARLIER"), codes.count("TAG_WITHIN")) == (2, 1, 1)


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "content": "<image>Is it normal?"}, {"role": "assistant", "content": "No."}],
        [{"speaker": "doctor", "utterance": "<image>Is it normal?"}, {"speaker": "machine", "utterance": "No."}],
        [{"from": "HUMAN", "value": "<image>Is it normal?"}, {"from": "model", "value": "No."}],
    ],
)
def test_sharegpt_with_any_tag_names(images: Path, turns: list[dict[str, str]]) -> None:
    records, _ = chat(images, {"conversations": turns, "images": ["1.png"]}, lines=True)
    assert [(record.question, record.target) for record in records] == [("Is it normal?", "No.")]


def test_openai_messages_with_parts(images: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(buffer, "PNG")
    inside = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    rows = [
        {"messages": [{"role": "system", "content": "Be short."},
                      {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}},
                                                   {"type": "text", "text": "Is it normal?"}]},
                      {"role": "assistant", "content": [{"type": "text", "text": "No."}]}]}
        for url in ("1.png", (images / "2.png").as_uri(), inside, "https://example.org/3.png")
    ]  # fmt: skip
    records, findings = chat(images, *rows, lines=True)
    assert [(record.question, record.target) for record in records] == [("Is it normal?", "No.")] * 3
    assert Image.open(records[2].images[0]).size == (8, 8)
    (finding,) = [finding for finding in findings if finding["action"] == "quarantined"]
    assert finding["code"] == "TURNS_UNUSABLE"
    assert "lies on the network" in finding["detail"]


def test_messages_with_images_beside_them(images: Path) -> None:
    records, _ = chat(images, {"messages": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it normal?"}]},
        {"role": "assistant", "content": "No."}], "images": ["2.png"]})  # fmt: skip
    assert [Path(record.images[0]).name for record in records] == ["2.png"]


def test_alpaca_with_input_history_and_an_image(images: Path) -> None:
    records, _ = chat(images, {"instruction": "<image>Describe.", "input": "In one word.", "output": "Cyst.",
                               "history": [["Is it normal?", "No."]], "images": ["1.png"]})  # fmt: skip
    assert [(record.question, record.target) for record in records] == [
        ("Is it normal?", "No."),
        ("User: Is it normal?\nAssistant: No.\nUser: Describe.\nIn one word.", "Cyst."),
    ]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"conversations": [human("<image>"), gpt("x")], "images": ["1.png", "2.png"]}, "TAG_COUNT"),
        ({"conversations": [human("<image><image>?"), gpt("x")], "images": ["1.png"]}, "TAG_COUNT"),
        ({"conversations": [gpt("x"), human("?")], "images": []}, "TURNS_UNUSABLE"),
        ({"conversations": [human("?"), human("?"), gpt("x")], "images": []}, "TURNS_UNUSABLE"),
        ({"conversations": [human("?"), gpt("<image>")], "images": ["1.png"]}, "TURNS_UNUSABLE"),
        ({"conversations": [human("?"), {"from": "observation", "value": "7"}, gpt("x")]}, "TURNS_UNUSABLE"),
        ({"conversations": [human("<image>?")], "chosen": gpt("a"), "rejected": gpt("b"), "images": ["1.png"]},
         "TURNS_UNUSABLE"),
        ({"conversations": [human("?"), gpt("x")], "videos": ["a.mp4"]}, "TURNS_UNUSABLE"),
        ({"conversations": [], "images": ["1.png"]}, "TURNS_UNUSABLE"),
    ],
)  # fmt: skip
def test_conversations_that_cannot_be_used_are_set_aside(images: Path, row: dict[str, Any], code: str) -> None:
    good = {"conversations": [human("<image>Is it normal?"), gpt("No.")], "images": ["1.png"]}
    records, findings = chat(images, good, row)
    assert [record.target for record in records] == ["No."]
    assert [(found["code"], found["action"]) for found in findings if found["action"] != "kept"] == [
        (code, "quarantined")]  # fmt: skip


def test_conversations_in_parquet(images: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"messages": [{"role": "user", "content": "<image>Is it normal?"}, {"role": "assistant", "content": "No."}],
             "images": ["1.png"]}]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), images / "chat.parquet")
    records, _ = convert(images, images / "chat.parquet")
    assert [(record.question, record.target) for record in records] == [("Is it normal?", "No.")]


def test_a_question_without_an_answer_is_dropped(images: Path) -> None:
    records, findings = chat(images, {"conversations": [human("<image>A?"), gpt("B."), human("C?")],
                                      "images": ["1.png"]})  # fmt: skip
    assert [record.target for record in records] == ["B."]
    assert [found["code"] for found in findings if found["action"] == "dropped"] == ["ANSWER_EMPTY"]


def test_images_without_a_tag_stand_before_the_first_question(images: Path) -> None:
    records, findings = chat(images, {"conversations": [human("Is it normal?"), gpt("No.")], "images": ["1.png"]})
    assert records[0].conversations[0].value == "<image>\nIs it normal?"
    assert "TAG_ABSENT" in [found["code"] for found in findings]


def test_a_coco_file_to_scores(tmp_path: Path) -> None:
    from evaluation.run import main as score

    images = [Labelled(f"{place}.png", (100, 80), ((10, 10, 40, 40), (50, 20, 90, 70)), ("RBC", "white cell"))
              for place in range(4)]  # fmt: skip
    write_images(tmp_path / "images", images)
    write_coco(tmp_path / "a.json", images)
    words = ["--out", tmp_path / "out", "--dataset-info", tmp_path / "info.json", "--name", "mine", "--workers", 1]
    assert script.main("table", "x", [str(tmp_path / "a.json"), *map(str, words), "--contamination", "off"]) == 0
    records = read_records(tmp_path / "out" / "mine_all_train.json")
    assert json.loads(records[0].target) == {"RBC": [[100, 125, 400, 500]], "white cell": [[500, 250, 900, 875]]}
    answers = [record.target for record in records]
    answers[1] = answers[1].replace("RBC", "WBC")  # a name that the set does not have
    rows = [{"id": record.id, "prediction": said} for record, said in zip(records, answers, strict=True)]
    (tmp_path / "said.jsonl").write_text("\n".join(map(json.dumps, rows)))
    references = str(tmp_path / "out" / "mine_all_train.json")
    assert score([str(tmp_path / "said.jsonl"), "--references", references, "--out", str(tmp_path / "scores"),
                  "--no-page"]) == 0  # fmt: skip
    found = json.loads((tmp_path / "scores" / "metrics.json").read_text())["tasks"]["instance_detection"]
    assert found["f1_iou50"]["value"] == pytest.approx(7 / 8)
    # 3 of 4 red cells; all white cells, less the box without a known name, which is charged to the class it costs most.
    assert found["map_iou50"]["value"] == pytest.approx((76 / 101 + 1 - 1 / 5) / 2)
    assert found["map_iou50"]["ci95"] is not None


def test_names_with_commas_are_told_apart_and_too_many_are_refused() -> None:
    from medvl.errors import UsageError
    from medvl.sources.tables.box_questions import question_for

    assert "classes in the image: cyst, simple; mass." in question_for(["cyst, simple", "mass"])[0]
    with pytest.raises(UsageError, match="101 classes are too many for one question; say --ask class"):
        question_for([str(place) for place in range(101)])
