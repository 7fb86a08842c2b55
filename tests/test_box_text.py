"""Boxes as text: what each style writes, and what the one parser reads, repairs and refuses."""

import json
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvl.box_text import BOX_STYLES, MAX_CHARACTERS, BoxStyle, ParsedBoxes, format_boxes, parse_boxes
from medvl.box_words import STRUCTURAL_KEYS
from medvl.boxes import Boxes, Frame, Size, as_boxes, from_frame, to_frame

TWO = as_boxes([[1, 2, 3, 4], [5, 6, 7, 8]])
LABELLED: list[BoxStyle] = ["json", "internvl", "qwen_vl1", "map"]


def read(text: str) -> tuple[list[list[float]], tuple[str | None, ...], dict[str, int]]:
    parsed = parse_boxes(text)
    return parsed.boxes.tolist(), parsed.labels, parsed.notes


@pytest.mark.parametrize(
    ("style", "labels", "text"),
    [
        ("json", ["a", None], '[{"bbox_2d":[1,2,3,4],"label":"a"},{"bbox_2d":[5,6,7,8]}]'),
        ("flare", ["a", "b"], "[[1, 2, 3, 4], [5, 6, 7, 8]]"),
        ("map", ["X", "X"], '{"X":[[1,2,3,4],[5,6,7,8]]}'),
        ("internvl", ["a", "a"], "<ref>a</ref><box>[[1,2,3,4],[5,6,7,8]]</box>"),
        ("internvl", ["a", None], "<box>[[5,6,7,8]]</box><ref>a</ref><box>[[1,2,3,4]]</box>"),
        ("qwen_vl1", ["a", "a"], "<ref>a</ref><box>(1,2),(3,4)</box><ref>a</ref><box>(5,6),(7,8)</box>"),
        ("qwen_vl1", [None, None], "<box>(1,2),(3,4)</box><box>(5,6),(7,8)</box>"),
    ],
)
def test_what_a_style_writes(style: BoxStyle, labels: list[str | None], text: str) -> None:
    assert format_boxes(TWO, labels, style, "norm1000") == text


@pytest.mark.parametrize(
    ("frame", "text"),
    [("norm1000", "[[10, 0, 0, 1]]"), ("norm1", "[[10, 0.125, 0.13, 1]]"), ("pixel", "[[10, 0.12, 0.13, 1]]")],
)
def test_decimals_follow_the_frame(frame: Frame, text: str) -> None:
    assert format_boxes(as_boxes([10.0, 0.125, 0.13, 0.9999]), [None], "flare", frame) == text


@pytest.mark.parametrize("style", BOX_STYLES)
def test_no_boxes_are_written_and_read_as_none(style: BoxStyle) -> None:
    parsed = parse_boxes(format_boxes(as_boxes([]), [], style, "norm1000"))
    assert (len(parsed.boxes), parsed.explicit_empty, parsed.parsed, parsed.notes) == (0, True, True, {})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param('{"RBC": [[1, 2, 3, 4]], "WBC": []}', ("WBC",), id="map"),
        pytest.param('{"WBC": [], "RBC": {}}', ("WBC", "RBC"), id="nothing-of-all"),
        pytest.param(
            '[{"label": "WBC", "boxes": []}, {"label": "RBC", "boxes": [[1, 2, 3, 4]]}]', ("WBC",), id="objects"
        ),
        pytest.param("<ref>WBC</ref><box>[]</box><ref>RBC</ref><box>[[1, 2, 3, 4]]</box>", ("WBC",), id="internvl"),
        pytest.param("<ref>WBC</ref><box></box>", ("WBC",), id="qwen_vl1"),
        pytest.param('{"boxes": [], "labels": []}', (), id="keys-are-no-names"),
        pytest.param('{"bbox": [1, 2, 3, 4], "attributes": []}', (), id="attributes-are-no-objects"),
        pytest.param("[]", (), id="nothing-named"),
    ],
)
def test_names_of_which_there_is_no_box(text: str, names: tuple[str, ...]) -> None:
    assert parse_boxes(text).empty_labels == names


@pytest.mark.parametrize("style", ["map", "internvl", "qwen_vl1"])
@pytest.mark.parametrize("boxes", [TWO, as_boxes([])])
def test_names_without_a_box_are_written_and_read(style: BoxStyle, boxes: Boxes) -> None:
    parsed = parse_boxes(format_boxes(boxes, ["RBC"] * len(boxes), style, "norm1000", empty_labels=["WBC"]))
    assert (parsed.boxes.tolist(), parsed.empty_labels, parsed.notes) == (boxes.tolist(), ("WBC",), {})
    assert parsed.parsed


def test_the_frame_that_a_text_states_wins() -> None:
    parsed = parse_boxes('{"box_2d": [250, 100, 1000, 500]}')
    assert parsed.frame == "norm1000"
    for frame in Frame:
        assert parsed.pixels((640, 480), frame) == pytest.approx(np.array([[64, 120, 320, 480]]))
    assert parse_boxes('{"bbox_2d": [250, 100, 1000, 500]}').pixels((640, 480), "pixel").tolist() == [
        [250, 100, 1000, 500]
    ]


@pytest.mark.parametrize("frame", Frame)
@pytest.mark.parametrize("number", [1e18, 1e300, -1e18])
def test_large_numbers_are_written_as_they_are(frame: Frame, number: float) -> None:
    written = json.loads(format_boxes(as_boxes([number, 0, 1, 1]), [None], "flare", frame))
    assert written == [[number, 0, 1, 1]]


def test_numbers_that_are_not_finite_are_never_written() -> None:
    with pytest.raises(ValueError, match="not finite"):
        format_boxes(as_boxes([np.inf, 0, 1, 1]), [None], "flare", "norm1000")


def test_labels_must_match_the_boxes() -> None:
    with pytest.raises(ValueError, match="2 boxes but 1 labels"):
        format_boxes(TWO, ["a"], "json", "norm1000")
    with pytest.raises(ValueError, match="needs a label for every box"):
        format_boxes(TWO, ["a", None], "map", "norm1000")


BOX = [1.0, 2.0, 3.0, 4.0]
OTHER = [5.0, 6.0, 7.0, 8.0]


@pytest.mark.parametrize(
    ("text", "boxes", "labels", "notes"),
    [
        # Shapes
        pytest.param("[[1, 2, 3, 4]]", [BOX], (None,), {}, id="nested"),
        pytest.param("[1, 2, 3, 4]", [BOX], (None,), {}, id="flat"),
        pytest.param("1, 2, 3, 4", [BOX], (None,), {"bare_numbers": 1}, id="bare-numbers-are-the-whole-answer"),
        pytest.param("[1, 2, 3, 4, 5, 6, 7, 8]", [BOX, OTHER], (None, None), {"flattened": 1}, id="flat-eight"),
        pytest.param("[[1, 2], [3, 4]]", [BOX], (None,), {"corner_pairs": 1}, id="corner-pairs"),
        pytest.param("(1, 2), (3, 4)", [BOX], (None,), {}, id="corner-pairs-in-parentheses"),
        pytest.param("[1, 2, 3, 4] and [5, 6, 7, 8].", [BOX, OTHER], (None, None), {}, id="lists-in-a-sentence"),
        pytest.param("[[.5, 2., 1.5, 1e2]]", [[0.5, 2.0, 1.5, 100.0]], (None,), {}, id="floats"),
        pytest.param("[\n  1,\n  2,\n  3,\n  4\n]", [BOX], (None,), {}, id="one-number-per-line"),
        pytest.param('[{"x1": 1, "y1": 2, "x2": 3, "y2": 4}]', [BOX], (None,), {}, id="keyed-corners"),
        pytest.param('{"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4, "label": "a"}', [BOX], ("a",), {}, id="xmin"),
        pytest.param('{"left": 1, "top": 2, "right": 3, "bottom": 4}', [BOX], (None,), {}, id="left-top"),
        pytest.param('{"x": 1, "y": 2, "width": 2, "height": 2}', [BOX], (None,), {"xywh": 1}, id="xywh"),
        pytest.param(
            '{"bbox": {"x1": 1, "y1": 2, "x2": 3, "y2": 4}, "label": "a"}', [BOX], ("a",), {}, id="keyed-inside"
        ),
        pytest.param("<box>[[1,2,3,4]]</box>", [BOX], (None,), {}, id="internvl"),
        pytest.param("<|box_start|>(1,2),(3,4)<|box_end|>", [BOX], (None,), {}, id="qwen2-special-tokens"),
        pytest.param(
            "<|object_ref_start|>a<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
            [BOX],
            ("a",),
            {},
            id="qwen2-reference",
        ),
        # Labels
        pytest.param(
            '{"1": [[1, 2, 3, 4]], "X": [5, 6, 7, 8]}', [BOX, OTHER], ("1", "X"), {}, id="map-nested-and-flat"
        ),
        pytest.param('{"X": [[1, 2, 3, 4]], "Y": [[5, 6, 7, 8]]}', [BOX, OTHER], ("X", "Y"), {}, id="sex-chromosomes"),
        pytest.param("{1: [[1, 2, 3, 4]]}", [BOX], ("1",), {}, id="int-keys"),
        pytest.param('[{"label": "a", "bbox_2d": [1, 2, 3, 4]}]', [BOX], ("a",), {}, id="label-first"),
        pytest.param('[{"id": 3, "box": [1, 2, 3, 4]}]', [BOX], ("3",), {}, id="label-is-a-number"),
        pytest.param('{"lesion": {"bbox": [1, 2, 3, 4], "score": 0.9}}', [BOX], ("lesion",), {}, id="label-above"),
        pytest.param(
            '{"lesion": {"x1": 1, "y1": 2, "x2": 3, "y2": 4}}', [BOX], ("lesion",), {}, id="label-above-corners"
        ),
        pytest.param("{'label': 'a', 'bbox': [1, 2, 3, 4]}", [BOX], ("a",), {}, id="single-quotes"),
        pytest.param(
            "{'label': 'Crohn's disease', 'bbox': [1, 2, 3, 4]}",
            [BOX],
            ("Crohn's disease",),
            {},
            id="apostrophe-in-single-quotes",
        ),
        pytest.param('{"label": "caf\\u00e9 \\"x\\"", "bbox": [1, 2, 3, 4]}', [BOX], ('café "x"',), {}, id="escapes"),
        pytest.param('{"label": "\\ud83d", "bbox": [1, 2, 3, 4]}', [BOX], ("�",), {}, id="half-an-escaped-pair"),
        # Wrapping
        pytest.param("```json\n[[1, 2, 3, 4]]\n```", [BOX], (None,), {}, id="fenced"),
        pytest.param("Sure! The lesion is at [1, 2, 3, 4], I think.", [BOX], (None,), {}, id="prose-around"),
        pytest.param(
            "There are 2 lesions (Fig. 3): [[1, 2, 3, 4]]", [BOX], (None,), {"numbers_unread": 2}, id="numbers-in-prose"
        ),
        pytest.param("[x_min, y_min, x_max, y_max] = [1, 2, 3, 4]", [BOX], (None,), {}, id="legend-repeated"),
        pytest.param('"[[1, 2, 3, 4]]"', [BOX], (None,), {}, id="json-in-a-string"),
        pytest.param('"{\\"X\\": [[1, 2, 3, 4]]}"', [BOX], ("X",), {}, id="map-in-a-string"),
        pytest.param('{"answer": "{\\"X\\": [[1, 2, 3, 4]]}"}', [BOX], ("X",), {}, id="map-in-a-string-in-a-map"),
        pytest.param('{"X": "[[1, 2, 3, 4]]"}', [BOX], ("X",), {}, id="list-in-a-string-under-its-key"),
        pytest.param(
            '{"note": "mass (2 cm", "bbox": [1, 2, 3, 4], "label": "a"}', [BOX], ("a",), {}, id="brackets-in-a-remark"
        ),
        pytest.param("1. **lesion**: [1, 2, 3, 4]\n2. none", [BOX], (None,), {}, id="markdown-list"),
        # As written
        pytest.param("[[3, 4, 1, 2]]", [[3, 4, 1, 2]], (None,), {"inverted": 1}, id="inverted-box-is-kept"),
        pytest.param("[[3, 4, 3, 4]]", [[3, 4, 3, 4]], (None,), {}, id="zero-area-box-is-kept"),
        pytest.param("[[-5, 0, 1200, 9]]", [[-5, 0, 1200, 9]], (None,), {}, id="outside-the-picture-is-kept"),
        pytest.param("[[1, 2, 3, 4], [1, 2, 3, 4]]", [BOX, BOX], (None, None), {}, id="repeated-box-is-kept"),
        # Labels of several boxes, and beside their numbers
        pytest.param('{"boxes":[[1,2,3,4]],"labels":["WBC"]}', [BOX], ("WBC",), {}, id="labels-beside-boxes"),
        pytest.param(
            '{"labels":["a","b"],"bboxes":[[1,2,3,4],[5,6,7,8]]}',
            [BOX, OTHER],
            ("a", "b"),
            {},
            id="labels-before-boxes",
        ),
        pytest.param(
            '{"boxes":[{"x1":1,"y1":2,"x2":3,"y2":4},[5,6,7,8]],"classes":["a","b"]}',
            [BOX, OTHER],
            ("a", "b"),
            {},
            id="classes-beside-keyed-corners",
        ),
        pytest.param(
            '{"boxes":[[1,2,3,4],[5,6,7,8]],"labels":"a"}', [BOX, OTHER], ("a", "a"), {}, id="one-label-for-all"
        ),
        pytest.param(
            '{"boxes":[[1,2,3,4],[5,6,7,8]],"labels":[7,"b"],"scores":[0.9,0.8]}',
            [BOX, OTHER],
            ("7", "b"),
            {},
            id="scores-are-no-corners",
        ),
        pytest.param('{"boxes":[[1,2,3,4]],"scores":[0.9,0.8,0.7,0.6]}', [BOX], (None,), {}, id="scores-are-no-box"),
        pytest.param(
            '{"boxes":[[1,2,3,4],[5,6,7,8]],"labels":["a"]}',
            [BOX, OTHER],
            (None, None),
            {"label_count": 1},
            id="labels-too-few",
        ),
        pytest.param('[[1,2,3,4,"a"],["b",5,6,7,8]]', [BOX, OTHER], ("a", "b"), {}, id="label-among-the-numbers"),
        pytest.param('[["a",[1,2,3,4]]]', [BOX], (None,), {"words_unread": 1}, id="label-beside-the-list"),
        pytest.param("<|ref|>cat<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>", [BOX], ("cat",), {}, id="deepseek"),
        # Beside the boxes
        pytest.param("[[1, 2, 3, 4], []]", [BOX], (None,), {"empty_beside": 1}, id="empty-list-among-boxes"),
        pytest.param(
            "[[], [[1, 2, 3, 4]], [[]], [[5, 6, 7, 8]]]",
            [BOX, OTHER],
            (None, None),
            {"empty_beside": 2, "grouped": 1},
            id="a-list-per-picture",
        ),
        pytest.param(
            "[[[1, 2, 3, 4]], [[5, 6, 7, 8]]]", [BOX, OTHER], (None, None), {"grouped": 1}, id="lists-of-lists"
        ),
        pytest.param("[[[1, 2, 3, 4], [5, 6, 7, 8]]]", [BOX, OTHER], (None, None), {}, id="one-list-too-many"),
        pytest.param('{"RBC": [[1, 2, 3, 4]], "WBC": null}', [BOX], ("RBC",), {"empty_beside": 1}, id="null-in-a-map"),
        pytest.param(
            '[[1, 2, 3, 4], "5, 6, 7, 8"]', [BOX, OTHER], (None, None), {"bare_numbers": 1}, id="string-of-numbers"
        ),
        pytest.param(
            '{"bbox": "1, 2, 3, 4", "label": "a"}', [BOX], ("a",), {"bare_numbers": 1}, id="string-under-a-key"
        ),
        pytest.param("[[1, 2, 3, 4]] and 5, 6, 7, 8", [BOX], (None,), {"numbers_unread": 4}, id="numbers-behind-boxes"),
        pytest.param(
            "Image 2: [[1, 2, 3, 4]]; image 4: [5, 6, 7, 8]",
            [BOX, OTHER],
            (None, None),
            {"numbers_unread": 2},
            id="numbered-pictures",
        ),
        # One object, one box
        pytest.param('[{"points":[[1,3],[2,2],[3,3],[2,4]]}]', [BOX], (None,), {"polygon": 1}, id="polygon"),
        pytest.param(
            '{"shapes":[{"label":"a","points":[[1,2],[3,4]],"shape_type":"rectangle"}]}',
            [BOX],
            ("a",),
            {"corner_pairs": 1},
            id="labelme-rectangle",
        ),
        pytest.param(
            '[{"label":"a","polygon":[{"x":1,"y":3},{"x":3,"y":2},{"x":2,"y":4}]}]',
            [BOX],
            ("a",),
            {"polygon": 1},
            id="polygon-of-keyed-points",
        ),
        pytest.param(
            '{"segmentation":[[1,3,2,2,3,3,2,4]],"label":"a"}', [BOX], ("a",), {"polygon": 1}, id="coco-polygon"
        ),
        pytest.param('{"segmentation":[[1,3,2,2],[3,3,2,4]]}', [BOX], (None,), {"polygon": 1}, id="polygon-in-parts"),
        pytest.param(
            '{"bbox":[1,2,3,4],"segmentation":[[9,9,2,2,3,3,2,4]],"label":"a"}',
            [BOX],
            ("a",),
            {},
            id="box-beside-its-polygon",
        ),
        pytest.param(
            '{"segmentation":[[9,9,2,2,3,3,2,4]],"bbox":[1,2,3,4],"label":"a"}',
            [BOX],
            ("a",),
            {},
            id="box-behind-its-polygon",
        ),
        pytest.param("[[1, 3], [2, 2], [3, 3], [2, 4]]", [BOX], (None,), {"polygon": 1}, id="bare-points"),
        pytest.param("[[1, 3], [2, 2], [3, 4]]", [BOX], (None,), {"polygon": 1}, id="triangle"),
        pytest.param(
            "[[[1, 3], [2, 2], [3, 3], [2, 4]], [[5, 6], [7, 8], [5, 8]]]",
            [BOX, OTHER],
            (None, None),
            {"polygon": 2},
            id="two-polygons",
        ),
        pytest.param("[(1, 2), (3, 4), (5, 6), (7, 8)]", [BOX, OTHER], (None, None), {}, id="pairs-that-are-boxes"),
        pytest.param("<quad>(1,3),(2,2),(3,3),(2,4)</quad>", [BOX], (None,), {"polygon": 1}, id="quad"),
        pytest.param(
            "<|quad_start|>(1,3),(2,2),(3,3),(2,4)<|quad_end|>", [BOX], (None,), {"polygon": 1}, id="qwen2-quad"
        ),
        pytest.param("[[1,3,2,2,3,3,2,4]]", [], (), {"number_count": 1}, id="polygon-or-inverted-boxes"),
        pytest.param(
            '{"segmentation":{"size":[480,640],"counts":[1,2,3,4]},"label":"a"}', [], (), {"mask": 1}, id="mask"
        ),
        pytest.param(
            '{"mask":{"size":[480,640],"counts":"a0b"},"bbox":[1,2,3,4]}', [BOX], (None,), {}, id="mask-and-box"
        ),
        pytest.param(
            '[{"x":1,"y":2,"width":2,"height":2,"angle":30}]', [], (), {"rotated": 1, "xywh": 1}, id="rotated"
        ),
        pytest.param(
            '[{"bbox":[1,2,3,4],"angle":30},{"bbox":[5,6,7,8],"angle":0}]',
            [OTHER],
            (None,),
            {"rotated": 1},
            id="rotated-box-and-one-that-is-not",
        ),
        pytest.param('{"cx":2,"cy":3,"w":2,"h":2}', [BOX], (None,), {"xywh": 1}, id="centre"),
        pytest.param('{"bbox_xywh":[1,2,2,2],"label":"a"}', [BOX], ("a",), {"xywh": 1}, id="sides-by-key"),
        pytest.param(
            '[{"cxcywh":[2,3,2,2]},{"xyxy":[5,6,7,8]}]', [BOX, OTHER], (None, None), {"xywh": 1}, id="centre-by-key"
        ),
        pytest.param(
            '{"image_id":1,"category_id":3,"bbox":[1,2,3,4],"iscrowd":0}', [BOX], ("3",), {"coco_sides": 1}, id="coco"
        ),
        # y first
        pytest.param('[{"box_2d": [2, 1, 4, 3], "label": "a"}]', [BOX], ("a",), {}, id="gemini"),
        pytest.param('{"box_2d": [[2, 1], [4, 3]]}', [BOX], (None,), {"corner_pairs": 1}, id="gemini-corners"),
        pytest.param(
            '[{"box_2d": [2, 1, 4, 3]}, {"bbox_2d": [5, 6, 7, 8]}]',
            [BOX],
            (None,),
            {"mixed_frames": 1},
            id="two-frames-in-one-answer",
        ),
        # Refused
        pytest.param(
            "[[1000000000000000000, 3, 4, 5]]",
            [[1e9, 3, 4, 5]],
            (None,),
            {"inverted": 1, "too_large": 1},
            id="no-picture-is-so-large",
        ),
        pytest.param(
            "[[1, 2, 1e308, -1e308]]",
            [[1, 2, 1e9, -1e9]],
            (None,),
            {"inverted": 1, "too_large": 1},
            id="largest-floats",
        ),
        pytest.param("[[1, 2, 3, 4], [5, 6, 7", [BOX], (None,), {"truncated": 1}, id="cut-off-list"),
        pytest.param('{"1": [[1, 2, 3, 4]], "2": [[5, 6, 7, 8', [BOX], ("1",), {"truncated": 1}, id="cut-off-map"),
        pytest.param("[[1, 2, 3], [5, 6, 7, 8]]", [OTHER], (None,), {"number_count": 1}, id="three-numbers"),
        pytest.param("[NaN, 1, 2, 3]", [], (), {"number_count": 1}, id="not-a-number"),
        pytest.param(
            '[[5, 6, 7, 8], ["1", "2", "3", "4"]]', [OTHER], (None,), {"number_count": 1}, id="quoted-numbers"
        ),
        pytest.param("[[5, 6, 7, 8], [a, b, c, d]]", [OTHER], (None,), {"number_count": 1}, id="words-for-numbers"),
        pytest.param(
            '{"1": [[5, 6, 7, 8]], "2": [[null, null, null, null]]}',
            [OTHER],
            ("1",),
            {"number_count": 1},
            id="nulls-for-numbers",
        ),
        pytest.param("[1e999, 1, 2, 3]", [], (), {"not_finite": 1}, id="infinite"),
        pytest.param(f"[{'9' * 400}, 1, 2, 3]", [], (), {"not_finite": 1}, id="huge-number"),
        pytest.param("[\u0661, \u0662, \u0663, \u0664]", [], (), {}, id="digits-of-another-script"),
        pytest.param('{"x1": 1, "y1": 2, "x2": 3}', [], (), {"number_count": 1}, id="three-corners"),
        pytest.param("1, 2, 3, 4, 5", [], (), {}, id="five-bare-numbers"),
        pytest.param("There are 4 lesions at 1, 2, 3, 4", [], (), {}, id="bare-numbers-in-prose"),
    ],
)
def test_what_is_read(
    text: str, boxes: list[list[float]], labels: tuple[str | None, ...], notes: dict[str, int]
) -> None:
    assert read(text) == (boxes, labels, notes)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        pytest.param("[]", True, id="empty-list"),
        pytest.param("{}", True, id="empty-map"),
        pytest.param("```json\n[]\n```", True, id="empty-list-fenced"),
        pytest.param('{"boxes": []}', True, id="empty-list-under-a-key"),
        pytest.param('{"1": [], "2": [[1, 2, 3', False, id="empty-list-but-cut-off"),
        pytest.param("[[]", False, id="empty-list-never-closed"),
        pytest.param("", False, id="nothing"),
        pytest.param("No lesion is visible.", False, id="prose"),
        pytest.param("[x_min, y_min, x_max, y_max]", False, id="legend"),
        pytest.param("[ ... ]", False, id="ellipsis"),
    ],
)
def test_whether_no_boxes_is_an_answer(text: str, parsed: bool) -> None:
    assert parse_boxes(text).parsed is parsed
    assert len(parse_boxes(text).boxes) == 0


# Labels that a style carries. `<` would end a reference; an empty name is no name; key words of boxes and labels name
# no object in a map. Half a surrogate pair is no text.
CHARACTERS = st.characters(codec="utf-8")
TAG_LABELS = st.text(CHARACTERS, min_size=1, max_size=12).map(lambda label: label.replace("<", "").strip()).filter(bool)
LABELS: dict[str, st.SearchStrategy[str | None]] = {
    "json": st.none() | st.text(CHARACTERS, min_size=1, max_size=12),
    "map": st.text(CHARACTERS, min_size=1, max_size=12).filter(lambda label: label.lower() not in STRUCTURAL_KEYS),
    "internvl": st.none() | TAG_LABELS,
    "qwen_vl1": st.none() | TAG_LABELS,
    "flare": st.none(),
}
SHARES = st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5)


def in_written_order(labels: list[str | None], style: BoxStyle) -> list[int]:
    """Positions of the boxes as the style writes them: all but `json` and `flare` put boxes of one label together."""
    if style in ("json", "flare"):
        return list(range(len(labels)))
    first = {label: labels.index(label) if label is not None else -1 for label in labels}
    return sorted(range(len(labels)), key=lambda i: first[labels[i]])


@pytest.mark.parametrize("frame", ["norm1000", "norm1"])
@pytest.mark.parametrize("style", BOX_STYLES)
@settings(max_examples=60)
@given(data=st.data(), size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)), shares=SHARES)
def test_pixels_to_text_and_back(
    style: BoxStyle, frame: Frame, data: st.DataObject, size: Size, shares: list[tuple[float, ...]]
) -> None:
    labels = data.draw(st.lists(LABELS[style], min_size=len(shares), max_size=len(shares)))
    sides = np.array([*size, *size], dtype=float)
    pixels = as_boxes(shares) * sides
    parsed = parse_boxes(format_boxes(to_frame(pixels, size, frame), labels, style, frame))
    order = in_written_order(labels, style)
    assert list(parsed.labels) == [labels[i] for i in order]
    difference = np.abs(from_frame(parsed.boxes, size, frame) - pixels[order]) / sides
    assert difference.max(initial=0) <= 0.5 / 1000 * (1 + 1e-9)


def test_a_label_that_a_tag_cannot_carry_still_gives_the_box() -> None:
    for style in ("internvl", "qwen_vl1"):
        text = format_boxes(as_boxes(BOX), ["<5 mm"], style, "norm1000")
        assert read(text)[:2] == ([BOX], (None,))


# A cut-off label that itself held brackets and numbers could not be told from a box.
SIMPLE = st.characters(codec="utf-8", exclude_characters="[](){}<>\"'\\0123456789")


@pytest.mark.parametrize("style", BOX_STYLES)
@settings(max_examples=25)
@given(data=st.data(), numbers=st.lists(st.tuples(*[st.integers(0, 1000)] * 4), min_size=1, max_size=4))
def test_a_cut_off_answer_never_holds_a_box_that_the_whole_does_not(
    style: BoxStyle, data: st.DataObject, numbers: list[tuple[int, ...]]
) -> None:
    names = st.text(SIMPLE, min_size=1, max_size=8).filter(lambda label: label.lower() not in STRUCTURAL_KEYS)
    labels = data.draw(st.lists(names, min_size=len(numbers), max_size=len(numbers)))
    if style == "flare":
        labels = [None] * len(numbers)  # type: ignore[list-item]
    text = format_boxes(as_boxes(numbers), labels, style, "norm1000")
    whole = parse_boxes(text)
    for end in range(len(text)):
        part = parse_boxes(text[:end])
        count = len(part.boxes)
        assert part.boxes.tolist() == whole.boxes.tolist()[:count]
        assert all(label in (None, known) for label, known in zip(part.labels, whole.labels, strict=False))


@settings(max_examples=300)
@given(st.text() | st.text(alphabet="[](){}<>box/ref\"'\\:,.-+eE0123456789 \n`aXlabel"))
def test_any_text_is_read_without_an_error(text: str) -> None:
    parsed = parse_boxes(text)
    assert parsed.boxes.shape == (len(parsed.labels), 4)
    assert np.isfinite(parsed.boxes).all()


VALID = [
    '[{"bbox_2d":[100,200,300,400],"label":"lesion"},{"bbox_2d":[1,2,3,4]}]',
    '```json\n{"1": [[650, 506, 724, 572], [552, 528, 629, 600]], "X": [[1, 2, 3, 4]]}\n```',
    "<ref>fetal head</ref><box>[[1,2,3,4],[5,6,7,8]]</box>",
    "<ref>a</ref><box>(1,2),(3,4)</box>",
    '{"x": 1, "y": 2, "width": 3, "height": 4, "note": "see [1, 2, 3, 4]"}',
]
MUTATIONS: dict[str, Callable[[str], str]] = {
    "quotes-swapped": lambda text: text.replace('"', "'"),
    "quotes-lost": lambda text: text.replace('"', ""),
    "fenced": lambda text: f"```json\n{text}\n```",
    "fence-never-closed": lambda text: f"```\n{text}",
    "reversed": lambda text: text[::-1],
    "commas-lost": lambda text: text.replace(",", " "),
    "as-a-json-string": json.dumps,
    "doubled": lambda text: text + text,
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_mutated_answers_are_read_without_an_error_at_every_length(mutation: Callable[[str], str]) -> None:
    for valid in VALID:
        text = mutation(valid)
        for end in range(len(text) + 1):
            assert isinstance(parse_boxes(text[:end]), ParsedBoxes)


@pytest.mark.parametrize("mutation", ["quotes-swapped", "fenced", "fence-never-closed", "as-a-json-string"])
@pytest.mark.parametrize("text", VALID[:4])
def test_wrapping_changes_neither_boxes_nor_labels(text: str, mutation: str) -> None:
    assert read(MUTATIONS[mutation](text))[:2] == read(text)[:2]


CHALLENGE_NUMBER = st.one_of(st.integers(-5, 3000), st.sampled_from([0.5, 12.25, 640.0, 999_999_999, 1_000_000_000]))
CHALLENGE_ROWS = st.lists(st.lists(CHALLENGE_NUMBER, min_size=3, max_size=5), max_size=4)
CHALLENGE_KEYS = st.sampled_from(["1", "22", "X", "Y", "01", "label", "bbox", "x1", "a"])
# Pairs and not a dictionary: a text may hold a key twice.
CHALLENGE_MAPS = st.lists(st.tuples(CHALLENGE_KEYS, CHALLENGE_ROWS), max_size=4).map(
    lambda pairs: "{" + ", ".join(f"{json.dumps(key)}: {json.dumps(rows)}" for key, rows in pairs) + "}"
)


@settings(max_examples=400)
@given(text=st.one_of(CHALLENGE_ROWS.map(json.dumps), CHALLENGE_MAPS), compact=st.booleans())
def test_the_short_way_reads_what_the_scanner_reads(text: str, compact: bool) -> None:
    text = text.replace(", ", ",").replace(": ", ":") if compact else text
    quick, scanned = parse_boxes(text), parse_boxes(f" {text}")  # nothing but the dataset's own form goes the short way
    np.testing.assert_array_equal(quick.boxes, scanned.boxes)
    assert (quick.labels, quick.notes, quick.explicit_empty) == (scanned.labels, scanned.notes, scanned.explicit_empty)


def test_what_lies_behind_the_limit_is_not_read_and_noted() -> None:
    parsed = parse_boxes("[1, 2, 3, 4]" + " " * MAX_CHARACTERS + "[5, 6, 7, 8]")
    assert (parsed.boxes.tolist(), parsed.notes) == ([BOX], {"overlong": 1})


@pytest.mark.parametrize(
    "atom",
    ["[", "[[", "{", "(", "[1,", "[1,2,3,4],", '{"a":', '"', "'", '\\"', "\\", '"a', "'a", "a'", "<ref>", "<box>", "1",
     "1 ", "-", ".1", " ", "\n", '"[1 ', '{"label":"', "]", "<|box_start|>", '"a" '],
)  # fmt: skip
def test_time_is_linear_in_the_length(atom: str) -> None:
    def seconds(length: int) -> float:
        text = (atom * length)[: length * 2]
        start = time.process_time()
        parse_boxes(text)
        return time.process_time() - start

    # Four times the text takes four times as long, sixteen if quadratic. The best of some runs: the machine is shared.
    assert min(seconds(6000) for _ in range(3)) < 10 * min(seconds(1500) for _ in range(3)) + 0.002


@pytest.mark.parametrize("style", LABELLED)
def test_noise_is_left_out_and_counted(style: BoxStyle) -> None:
    boxes, names = as_boxes([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]), ["noise", "#noise", "#noise"]
    parsed = parse_boxes(format_boxes(boxes, names, style, Frame.NORM1000))
    assert parsed.boxes.tolist() == [[1, 2, 3, 4]]
    assert (parsed.labels, parsed.notes["noise"], parsed.empty_labels) == (("noise",), 2, ())
    nothing = parse_boxes(format_boxes(boxes[1:], names[1:], style, Frame.NORM1000))
    assert (len(nothing.boxes), nothing.parsed, nothing.notes["noise"]) == (0, True, 2)
    kept = parse_boxes(format_boxes(boxes, names, style, Frame.NORM1000), keep_noise=True)
    assert kept.labels == ("noise", "#noise", "#noise")
