"""Reading predictions and references, and joining them: every shape, every place, every way, every refusal."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.frames import read_frame, size_on_disk, to_pixels
from evaluation.join import join
from evaluation.parsing import make_samples
from evaluation.predictions import choose_frame, read_predictions
from evaluation.references import read_references
from evaluation.run import main
from medvl.answers import parse_answer
from medvl.box_text import ParsedBoxes
from medvl.errors import DataError
from medvl.sharegpt import Source, encode_records, make_record
from medvl.sources.flare import FLARE
from medvl.tasks import Task

QUESTION = "Is it normal? A: No, B: Yes"
CHALLENGE = {"TaskType": "Classification", "Modality": "X-ray", "ImageName": "imagesVal/PXMT_1.png",
             "Question": QUESTION, "Answer": "B", "Split": "val"}  # fmt: skip


def write(path: Path, *rows: Any, lines: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), encoding="utf-8")
    return path


def row(image: str | list[str] = "imagesVal/PXMT_1.png", answer: Any = "B", **more: Any) -> dict[str, Any]:
    return CHALLENGE | {"ImageName": image, "Answer": answer} | more


SHAPES = {
    "challenge": (row(), "challenge", "B"),
    "challenge, several images": (row(["imagesVal/a.png", "imagesVal/b.png"]), "challenge", "B"),
    "challenge, null is a missing answer": (row(answer=None), "challenge", None),
    "challenge, absent is a missing answer": ({k: v for k, v in row().items() if k != "Answer"}, "challenge", None),
    "challenge, a number": (row(answer=20.5), "challenge", "20.5"),
    "challenge, a list": (row(answer=[[1, 2, 3, 4]]), "challenge", "[[1, 2, 3, 4]]"),
    "qwen3: Answer holds the truth": (row(answer="A", prediction="B"), "qwen3", "B"),
    "by id": ({"id": "flare/x/000001", "prediction": "B", "task": "classification"}, "by_id", "B"),
    "llamafactory": ({"prompt": "…", "predict": "B", "label": "A\n"}, "llamafactory", "B"),
}


@pytest.mark.parametrize("lines", [False, True], ids=["list", "lines"])
@pytest.mark.parametrize(("value", "shape", "text"), SHAPES.values(), ids=SHAPES)
def test_shapes_are_told_apart_by_their_keys(
    tmp_path: Path, value: dict[str, Any], shape: str, text: str | None, lines: bool
) -> None:
    file = read_predictions(write(tmp_path / "predictions.json", value, lines=lines))
    assert (file.shape.name, file.rows[0].text) == (shape, text)


@pytest.mark.parametrize("name", ["predictions.json", "generated_predictions.jsonl", "all_predictions.json"])
def test_a_folder_stands_for_the_prediction_file_in_it(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, row())
    assert read_predictions(tmp_path).path == tmp_path / name


BAD_FILES = {
    "no file": (None, "there is no such file"),
    "cut off list": (b'[{"ImageName": "a"', "not JSON .* cut off"),
    "cut off line": (b'{"id": "a", "prediction": "B"}\n{"id": "b", "pred', "line 2: not JSON .*remove the line"),
    "not UTF-8": (b'[{"id": "a", "prediction": "\xff"}]', "not JSON"),
    "line of text": (b'{"id": "a", "prediction": "B"}\n7\n', "line 2: a int; expected a JSON object"),
    "a lone string": (b'"A"', "a str; expected a JSON list"),
    "a wrapper": (b'{"predictions": []}', "unknown shape, its first row has the keys predictions; known are .*medvl"),
    "mixed shapes": (b'[{"id": "a", "prediction": "B"}, {"prediction": "B"}]', "row 1: it lacks id"),
}


@pytest.mark.parametrize(("data", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_unreadable_prediction_files_say_where_and_how_to_mend(
    tmp_path: Path, data: bytes | None, message: str
) -> None:
    path = tmp_path / "mine.jsonl"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_predictions(path)


def question_files(root: Path) -> Path:
    """Two datasets, two splits; the hidden one as a blank and a withGT file."""
    write(root / "validation-public/Xray/dental/dental_questions_val.json", row(), row("imagesVal/PXMT_2.png"))
    hidden = root / "validation-hidden/Retinography/fundus"
    write(hidden / "fundus_questions_val.json", row("imagesVal/FUNDUS_1.png", ""))
    write(hidden / "fundus_questions_val_withGT.json", row("imagesVal/FUNDUS_1.png"))
    return root


PLACES = {
    "the tree": (".", ["dental", "dental", "fundus"]),
    "a split": ("validation-hidden", ["fundus"]),
    "a category": ("validation-public/Xray", ["dental", "dental"]),
    "a dataset": ("validation-public/Xray/dental", ["dental", "dental"]),
    "a question file": ("validation-hidden/Retinography/fundus/fundus_questions_val_withGT.json", ["fundus"]),
}


@pytest.mark.parametrize(("place", "datasets"), PLACES.values(), ids=PLACES)
def test_references_are_read_from_any_place_in_a_tree(tmp_path: Path, place: str, datasets: list[str]) -> None:
    references = read_references(question_files(tmp_path) / place)
    assert [reference.dataset for reference in references.items] == datasets
    assert references.kind == "tree" and all(item.id.startswith("flare/validation-") for item in references.items)


def test_references_outside_a_tree_take_their_dataset_from_the_image(tmp_path: Path) -> None:
    path = write(tmp_path / "theirs.json", row(), row(answer=""))
    references = read_references(path)
    assert (references.kind, references.items[0].dataset, references.unanswered) == ("challenge", "dental", 1)


@pytest.mark.parametrize(("name", "task", "dataset"), [
    ("imagesVal/IUGC_00445-53.png", Task.DETECTION, "iugc"),
    ("imagesVal/BUSI_00000.png", Task.CLASSIFICATION, "BUSI"),
    ("imagesVal/BUSI_00000.png", Task.DETECTION, "BUSI-det"),  # two datasets share the images
    ("BUS-UCLM_00001-000.png", Task.DETECTION, "BUS-UCLM-det"),
    ("imagesVal/bone_marrow_00079.jpg", Task.CLASSIFICATION, "bone_marrow"),
    ("imagesVal\\cell_00001.png", Task.COUNTING, "neurips22cell"),
    ("imagesVal/other_1.png", Task.COUNTING, "unknown"),
])  # fmt: skip
def test_dataset_of_a_image(name: str, task: Task, dataset: str) -> None:
    assert FLARE.dataset_of([name], task) == dataset


def test_all_unusable_references_are_named(tmp_path: Path) -> None:
    rows = [row(TaskType="guessing"), row(), row(ImageName=None)]
    path = write(tmp_path / "validation-public/Xray/dental/dental_questions_val.json", *rows)
    with pytest.raises(DataError, match=r"2 references cannot be used.*row 0.*guessing.*row 2.*ImageName"):
        read_references(path)


def test_a_file_that_is_no_reference_shows_its_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "predictions.jsonl", {"id": "a", "prediction": "B"}, lines=True)
    with pytest.raises(DataError, match="not references, its first row has the keys id, prediction"):
        read_references(path)


def test_an_empty_folder_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected one of predictions\.json"):
        read_references(tmp_path)


def converted(
    folder: Path, answers: dict[str, str], *, frame: str | None = "norm1000", task: str = "detection"
) -> Path:
    """A converted file, target and source answer the same, its manifest naming `frame`."""
    records = [
        make_record(id=f"flare/val/{name}", task=task, dataset="iugc", question=QUESTION, answer=answer,
                    images=[f"/data/imagesVal/{name}.png"],
                    source=Source(split="val", file="f", index=0, sizes=[(200, 100)], answer=answer))
        for name, answer in answers.items()
    ]  # fmt: skip
    path = folder / "flare_val.json"
    path.write_bytes(encode_records(records))
    if frame:
        manifest = {"schema": 1, "source": "flare", "root": "/", "options": {"frame": frame, "box_style": "json"},
                    "files": {path.name: {"sha256": "0" * 64, "records": 1, "entry": "x"}}}  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_converted_references_know_frame_size_and_target(tmp_path: Path) -> None:
    references = read_references(converted(tmp_path, {"a": "[[1, 2, 3, 4]]", "blank": ""}))
    assert (references.frame, references.kind, references.unanswered) == ("norm1000", "records", 1)
    item = references.items[0]
    assert (item.question, item.image_size(), item.target) == (QUESTION, (200, 100), "[[1, 2, 3, 4]]")
    assert "has changed since manifest.json" in references.notes[0]


def test_a_file_that_the_manifest_does_not_list_has_no_frame(tmp_path: Path) -> None:
    path = converted(tmp_path, {"a": "[[1, 2, 3, 4]]"})
    references = read_references(path.rename(tmp_path / "earlier.json"))
    assert references.frame is None
    assert "not listed in manifest.json" in references.notes[0]


@pytest.mark.parametrize(("text", "message"), [
    ("{", "run the preprocess script again"),
    ('{"options": {"frame": "norm7"}, "files": {"x.json": {}}}',
     "unknown frame 'norm7'; known are norm1000, norm1, pixel"),
])  # fmt: skip
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_frame(tmp_path / "x.json")


@pytest.mark.parametrize(("shape", "asked", "of_data", "expected"), [
    ({"id": "a", "prediction": "B"}, None, "norm1000", "norm1000"),  # model asked with converted data
    ({"predict": "B", "label": "A"}, None, "norm1", "norm1"),
    (row(), None, "norm1000", "pixel"),  # the challenge's format is in pixels
    (row(prediction="B"), None, "norm1000", "pixel"),
    (row(), "norm1000", None, "norm1000"),  # asked for
    ({"id": "a", "prediction": "B"}, None, None, None),  # nothing tells
])  # fmt: skip
def test_frame_of_a_prediction_file(tmp_path: Path, shape: Any, asked: Any, of_data: Any, expected: str | None) -> None:
    file = read_predictions(write(tmp_path / "p.json", shape))
    assert choose_frame(asked, file, of_data) == expected


def test_boxes_become_pixels_with_ordered_corners_and_are_not_clipped() -> None:
    answer = parse_answer("[[500, 900, 100, 100], [0, 0, 1000, 1200]]", Task.DETECTION)
    value = to_pixels(answer, "norm1000", (200, 100), "x").value
    assert isinstance(value, ParsedBoxes)
    assert value.boxes.tolist() == [[20, 10, 100, 90], [0, 0, 200, 120]]


@pytest.mark.parametrize("frame", ["norm1000", "norm1", "pixel"])
def test_the_frame_that_an_answer_states_itself_wins(frame: Any) -> None:
    answer = parse_answer('[{"box_2d": [100, 250, 900, 500], "label": "a"}]', Task.DETECTION)
    value = to_pixels(answer, frame, (200, 100), "x").value
    assert isinstance(value, ParsedBoxes)
    assert value.boxes.tolist() == [[50, 10, 100, 90]]
    assert value.frame is None  # it is in pixels now
    with pytest.raises(DataError, match="norm1000 boxes, but the size"):
        to_pixels(answer, frame, None, "x")


@pytest.mark.parametrize(
    ("orientation", "size"),
    [(6, (20, 30)), (3, (30, 20)), (9, (30, 20)), (0, (30, 20)), (65535, (30, 20))],
    ids=["on its side", "upside down", "no such orientation", "unknown", "far from one"],
)
def test_image_size_respects_exif_orientation(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert size_on_disk(tmp_path / "turned.jpg") == size
    assert size_on_disk(tmp_path / "absent.jpg") is None


def joined_texts(references: Path, predictions: Path) -> list[str | None]:
    joined = join(read_references(references), read_predictions(predictions))
    return [prediction.text if prediction else None for _, prediction in joined.pairs]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        pytest.param(["norm1"], "norm1", id="as the rows say"),
        pytest.param([None], "norm1000", id="as the data says"),
        pytest.param(["norm1", None], "norm1", id="where they say"),
        pytest.param(["norm1", "pixel"], "several frames", id="adapters of two frames"),
        pytest.param(["norm7"], "unknown frame 'norm7'", id="unknown"),
    ],
)
def test_rows_of_medvl_predict_name_their_frame(tmp_path: Path, frames: list[str | None], expected: str) -> None:
    rows = [{"id": str(number), "prediction": "[]", "frame": frame} for number, frame in enumerate(frames)]
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    if expected.startswith("norm"):
        assert choose_frame(None, read_predictions(path), "norm1000") == expected
        assert choose_frame("pixel", read_predictions(path), "norm1000") == "pixel"
    else:
        with pytest.raises(DataError, match=expected):
            read_predictions(path)


def test_join_by_id(tmp_path: Path) -> None:
    references = converted(tmp_path, {"a": "[]", "b": "[]", "c": "[]"})
    rows = [{"id": f"flare/val/{name}", "prediction": text} for name, text in
            [("b", "1"), ("a", "2"), ("b", "3"), ("z", "4")]]  # fmt: skip
    joined = join(read_references(references), read_predictions(write(tmp_path / "p.json", *rows)))
    assert joined.how == "id"
    assert [prediction.text if prediction else None for _, prediction in joined.pairs] == ["2", "1", None]
    assert [prediction.text for prediction in joined.duplicates] == ["3"]  # the first counts
    assert [prediction.name for prediction in joined.extra] == ["flare/val/z"]


def test_join_by_id_needs_ids(tmp_path: Path) -> None:
    predictions = write(tmp_path / "p.json", {"id": "a", "prediction": "B"})
    with pytest.raises(DataError, match=r"is keyed by id, but .* has no ids; give the converted file"):
        joined_texts(write(tmp_path / "r.json", row()), predictions)


KEYS = {
    "images and question": ([row("imagesVal/a.png")], [row("imagesVal/a.png")]),
    "absolute paths": ([row("imagesVal/a.png")], [row("/mnt/data/imagesVal/a.png")]),
    "windows paths": ([row("imagesVal/a.png")], [row("D:\\imagesVal\\a.png")]),
    "several images, in their order": ([row(["v/a.png", "v/b.png"])], [row(["v/a.png", "v/b.png"])]),
    "spaces in the question": ([row()], [row(Question=f"  {QUESTION}\n")]),
}


@pytest.mark.parametrize(("references", "predictions"), KEYS.values(), ids=KEYS)
def test_join_by_key(tmp_path: Path, references: list[Any], predictions: list[Any]) -> None:
    texts = joined_texts(write(tmp_path / "r.json", *references), write(tmp_path / "p.json", *predictions))
    assert texts == ["B"]


def test_a_question_asked_twice_takes_its_answers_in_order(tmp_path: Path) -> None:
    """FLARE asks about tooth 46 of PRML_02339.jpg twice."""
    references = write(tmp_path / "r.json", row(), row(), row("imagesVal/PXMT_2.png"))
    predictions = write(tmp_path / "p.json", row(answer="first"), row("imagesVal/PXMT_2.png", "other"),
                        row(answer="second"), row(answer="third"))  # fmt: skip
    joined = join(read_references(references), read_predictions(predictions))
    assert [prediction.text if prediction else None for _, prediction in joined.pairs] == ["first", "second", "other"]
    assert [prediction.text for prediction in joined.duplicates] == ["third"]


def test_datasets_tell_equal_keys_apart_where_predictions_name_them(tmp_path: Path) -> None:
    for dataset in ("one", "two"):
        write(tmp_path / f"validation-public/Xray/{dataset}/{dataset}_questions_val.json", row())
    predictions = write(tmp_path / "p.json", row(answer="2", dataset="two"), row(answer="1", dataset="one"))
    assert joined_texts(tmp_path, predictions) == ["1", "2"]


def generated(path: Path, *labels: str) -> Path:
    rows = [{"prompt": "…", "predict": f"said {index}", "label": label} for index, label in enumerate(labels)]
    return write(path / "generated_predictions.jsonl", *rows, lines=True)


def test_join_by_row_skips_records_without_an_answer(tmp_path: Path) -> None:
    references = converted(tmp_path, {"a": "[[1,2,3,4]]", "blank": "", "b": "[]"})
    assert joined_texts(references, generated(tmp_path, "[[1,2,3,4]]\n", "\n", "[]\n")) == ["said 0", "said 2"]


@pytest.mark.parametrize(("target", "label"), [
    ("<ref>head</ref><box>[[1,2,3,4]]</box>", "head[[1,2,3,4]]\n"),  # special tokens are stripped from labels
    ("<ref>head</ref><box>(1,2),(3,4)</box>", "head(1,2),(3,4)\n"),
    ("[[1,2,3,4]]" * 20, ("[[1,2,3,4]]" * 20)[:150]),  # cut off by cutoff_len
])  # fmt: skip
def test_labels_are_the_targets_but_for_special_tokens(tmp_path: Path, target: str, label: str) -> None:
    assert joined_texts(converted(tmp_path, {"a": target}), generated(tmp_path, label)) == ["said 0"]


MISPAIRED = {
    "another count": (["A\n"], r"has 1 rows, but .* has 2 records; .*max_samples"),
    "another order": (["B\n", "A\n"], r"was not made from .*2 of 2 labels differ .*row 0 \(flare/val/a\): label 'B"),
}


@pytest.mark.parametrize(("labels", "message"), MISPAIRED.values(), ids=MISPAIRED)
def test_rows_that_do_not_pair_up_are_refused(tmp_path: Path, labels: list[str], message: str) -> None:
    references = converted(tmp_path, {"a": "A", "b": "B"}, task="classification")
    with pytest.raises(DataError, match=message):
        joined_texts(references, generated(tmp_path, *labels))


def test_rows_pair_up_with_converted_files_only(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no ids; give the converted file"):
        joined_texts(question_files(tmp_path), generated(tmp_path, "A"))


def test_nothing_in_common_shows_both_keys(tmp_path: Path) -> None:
    references = converted(tmp_path, {"a": "[]"})
    predictions = write(tmp_path / "p.json", {"id": "000001", "prediction": "[]"})
    with pytest.raises(DataError, match="first prediction has '000001' and the first reference 'flare/val/a'"):
        joined_texts(references, predictions)


def test_a_mended_copy_is_joined_by_the_name_its_source_wrote(tmp_path: Path) -> None:
    path = converted(tmp_path, {"a": "[[1, 2, 3, 4]]"})
    rows = json.loads(path.read_text())
    rows[0]["images"], rows[0]["source"]["names"] = ["/out/copies/a.png.png"], ["imagesVal/a.png"]
    path.write_text(json.dumps(rows))
    assert read_references(path).items[0].key_names == ("imagesVal/a.png",)


@pytest.mark.parametrize(("change", "message"), [
    ({"task": "foo"}, "flare/val/a: unknown task 'foo'"),
    ({"conversations": []}, "flare/val/a: expected a human turn and a gpt turn"),
])  # fmt: skip
def test_a_damaged_record_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = converted(tmp_path, {"a": "[[1, 2, 3, 4]]"})
    path.write_text(json.dumps([json.loads(path.read_text())[0] | change]))
    with pytest.raises(DataError, match=message):
        read_references(path)


def test_a_reference_with_boxes_on_several_images_is_not_scored_as_one(tmp_path: Path) -> None:
    answer = "[[[10, 20, 110, 120]], [[30, 40, 50, 60]]]"
    several = row(["a.png", "b.png"], answer, TaskType="Detection", Question="Box it.")
    file = write(tmp_path / "truth.json", several, several | {"ImageName": ["a.png"]})
    (apart, single) = make_samples(join(read_references(file), read_predictions(file)), "pixel")
    assert (apart.truth.reason, single.truth.reason) == ("boxes_per_image", None)


@pytest.mark.parametrize(
    ("side", "answer", "f1"),
    [
        ("prediction", '[{"box_2d": [111, 50, 667, 550], "label": "fetal head"}]', 1.0),
        ("reference", '[{"box_2d": [111, 50, 667, 550], "label": "fetal head"}]', 1.0),
        ("prediction", "[[1e308, 0, -1e308, 5], [10, 20, 110, 120]]", 2 / 3),
        ("prediction", "[[1000000000000000000, 3, 4, 5]]", 0.0),
    ],
    ids=["y-first", "y-first-reference", "largest-floats", "larger-than-integers"],
)
def test_odd_boxes_are_scored(tmp_path: Path, side: str, answer: str, f1: float) -> None:
    folder = tmp_path / "validation-public/Ultrasound/iugc"
    (folder / "imagesVal").mkdir(parents=True)
    Image.new("L", (200, 180)).save(folder / "imagesVal/a.png")
    plain = row(TaskType="Detection", ImageName="imagesVal/a.png", Question="Box it.", Answer="[[10, 20, 110, 120]]")
    odd = plain | {"Answer": answer}
    write(folder / "iugc_questions_val.json", odd if side == "reference" else plain)
    predictions = write(tmp_path / "p.json", odd if side == "prediction" else plain)
    assert main([str(predictions), "--references", str(tmp_path), "--out", str(tmp_path / "out"), "--no-page"]) == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["tasks"]["detection"]["f1_iou50"]["value"] == pytest.approx(f1)
