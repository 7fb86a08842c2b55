"""Fetal ultrasound annotations: what the annotators mean, and the records that a table becomes."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from PIL import Image

from medvl.sharegpt import Record, read_records
from medvl.sources.ultrasound_labels import QUESTIONS, age_bin, age_bins, facts, normalise_answer, normality
from preprocess import script, ultrasound

HEADINGS = ["Timestamp", "Folder Name", "Image Name", "Q1: Anatomical Structures", "Q2: Fetal Orientation",
            "Q3 - Imaging Plane", "Question 4 Biometric Measurements", "q5: Gestational Age", "Q6: Image Quality",
            "Q7: Normality Assessment", "Q8: Clinical Recommendations", "Additional Notes", "Annotator"]  # fmt: skip
SEVEN, LAST = 9, 12
# Folder and image in the table, in another spelling than on the disk where it matters.
IMAGES = {"Abdomen/Abdomen_1.png": (40, 30), "Standard NT/Standard NT_2.jpg": (30, 40), "Cervix/c.PNG": (20, 20),
          "Femur/f.png": (1200, 300)}  # fmt: skip
ROWS = [
    ["2026-01-17", "Abdomen", "Abdomen_1.png", "aorta, liver,  liver", "fetal head to the leeft side of screen",
     "Sagitral", "abdominal circumference", "13+1d", "goof", "Normal for gestational age, guarded prognosis",
     "prenatal routine monitroing", "", "dr a"],
    ["2026-01-17", "Standard_NT", "Standard_NT_2.jpg", "neck", "Fetal head to right", "Sagittal", "NT thickness",
     "8-13 weeks", "Low image quality", "mild thickening of NT measures 3.4 mm with high risk of congenital anomalies",
     "Follow up after one mnoth", "", "dr b"],
    ["2026-01-17", "Cervix", "c.png", "", "", "n/a", "", "", "", "Notmal", "", "", "dr a"],
    ["2026-01-17", "Femur", "f.png", "femur", "Longitudinal view of femur", "Longitudinal view of femur",
     "Femur length", "20-25 weeks", "Good image quality", "", "Prenatal routine monitoring", "", "dr b"],
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images, and the table as CSV."""
    for number, (name, size) in enumerate(IMAGES.items()):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_mandelbrot(size, (-2, -1.5 + number / 5, 1, 1.5), 40).convert("RGB").save(
            tmp_path / "images" / name
        )
    write_csv(tmp_path / "table.csv", [HEADINGS, *ROWS])
    return tmp_path


def write_csv(path: Path, rows: list[list[str]], *, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def write_xlsx(path: Path, rows: list[list[Any]], *more: list[list[Any]]) -> Path:
    workbook = openpyxl.Workbook()
    for place, sheet in enumerate((rows, *more)):
        page = workbook.active if place == 0 else workbook.create_sheet()
        for row in sheet:
            page.append(row)
    workbook.save(path)
    return path


def convert(folder: Path, *more: str, table: str = "table.csv", out: str = "out") -> int:
    words = [str(folder / table), "--images", str(folder / "images"), "--out", str(folder / out), "--dataset-info",
             str(folder / "info.json"), "--workers", "1", "--contamination", "off", *more]  # fmt: skip
    return ultrasound.main(words)


def records(folder: Path, name: str = "ultrasound_all_train", out: str = "out") -> list[Record]:
    return read_records(folder / out / f"{name}.json")


def report(folder: Path, out: str = "out") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / out / "report.json").read_text())
    return content


def codes(folder: Path) -> Counter[tuple[str, str]]:
    return Counter((finding["code"], finding["action"]) for finding in report(folder)["findings"])


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Abnormal NT thickening", "abnormal"),  # holds "normal"
        ("ABNORMAL", "abnormal"),
        ("mild normal thickening of nt with high risk", "abnormal"),
        ("Increased NT (requires biochemistry)", "abnormal"),
        ("Increased thick nuchal translucency , cystic hygroma", "abnormal"),
        ("Increased Michal translucency thickness", "abnormal"),  # nuchal
        ("increase NT thickness.= 11 mm", "abnormal"),
        ("Moderate dilation of pelvicalyceal system", "abnormal"),
        ("not normal", "abnormal"),
        ("Not centred, abnormal NT", "abnormal"),  # the negation ends at the comma
        ("Within normal limits. Abnormal VSD", "abnormal"),
        ("No abnormality", "normal"),
        ("no visible abnormalities", "normal"),
        ("no fluid, mass or thickening", "normal"),
        ("cervix not dilated", "normal"),
        ("Normal amount of amniotic fluid", "normal"),
        ("the visible structures areWithin normal", "normal"),
        ("prominent cisterna magna otherwise within normal", "normal"),
        ("Normal closed cervix with placenta previa", "normal"),
        ("Normal for gestational age, guarded prognosis", "normal"),
        ("Notmal", "unclear"),  # a typo in the deciding word is listed, not guessed
        ("within limit", "unclear"),
        ("Subchorionic hematoma", "unclear"),
        ("posterior fossa enlargement with anechoic structure? mega cisterna magna", "unclear"),
        ("low laying placenta suggestive of partial placenta breavia", "unclear"),
        ("Good quality", "unclear"),  # the answer of another column
        ("can not be assessed", "unclear"),
        ("Normal, cannot exclude VSD", "unclear"),
        ("neither normal nor abnormal", "unclear"),
        ("", "unclear"),
    ],
)
def test_normality_has_three_labels(answer: str, label: str) -> None:
    assert normality(answer) == label
    assert normality(normalise_answer("q7", answer).text) == label  # canonical words say the same


def test_what_a_guarded_prognosis_means_is_configurable() -> None:
    assert normality("Normal for gestational age, guarded prognosis", "unclear") == "unclear"
    assert normality("Normal for gestational age, favorable prognosis", "unclear") == "normal"
    assert normality("Abnormal VSD, guarded prognosis", "normal") == "abnormal"


@pytest.mark.parametrize(
    ("question", "before", "after"),
    [
        ("q1", "aorta , liver; liver", "aorta, liver"),
        ("q2", "fetal head to r ight side of screen", "Fetal head to right"),
        ("q2", "Brreech, facial orientation to the right side of maternal side", "Breech, right maternal side"),
        ("q3", "trans -cerebellar view", "Trans-cerebellar view"),
        (
            "q4",
            "cerebellar. cisterna magna and nuchal fold measurements",
            "Cerebellar, cisterna magna, and nuchal fold",
        ),
        ("q5", "13 - 14 weeks", "13-15 weeks"),
        ("q6", "Aceeptable quality image", "Medium image quality"),
        ("q7", "all visible structures appear within normal", "Within normal limits"),
        ("q7", "normal for the ag", "Normal for gestational age"),
        ("q7", "within normal for the age", "Within normal limits"),
        ("q7", "mid normal thickening of nt with high risk of anomalies", "Abnormal NT thickening (mild)"),
        ("q7", "Abnormally thickend NT with high risk of congential anomalies ", "Abnormal NT thickening"),
        ("q7", "Notmal", "Notmal"),
        ("q8", "perintal routine monitoring", "Prenatal routine monitoring"),
        ("q8", " NaN ", ""),
    ],
)
def test_answers_are_normalised_once(question: Any, before: str, after: str) -> None:
    assert normalise_answer(question, before).text == after
    assert normalise_answer(question, after) == (after, ())


@pytest.mark.parametrize(
    ("answer", "label"),
    [("8-13 weeks", 0), ("13 weeks", 1), ("14w6d", 1), ("15 weeks", 2), ("between 20 and 25 weeks", 3),
     ("24-28", 4), ("30,5 weeks", 5), ("37+6", 6), ("38+ weeks", 7), ("41 weeks", 7),
     ("7 weeks", None), ("2026", None), ("third trimester", None)],
)  # fmt: skip
def test_ages_are_binned_by_their_middle(answer: str, label: int | None) -> None:
    assert age_bin(answer) == (None if label is None else age_bins()[label])


def test_a_record_has_the_verbatim_answer_the_label_and_the_row(folder: Path) -> None:
    assert convert(folder) == 0
    first, second, third = records(folder, "ultrasound_q7_train")
    assert [record.target for record in (first, second, third)] == ["normal", "abnormal", "unclear"]
    assert first.source.answer == "Normal for gestational age, guarded prognosis"
    assert second.source.answer == ROWS[1][SEVEN]
    assert [record.source.row for record in (first, second, third)] == [0, 1, 2]
    assert first.question == facts()["prompts"]["detailed"]
    assert codes(folder) == {("ANSWER_EMPTY", "dropped"): 1, ("ANSWER_NORMALISED", "kept"): 1,
                             ("NORMALITY_UNCLEAR", "kept"): 1}  # fmt: skip
    assert report(folder)["counts"] == {"in": 4, "kept": 3, "dropped": 1, "quarantined": 0}
    assert report(folder)["normality"] == {"train/q7": {"normal": 1, "abnormal": 1, "unclear": 1}}
    assert script.main("ultrasound", "x", ["--validate", str(folder / "out")]) == 0


def test_phrases_instead_of_labels_and_another_meaning_of_guarded(folder: Path) -> None:
    assert convert(folder, "--answers", "phrase") == 0
    assert [record.target for record in records(folder)][1:] == ["Abnormal NT thickening (mild)", "Notmal"]
    assert convert(folder, "--guarded-prognosis", "abnormal") == 0
    assert records(folder)[0].target == "abnormal"


def test_every_change_is_in_the_report(folder: Path) -> None:
    assert convert(folder, "--ask", "all") == 0
    changes = report(folder)["normalisation"]
    assert {"question": "q6", "before": "goof", "after": "Good image quality", "count": 1,
            "rule": "spelling+canonical"} in changes  # fmt: skip
    assert {"question": "q3", "before": "n/a", "after": "", "count": 1, "rule": "placeholder"} in changes
    changed = {(change["before"], change["after"]) for change in changes}
    for record in records(folder):
        label = record.dataset == "q7"
        assert record.source.answer == record.target or label or (record.source.answer, record.target) in changed


def test_all_eight_questions_have_a_dataset_each(folder: Path) -> None:
    assert convert(folder, "--ask", "all") == 0
    for question in QUESTIONS:
        found = records(folder, f"ultrasound_{question}_train")
        heading = facts()["questions"][question]["heading"]
        assert found and all(record.question.startswith(f"{heading}: ") for record in found)
    assert records(folder, "ultrasound_q5_train")[0].target == "13-15 weeks"
    made = records(folder)
    assert len({record.id for record in made}) == len({record.source.index for record in made}) == len(made)
    assert report(folder)["counts"] == {"in": 32, "kept": 24, "dropped": 8, "quarantined": 0}


def test_a_combined_report_has_eight_sections_also_where_answers_are_blank(folder: Path) -> None:
    assert convert(folder, "--ask", "report") == 0
    made = records(folder, "ultrasound_report_train")
    assert len(made) == 4
    for record in made:
        assert [line for line in record.target.splitlines() if line.startswith("## ")] == [
            f"## {facts()['questions'][question]['section']}" for question in QUESTIONS
        ]
    assert made[2].target.count("\nNot stated.") == 7
    assert "## Normality Assessment\nNotmal" in made[2].target
    assert (
        "## Image Quality\ngoof" in made[0].source.answer and "## Image Quality\nGood image quality" in made[0].target
    )
    assert codes(folder)["ANSWER_BLANK", "kept"] == 8


def test_prompts_of_experiment_5(folder: Path) -> None:
    assert convert(folder, "--prompt", "structured") == 0
    assert [record.target for record in records(folder, "ultrasound_q7_train")] == ["NORMAL", "ABNORMAL", "UNCLEAR"]
    assert convert(folder, "--prompt", *facts()["prompts"]) == 0
    for prompt, words in facts()["prompts"].items():
        assert {record.question for record in records(folder, f"ultrasound_q7_{prompt}_train")} == {words}
    assert len({record.id for record in records(folder)}) == 12


@pytest.mark.parametrize("form", ["semicolons", "bom", "tabs", "xlsx"])
def test_every_form_of_the_table_gives_the_same_records(folder: Path, form: str) -> None:
    assert convert(folder, "--ask", "all") == 0
    before = [(record.question, record.target, record.source.answer, record.source.row) for record in records(folder)]
    if form == "xlsx":
        write_xlsx(folder / "other.xlsx", [HEADINGS, *ROWS, [""] * 5], [["a note"]])
    elif form == "bom":
        write_csv(folder / "other.csv", [HEADINGS, *ROWS], encoding="utf-8-sig")
    else:
        write_csv(folder / "other.csv", [HEADINGS, *ROWS], delimiter={"semicolons": ";", "tabs": "\t"}[form])
    other = "other.xlsx" if form == "xlsx" else "other.csv"
    assert convert(folder, "--ask", "all", table=other, out="out2") == 0
    again = records(folder, out="out2")
    assert [(record.question, record.target, record.source.answer, record.source.row) for record in again] == before


def test_cells_that_are_no_text(folder: Path) -> None:
    rows: list[list[Any]] = [list(row) for row in ROWS]
    rows[0][7], rows[1][7], rows[3][7] = 22, 22.5, None
    write_xlsx(folder / "table.xlsx", [HEADINGS, *rows])
    assert convert(folder, "--ask", "q5", table="table.xlsx") == 0
    assert [(record.source.answer, record.target) for record in records(folder)] == [
        ("22", "20-25 weeks"), ("22.5", "20-25 weeks")]  # fmt: skip


def test_the_split_file_decides_and_what_it_does_not_place_is_reported(folder: Path) -> None:
    splits = {"train": {"Abdomen": ["Abdomen/Abdomen_1.png", "Abdomen/Abdomen_9.png"], "Cervix": ["c.png"]},
              "val": {"NT": ["Standard NT/Standard_NT_2.jpg"]}, "test": {"Cervix": ["Cervix/c.png"]}}  # fmt: skip
    (folder / "splits.json").write_text(json.dumps({"metadata": {}, "splits": splits}))
    assert convert(folder, "--ask", "report", "--split-file", str(folder / "splits.json")) == 0
    assert [record.source.row for record in records(folder, "ultrasound_report_train")] == [0]
    assert [record.source.row for record in records(folder, "ultrasound_report_val")] == [1]
    found = codes(folder)
    assert found["SPLIT_SEVERAL", "quarantined"] == found["SPLIT_MISSING", "quarantined"] == 1
    (unused,) = [finding for finding in report(folder)["findings"] if finding["code"] == "SPLIT_UNUSED"]
    assert unused["detail"].endswith("Abdomen/Abdomen_9.png")
    assert report(folder)["counts"] == {"in": 4, "kept": 2, "dropped": 0, "quarantined": 2}


def test_an_image_in_two_rows_is_reported_and_both_are_kept(folder: Path) -> None:
    write_csv(folder / "table.csv", [HEADINGS, *ROWS, [*ROWS[0][:SEVEN], "Normal", *ROWS[0][SEVEN + 1 :]]])
    assert convert(folder, "--ask", "report") == 0
    found = codes(folder)
    assert found["IMAGE_REPEATED", "kept"] == found["ROWS_CONTRADICT", "kept"] == 2
    assert len(records(folder)) == 5


def test_splitting_by_annotator_warns_that_it_is_confounded(folder: Path) -> None:
    again = [*ROWS[0][:LAST], "dr b"]  # an image that both of them described
    write_csv(folder / "table.csv", [HEADINGS, *ROWS, again])
    assert convert(folder, "--ask", "report", "--keep-together", "annotator", "--dev-fraction", "0.5") == 0
    sides = [
        {record.source.group for record in records(folder, f"ultrasound_all_{split}")} for split in ("train", "dev")
    ]
    assert sorted(map(sorted, sides)) == [["dr a"], ["dr b"]]
    assert codes(folder)["SPLIT_CONFOUNDED", "kept"] == 1
    assert convert(folder, "--keep-together", "folder") == 2
    assert convert(folder, "--keep-together", "folder", "--dev-fraction", "0.5", "--by", "image") == 2


def test_large_images_are_shown_smaller(folder: Path) -> None:
    assert convert(folder, "--ask", "report", "--max-side", "512") == 0
    sizes = {record.source.names[0]: record.source.sizes[0] for record in records(folder)}
    assert sizes["Femur/f.png"] == (512, 128) and sizes["Abdomen/Abdomen_1.png"] == (40, 30)
    assert all(Image.open(record.images[0]).size == record.source.sizes[0] for record in records(folder))
    assert script.main("ultrasound", "x", ["--validate", str(folder / "out")]) == 0
    assert convert(folder, "--ask", "report", "--max-side", "256") == 0  # what the cache knows is of another size
    assert records(folder)[3].source.sizes == [(256, 64)]
    assert convert(folder, "--ask", "report") == 0
    assert records(folder)[3].source.sizes == [(1200, 300)]


def test_missing_images_are_dropped_with_a_code(folder: Path) -> None:
    (folder / "images" / "Femur" / "f.png").unlink()
    assert convert(folder, "--ask", "report") == 0
    assert codes(folder)["IMAGE_MISSING", "dropped"] == 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([["Folder Name", "Q7: x"], ["a", "b"]], "no column for the image's file name"),
        ([["Folder Name", "Image Name"], ["a", "b"]], "no question column"),
        ([["Image Name", "Q7: x", "Q7: y"], ["a", "b", "c"]], "are both q7"),
        ([["Image Name", "Q7: x"]], "no row below"),
        ([["Image Name", "Q7: x"], ["a", "b", "c"]], "row 2: 3 cells, and the header has 2"),
        ([["Image Name", "Q6: Image Quality"], ["a", "b"]], "no column for Q7"),
        ([], "no row below"),
    ],
)
def test_a_bad_table_is_refused_with_the_cure(
    folder: Path, rows: list[list[str]], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(folder / "table.csv", rows)
    assert convert(folder) == 3
    assert words in " ".join(capsys.readouterr().err.split())


def test_other_files_are_refused_with_the_cure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_xlsx(folder / "table.xlsx", [HEADINGS, *ROWS])
    (folder / "renamed.csv").write_bytes((folder / "table.xlsx").read_bytes())
    (folder / "broken.xlsx").write_text("no workbook")
    (folder / "cyrillic.csv").write_bytes(b"Image Name,Q7\n\xf1\xed\xe8\xec\xee\xea.png,Normal")
    for name, words in {"renamed.csv": "an Excel workbook under another name", "broken.xlsx": "no Excel workbook",
                        "cyrillic.csv": "save it as UTF-8", "images": "a folder", "gone.csv": "No such file"
                        }.items():  # fmt: skip
        assert convert(folder, table=name) == 3, name
        assert words in " ".join(capsys.readouterr().err.split()), name


@pytest.mark.parametrize(
    ("content", "words"),
    [("[]", "no splits"), ("{", "not JSON"), ('{"splits": {"train": {"a": 1}}}', "train/a is"),
     ('{"splits": {"train": [], "nope": []}}', "'nope' is none of")],
)  # fmt: skip
def test_a_bad_split_file_is_refused(
    folder: Path, content: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "splits.json").write_text(content)
    assert convert(folder, "--split-file", str(folder / "splits.json")) == 3
    assert words in " ".join(capsys.readouterr().err.split())


def test_options_that_contradict_each_other_are_usage_errors(folder: Path) -> None:
    assert convert(folder, "--ask", "q1", "--prompt", "simple") == 2
    assert convert(folder, "--max-side", "3") == 2
    assert ultrasound.main([str(folder / "table.csv"), "--out", str(folder / "out")]) == 2
    assert convert(folder, "--splits", "nope") == 2
    assert convert(folder, "--splits", "test") == 3
