"""Presets: rows made here in the form of each data set, through the whole conversion."""

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medvl.errors import DataError
from medvl.sharegpt import Record, read_records
from medvl.sources.tables.presets import PRESETS, read_preset
from preprocess import script
from tests.support.box_formats import SET, write_images, write_voc


def image(path: Path, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    """A plain image, another for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = sum(path.name.encode()) % 200
    Image.new(mode, size, (shade, 9, 9) if mode == "RGB" else shade).save(path)


def table(path: Path, header: str, *rows: Sequence[Any]) -> Path:
    """A CSV file."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    path.write_text(f"{header}\n{buffer.getvalue()}", encoding="utf-8")
    return path


def convert(preset: str, data: Path, *words: object) -> dict[str, list[Record]]:
    """The records of each split."""
    out = data.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    fixed = ["--preset", preset, "--out", str(out), "--dataset-info", str(data.parent / "info.json"), "--name", "set",
             "--workers", "1", "--contamination", "off", "--frame", "pixel"]  # fmt: skip
    assert script.main("table", "x", [str(data), *map(str, words), *fixed]) == 0
    assert PRESETS[preset].licence in (out / "README.md").read_text()
    return {file.stem.rpartition("_")[2]: read_records(file) for file in sorted(out.glob("set_all_*.json"))}


def said(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Task, question and answer of each."""
    return [(record.task, record.question, record.target) for record in records]


def test_every_preset_that_is_promised_is_there_and_says_where_its_facts_are_from() -> None:
    assert set(PRESETS) == {"vqa-rad", "slake", "pathvqa", "pmc-vqa", "omnimedvqa", "medmnist", "vindr-cxr",
                            "chestx-ray14", "deeplesion", "bccd"}  # fmt: skip
    for preset in PRESETS.values():
        assert preset.title
        assert preset.page.startswith("https://")
        assert preset.licence.endswith(".")


def test_vqa_rad_as_its_authors_publish_it(tmp_path: Path) -> None:
    row = {"qid": "0", "phrase_type": "freeform", "qid_linked_id": "03f4", "image_case_url": "https://medpix.nlm.nih.gov",
           "image_name": "synpic1.jpg", "image_organ": "CHEST", "evaluation": "evaluated", "question": "Is it large?",
           "question_rephrase": "NULL", "question_relation": "NULL", "question_frame": "NULL", "question_type": "SIZE",
           "answer": "Yes", "answer_type": "CLOSED"}  # fmt: skip
    rows = [row, row | {"phrase_type": "para", "question": "Large?"}, row | {"phrase_type": "test_freeform"},
            row | {"phrase_type": "test_para", "answer": 5, "question": "How many?"}]  # fmt: skip
    image(tmp_path / "images" / "synpic1.jpg")
    (tmp_path / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))
    found = convert("vqa-rad", tmp_path / "VQA_RAD Dataset Public.json", "--images", tmp_path / "images")
    assert said(found["train"]) == [("vqa", "Is it large?", "Yes"), ("vqa", "Large?", "Yes")]
    assert said(found["test"]) == [("vqa", "Is it large?", "Yes"), ("vqa", "How many?", "5")]


def test_vqa_rad_as_a_workbook(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    workbook = openpyxl.Workbook()
    for row in (
        ["QID_unique", "QID_para", "QID_linked", "IMAGEID_case", "IMAGE", "IMAGE_organ", "EVALUATION", "QUESTION",
         "Q_REPHASE", "Q_RELATION", "Q_FRAMED", "Q_TYPE", "ANSWER", "A_TYPE"],
        [0, "test_para", "03f4", "x", "synpic1.jpg", "CHEST", "no", "Is it large?", None, None, None, "SIZE", "No",
         "CLOSED"],
    ):  # fmt: skip
        workbook.active.append(row)
    workbook.save(tmp_path / "rad.xlsx")
    image(tmp_path / "images" / "synpic1.jpg")
    found = convert("vqa-rad", tmp_path / "rad.xlsx", "--images", tmp_path / "images")
    assert said(found["test"]) == [("vqa", "Is it large?", "No")]


@pytest.mark.parametrize("preset", ["vqa-rad", "pathvqa"])
def test_parquet_with_images_in_it_as_the_hub_has_it(tmp_path: Path, preset: str) -> None:
    import datasets

    for split, number in (("train", 2), ("validation", 1)):
        rows = {"image": [Image.new("RGB", (9, 9), (place * 90, 1, 1)) for place in range(number)],
                "question": [f"Is it {place}?" for place in range(number)], "answer": ["yes"] * number}  # fmt: skip
        features = datasets.Features(
            {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
        )
        (tmp_path / "data").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    found = convert(preset, tmp_path / "data")
    assert said(found["train"]) == [("vqa", "Is it 0?", "yes"), ("vqa", "Is it 1?", "yes")]
    assert said(found["val"]) == [("vqa", "Is it 0?", "yes")]


def test_slake_in_both_languages(tmp_path: Path) -> None:
    row = {"img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What modality is used?", "answer": "MRI",
           "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN", "base_type": "vqa",
           "content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": 0}  # fmt: skip
    for name in ("train", "validate", "test"):
        rows = [row, row | {"q_lang": "zh", "question": "这是什么?", "answer": "核磁共振", "qid": 1}]
        (tmp_path / "slake").mkdir(exist_ok=True)
        (tmp_path / "slake" / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    image(tmp_path / "slake" / "imgs" / "xmlab1" / "source.jpg")
    image(tmp_path / "slake" / "imgs" / "xmlab2" / "source.jpg")
    found = convert("slake", tmp_path / "slake", "--images", tmp_path / "slake" / "imgs")
    assert {split: [(record.dataset, record.target) for record in records] for split, records in found.items()} == {
        split: [("en", "MRI"), ("zh", "核磁共振")] for split in ("train", "val", "test")
    }


def test_pmc_vqa_choices_that_begin_with_their_letter(tmp_path: Path) -> None:
    image(tmp_path / "images" / "PMC1_F1.jpg")
    data = table(tmp_path / "train.csv", "Figure_path,Question,Answer,Choice A,Choice B,Choice C,Choice D,Answer_label",
                 ["PMC1_F1.jpg", "What is the uptake pattern? ", "Focal, mild", " A:Diffuse ", " B:Focal, mild ",
                  " C:None ", " D:Cannot be determined ", "B"])  # fmt: skip
    (record,) = convert("pmc-vqa", data, "--images", tmp_path / "images")["train"]
    assert record.task == "classification"
    assert (
        record.question == "What is the uptake pattern?\nA: Diffuse\nB: Focal, mild\nC: None\nD: Cannot be determined"
    )
    assert record.target == "B"


def test_omnimedvqa_answers_that_are_the_text_of_an_option(tmp_path: Path) -> None:
    row = {"dataset": "Covid CT", "question_id": "Covid CT_0082", "question_type": "Anatomy Identification",
           "question": "What is shown?", "gt_answer": "Chest region.", "image_path": "Images/Covid CT/a.png",
           "option_A": "Upper arm", "option_B": "Chest region.", "option_C": "Leg", "option_D": "Back",
           "modality_type": "CT"}  # fmt: skip
    few = {key: value for key, value in row.items() if key not in ("option_C", "option_D")} | {"question": "Which?"}
    image(tmp_path / "Images" / "Covid CT" / "a.png")
    (tmp_path / "covid.json").write_text(json.dumps([row, few]))
    found = convert("omnimedvqa", tmp_path / "covid.json")["train"]
    assert said(found) == [
        ("classification", "What is shown?\nA: Upper arm\nB: Chest region.\nC: Leg\nD: Back", "B"),
        ("classification", "Which?\nA: Upper arm\nB: Chest region.", "B"),
    ]
    assert [record.source.answer for record in found] == ["Chest region."] * 2


def arrays(**labels: list[list[int]]) -> dict[str, Any]:
    """Images and labels of splits as MedMNIST has them."""
    made: dict[str, Any] = {}
    for split, rows in labels.items():
        made[f"{split}_labels"] = np.array(rows, dtype=np.uint8)
        noise = np.random.default_rng(len(split)).integers(0, 255, (len(rows), 28, 28, 3))
        made[f"{split}_images"] = noise.astype(np.uint8)
    return made


def test_medmnist_classes_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays(train=[[0], [1]], val=[[1]], test=[[0]]))
    found = convert("medmnist", tmp_path / "pneumoniamnist.npz")
    question = "What does this chest X-ray of a child show?\nA: normal\nB: pneumonia"
    assert said(found["train"]) == [("classification", question, "A"), ("classification", question, "B")]
    assert [record.source.answer for record in found["val"] + found["test"]] == ["pneumonia", "normal"]
    original = np.load(tmp_path / "pneumoniamnist.npz")["train_images"][0]
    assert (np.asarray(Image.open(found["train"][0].images[0])) == original).all()


def test_medmnist_with_several_labels(tmp_path: Path) -> None:
    rows = [[1] + [0] * 13, [0] * 14, [1, 1] + [0] * 12]
    np.savez(tmp_path / "chestmnist_64.npz", **arrays(train=rows))
    found = convert("medmnist", tmp_path / "chestmnist_64.npz")["train"]
    assert [record.target for record in found] == ["atelectasis", "no finding", "atelectasis; cardiomegaly"]
    assert {record.task for record in found} == {"multi_label_classification"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.npz", arrays(train=[[0]]), "called after its set: pathmnist"),
        ("organmnist3d.npz", arrays(train=[[0]]), "called after its set"),
        ("octmnist.npz", arrays(train=[[9]]), "go to 9, with 4 names"),
        ("octmnist.npz", {"train_images": np.zeros((2, 28, 28), np.uint8)}, "train_labels are not there"),
        ("octmnist.npz", {"train_images": np.zeros((2, 28, 28)), "train_labels": [[0], [1]]}, "no 8-bit images"),
        ("octmnist.npz", {"x": np.zeros(3)}, "it has x"),
        ("octmnist.npz", {"train_images": np.array([{}], dtype=object)}, "no .npz file of plain arrays"),
    ],
)
def test_medmnist_files_that_are_refused(tmp_path: Path, name: str, content: Mapping[str, Any], message: str) -> None:
    from medvl.sources.tables.medmnist import read

    np.savez(tmp_path / name, **content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_vindr_cxr_one_answer_per_radiologist(tmp_path: Path) -> None:
    for name in ("0a", "0b"):
        image(tmp_path / "png" / f"{name}.png", (400, 300))
    data = table(tmp_path / "annotations_train.csv", "image_id,rad_id,class_name,x_min,y_min,x_max,y_max",
                 ["0a", "R8", "Nodule/Mass", 10.5, 20, 60, 70], ["0a", "R8", "Cardiomegaly", 100, 150, 300, 290],
                 ["0a", "R9", "Nodule/Mass", 11, 20, 61, 70], ["0a", "R10", "No finding", "", "", "", ""],
                 ["0b", "R8", "No finding", "", "", "", ""])  # fmt: skip
    found = convert("vindr-cxr", data, "--images", tmp_path / "png")["train"]
    assert [(Path(record.images[0]).name, json.loads(record.target)) for record in found] == [
        ("0a.png", {"Nodule/Mass": [[10.5, 20, 60, 70]], "Cardiomegaly": [[100, 150, 300, 290]]}),
        ("0a.png", {"Nodule/Mass": [[11, 20, 61, 70]]}),
        ("0a.png", {}),
        ("0b.png", {}),
    ]
    assert {record.task for record in found} == {"instance_detection"}
    assert "No finding" not in found[0].question


def test_vindr_cxr_as_kaggle_has_it(tmp_path: Path) -> None:
    image(tmp_path / "png" / "0a.png", (400, 300))
    data = table(tmp_path / "train.csv", "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
                 ["0a", "Cardiomegaly", 3, "R8", 100, 150, 300, 290])  # fmt: skip
    (record,) = convert("vindr-cxr", data, "--images", tmp_path / "png")["train"]
    assert record.task == "detection"  # the only class of this file
    assert json.loads(record.target) == [{"bbox_2d": [100, 150, 300, 290], "label": "Cardiomegaly"}]


ENTRY = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
         "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]")  # fmt: skip


def test_chestx_ray14_labels_by_patient(tmp_path: Path) -> None:
    names = [f"{place:08d}_000.png" for place in range(1, 5)]
    for place, name in enumerate(names):
        image(tmp_path / f"images_00{place % 2 + 1}" / "images" / name)
    labels = ["Cardiomegaly|Effusion", "No Finding", "Effusion", "Mass|Effusion"]
    rows = [[name, label, 0, 1 + place // 2, 58, "M", "PA", 2682, 2749, 0.143, 0.143]
            for place, (name, label) in enumerate(zip(names, labels, strict=True))]  # fmt: skip
    found = convert("chestx-ray14", table(tmp_path / "Data_Entry_2017_v2020.csv", ENTRY, *rows))["train"]
    assert [record.target for record in found] == ["Cardiomegaly; Effusion", "No Finding", "Effusion", "Mass; Effusion"]
    assert [record.source.group for record in found] == ["1", "1", "2", "2"]
    assert [record.source.answer for record in found] == labels
    assert found[0].question == (
        "Which findings does this chest X-ray show? Choose all that apply from the following: Cardiomegaly; Effusion; "
        "Mass; No Finding"
    )


def test_chestx_ray14_boxes(tmp_path: Path) -> None:
    image(tmp_path / "images" / "00000001_000.png", (1024, 1024))
    data = table(tmp_path / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,",
                 ["00000001_000.png", "Atelectasis", 225.084745762712, 547.019216763771, 86.7796610169491,
                  79.1864406779661, "", "", ""],
                 ["00000001_000.png", "Effusion", 10, 20, 30, 40, "", "", ""])  # fmt: skip
    (record,) = convert("chestx-ray14", data)["train"]
    assert json.loads(record.target) == {
        "Atelectasis": [[225.08, 547.02, 311.86, 626.21]],
        "Effusion": [[10, 20, 40, 60]],
    }


LESIONS = ("File_name,Patient_index,Study_index,Series_ID,Key_slice_index,Measurement_coordinates,Bounding_boxes,"
           "Lesion_diameters_Pixel_,Normalized_lesion_location,Coarse_lesion_type,Possibly_noisy,Slice_range,"
           "Spacing_mm_px_,Image_size,DICOM_windows,Patient_gender,Patient_age,Train_Val_Test")  # fmt: skip


def lesion(name: str, box: str, kind: int, split: int) -> list[Any]:
    return [name, int(name[:6]), 1, 1, 109, "1, 2, 3, 4", box, "3, 2", "0.4, 0.5, 0.6", kind, 0, "103, 115",
            "0.8, 0.8, 5", "512, 512", "-175, 275", "F", 62, split]  # fmt: skip


def test_deeplesion_slices_in_their_folders(tmp_path: Path) -> None:
    for folder in ("000001_01_01", "000002_01_01"):
        for number in (103, 109):
            path = tmp_path / "Images_png" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(number).integers(32000, 33200, (512, 512)).astype(np.uint16)
            Image.fromarray(values).save(path)
    data = table(tmp_path / "DL_info.csv", LESIONS,
                 lesion("000001_01_01_109.png", "226.169, 90.0204, 241.252, 111.977", 3, 3),
                 lesion("000001_01_01_109.png", "10, 20, 30, 40", 5, 3),
                 lesion("000002_01_01_103.png", "50, 60, 70, 80", -1, 1))  # fmt: skip
    found = convert("deeplesion", data, "--images", tmp_path / "Images_png")
    assert json.loads(found["test"][0].target) == {
        "mediastinal lesion": [[226.17, 90.02, 241.25, 111.98]], "lung lesion": [[10, 20, 30, 40]]}  # fmt: skip
    assert [record.source.group for record in found["train"]] == ["2"]
    assert found["test"][0].source.names == ["000001_01_01/109.png"]


def test_bccd_as_it_is_published(tmp_path: Path) -> None:
    write_voc(tmp_path / "BCCD", SET)
    write_images(tmp_path / "BCCD" / "JPEGImages", SET)
    found = convert("bccd", tmp_path / "BCCD")
    assert Counter({split: len(records) for split, records in found.items()}) == {"train": 3, "val": 1}


def test_a_table_of_another_set_is_refused_with_the_columns_it_should_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(tmp_path / "a.csv", "image,question,answer", ["a.png", "b", "c"])
    assert script.main("table", "x", [str(data), "--preset", "slake", "--out", str(tmp_path / "out")]) == 3
    message = capsys.readouterr().err.replace("\n", " ")
    assert "not a table of SLAKE, which has the columns img_name, question, answer, q_lang" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: a\nlicence: b.\npage: c\ntables: [{columns: {image: a}, colour: red}]", "unknown field `colour`"),
        ("title: a\nlicence: b.\npage: c\nlicense: d\ntables: []", "unknown field `license`"),
        ("title: a\nlicence: b.\npage: c\ntables: [{columns: {picture: a}}]", "Invalid enum value 'picture'"),
        ("title: a\nlicence: b.\npage: c\ntables: [{columns: {}, task: guess}]", "unknown task 'guess'"),
        ("title: a\nlicence: b.\npage: c\ntables: [{columns: {}, box_format: yxyx}]", "Invalid enum value 'yxyx'"),
        ("title: a\npage: c\ntables: [{columns: {}}]", "missing required field `licence`"),
        ("title: a\nlicence: b.\npage: c\ntables: []", "expected title, licence, page and tables"),
        ("- a", "expected a mapping"),
    ],
)
def test_keys_of_presets_are_checked(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_preset(tmp_path / "a.yaml")
    assert "a.yaml" in str(error.value)
