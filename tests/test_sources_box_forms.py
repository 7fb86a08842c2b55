"""COCO, Pascal VOC, YOLO and CVAT: what their readers make of files as the tools of each format write them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from medvl.sources.tables import coco, cvat, voc, yolo
from medvl.sources.tables.base import Table
from tests.support.box_formats import SET, Labelled, write_coco, write_cvat, write_images, write_voc, write_yolo


def corners(box: Sequence[float], order: str | None) -> tuple[float, ...]:
    """x_min, y_min, x_max, y_max."""
    a, b, c, d = box
    return {"xyxy": (a, b, c, d), "xywh": (a, b, a + c, b + d)}.get(
        order or "", (a - c / 2, b - d / 2, a + c / 2, b + d / 2)
    )


def pixels(table: Table, sizes: Sequence[Labelled] = SET) -> dict[str, tuple[list[tuple[float, ...]], list[str]]]:
    """Bare image name -> boxes in pixels, and their names."""
    size_of = {image.name: image.size for image in sizes}
    found = {}
    for row in table.rows:
        name = row["image"].rsplit("/", 1)[-1]
        width, height = size_of[name] if table.frame == "norm1" else (1, 1)
        boxes = [corners(box, table.box_format) for box in row["boxes"]]
        found[name] = ([(x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in boxes], row["label"])
    return found


def assert_same(table: Table) -> None:
    """Every box of `SET` comes back, within half a pixel, with its name; images that lie where the table says."""
    assert not table.refused
    found = pixels(table)
    assert found.keys() == {image.name for image in SET}
    for image in SET:
        boxes, labels = found[image.name]
        assert labels == list(image.labels)
        assert np.allclose(boxes, list(image.boxes), atol=0.01)
    for row in table.rows:
        assert (table.folder / row["image"]).is_file()


def test_coco_file_beside_its_images(tmp_path: Path) -> None:
    write_images(tmp_path, SET)
    write_coco(tmp_path / "annotations.json", SET)
    assert coco.holds(tmp_path / "annotations.json")
    assert_same(coco.read(tmp_path / "annotations.json"))


def test_coco_folder_as_coco_has_it(tmp_path: Path) -> None:
    for split in ("train", "val"):
        images = [image for image in SET if image.split == split]
        write_images(tmp_path / f"{split}2017", images)
        write_coco(tmp_path / "annotations" / f"instances_{split}2017.json", images)
        shutil.copy(tmp_path / "annotations" / f"instances_{split}2017.json",
                    tmp_path / "annotations" / f"person_keypoints_{split}2017.json")  # fmt: skip
    table = coco.read(tmp_path)
    assert_same(table)
    assert [row["split"] for row in table.rows] == ["train", "train", "train", "val"]
    assert [code for code, _ in table.notes] == ["FILE_UNREAD", "FILE_UNREAD"]


def test_coco_folder_as_roboflow_has_it_with_equal_names(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_images(tmp_path / split, SET)
        write_coco(tmp_path / split / "_annotations.coco.json", SET)
    table = coco.read(tmp_path)
    assert len(table.rows) == 2 * len(SET)
    assert {(row["split"], row["image"].split("/")[0]) for row in table.rows} == {("train", "train"), ("val", "valid")}


def coco_of(tmp_path: Path, annotations: list[dict[str, object]], **more: object) -> Table:
    content = {"images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}],
               "categories": [{"id": 1, "name": "cell"}], "annotations": annotations, **more}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    return coco.read(tmp_path / "a.json")


def test_coco_boxes_around_polygons_and_masks(tmp_path: Path) -> None:
    from pycocotools import mask

    filled = np.zeros((30, 40), dtype=np.uint8, order="F")
    filled[5:11, 8:20] = 1
    packed = mask.encode(filled)
    runs = [8 * 30 + 5, *([6, 24] * 11), 6, 30 * 40 - (19 * 30 + 11)]
    table = coco_of(tmp_path, [
        {"id": 1, "image_id": 7, "category_id": 1, "segmentation": [[5, 5, 25, 5, 25, 20], [1, 8, 4, 8, 4, 9]]},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [],
         "segmentation": {"size": [30, 40], "counts": packed["counts"].decode()}},
        {"id": 3, "image_id": 7, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [30, 40], "counts": runs}},
    ])  # fmt: skip
    assert table.rows[0]["boxes"] == [[1, 5, 24, 15], [8, 5, 12, 6], [8, 5, 12, 6]]
    assert table.row_notes == {0: (("BOX_CROWD", "3 of the annotations of the image"),)}


def test_coco_annotations_without_a_place_stay_for_conversion_to_set_aside(tmp_path: Path) -> None:
    table = coco_of(tmp_path, [
        {"id": 1, "image_id": 7, "category_id": 1},
        {"id": 2, "image_id": 7, "category_id": 1, "segmentation": [[1, 2, 3]]},
        {"id": 3, "image_id": 7, "category_id": 1, "bbox": [1, 2, "x", 4]},
    ])  # fmt: skip
    assert table.rows[0]["boxes"] == [None, "3 numbers are no polygon", [1, 2, "x", 4]]


@pytest.mark.parametrize(
    ("annotations", "more", "said"),
    [
        ([{"id": 5, "image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1]}], {}, "no image has the id 9"),
        ([{"id": 5, "image_id": 7, "category_id": 2, "bbox": [0, 0, 1, 1]}], {}, "no category has the id 2"),
        ([{"id": 5, "image_id": None, "category_id": 1}], {}, "no image has the id None"),
        ([], {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "have the id 1 twice: a and b"),
        ([], {"images": [{"id": 1}]}, "expected an id and a file_name"),
        (["x"], {}, "annotation 0 is 'x'; expected an object"),
    ],
)
def test_coco_refuses_by_name(tmp_path: Path, annotations: list, more: dict, said: str) -> None:  # type: ignore[type-arg]
    refused = coco_of(tmp_path, annotations, **more).refused
    assert len(refused) == 1
    assert said in refused[0]
    assert "a.json" in refused[0]


def test_coco_that_is_damaged_is_refused_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": [')
    assert "a.json: not JSON" in coco.read(tmp_path / "a.json").refused[0]


def test_voc_folder_as_the_development_kit_has_it(tmp_path: Path) -> None:
    write_voc(tmp_path, SET)
    write_images(tmp_path / "JPEGImages", SET)
    assert voc.holds(tmp_path)
    table = voc.read(tmp_path)
    assert_same(table)
    assert {row["image"]: row["split"] for row in table.rows}["JPEGImages/d.png"] == "val"
    assert {row["width"] for row in table.rows} == {64, 100, 30}


def test_voc_beside_its_images_with_a_wrong_file_name_and_an_image_without_a_file(tmp_path: Path) -> None:
    write_voc(tmp_path, SET)
    for file in (tmp_path / "Annotations").iterdir():
        text = file.read_text().replace("<filename>b.png", "<filename>IMG_0001.JPG")
        (tmp_path / file.name).write_text(f"\ufeff{text}".replace("\n", "\r\n"))
    shutil.rmtree(tmp_path / "Annotations")
    shutil.rmtree(tmp_path / "ImageSets")
    write_images(tmp_path, (*SET, Labelled("lonely.png", (9, 9), (), ())))
    table = voc.read(tmp_path)
    (lonely,) = [row for row in table.rows if row["image"] == "lonely.png"]
    assert lonely["boxes"] is None
    assert table.row_problems[len(table.rows) - 1].code == "ANSWER_EMPTY"
    assert {row["image"] for row in table.rows} >= {"b.png"}


def voc_file(tmp_path: Path, objects: str) -> Table:
    (tmp_path / "a.xml").write_text(f"<annotation><filename>a.png</filename>{objects}</annotation>")
    return voc.read(tmp_path)


def box(xmin: object, ymin: object, xmax: object, ymax: object, more: str = "") -> str:
    return (f"<object><name>cell</name>{more}<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax>"
            f"<ymax>{ymax}</ymax></bndbox></object>")  # fmt: skip


def test_voc_counts_from_one_unless_something_lies_at_zero(tmp_path: Path) -> None:
    table = voc_file(tmp_path, box(1, 1, 40, 30) + box(11, 21, 20, 25))
    assert table.rows[0]["boxes"] == [[0, 0, 40, 30], [10, 20, 20, 25]]
    assert not table.notes
    table = voc_file(tmp_path, box(0, 1, 40, 30) + box(11, 21, 20, 25))
    assert table.rows[0]["boxes"] == [[0, 1, 40, 30], [11, 21, 20, 25]]
    assert [code for code, _ in table.notes] == ["BOXES_FROM_ZERO"]
    table = voc.read(tmp_path, pixels_from="1")
    assert table.rows[0]["boxes"] == [[-1, 0, 40, 30], [10, 20, 20, 25]]
    voc_file(tmp_path, box(11, 21, 20, 25))
    assert voc.read(tmp_path, pixels_from="0").rows[0]["boxes"] == [[11, 21, 20, 25]]


def test_voc_difficult_and_truncated_objects_are_kept_and_said(tmp_path: Path) -> None:
    table = voc_file(
        tmp_path, box(1, 1, 4, 3, "<difficult>1</difficult>") + box(2, 2, 5, 5, "<truncated>1</truncated>")
    )
    assert len(table.rows[0]["boxes"]) == 2
    assert table.row_notes[0] == (("BOX_MARKED", "difficult: object 0; truncated: object 1"),)


def test_voc_objects_without_a_box_stay_for_conversion_to_set_aside(tmp_path: Path) -> None:
    table = voc_file(tmp_path, "<object><name>cell</name></object>" + box("a", 1, 2, 3))
    assert table.rows[0]["boxes"] == ["bndbox of nothing", "bndbox of a 1 2 3"]


def test_voc_refuses_what_is_no_annotation_and_what_expands(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation><filename>&b;</filename></annotation>'
    for name, text in (("bomb", bomb), ("broken", "<annotation><object>"), ("other", "<annotation>")):
        (tmp_path / f"{name}.xml").write_text(text)
    refused = "\n".join(voc.read(tmp_path).refused)
    assert "bomb.xml: refused" in refused
    assert "broken.xml: not XML" in refused
    assert "other.xml: not XML" in refused


def test_yolo_with_data_yaml(tmp_path: Path) -> None:
    write_yolo(tmp_path, SET)
    for data in (tmp_path, tmp_path / "data.yaml"):
        assert yolo.holds(data)
        table = yolo.read(data)
        assert_same(table)
        assert [row["split"] for row in table.rows] == ["train", "train", "train", "val"]


def test_yolo_as_roboflow_has_it(tmp_path: Path) -> None:
    write_yolo(tmp_path / "made", SET)
    for split, home in (("train", "train"), ("val", "valid")):
        (tmp_path / home).mkdir()
        shutil.move(tmp_path / "made" / "images" / split, tmp_path / home / "images")
        shutil.move(tmp_path / "made" / "labels" / split, tmp_path / home / "labels")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['RBC', 'white cell']\n"
    )
    table = yolo.read(tmp_path)
    assert_same(table)
    assert [row["split"] for row in table.rows] == ["train", "train", "train", "val"]


def test_yolo_in_one_folder_with_classes_txt(tmp_path: Path) -> None:
    write_yolo(tmp_path / "made", SET)
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (tmp_path / "made").rglob("*.*"):
        if file.name != "data.yaml":
            shutil.copy(file, flat)
    (flat / "classes.txt").write_text("RBC\nwhite cell\n")
    assert yolo.holds(flat)
    assert_same(yolo.read(flat))


def yolo_of(tmp_path: Path, lines: str, yaml: str = "names: [cell, nucleus]") -> Table:
    write_images(tmp_path / "images", [Labelled("a.png", (40, 30), (), ())])
    (tmp_path / "labels").mkdir(exist_ok=True)
    (tmp_path / "labels" / "a.txt").write_text(lines)
    (tmp_path / "data.yaml").write_text(yaml)
    return yolo.read(tmp_path)


def test_yolo_polygons_and_oriented_boxes_become_the_boxes_around_them(tmp_path: Path) -> None:
    table = yolo_of(tmp_path, "0 0.1 0.2 0.5 0.2 0.3 0.8\n\n1 0.1 0.1 0.3 0.1 0.3 0.5 0.1 0.5\r\n")
    assert np.allclose(table.rows[0]["boxes"], [[0.3, 0.5, 0.4, 0.6], [0.2, 0.3, 0.2, 0.4]])
    assert table.rows[0]["label"] == ["cell", "nucleus"]
    assert [code for code, _ in table.row_notes[0]] == ["BOX_OUTLINE"]


def test_yolo_keypoints_follow_the_box_where_the_yaml_says_so(tmp_path: Path) -> None:
    table = yolo_of(tmp_path, "0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 1\n", "names: [cell]\nkpt_shape: [2, 3]")
    assert table.rows[0]["boxes"] == [[0.5, 0.5, 0.2, 0.2]]


def test_yolo_an_empty_text_is_a_negative_a_missing_one_is_not(tmp_path: Path) -> None:
    yolo_of(tmp_path, "")
    write_images(tmp_path / "images", [Labelled("unlabelled.png", (40, 30), (), ())])
    (tmp_path / "labels" / "gone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    table = yolo.read(tmp_path)
    rows = {row["image"]: row for row in table.rows}
    assert rows["images/a.png"]["boxes"] == []
    assert rows["images/unlabelled.png"]["boxes"] is None
    assert [problem.code for problem in table.row_problems.values()] == ["ANSWER_EMPTY"]
    assert not (table.folder / rows["labels/gone.jpg"]["image"]).exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("0 0.5 0.5 0.1 0.1 0.97\n", "a.txt, line 1: six columns are a prediction"),
        ("0 0.5 0.5 0.1\n", "a.txt, line 1: expected a class from 0 and four numbers"),
        ("0 0.5 0.5 0.1 0.1\n-1 0.5 0.5 0.1 0.1\n", "a.txt, line 2"),
        ("cell 0.5 0.5 0.1 0.1\n", "expected a class and numbers"),
        ("5 0.5 0.5 0.1 0.1\n", "the class 5 has no name; data.yaml or classes.txt has names from 0 to 1"),
        ("0 0.1 0.2 0.5 0.2 0.3 0.8 0.4\n", "7 numbers are no polygon"),
    ],
)
def test_yolo_refuses_lines_by_their_place(tmp_path: Path, lines: str, said: str) -> None:
    (refused,) = yolo_of(tmp_path, lines).refused
    assert said in refused


def test_yolo_refuses_a_split_that_is_not_there_and_an_image_in_two(tmp_path: Path) -> None:
    table = yolo_of(tmp_path, "", "names: [cell]\ntrain: images\nval: images\ntest: nowhere")
    assert any("nowhere is not there" in line for line in table.refused)
    assert any("is in train and in val" in line for line in table.refused)


def test_cvat_of_one_job_and_of_two(tmp_path: Path) -> None:
    write_images(tmp_path / "images", SET)
    write_cvat(tmp_path / "annotations.xml", SET)
    assert cvat.holds(tmp_path / "annotations.xml")
    assert_same(cvat.read(tmp_path / "annotations.xml"))
    (tmp_path / "annotations.xml").unlink()
    write_cvat(tmp_path / "job_1" / "annotations.xml", SET[:2])
    write_cvat(tmp_path / "job_2" / "annotations.xml", SET[2:])
    table = cvat.read(tmp_path)
    assert_same(table)
    write_cvat(tmp_path / "job_3" / "annotations.xml", SET[1:2])
    again = cvat.read(tmp_path)
    assert [len(row["boxes"]) for row in again.rows] == [2, 4, 0, 1]  # conversion takes equal boxes for one object
    assert [row["split"] for row in table.rows] == ["train", "train", "train", "val"]


def cvat_of(tmp_path: Path, shapes: str) -> Table:
    text = f'<annotations><image id="0" name="a.png" width="40" height="30">{shapes}</image></annotations>'
    (tmp_path / "a.xml").write_text(text)
    return cvat.read(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ('<polygon label="a" points="5.5,6;20,6;9,12.25"/>', [5.5, 6, 20, 12.25]),
        ('<polyline label="a" points="5,6;20,9"/>', [5, 6, 20, 9]),
        ('<points label="a" points="5,6;20,9;7,3"/>', [5, 3, 20, 9]),
        ('<mask label="a" rle="1, 3" left="4" top="5" width="6" height="7"/>', [4, 5, 10, 12]),
        ('<ellipse label="a" cx="20" cy="15" rx="5" ry="3" rotation="90"/>', [17, 10, 23, 20]),
        ('<box label="a" xtl="10" ytl="10" xbr="14" ybr="20" rotation="90"/>', [7, 13, 17, 17]),
        ('<cuboid label="a" xtl1="1" ytl1="2" xbl1="1" ybl1="9" xtr1="5" ytr1="2" xbr1="5" ybr1="9" '
         'xtl2="3" ytl2="1" xbl2="3" ybl2="8" xtr2="7" ytr2="1" xbr2="7" ybr2="8"/>', [1, 1, 7, 9]),
        ('<skeleton label="a"><points label="1" points="3,4" outside="0"/><points label="2" points="8,2"/>'
         '<points label="3" points="0,0" outside="1"/></skeleton>', [3, 2, 8, 4]),
    ],
)  # fmt: skip
def test_cvat_shapes_become_the_boxes_around_them(tmp_path: Path, shape: str, expected: list[float]) -> None:
    table = cvat_of(tmp_path, shape)
    assert not table.refused
    assert np.allclose(table.rows[0]["boxes"], [expected])
    assert table.row_notes[0][0][0] == "BOX_OUTLINE"


def test_cvat_a_single_point_sets_its_image_aside(tmp_path: Path) -> None:
    table = cvat_of(tmp_path, '<box label="a" xtl="1" ytl="1" xbr="2" ybr="2"/><points label="b" points="5,6"/>')
    assert table.row_problems[0].detail == "a single point has no box: b"


def test_cvat_tags_are_answers_where_there_are_no_shapes(tmp_path: Path) -> None:
    assert cvat_of(tmp_path, '<tag label="normal"/>').columns["answer"] == "tags"
    table = cvat_of(tmp_path, '<tag label="normal"/><box label="a" xtl="1" ytl="1" xbr="2" ybr="2"/>')
    assert table.columns["boxes"] == "boxes"
    assert table.rows[0]["tags"] == ["normal"]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ('<box label="a" xtl="1" ytl="1" xbr="2"/>', "no ybr"),
        ('<box xtl="1" ytl="1" xbr="2" ybr="3"/>', "has no label"),
        ('<blob label="a"/>', "blob 'a' in a.png: known are box"),
    ],
)
def test_cvat_refuses_by_name(tmp_path: Path, shape: str, said: str) -> None:
    (refused,) = cvat_of(tmp_path, shape).refused
    assert said in refused


def test_cvat_of_a_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<annotations><track id="0" label="a"/></annotations>')
    assert "tracks of a video" in cvat.read(tmp_path / "a.xml").refused[0]


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    images = tmp_path / "elsewhere"
    write_images(images, SET)
    write_coco(tmp_path / "coco" / "a.json", SET)
    write_voc(tmp_path / "voc", SET)
    write_cvat(tmp_path / "cvat" / "a.xml", SET)
    write_yolo(tmp_path / "yolo", SET)
    shutil.rmtree(tmp_path / "yolo" / "images")
    assert_same(coco.read(tmp_path / "coco" / "a.json", images))
    assert_same(voc.read(tmp_path / "voc", images))
    assert_same(cvat.read(tmp_path / "cvat" / "a.xml", images))
    for split in ("train", "val"):
        write_images(tmp_path / "pictures" / split, [image for image in SET if image.split == split])
    assert_same(yolo.read(tmp_path / "yolo", tmp_path / "pictures"))
