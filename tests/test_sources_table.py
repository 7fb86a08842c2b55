"""People's own data, from a table and a folder of images to records."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medvl.sharegpt import Record, read_records
from preprocess.table import main

MANY = "multi_label_classification"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of 640 x 480, p0.png to p11.png, in images/."""
    (tmp_path / "images").mkdir()
    for place in range(12):
        Image.new("RGB", (640, 480), (20 * place, 60, 40)).save(tmp_path / "images" / f"p{place}.png")
    return tmp_path


def convert(folder: Path, name: str, *more: str) -> int:
    words = [str(folder / name), "--images", str(folder / "images"), "--name", "mine", "--out", str(folder / "out"),
             "--dataset-info", str(folder / "info.json"), "--workers", "1", "--contamination", "off"]  # fmt: skip
    return main([*words, *more])


def write(folder: Path, header: str, rows: Sequence[str], name: str = "mine.csv") -> str:
    (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return name


def records(folder: Path, split: str = "train") -> list[Record]:
    return read_records(folder / "out" / f"mine_all_{split}.json")


def report(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "out/report.json").read_text()))


def codes(folder: Path) -> dict[str, str]:
    return {finding["code"]: finding["detail"].partition(": ")[2] for finding in report(folder)["findings"]}


# What is asked and answered


def test_questions_with_answers_become_records_under_the_name_that_is_given(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"p{place}.png,Which organ? ({place}),{word}" for place, word in enumerate(["liver", "NA", "007", "1.0"])]
    assert convert(folder, write(folder, "image,question,answer", rows)) == 0
    found = records(folder)
    assert [record.target for record in found] == ["liver", "NA", "007", "1.0"]
    assert [record.source.answer for record in found] == ["liver", "NA", "007", "1.0"]
    assert [record.source.index for record in found] == [0, 1, 2, 3]
    assert found[0].id == "mine/train/mine/mine/000000"
    assert {record.task for record in found} == {"vqa"}
    assert sorted(json.loads((folder / "info.json").read_text())) == [
        "mine_all_train",
        "mine_mine_train",
        "mine_vqa_train",
    ]
    shown = capsys.readouterr().out
    for words in ("│ question │ question", "│ answer   │ answer", "guessed: open questions", "4 train"):
        assert words in shown


def test_labels_become_lettered_options_and_stay_verbatim_in_the_source(folder: Path) -> None:
    rows = [f"p{place};{['Zyste', 'keine', 'Größe, unklar'][place % 3]}" for place in range(9)]
    assert convert(folder, write(folder, "Bild;Diagnose", rows), "--question", "Which is it?") == 0
    first, second, third, *_ = records(folder)
    assert first.question == "Which is it?\nA: Größe, unklar\nB: keine\nC: Zyste"
    assert [record.target for record in (first, second, third)] == ["C", "B", "A"]
    assert [record.source.answer for record in (first, second, third)] == ["Zyste", "keine", "Größe, unklar"]
    assert [record.source.truth for record in (first, second, third)] == ["C", "B", "A"]
    assert codes(folder).keys() == {"ANSWER_REWRITTEN"}


def test_labels_that_are_read_as_one_have_to_be_made_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = write(folder, "image,label", [f"p{place}.png,{['cyst', 'Cyst', 'mass'][place % 3]}" for place in range(9)])
    assert convert(folder, name, "--question", "Which?") == 2
    assert "the labels 'Cyst' and 'cyst' are read as one; make them one with --labels" in capsys.readouterr().err
    assert convert(folder, name, "--question", "Which?", "--labels", "cyst=Cyst") == 0
    assert records(folder)[0].question == "Which?\nA: Cyst\nB: mass"


def test_labels_that_may_stand_for_missing_values_are_reported(folder: Path) -> None:
    name = write(folder, "image,label", [f"p{place}.png,{['cyst', 'NA', ''][place % 3]}" for place in range(9)])
    assert convert(folder, name, "--question", "Which?") == 0
    assert records(folder)[1].source.answer == "NA"
    assert codes(folder)["ANSWER_PLACEHOLDER"].startswith("'NA' is a label in 3 rows, and is offered")
    assert report(folder)["counts"] == {"in": 9, "kept": 6, "dropped": 3, "quarantined": 0}


def test_values_get_names(folder: Path) -> None:
    name = write(folder, "image,label", [f"p{place}.png,{place % 2}" for place in range(6)])
    assert convert(folder, name, "--question", "Sick?") == 2  # counting, regression, classes?
    more = ["--task", "classification", "--labels", "0=healthy", "1=sick"]
    assert convert(folder, name, "--question", "Sick?", *more) == 0
    assert records(folder)[0].question == "Sick?\nA: healthy\nB: sick"
    assert [(record.target, record.source.answer) for record in records(folder)[:2]] == [("A", "0"), ("B", "1")]


@pytest.mark.parametrize("form", ["columns", "list", "object", "text"])
def test_options_of_a_row_stand_in_its_question(folder: Path, form: str) -> None:
    options = ["left lung", "right lung", "heart"]
    lettered = dict(zip("ABC", options, strict=True))
    cells: dict[str, dict[str, Any]] = {
        "list": {"options": options},
        "object": {"options": lettered},
        "text": {"choices": "A. left lung B. right lung C. heart"},
        "columns": {f"option_{letter}": text for letter, text in lettered.items()},
    }
    rows = [{"image": "p1.png", "question": "Which organ?", "answer": answer, **cells[form]}
            for answer in ("right lung", "B", "(b)", "liver")]  # fmt: skip
    (folder / "mine.json").write_text(json.dumps(rows))
    assert convert(folder, "mine.json") == 0
    found = records(folder)
    assert {record.question for record in found} == {"Which organ?\nA: left lung\nB: right lung\nC: heart"}
    assert [record.target for record in found] == ["B", "B", "B"]
    assert codes(folder)["ANSWER_UNUSABLE"] == "'liver' is not one of A: left lung, B: right lung, C: heart"


def test_labels_with_bars_between_are_several(folder: Path) -> None:
    rows = [f"p{place}.png,{word}" for place, word in enumerate(["Mass|Edema", "Edema", "Mass", "No Finding"] * 2)]
    assert convert(folder, write(folder, "image,Finding Labels", rows), "--question", "What is seen?") == 0
    first, *_ = records(folder)
    assert first.task == "multi_label_classification"
    assert first.question == "What is seen? Choose all that apply from the following: Edema; Mass; No Finding"
    assert (first.target, first.source.answer) == ("Mass; Edema", "Mass|Edema")


def test_a_column_for_each_label(folder: Path) -> None:
    rows = ["p1.png,1,0,1.0", "p2.png,0,0,0", "p3.png,maybe,0,0"]
    name = write(folder, "image,Edema,Mass,Nodule", rows)
    assert convert(folder, name, "--columns", "answer=Edema,Mass,Nodule", "--question", "What?", "--task", MANY) == 0
    first, second = records(folder)
    assert (first.target, second.target) == ("Edema; Nodule", "none")
    assert json.loads(first.source.answer) == {"Edema": "1", "Mass": "0", "Nodule": "1.0"}
    assert "Edema is 'maybe'" in codes(folder)["ANSWER_UNUSABLE"]


def test_lists_of_labels(folder: Path) -> None:
    rows = [{"image": f"p{place}", "labels": labels} for place, labels in enumerate([["Mass", "Edema"], ["Edema"], []])]
    (folder / "mine.json").write_text(json.dumps(rows))
    assert convert(folder, "mine.json", "--question", "What?") == 0
    assert {record.task for record in records(folder)} == {MANY}
    assert [record.target for record in records(folder)] == ["Mass; Edema", "Edema", "none"]
    assert records(folder)[0].question == "What? Choose all that apply from the following: Edema; Mass"


def test_places_of_options_are_named_by_letters(folder: Path) -> None:
    name = write(folder, "image,question,A,B,answer", ["p1.png,Sick?,yes,no,0", "p2.png,Sick?,yes,no,1"])
    assert convert(folder, name) == 3
    assert codes(folder)["ANSWER_UNUSABLE"].endswith("A: yes, B: no; --labels 1=LETTER says which is meant")
    assert convert(folder, name, "--labels", "0=A", "1=B") == 0
    assert [record.target for record in records(folder)] == ["A", "B"]


def test_a_column_of_files_is_known_by_them(folder: Path) -> None:
    name = write(folder, "code,Diagnose,other", [f"p{place},{'ab'[place % 2]},x" for place in range(12)])
    assert convert(folder, name, "--question", "Which?") == 0
    assert [record.images for record in records(folder)[:1]] == [[str(folder / "images/p0.png")]]


def test_decimal_commas(folder: Path) -> None:
    rows = [f"p{place}.png;Wie groß in mm?;{number}" for place, number in enumerate(["3,5", "12", "1.234,5", "0,5 %"])]
    assert convert(folder, write(folder, "Bild;Frage;Antwort", rows), "--task", "regression") == 0
    assert [record.target for record in records(folder)] == ["3.5", "12", "1234.5", "0.5 %"]
    assert [record.source.answer for record in records(folder)] == ["3,5", "12", "1.234,5", "0,5 %"]
    name = write(folder, "Bild;Frage;Antwort", ["p0.png;Wie viele?;1,234"])
    assert convert(folder, name, "--task", "counting") == 2
    assert convert(folder, name, "--task", "counting", "--decimal", "point") == 0
    assert records(folder)[0].target == "1234"


def test_tasks_of_rows(folder: Path) -> None:
    rows = ["p1.png,How many?,3,counting", "p2.png,How large?,3.5,regression", "p3.png,What?,a cyst,conting"]
    assert convert(folder, write(folder, "image,question,answer,task", rows)) == 0
    assert [record.task for record in records(folder)] == ["counting", "regression"]
    assert codes(folder)["TASK_UNKNOWN"] == "unknown task 'conting'; did you mean 'counting'?"


# Columns


@pytest.mark.parametrize(
    ("header", "more", "message"),
    [
        ("image,question,answer,response", [], "answer or response could be the column of the answer; say --columns"),
        ("image,file,question,answer", [], "image or file could be the column of the image"),
        ("image,question,answer,patient,case", [], "could be the column of the patient; say --columns patient="),
        ("image,question,answer", ["--columns", "answer=anwser"], "no such column, did you mean 'answer'"),
        ("image,question,answer", ["--columns", "anwser=answer"], "no such key, did you mean 'answer'"),
        ("image,question,answer", ["--columns", "nothing.yaml"], "neither KEY=COLUMN nor a YAML file"),
        ("image,question,x", [], "no column is known to have answers: image, question, x; say --columns answer=COLUMN"),
        ("x,question,answer", [], "no column is known to name images"),
        ("image,x,answer", [], "no column has questions: image, x, answer; say --columns question=COLUMN"),
        ("image,question,answer", ["--task", "conting"], "did you mean 'counting'"),
        ("image,question,[10 20 30 40]", ["--columns", "answer=[10 20 30 40]"], "answers are boxes, '[10 20 30 40]'"),
        ("image,question,answer", ["--labels", "x"], "--labels x: expected VALUE=NAME"),
        ("image,question,answer", ["--images", "nowhere"], "nowhere: no such folder"),
        ("image,question,answer", ["--by", "image"], "needs --dev-fraction or --split-train"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_asked_for(
    folder: Path, header: str, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ",".join({"image": "p1.png", "file": "p1.png"}.get(column, column) for column in header.split(","))
    assert convert(folder, write(folder, header, [row]), *more) == 2
    assert message in capsys.readouterr().err


def test_columns_may_be_stated_in_a_file(folder: Path) -> None:
    (folder / "columns.yaml").write_text("question: q\nanswer: label\nimage: f\npatient: p\n")
    rows = ["p1.png,Why?,because,other,P1"]
    assert convert(folder, write(folder, "f,q,label,answer,p", rows), "--columns", str(folder / "columns.yaml")) == 0
    (record,) = records(folder)
    assert (record.question, record.target, record.source.group) == ("Why?", "because", "P1")


# Images


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("p1.png", ["p1.png"]),
        ("p1", ["p1.png"]),
        ("images/p1.png", ["p1.png"]),
        ("C:\\data\\scans\\P1.PNG", ["p1.png"]),
        ("/home/other/p1.png", ["p1.png"]),
        ("p1.dcm", ["p1.png"]),
        ("sub/same.png", ["sub/same.png"]),
        ("sub/ä ö.JPG", ["sub/ä ö.JPG"]),
        ("a\u0308 o\u0308", ["sub/ä ö.JPG"]),  # as macOS writes it
        ("p1.png;p2.png", ["p1.png", "p2.png"]),
        ("p1|p2", ["p1.png", "p2.png"]),
        ("['p1.png', 'p2.png']", ["p1.png", "p2.png"]),
        ("odd;name.png", ["odd;name.png"]),
        ("same", "IMAGE_AMBIGUOUS"),
        ("gone.png", "IMAGE_MISSING"),
        ("", "IMAGE_NAME"),
    ],
)
def test_images_are_looked_for_by_their_names(folder: Path, written: str, found: list[str] | str) -> None:
    images = folder / "images"
    for place in ("sub/same.png", "more/same.png", "odd;name.png"):
        (images / place).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), "red").save(images / place)
    Image.new("RGB", (64, 48), "red").save(images / "sub/ä ö.JPG")
    (folder / "mine.json").write_text(json.dumps([
        {"image": written, "question": "Why?", "answer": "because"}, {"image": "p0.png", "question": "x", "answer": "y"}
    ]))  # fmt: skip
    assert convert(folder, "mine.json", "--task", "vqa") == 0
    if isinstance(found, str):
        assert found in codes(folder)
        assert report(folder)["counts"]["kept"] == 1
    else:
        assert records(folder)[0].images == [str((images / name).resolve()) for name in found]
        assert ("IMAGE_RENAMED" in codes(folder)) == (written == "p1.dcm")


# Splits


def test_splits_of_a_column(folder: Path) -> None:
    words = ["train", "Training", "valid", "validation", "dev", "test", "TEST"]
    rows = [f"p{place}.png,Q{place}?,word {place},{word}" for place, word in enumerate(words)]
    name = write(folder, "image,question,answer,split", rows)
    assert convert(folder, name) == 0
    assert [len(records(folder, split)) for split in ("train", "val", "test")] == [2, 3, 2]
    write(folder, "image,question,answer,split", [*rows, "p9.png,Q?,word,fold3"])
    assert convert(folder, name) == 3
    assert convert(folder, name, "--columns", "split=") == 0
    assert len(records(folder)) == 8


@pytest.mark.parametrize("by", ["patient", "image"])
def test_patients_stay_together_unless_images_alone_do(folder: Path, by: str) -> None:
    rows = [f"p{place}.png,Q{place}?,word {place},{place % 2}" for place in range(12)]
    name = write(folder, "image,question,answer,Patient ID", rows)
    assert convert(folder, name, "--task", "vqa", "--dev-fraction", "0.5", "--by", by) == 0
    groups = [{record.source.group for record in records(folder, split)} for split in ("train", "dev")]
    assert (groups[0] & groups[1] == set()) == (by == "patient")
    write(folder, "image,question,answer", [row.rpartition(",")[0] for row in rows])
    assert convert(folder, name, "--task", "vqa", "--dev-fraction", "0.5", "--by", by) == (3 if by == "patient" else 0)


# A dry run


def test_a_dry_run_shows_ten_records_and_registers_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"p{place}.png,Q{place}?,word {place}" for place in range(11)] + ["gone.png,Q?,x"]
    name = write(folder, "image,question,answer", rows)
    assert convert(folder, name, "--task", "vqa", "--dry-run") == 0
    out = capsys.readouterr().out
    assert out.count("(vqa)\n") == 10
    assert "10 of 12 rows" in out
    page = (folder / "out/dry_run.html").read_text()
    assert page.count('<pre tabindex="0">&lt;image&gt;') == 10
    assert "word 9" in page
    visible = [path.name for path in (folder / "out").iterdir() if not path.name.startswith(".")]
    assert visible == ["dry_run.html"]
    assert not (folder / "info.json").exists()


def test_the_name_is_also_the_default_output_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from preprocess import unchanged

    monkeypatch.setattr(unchanged, "REPOSITORY", folder)
    rows = [f"p{place}.png,Q{place}?,word {place}" for place in range(3)]
    words = [str(folder / write(folder, "image,question,answer", rows)), "--images", str(folder / "images")]
    assert main([*words, "--name", "skin", "--task", "vqa", "--dataset-info", str(folder / "info.json")]) == 0
    assert (folder / "data/skin/skin_all_train.json").is_file()
