"""Boxes of tables: however they are written, and whatever they are written in."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medvl.errors import DataError, UsageError
from medvl.sharegpt import Record, read_records
from medvl.sources.tables.box_order import Drawn, settle
from medvl.sources.tables.shapes import Shape, shapes_in
from preprocess.table import main

ASK = ["--question", "Where are the cysts?"]
PIXELS = [*ASK, "--source-frame", "pixel"]
BOX = [10, 20, 40, 60]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place in range(24):
        Image.new("RGB", (640, 480), (10 * place, 60, 40)).save(tmp_path / f"p{place}.png")
    return tmp_path


def convert(folder: Path, table: str, *more: str) -> int:
    (folder / "mine.csv").write_text(table)
    return main([str(folder / "mine.csv"), "--name", "mine", "--out", str(folder / "out"), "--dataset-info",
                 str(folder / "info.json"), "--workers", "1", "--contamination", "off", *more])  # fmt: skip


def records(folder: Path) -> list[Record]:
    return read_records(folder / "out/mine_all_train.json")


def codes(folder: Path) -> dict[str, str]:
    report = json.loads((folder / "out/report.json").read_text())
    return {finding["code"]: finding["detail"].partition(": ")[2] for finding in report["findings"]}


# Cells


@pytest.mark.parametrize(
    "cell",
    [
        "[10, 20, 40, 60]", "[10 20 40 60]", "10 20 40 60", "10,20,40,60", "10;20;40;60", "(10, 20, 40, 60)",
        "[[10 20 40 60]]",
        "[10.0  20.  40 6e1]", "[[10, 20, 40, 60]]", [10, 20, 40, 60], [[10, 20, 40, 60]], ["10", "20", "40", "60"],
        '{"bbox": [10, 20, 40, 60]}', "[{'bbox': [10, 20, 40, 60]}]", ["[10 20 40 60]"],
    ],
)  # fmt: skip
def test_a_box_in_a_cell(cell: Any) -> None:
    assert shapes_in(cell) == (Shape((10, 20, 40, 60)),)


@pytest.mark.parametrize(
    ("cell", "shapes"),
    [
        ("", ()), (None, ()), ("[]", ()), ([], ()), (float("nan"), ()),
        ("[10 20 40 60] [1 2 3 4]", (Shape((10, 20, 40, 60)), Shape((1, 2, 3, 4)))),
        ("10 20 40 60; 1 2 3 4", (Shape((10, 20, 40, 60)), Shape((1, 2, 3, 4)))),
        ("10,20,40,60|1,2,3,4", (Shape((10, 20, 40, 60)), Shape((1, 2, 3, 4)))),
        ('{"cyst": [[10, 20, 40, 60]]}', (Shape((10, 20, 40, 60), label="cyst"),)),
        ('[{"bbox": [1, 2, 3, 4], "label": "a"}]', (Shape((1, 2, 3, 4), label="a"),)),
        ({"id": 7, "x": 10, "y": 20, "w": 30, "h": 40, "name": "a"}, (Shape((10, 20, 40, 60), True, "a"),)),
        ({"xmin": 10, "ymin": 20, "xmax": 40, "ymax": 60}, (Shape((10, 20, 40, 60), True),)),
        ("[[10, 20], [40, 60]]", (Shape((10, 20, 40, 60), True),)),  # two corners
        ("[[10, 20], [40, 25], [30, 60]]", (Shape((10, 20, 40, 60), True, outline=True),)),
        ([{"x": 10, "y": 20}, {"x": 40, "y": 25}, {"x": 30, "y": 60}], (Shape((10, 20, 40, 60), True, outline=True),)),
        ("[10, 20, 40, 25, 30, 60]", (Shape((10, 20, 40, 60), True, outline=True),)),
        ({"points": [[10, 20], [40, 25], [30, 60]], "label": "a"}, (Shape((10, 20, 40, 60), True, "a", True),)),
    ],
)  # fmt: skip
def test_objects_in_a_cell(cell: Any, shapes: tuple[Shape, ...]) -> None:
    assert shapes_in(cell) == shapes


@pytest.mark.parametrize(
    "cell", ["none", "cyst 1 2 3 4", "1 2 3", "[1, 2, 3]", {"a": 1}, 7, "[1, 2, 3, true]", "1 2 3 x", "1 2 3 1e999"]
)
def test_a_cell_without_a_box_is_not_guessed_at(cell: Any) -> None:
    with pytest.raises(ValueError, match=r"box|numbers"):
        shapes_in(cell)


# Rows


@pytest.mark.parametrize(
    ("header", "first", "second", "order"),
    [
        ("xmin,ymin,xmax,ymax", "10,20,40,60", "10,220,40,260", "xyxy"),
        ("x1,y1,x2,y2", "10,20,40,60", "10,220,40,260", "xyxy"),
        ("x,y,w,h", "10,20,30,40", "10,220,30,40", "xywh"),
        ("left,top,width,height", "10,20,30,40", "10,220,30,40", "xywh"),
        ("x_center,y_center,width,height", "25,40,30,40", "25,240,30,40", "cxcywh"),
        ("bbox", "[10 20 30 40]", "[10 220 30 40]", "xywh"),
        ("bbox", "[25 40 30 40]", "[25 240 30 40]", "cxcywh"),
    ],
)
def test_a_row_per_box_is_grouped_by_image(folder: Path, header: str, first: str, second: str, order: str) -> None:
    empty = "," * header.count(",")
    rows = [f"p1.png,{first},cyst", f"p2.png,{empty},", f"p1.png,{second},tumour", f"p1.png,{first},cyst"]
    more = ["--box-format", order] if header == "bbox" else []
    assert convert(folder, "\n".join([f"image,{header},label", *rows]), *PIXELS, *more) == 0
    found, negative = records(folder)
    assert json.loads(found.source.answer) == {"cyst": [[10, 20, 40, 60]], "tumour": [[10, 220, 40, 260]]}
    assert (negative.target, negative.source.index) == ("[]", 1)
    assert codes(folder)["BOX_REPEATED"] == "1 of 3 boxes"


def test_boxes_of_an_image_in_one_cell(folder: Path) -> None:
    rows = ['p1.png,"[[10, 20, 40, 60], [1, 2, 30, 40]]","[""cyst"", ""tumour""]"', 'p2.png,"[[10, 20, 40, 60]]",cyst',
            "p3.png,[],", 'p4.png,"[[10, 20, 40, 60]]","[""a"", ""b""]"']  # fmt: skip
    assert convert(folder, "\n".join(["image,bbox,label", *rows]), *PIXELS, "--box-format", "xyxy") == 0
    answers = [json.loads(record.source.answer) for record in records(folder)]
    assert answers == [{"cyst": [[10, 20, 40, 60]], "tumour": [[1, 2, 30, 40]]}, {"cyst": [[10, 20, 40, 60]]}, []]
    assert codes(folder)["ANSWER_UNUSABLE"] == "row 3: 1 boxes and 2 labels"


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ("p1.png,10,20,,60,cyst", "row 0: a box with 3 of its four numbers"),
        ("p1.png,10,20,ten,60,cyst", "row 0: 'ten' is no number"),
        ("p1.png,,,,,cyst", "row 0: the label 'cyst' without a box"),
        ("p1.png,,,,,No finding\np1.png,10,20,40,60,cyst", "row 0 says that there is nothing, and other rows"),
    ],
)
def test_a_row_that_says_no_box_is_set_aside(folder: Path, row: str, detail: str) -> None:
    others = "p2.png,1,2,30,40,cyst\np3.png,,,,,No finding\n"
    assert convert(folder, f"image,xmin,ymin,xmax,ymax,label\n{row}\n{others}", *PIXELS) == 0
    assert detail in codes(folder)["ANSWER_UNUSABLE"]
    assert [json.loads(record.source.answer) for record in records(folder)] == [{"cyst": [[1, 2, 30, 40]]}, []]


def test_decimal_commas_in_boxes(folder: Path) -> None:
    assert convert(folder, "Bild;xmin;ymin;xmax;ymax;Klasse\np1.png;10,5;20;40,25;60;Zyste\n", *PIXELS) == 0
    assert json.loads(records(folder)[0].source.answer) == {"Zyste": [[10.5, 20, 40.25, 60]]}


def test_masks_become_the_boxes_around_them(folder: Path) -> None:
    mask = Image.new("L", (640, 480))
    mask.paste(255, (10, 20, 40, 60))
    mask.paste(7, (100, 200, 130, 210))
    mask.save(folder / "m1.png")
    Image.new("L", (640, 480)).save(folder / "m2.png")
    Image.new("L", (64, 48), 1).save(folder / "m3.png")
    rows = ["p1.png,m1.png", "p2.png,m2.png", "p3.png,m3.png", "p4.png,m4.png", "p5.png,"]
    assert convert(folder, "\n".join(["image,mask", *rows]), "--columns", "boxes=mask", *ASK) == 0
    answers = [json.loads(record.source.answer) for record in records(folder)]
    assert answers == [[[10, 20, 40, 60], [100, 200, 130, 210]], [], []]
    problems = json.loads((folder / "out/report.json").read_text())["findings"]
    assert ["is 64 x 48, its image 640 x 480" in found["detail"] for found in problems].count(True) == 1
    assert ["cannot be read" in found["detail"] for found in problems].count(True) == 1


def test_run_lengths_become_the_boxes_around_them(folder: Path) -> None:
    runs = " ".join(f"{column * 480 + 21} 40" for column in range(10, 40))  # rows 20 to 59
    coco = json.dumps({"size": [480, 640], "counts": [10 * 480 + 20, 40, 480 - 40, 40, 629 * 480 - 100]})
    table = "\n".join(["image;EncodedPixels", f"p1.png;{runs}", "p2.png;-1", "p1.png;1 480", f"p3.png;{coco}",
                       "p4.png;0 4", "p5.png;307200 2"])  # fmt: skip
    assert convert(folder, table, *ASK, "--separator", "semicolon") == 0
    answers = [json.loads(record.source.answer) for record in records(folder)]
    assert answers == [[[10, 20, 40, 60], [0, 0, 1, 480]], [], [[10, 20, 12, 60]]]
    assert "run lengths that leave an image of 640 x 480" in codes(folder)["ANSWER_UNUSABLE"]


# Order and frame


def drawn(boxes: Sequence[Sequence[float]], size: tuple[int, int] | None = (640, 480)) -> list[Drawn]:
    return [Drawn(row, (Shape(tuple(box)),), size) for row, box in enumerate(boxes)]


SPREAD = [(25 * place, 18 * place, 25 * place + 40, 18 * place + 30) for place in range(24)]  # to 615, 444
SIDES = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in SPREAD]
CENTRES = [((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1) for x1, y1, x2, y2 in SPREAD]


def scaled(boxes: Sequence[Sequence[float]], by: float) -> list[list[float]]:
    return [[x / 640 * by, y / 480 * by, z / 640 * by, w / 480 * by] for x, y, z, w in boxes]


@pytest.mark.parametrize(
    ("boxes", "order", "frame", "found"),
    [
        (SPREAD, "xyxy", None, ("xyxy", "pixel")),
        (scaled(SPREAD, 1), "xyxy", None, ("xyxy", "norm1")),
        (scaled(SPREAD, 1000), "xyxy", None, ("xyxy", "norm1000")),
        (SPREAD, None, "pixel", ("xyxy", "pixel")),
        (scaled(CENTRES, 1), "cxcywh", None, ("cxcywh", "norm1")),
        (SIDES, "xywh", "pixel", ("xywh", "pixel")),
        ([], None, None, ("xyxy", "pixel")),
    ],
)
def test_order_and_frame_are_told_by_all_boxes(boxes: Any, order: Any, frame: Any, found: tuple[str, str]) -> None:
    assert settle(drawn(boxes), order, frame) == found


@pytest.mark.parametrize(
    ("boxes", "order", "frame", "message"),
    [
        ([BOX], "xyxy", None, "1 of 1 boxes fit xyxy in pixels; 1 of 1 boxes fit xyxy in 0-1000 .*; say --source"),
        ([BOX], None, "pixel", "fit xyxy in pixels; 1 of 1 boxes fit xywh in pixels.* say --box-format xyxy|xywh"),
        (SIDES, None, "pixel", "24 of 24 boxes fit xywh in pixels"),
        ([*SPREAD, (0.1, 0.2, 0.3, 0.4)], "xyxy", None, "1 of 25 in 0-1, as in row 24, others not, as in row 0"),
        ([*SPREAD[12:], *SIDES[12:]], None, "pixel", "not of one kind: 12 of 24 boxes fit xyxy in pixels"),
    ],
)  # fmt: skip
def test_what_boxes_are_is_asked_for_where_their_numbers_do_not_tell(
    boxes: Any, order: Any, frame: Any, message: str
) -> None:
    with pytest.raises((UsageError, DataError), match=message.replace("|", r"\|")):
        settle(drawn(boxes), order, frame)


def test_the_frame_that_was_told_is_stated_in_the_manifest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"p{place}.png,{x1},{y1},{x2},{y2}" for place, (x1, y1, x2, y2) in enumerate(scaled(SPREAD, 1))]
    assert convert(folder, "\n".join(["image,xmin,ymin,xmax,ymax", *rows]), *ASK) == 0
    assert re.search(r"frame of boxes\s+│ norm1", capsys.readouterr().out)
    manifest = json.loads((folder / "out/manifest.json").read_text())
    assert manifest["options"]["source_frame"] == "norm1"
    boxes = [json.loads(record.source.answer)[0] for record in records(folder)]
    assert boxes == [pytest.approx(box) for box in SPREAD]
    assert "COORDINATE_RANGE" not in codes(folder)
