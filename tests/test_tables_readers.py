"""Cells stay what they are, in every form of table."""

import datetime
import json
from pathlib import Path

import datasets
import openpyxl
import pytest
from PIL import Image

from medvl.errors import DataError, UsageError
from medvl.sources.tables.base import Table
from medvl.sources.tables.cell_format import shown
from medvl.sources.tables.cells import text
from medvl.sources.tables.embedded import written_out
from medvl.sources.tables.forms import read_table

WORDS = ["NA", "None", "007", "1.0", "null", "NaN", "true", "1e5", " 2 ", "3,5", ""]  # none of them means another


def texts(table: Table) -> list[dict[str, str]]:
    return [{column: text(value) for column, value in row.items()} for row in table.rows]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_cells_of_csv_are_verbatim(tmp_path: Path, separator: str, encoding: str, end: str) -> None:
    rows = [["Bild", "Größe"], *(["ä ö.png", f'"{word}"'] for word in WORDS)]
    content = end.join(separator.join(row) for row in rows)
    (tmp_path / "x.csv").write_bytes(content.encode(encoding))
    found = texts(read_table(tmp_path / "x.csv", {}))
    assert [row["Größe"].strip() for row in found] == [word.strip() for word in WORDS]
    assert {row["Bild"] for row in found} == {"ä ö.png"}


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "no rows"),
        (b"image,answer\n", {}, "no rows"),
        (b"image,answer\na.png,b,c\n", {}, "row 2: 3 cells, and the header has 2"),
        (b'image,answer\na.png,"x\nb.png,y\n', {}, "a quotation mark is missing"),
        (b"image,image\na.png,b\n", {}, "several columns are called image"),
        (b"a.png,10,20,30,40\nb.png,1,2,3,4\n", {}, "its first row has to be the names"),
        ("image,word\na.png,Привет\n".encode("cp1251"), {}, "neither UTF-8 nor clearly cp1252"),
        ("image,word\na.png,Biała\n".encode("cp1250"), {}, "neither UTF-8 nor clearly cp1252"),
        ("image,word\na.png,你好世界\n".encode("gbk"), {}, "neither UTF-8 nor clearly cp1252"),
        (b"image,answer;more\na,b;c\n", {}, "its separator is unclear"),
        (b"image,answer\na,b\n", {"sheet": "x"}, "CSV or TSV, for which --sheet says nothing"),
    ],
)
def test_csv_that_is_unclear_is_refused(tmp_path: Path, content: bytes, options: dict[str, str], message: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises((DataError, UsageError), match=message):
        table = read_table(tmp_path / "x.csv", options)
        raise DataError("\n".join(table.refused))


def test_encoding_and_separator_may_be_stated(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("image;word,more\na.png;Привет\n".encode("cp1251"))
    (row,) = read_table(tmp_path / "x.csv", {"encoding": "cp1251", "separator": "semicolon"}).rows
    assert row == {"image": "a.png", "word,more": "Привет"}


def test_the_line_by_which_excel_knows_a_separator(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("sep=;\nimage;answer\na.png;b,c\n")
    assert list(read_table(tmp_path / "x.csv", {}).rows) == [{"image": "a.png", "answer": "b,c"}]


def test_empty_rows_at_the_end_are_no_rows_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image,answer\na.png,yes\n,\nb.png,no\n,\n,\n")
    table = read_table(tmp_path / "x.csv", {})
    assert [row["image"] for row in table.rows] == ["a.png", "", "b.png"]
    assert table.notes == (("ROWS_BLANK", "2 rows at the end"),)


@pytest.mark.parametrize(
    ("value", "number_format", "text"),
    [
        (7, "General", "7"),
        (1.0, "General", "1"),
        (0.1 + 0.2, "General", "0.3"),
        (7, "000", "007"),
        (3.5, "0.00", "3.50"),
        (-3.5, "0.0;[Red]-0.0", "-3.5"),
        (0.123, "0.0%", "12.3%"),
        (1234.5, "#,##0.00", "1,234.50"),
        (True, "General", "TRUE"),
        ("007", "General", "007"),
        (datetime.datetime(2024, 3, 5), "dd.mm.yyyy", "05.03.2024"),
        (datetime.datetime(2024, 3, 5, 14, 7), "yyyy-mm-dd hh:mm", "2024-03-05 14:07"),
        (datetime.datetime(2024, 3, 5), "General", "2024-03-05 00:00:00"),
    ],
)
def test_cells_of_excel_are_as_they_are_shown(value: object, number_format: str, text: str) -> None:
    assert shown(value, number_format) == (text, True)


def workbook(path: Path, *rows: list[object]) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return book


def test_sheets_of_excel(tmp_path: Path) -> None:
    book = workbook(tmp_path / "x.xlsx", ["Bild", "Größe"], ["ä.png", 3.5], [None, None])
    book.active["A3"].number_format = "0.00"  # formatted, and empty
    other = book.create_sheet("mehr")
    other.append(["image", "code"])
    other.append(["b.png", 7])
    other["B2"].number_format = "000"
    other.append(["c.png", 2])
    other["B3"].number_format = '0 "mm"'
    book.save(tmp_path / "x.xlsx")
    first = read_table(tmp_path / "x.xlsx", {})
    assert texts(first) == [{"Bild": "ä.png", "Größe": "3.5"}]
    assert [code for code, _ in first.notes] == ["ROWS_BLANK", "SHEETS_UNREAD"]
    second = read_table(tmp_path / "x.xlsx", {"sheet": "mehr"})
    assert texts(second) == [{"image": "b.png", "code": "007"}, {"image": "c.png", "code": "2"}]
    assert ("CELL_FORMAT", '1 cells, first B3 (0 "mm")') in second.notes
    with pytest.raises(DataError, match="no sheet 'x'; it has Sheet, mehr"):
        read_table(tmp_path / "x.xlsx", {"sheet": "x"})


def test_cells_of_excel_that_cannot_be_read_are_refused_together(tmp_path: Path) -> None:
    book = workbook(tmp_path / "x.xlsx", ["image", "answer"], ["a.png", "=1+1"], ["b.png", "#N/A"], ["c.png", "x"])
    book.active["B3"].data_type = "e"
    book.active.merge_cells("A4:B4")
    book.save(tmp_path / "x.xlsx")
    refused = "\n".join(read_table(tmp_path / "x.xlsx", {}).refused)
    assert "cell B2: a formula without a value" in refused
    assert "cell B3: #N/A" in refused
    assert "the cells A4:B4 are merged" in refused
    (tmp_path / "y.xlsx").write_text("no workbook")
    (tmp_path / "z.xls").write_text("old")
    with pytest.raises(DataError, match=r"y\.xlsx: no Excel workbook"):
        read_table(tmp_path / "y.xlsx", {})
    with pytest.raises(DataError, match=r"save it as \.xlsx"):
        read_table(tmp_path / "z.xls", {})


ROW = {"id": 7, "qa": {"q": "Größe?", "a": "1.10"}, "size": 1.10, "none": None}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.json", json.dumps([ROW])),
        ("x.json", json.dumps({"version": 2, "data": [ROW]})),
        ("x.jsonl", json.dumps(ROW) + "\n\n"),
        ("x.json", f"{json.dumps(ROW)}\n{json.dumps(ROW)}\n"),  # lines under the wrong suffix
    ],
)
def test_numbers_and_inner_objects_of_json(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content.replace("1.1,", "1.10,"))
    row = texts(read_table(tmp_path / name, {}))[0]
    assert (row["qa.q"], row["qa.a"], row["size"], row["none"]) == ("Größe?", "1.10", "1.10", "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", '[{"a": NaN}]', "NaN is not JSON"),
        ("x.json", '{"a": [{"b": 1}], "c": [{"b": 1}]}', "rows stand under several keys, a, c"),
        ("x.json", '["a"]', "row 0 is 'a'"),
        ("x.json", "[" * 5000 + "]" * 5000, "not JSON: maximum recursion depth"),
        ("x.json", '{"a": 1}', "one object with the keys a"),
        ("x.jsonl", '{"a": 1}\n{"a": \n{"a": 2}\n', "line 2: not JSON"),
    ],
)
def test_json_of_something_else_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        raise DataError("\n".join(read_table(tmp_path / name, {}).refused))


def test_an_object_of_objects_keeps_their_names(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a.png": {"label": "cyst"}, "b.png": {"label": "none"}}')
    assert texts(read_table(tmp_path / "x.json", {})) == [
        {"key": "a.png", "label": "cyst"}, {"key": "b.png", "label": "none"}]  # fmt: skip


@pytest.fixture
def dataset() -> datasets.Dataset:
    features = datasets.Features({
        "image": datasets.Image(), "views": datasets.Sequence(datasets.Image()), "word": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["no", "yes"]),
        "found": datasets.Sequence(datasets.ClassLabel(names=["x", "y"])),
    })  # fmt: skip
    red, blue = Image.new("RGB", (4, 3), "red"), Image.new("RGB", (4, 3), "blue")
    rows = {"image": [red, blue, red], "views": [[red], [red, blue], []], "word": ["NA", "007", None],
            "label": [0, 1, -1], "found": [[0, 1], [], [1]]}  # fmt: skip
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.parametrize("form", ["parquet", "saved", "saved with splits"])
def test_datasets_have_their_images_written_out_once_and_classes_named(
    tmp_path: Path, dataset: datasets.Dataset, form: str
) -> None:
    path = tmp_path / ("x.parquet" if form == "parquet" else "x")
    if form == "parquet":
        dataset.to_parquet(path)
    else:
        (dataset if form == "saved" else datasets.DatasetDict({"train": dataset, "test": dataset})).save_to_disk(path)
    table = read_table(path, {})
    rows = written_out(table.rows, tmp_path / "images")
    assert [row["label"] for row in rows[:3]] == ["no", "yes", None]
    assert [row["found"] for row in rows[:3]] == [["x", "y"], [], ["y"]]
    assert [text(row["word"]) for row in rows[:3]] == ["NA", "007", ""]
    assert len(list((tmp_path / "images").iterdir())) == 2
    assert rows[0]["image"] == rows[2]["image"] == rows[1]["views"][0]
    with Image.open(rows[1]["image"]) as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)
    splits = [row.get("split") for row in rows]
    assert splits == (["train"] * 3 + ["test"] * 3 if form == "saved with splits" else [None] * 3)
    assert dict(table.columns) == ({"split": "split"} if form == "saved with splits" else {})


def test_a_name_of_the_hub_is_loaded_and_a_mistyped_path_is_not(
    tmp_path: Path, dataset: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(name: str, subset: str | None) -> datasets.DatasetDict:
        asked.append((name, subset))
        dataset.save_to_disk(tmp_path / "cached")
        return datasets.DatasetDict({"validation": datasets.load_from_disk(tmp_path / "cached")})

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    table = read_table(Path("someone/x-rays"), {"subset": "small"})
    assert asked == [("someone/x-rays", "small")]
    assert [row["split"] for row in table.rows] == ["validation"] * 3
    assert table.path.is_file()
    (tmp_path / "data").mkdir()
    for typo in ("data/mine", "dta/mine.csv", "mine"):
        with pytest.raises(DataError, match="no such file or folder"):
            read_table(Path(typo), {})
    assert len(asked) == 1


def test_base64_becomes_a_file(tmp_path: Path) -> None:
    import base64

    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    code = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    rows = written_out([{"image": f"data:image/png;base64,{code}", "word": "iVBOR"}, {"image": code}], tmp_path / "out")
    assert rows[0]["image"] == rows[1]["image"]
    assert Path(rows[0]["image"]).read_bytes() == (tmp_path / "a.png").read_bytes()
    assert rows[0]["word"] == "iVBOR"


def test_a_folder_from_the_hub_has_its_splits_in_its_names(tmp_path: Path, dataset: datasets.Dataset) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "dataset_infos.json").write_text("{}")
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        dataset.to_parquet(tmp_path / "data" / f"{name}.parquet")
    table = read_table(tmp_path, {})
    assert [row["split"] for row in table.rows] == ["train"] * 6 + ["val"] * 3
    assert [row["label"] for row in table.rows] == ["no", "yes", None] * 3


def test_tables_of_a_folder_are_read_together_with_the_splits_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image,answer\na.png,yes\n")
    (tmp_path / "test.csv").write_text("image,answer\nb.png,no\n")
    table = read_table(tmp_path, {})
    assert [(row["image"], row["split"]) for row in table.rows] == [("b.png", "test"), ("a.png", "train")]
    (tmp_path / "sample_submission.csv").write_text("image,answer\nc.png,yes\n")
    with pytest.raises(DataError, match=r"the name of sample_submission\.csv says no split"):
        read_table(tmp_path, {})
    (tmp_path / "sample_submission.csv").rename(tmp_path / "val.csv")
    (tmp_path / "val.csv").write_text("id,answer\n1,yes\n")
    with pytest.raises(DataError, match="other columns than"):
        read_table(tmp_path, {})
