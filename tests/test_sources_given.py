"""Data that a command line names: what such a source may say of a sample, and where it is found again."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from evaluation.references import read_references
from medvl.errors import UsageError
from medvl.predict.questions import read_questions
from medvl.sharegpt import read_manifest, read_records
from medvl.sources.base import Contents, Found, Row, Sample, SourceFile
from medvl.sources.given import SPLITS, GivenSource
from medvl.tasks import Task
from preprocess import script


@dataclass(frozen=True)
class Views(GivenSource):
    """JSON rows: question, images, words, label, patient."""

    name = title = "views"
    layout = "a JSON file"
    licence = "made up"
    words: str = ""
    stated: dict[str, str] = field(default_factory=dict)

    def add_arguments(self, arguments: ArgumentParser) -> None:
        arguments.add_argument("--words", default="")

    def configured(self, args: Namespace) -> "Views":
        if args.words == "bad":
            raise UsageError("--words bad: no")
        return Views(args.words, {"words": args.words})

    def find(self, root: Path, splits: Sequence[str] = (), datasets: Sequence[str] = ()) -> Found:
        return Found(tuple(SourceFile(split, "toy", "views", root) for name, split in SPLITS.items() if name != "val"))

    def read(self, file: SourceFile) -> Contents:
        rows = json.loads(file.path.read_text())
        samples = self.samples(file, rows)
        return Contents(
            [sample for sample in samples if sample.row["split"] == file.split.name], (("FILE_WRAPPED", "x"),)
        )

    def samples(self, file: SourceFile, rows: Sequence[Row]) -> list[Sample]:
        return [
            Sample(file=file, index=2 * line + half, line=line, row=row, task=Task.CLASSIFICATION,
                   question=f"{self.words}Normal or abnormal? {half}", images=tuple(row["images"]),
                   titles=tuple(row["titles"]), answer=row["words"], target=row["label"], group=row["patient"],
                   notes=(("ANSWER_REWRITTEN", "by the label"),))
            for line, row in enumerate(rows) for half in (0, 1)
        ]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three rows: two images with titles, none at all, one image of a patient of the first."""
    module = ModuleType("medvl.sources.views")
    module.SOURCE = Views()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "medvl.sources.views", module)
    for number in range(3):
        Image.new("RGB", (20, 10), (number * 90, 10, 10)).save(tmp_path / f"{number}.png")
    rows = [
        {"images": ["0.png", "1.png"], "titles": ["Fig-0", "Fig-1"], "words": "Normal for age", "label": "normal",
         "patient": "A", "split": "train"},
        {"images": [], "titles": [], "words": "Odd", "label": "abnormal", "patient": "B", "split": "train"},
        {"images": ["2.png"], "titles": [], "words": "Fine", "label": "normal", "patient": "A", "split": "train"},
        {"images": ["2.png"], "titles": [], "words": "Fine too", "label": "normal", "patient": "C", "split": "test"},
    ]  # fmt: skip
    (tmp_path / "data.json").write_text(json.dumps(rows))
    return tmp_path


def convert(folder: Path, *more: str) -> int:
    """Run the script of the source."""
    words = [str(folder / "data.json"), "--out", str(folder / "out"), "--dataset-info", str(folder / "info.json"),
             "--workers", "1", "--contamination", "off", *more]  # fmt: skip
    return script.main("views", "Toy.", words)


def test_a_sample_keeps_its_words_label_row_and_patient(data: Path) -> None:
    assert convert(data, "--words", "Tell: ") == 0
    file = data / "out" / "views_all_train.json"
    first, _, textual, *_ = records = read_records(file)
    assert [record.conversations[0].value for record in (first, textual)] == [
        "Fig-0: <image>\nFig-1: <image>\nTell: Normal or abnormal? 0",
        "Tell: Normal or abnormal? 0",
    ]
    assert [(record.target, record.source.answer, record.source.row, record.source.index) for record in records] == [
        ("normal", "Normal for age", 0, 0), ("normal", "Normal for age", 0, 1), ("abnormal", "Odd", 1, 2),
        ("abnormal", "Odd", 1, 3), ("normal", "Fine", 2, 4), ("normal", "Fine", 2, 5)]  # fmt: skip
    assert [record.source.group for record in records] == ["A", "A", "B", "B", "A", "A"]
    references = read_references(file)
    assert [item.answer for item in references.items] == [record.target for record in records]
    assert references.items[0].fields["group"] == "A"
    questions = read_questions(file)
    assert [question.text for question in questions] == [record.question for record in records]
    assert (questions[0].head, questions[2].head) == ("Fig-0: <image>\nFig-1: <image>\n", "")
    manifest = json.loads((data / "out" / "manifest.json").read_text())
    assert manifest["options"]["words"] == "Tell: "
    assert read_manifest(data / "out") is not None


def test_findings_of_a_file_with_several_splits_stand_once_in_each(data: Path) -> None:
    assert convert(data) == 0
    findings = json.loads((data / "out" / "report.json").read_text())["findings"]
    assert [finding["code"] for finding in findings].count("FILE_WRAPPED") == 2
    assert [finding["code"] for finding in findings].count("ANSWER_REWRITTEN") == 8


def test_what_was_written_is_valid_by_its_own_check(data: Path) -> None:
    assert convert(data) == 0
    assert script.main("views", "Toy.", ["--validate", str(data / "out")]) == 0


def test_records_of_a_patient_stay_in_one_split(data: Path) -> None:
    for seed in range(4):
        assert convert(data, "--dev-fraction", "0.4", "--seed", str(seed)) == 0
        splits = {
            record.source.group: split
            for split in ("train", "dev")
            for record in read_records(data / "out" / f"views_all_{split}.json")
        }
        assert len(set(splits.values())) == 2
        by_patient = [
            {record.source.group for record in read_records(data / "out" / f"views_all_{split}.json")}
            for split in ("train", "dev")
        ]
        assert not by_patient[0] & by_patient[1]


def test_one_record_per_image_keeps_the_name_of_its_image(data: Path) -> None:
    assert convert(data, "--flatten-multi-image") == 0
    records = read_records(data / "out" / "views_all_train.json")
    assert {record.id[-13:]: record.conversations[0].value for record in records if record.question[-1] == "0"} == {
        "000000#image1": "Fig-0: <image>\nNormal or abnormal? 0",
        "000000#image2": "Fig-1: <image>\nNormal or abnormal? 0",
        records[4].id[-13:]: "Normal or abnormal? 0",
        records[6].id[-13:]: "<image>\nNormal or abnormal? 0",
    }
    assert script.main("views", "Toy.", ["--validate", str(data / "out")]) == 0


def test_another_script_does_not_write_in_place_of_the_first(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(data, "--name", "mine") == 0
    before = {path.name: path.read_bytes() for path in (data / "out").glob("*.json")}
    monkeypatch.setattr(Views, "name", "other")
    assert convert(data, "--name", "mine") == 2
    assert "holds what preprocess/views.py wrote" in " ".join(capsys.readouterr().err.split())
    assert before == {path.name: path.read_bytes() for path in (data / "out").glob("*.json")}


def test_data_that_changed_is_converted_again(data: Path) -> None:
    for count in (1, 2):
        rows = json.loads((data / "data.json").read_text())
        (data / "data.json").write_text(json.dumps([*rows, rows[1] | {"patient": "X"}]))
        assert convert(data) == 0
        assert len(read_records(data / "out" / "views_all_train.json")) == 6 + 2 * count


def test_wrong_options_and_missing_data_are_usage_errors(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(data, "--words", "bad") == 2
    with pytest.raises(SystemExit, match="2"):
        script.main("views", "Toy.", [])
    assert "DATA is missing" in capsys.readouterr().err
