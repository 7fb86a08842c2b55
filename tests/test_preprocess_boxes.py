"""Boxes of other makers' datasets: written as one box per object in the frame asked for, or set aside with a code."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.references import read_references
from medvl.box_text import parse_boxes
from medvl.sharegpt import Record
from preprocess.validate import validate
from tests.support.flare_tree import convert, converted, converted_row, row, write_tree

GOOD = "[[10, 20, 50, 60]]"
CELLS = "Return the boxes of all cells."
# Answers for an image of 100 x 80 pixels.
POINTS = {"points": [[10, 40], [30, 20], [50, 40], [30, 60]], "label": "WBC"}
SEGMENTED = '[{"segmentation":[[10,40,30,20,50,40,30,60]],"label":"WBC"}]'
DETECTED = '[{"bbox_2d":[100,250,500,750],"label":"WBC"}]'


def one(
    tmp_path: Path, answer: Any, *options: str, dataset: str = "BUSI-det", **changes: Any
) -> tuple[Record | None, list[str], str]:
    """The record that a row with this answer became, the codes of its findings, and what they say."""
    rows = [row(dataset, ImageName="imagesTr/good.png"), row(dataset, Answer=answer, **changes)]
    write_tree(tmp_path / "tree", {dataset: rows})
    report = convert(tmp_path / "tree", tmp_path / "out", *options, code=0)
    found = [finding for finding in report["findings"] if finding["index"] == 1]
    records = [record for record in converted(tmp_path / "out", "all_train") if record.source.index == 1]
    assert len(records) == sum(part["kept"] for part in report["datasets"]) - 1
    return (records[0] if records else None), [item["code"] for item in found], str([item["detail"] for item in found])


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("answer", "target", "codes"),
    [
        pytest.param(json.dumps([POINTS]), DETECTED, ["ANSWER_UNUSUAL"], id="polygon"),
        pytest.param(SEGMENTED, DETECTED, ["ANSWER_UNUSUAL"], id="coco-polygon"),
        pytest.param([POINTS], DETECTED, ["ANSWER_UNUSUAL"],
                     id="polygon-as-a-real-list"),
        pytest.param('{"bbox":[10,20,50,60],"segmentation":[[1,1,2,2,3,1]],"label":"WBC"}', DETECTED, [],
                     id="box-and-polygon"),
        pytest.param('{"boxes":[[10,20,50,60]],"labels":["WBC"]}', DETECTED, [], id="labels-beside-boxes"),
        pytest.param({"boxes": [[10, 20, 50, 60]], "labels": ["WBC"], "scores": [1, 1, 1, 1]}, DETECTED, [],
                     id="labels-and-scores"),
        pytest.param('[[10,20,50,60,"WBC"]]', DETECTED, [], id="label-among-the-numbers"),
        pytest.param("<|ref|>WBC<|/ref|><|det|>[[10,20,50,60]]<|/det|>", DETECTED, ["COORDINATE_RANGE"], id="deepseek"),
        pytest.param('[{"box_2d":[250,100,750,500],"label":"WBC"}]', DETECTED, [], id="gemini"),
        pytest.param('{"WBC":[[10,20,50,60]],"RBC":[]}', DETECTED, ["ANSWER_UNUSUAL"], id="name-without-a-box"),
        pytest.param('The 1 cell: [{"bbox":[10,20,50,60],"label":"WBC"}]', DETECTED, ["ANSWER_UNUSUAL"], id="prose"),
        pytest.param('["10, 20, 50, 60"]', '[{"bbox_2d":[100,250,500,750]}]', ["ANSWER_UNUSUAL"], id="string"),
    ],
)  # fmt: skip
def test_one_object_is_one_box(tmp_path: Path, answer: Any, target: str, codes: list[str]) -> None:
    record, found, _ = one(tmp_path, answer, Question=CELLS)
    assert record is not None
    assert (record.target, found) == (target, codes)
    assert validate(tmp_path / "out", tmp_path / "out/dataset_info.json") == []


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param("[[1000000000000000000, 3, 4, 5]]", "too_large", id="larger-than-integers"),
        pytest.param([[1e308, 3, 4, 5]], "too_large", id="largest-float"),
        pytest.param("[[1e999, 3, 4, 5]]", "not_finite", id="infinite"),
        pytest.param("[[1, 2, 3, 4], []]", "empty_beside", id="empty-list-among-boxes"),
        pytest.param('[[1, 2, 3, 4], "left lung"]', "words_unread", id="words-among-boxes"),
        pytest.param("[[1, 2, 3, 4]] and 5, 6, 7, 8", "numbers_unread", id="numbers-behind-boxes"),
        pytest.param('{"boxes":[[1,2,3,4],[5,6,7,8]],"labels":["WBC"]}', "label_count", id="labels-too-few"),
        pytest.param("[[10,50,50,10,100,60,60,100]]", "number_count", id="polygon-or-boxes"),
        pytest.param('[{"bbox":[1,2,30,40],"angle":45}]', "rotated", id="rotated"),
        pytest.param('{"size":[480,640],"counts":[1,2,3,4]}', "mask", id="mask"),
        pytest.param('[{"box_2d":[1,2,3,4]},{"bbox_2d":[1,2,3,4]}]', "mixed_frames", id="two-frames"),
        pytest.param('[{"bbox":[1,2,30,40],"category_id":3,"iscrowd":0}]', "coco_sides", id="coco"),
        pytest.param('{"WBC":[[1,2,3,4]],"RBC":null}', "empty_beside", id="null"),
    ],
)
def test_what_no_box_can_say_is_set_aside(tmp_path: Path, answer: Any, said: str) -> None:
    record, codes, detail = one(tmp_path, answer)
    assert (record, codes) == (None, ["ANSWER_UNUSABLE"])
    assert said in detail


IMAGES = {"ImageName": [f"imagesTr/view{number}.png" for number in range(1, 5)]}


PER_IMAGE = [
    "[[],[[10,20,40,60]],[],[[10,10,20,40]]]",
    "[[[10,20,40,60]],[[10,10,20,40]],[[1,2,3,4]],[[1,2,3,4]]]",
    "Image 2: [[10,20,40,60]]; image 4: [[10,10,20,40]]",
    '{"image_1": [[10,20,40,60]], "image_2": []}',
    '{"1": [[10,20,40,60]], "3": [[10,10,20,40]]}',
    '{"view3.png": [[10,20,40,60]]}',
    '[{"image": "b", "bbox": [10,20,40,60]}]',
    '[{"image_index": 1, "bbox_2d": [10,20,40,60]}]',
    "In the second view: [[10,20,40,60]]",
    "[[],[[10,20,40,60]]]",
]


@pytest.mark.subprocess
@pytest.mark.parametrize(
    "options", [(), ("--max-images-per-sample", "1"), ("--frame", "pixel", "--box-style", "flare")]
)
def test_boxes_of_several_images_are_set_aside(tmp_path: Path, options: tuple[str, ...]) -> None:
    rows = [row("BUSI-det", ImageName="imagesTr/good.png"),
            *(row("BUSI-det", Answer=answer, **IMAGES) for answer in PER_IMAGE)]  # fmt: skip
    write_tree(tmp_path / "tree", {"BUSI-det": rows})
    report = convert(tmp_path / "tree", tmp_path / "out", *options, code=0)
    assert [record.source.index for record in converted(tmp_path / "out", "all_train")] == [0]
    for index, answer in enumerate(PER_IMAGE, 1):
        codes = [finding["code"] for finding in report["findings"] if finding["index"] == index]
        assert codes[-1] == "BOXES_PER_IMAGE", answer


@pytest.mark.subprocess
@pytest.mark.parametrize("answer", [GOOD, '{"lesion": [[10, 20, 50, 60]]}', "[10, 20, 50, 60]"])
def test_boxes_without_a_image_are_said_to_lie_on_the_first(tmp_path: Path, answer: str) -> None:
    record, codes, _ = one(tmp_path, answer, **IMAGES)
    assert record is not None
    assert (record.target, codes) == ('[{"bbox_2d":[100,250,500,750],"label":"lesion"}]', ["BOXES_ON_FIRST"])


@pytest.mark.subprocess
@pytest.mark.parametrize("answer", ["[]", "[[],[],[],[]]"])
def test_nothing_on_any_image_needs_no_first(tmp_path: Path, answer: str) -> None:
    record, codes, _ = one(tmp_path, answer, **IMAGES)
    assert (record and record.target, codes) == ("[]", [])


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("style", "target"),
    [
        ("json", '{"RBC":[[100,250,500,750]],"WBC":[]}'),
        ("internvl", "<ref>RBC</ref><box>[[100,250,500,750]]</box><ref>WBC</ref><box>[]</box>"),
        ("qwen_vl1", "<ref>RBC</ref><box>(100,250),(500,750)</box><ref>WBC</ref><box></box>"),
    ],
)
def test_an_instance_without_boxes_keeps_its_place(tmp_path: Path, style: str, target: str) -> None:
    record, codes, _ = one(
        tmp_path, '{"RBC": [[10, 20, 50, 60]], "WBC": []}', "--box-style", style, dataset="chromosome"
    )
    assert (record and record.target, codes) == (target, [])


@pytest.mark.subprocess
def test_cleaning_keeps_an_instance_without_boxes(tmp_path: Path) -> None:
    answer = '{"RBC": [[50, 60, 10, 20]], "WBC": []}'
    record, codes, _ = one(tmp_path, answer, "--clean", dataset="chromosome")
    assert (record and record.target, codes) == ('{"RBC":[[100,250,500,750]],"WBC":[]}', ["CLEANED"])


@pytest.mark.subprocess
@pytest.mark.parametrize("style", ["flare", "json", "internvl"])
@pytest.mark.parametrize("frame", ["pixel", "norm1000", "norm1"])
@pytest.mark.parametrize(
    ("source", "answers"),
    [
        ("norm1000", ["[[100, 250, 500, 750]]", "<|box_start|>(100,250),(500,750)<|box_end|>"]),
        ("norm1", ["[[0.1, 0.25, 0.5, 0.75]]", '[{"box_2d": [250, 100, 750, 500]}]']),
        ("pixel", ["[[10, 20, 50, 60]]", '[{"box_2d": [250, 100, 750, 500]}]']),
        ("auto", ["[[0.1, 0.25, 0.5, 0.75]]"]),
    ],
    ids=["norm1000", "norm1", "pixel", "auto"],
)
def test_the_sources_frame(tmp_path: Path, source: str, answers: list[str], frame: str, style: str) -> None:
    questions = [f"Boxes of {what}. One is in the region [10, 20, 50, 60]." for what in ("lesions", "masses")]
    rows = [row("BUSI-det", Answer=answer, Question=question)
            for answer, question in zip(answers, questions, strict=False)]  # fmt: skip
    write_tree(tmp_path / "tree", {"BUSI-det": rows})
    options = ("--source-frame", source, "--frame", frame, "--box-style", style)
    report = convert(tmp_path / "tree", tmp_path / "out", *options)
    written = {"pixel": "10, 20, 50, 60", "norm1000": "100, 250, 500, 750", "norm1": "0.1, 0.25, 0.5, 0.75"}[frame]
    records = converted(tmp_path / "out", "all_train")
    references = read_references(tmp_path / "out/flare_all_train.json").items
    assert len(records) == len(references) == len(answers)
    for record, reference, answer, question in zip(records, references, answers, questions, strict=False):
        numbers = record.target.replace('"bbox_2d"', "").replace(",", ", ").replace(",  ", ", ")
        assert written in numbers
        assert record.source.answer == (answer if source == "pixel" and "box_2d" not in answer else GOOD)
        assert (reference.answer, reference.question) == (record.source.answer, question)
    assert validate(tmp_path / "out", tmp_path / "out/dataset_info.json") == []
    assert [code for code in report["codes"] if code not in ("QUESTION_BOX", "QUESTION_BOX_UNCLEAR")] == (
        ["COORDINATE_RANGE"] if source == "auto" else []
    )


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("stated", "box", "answer"),
    [
        ("norm1000", "[200, 250, 500, 600]", "[[500, 750, 100, 250]]"),
        ("norm1000", "[20, 25, 50, 60]", "[[500, 750, 100, 250]]"),
        ("norm1", "[0.2, 0.25, 0.5, 0.6]", "[[0.5, 0.75, 0.1, 0.25]]"),
    ],
)
def test_cleaning_leaves_the_box_of_the_question_alone(tmp_path: Path, stated: str, box: str, answer: str) -> None:
    """The mended answer is in pixels, the question in the frame of its file."""
    question = f"Given the nucleus box {box}, which boxes are inside?"
    record, codes, _ = one(tmp_path, answer, "--clean", "--source-frame", stated, Question=question)
    assert record is not None and "CLEANED" in codes
    assert record.target == '[{"bbox_2d":[100,250,500,750]}]'
    assert record.question == question.replace(box, "[200, 250, 500, 600]" if stated == "norm1" else box)
    assert (record.source.question, record.source.frame) == (question, stated)


@pytest.mark.subprocess
def test_cleaning_in_another_frame(tmp_path: Path) -> None:
    record, codes, _ = one(tmp_path, "[[500, 750, 100, 250]]", "--clean", "--source-frame", "norm1000")
    assert (record and record.target, codes) == ('[{"bbox_2d":[100,250,500,750],"label":"lesion"}]', ["CLEANED"])


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("stated", "answer", "named"),
    [
        ("pixel", "[[100, 250, 500, 750]]", "--source-frame norm1000"),
        ("pixel", "[[0.1, 0.25, 0.5, 0.75]]", "--source-frame norm1 "),
        ("pixel", "<|box_start|>(10,20),(50,60)<|box_end|>", "--source-frame norm1000"),
        ("norm1000", "[[0.1, 0.25, 0.5, 0.75]]", "--source-frame norm1 "),
        ("norm1", "[[10, 20, 50, 60]]", "--source-frame norm1000 or --source-frame pixel"),
    ],
)
def test_boxes_that_fit_another_frame_name_the_option(tmp_path: Path, stated: str, answer: str, named: str) -> None:
    _, codes, detail = one(tmp_path, answer, "--source-frame", stated)
    assert "COORDINATE_RANGE" in codes
    assert named in detail


def sized(tmp_path: Path, answers: list[str], size: tuple[int, int]) -> Path:
    """A tree of rows with these answers, each with an image of this size."""
    rows = [row("BUSI-det", ImageName=f"imagesTr/{i}.png", Answer=answer) for i, answer in enumerate(answers)]
    write_tree(tmp_path / "tree", {"BUSI-det": rows})
    for image in (tmp_path / "tree").rglob("*.png"):
        Image.new("1", size).save(image)
    return tmp_path / "tree"


LARGE = [json.dumps([[i, 2 * i, 500 + i, 960 + i]]) for i in range(40)]  # 0-1000, and within images of 2000 pixels


@pytest.mark.subprocess
def test_a_whole_file_in_another_frame_is_found_where_no_box_is(tmp_path: Path) -> None:
    report = convert(sized(tmp_path, LARGE, (2000, 2000)), tmp_path / "out")
    (finding,) = report["findings"]
    assert (finding["code"], finding["index"]) == ("COORDINATE_RANGE", -1)
    assert "40 records" in finding["detail"]
    assert "--source-frame norm1000" in finding["detail"]


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("answers", "size", "said", "target"),
    [
        (LARGE, (2000, 2000), "read as norm1000", [0, 0, 500, 960]),
        ([json.dumps([[i, i, 60 + i, 40 + i]]) for i in range(40)], (100, 80), "", [0, 0, 600, 500]),
        (["[[0, 0, 60, 40]]"], (100, 80), "do not tell", [0, 0, 600, 500]),
    ],
    ids=["norm1000", "pixel", "undecided"],
)
def test_auto_says_what_it_decided(
    tmp_path: Path, answers: list[str], size: tuple[int, int], said: str, target: list[int]
) -> None:
    report = convert(sized(tmp_path, answers, size), tmp_path / "out", "--source-frame", "auto")
    assert json.loads(converted(tmp_path / "out", "all_train")[0].target)[0]["bbox_2d"] == target
    assert [said in finding["detail"] for finding in report["findings"]] == ([True] if said else [])


@pytest.mark.parametrize(
    ("dataset", "name", "style", "kept"),
    [
        *(pytest.param("chromosome", name, style, style != "json", id=f"{style}-map-{name}")
          for name in ("boxes", "label", "points", "score") for style in ("json", "flare", "internvl", "qwen_vl1")),
        *(pytest.param(dataset, name, style, style in ("json", "flare"), id=f"{style}-{dataset}-{name}")
          for dataset in ("chromosome", "BUSI-det") for name in ("<5 mm", "<b>")
          for style in ("json", "flare", "internvl", "qwen_vl1")),
        *(pytest.param("chromosome", name, style, True, id=f"{style}-{name}")
          for name in ("x", "X, Y", "a[1,2,3,4]b", "é→\"ß\"") for style in ("json", "internvl", "qwen_vl1")),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_read_back_is_set_aside(dataset: str, name: str, style: str, kept: bool) -> None:
    answer = json.dumps([{"bbox_2d": [10, 20, 50, 60], "label": name}])
    record, said = converted_row(dataset, style=style, Answer=answer)
    assert (record is not None) == kept, said
    if record:
        assert parse_boxes(record.target).labels == (name,)
    else:
        assert "ANSWER_UNUSABLE quarantined" in said[-1] and f"cannot hold the name {name!r}" in said[-1]
