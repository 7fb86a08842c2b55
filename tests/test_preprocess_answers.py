"""Which text is trained on for the answers of a source, and what is said about it; the source's own stays verbatim."""

# ruff: noqa: RUF001 (characters that look like ASCII are tested)

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from medvl.sharegpt import Record
from medvl.sources.base import Sample, SourceFile
from medvl.sources.flare import FLARE
from medvl.sources.flare_datasets import FLARE_DATASETS
from preprocess.audit import audit
from preprocess.decoding import ImageInfo
from preprocess.options import Options
from preprocess.results import DatasetResult
from preprocess.rows import convert
from tests.support.flare_tree import row

COUNTS, SECTIONS = {"count": 17}, {"findings": "Clear lungs.", "impression": "Normal heart."}
LONG = "Endodontic Treatment, Restorative Treatment, and Complications"


def converted(tmp_path: Path, dataset: str, answer: Any, split: str = "train", **changes: Any) -> DatasetResult:
    """One row of a dataset with that answer, read from a file, converted and audited."""
    return audit(part_of(read(tmp_path, dataset, json.dumps(answer), split, **changes)))


def read(tmp_path: Path, dataset: str, answer: str, split: str = "train", **changes: Any) -> Sample:
    """The row with an answer spelled in JSON as given."""
    file = SourceFile(FLARE.splits[split], FLARE_DATASETS[dataset].category, dataset, tmp_path / "q.json")
    text = json.dumps([row(dataset, Answer="@", **changes)]).replace('"@"', answer)
    file.path.write_text(text, encoding="utf-8")
    return FLARE.read(file).samples[0]


def part_of(sample: Sample) -> DatasetResult:
    images = {name: ImageInfo(f"/x/{name}", (100, 80)) for name in sample.images}
    record, findings = convert(sample, images, Options(FLARE, "norm1000", "json", "drop", "flare"))
    file = sample.file
    return DatasetResult(dataset=file.dataset, split=file.split.folder, category=file.category, file=str(file.path),
                         rows=1, records=[record] if record else [], findings=findings)  # fmt: skip


def outcome(part: DatasetResult) -> tuple[str | None, list[str]]:
    return part.records[0].target if part.records else None, [finding.code for finding in part.findings]


REWRITTEN, STRUCTURED, PLACEHOLDER = ["ANSWER_REWRITTEN"], ["ANSWER_STRUCTURED"], ["ANSWER_PLACEHOLDER"]


@pytest.mark.parametrize(
    ("dataset", "answer", "target", "codes"),
    [
        pytest.param("chestdr", ["Edema", "Mass"], "Edema, Mass", REWRITTEN, id="labels as a list"),
        pytest.param("chestdr", '["Edema", "Mass"]', "Edema, Mass", REWRITTEN, id="labels as JSON text"),
        pytest.param("chestdr", "['Edema', 'Mass']", "Edema, Mass", REWRITTEN, id="labels as Python text"),
        pytest.param("periapical", ["Dental Caries", LONG], f"Dental Caries; {LONG}", REWRITTEN, id="commas"),
        pytest.param("chestdr", ["Edema, mild", "Mass"], None, STRUCTURED, id="the separator in a label"),
        pytest.param("chestdr", {"Edema": 1, "Mass": 0}, "Edema", REWRITTEN, id="marked labels"),
        pytest.param("chestdr", {"Edema": 0, "Mass": 0}, None, STRUCTURED, id="no label marked"),
        pytest.param("chestdr", [], None, STRUCTURED, id="no label listed"),
        pytest.param("chestdr", {"Edema": 0.7}, None, STRUCTURED, id="scores"),
        pytest.param("chestdr", True, None, STRUCTURED, id="true for labels"),
        pytest.param("chestdr", 3, None, STRUCTURED, id="a number for labels"),
        pytest.param("IU_XRay", 0.5, None, STRUCTURED, id="a number for a report"),
        pytest.param("retino", ["A"], "A", REWRITTEN, id="letter in a list"),
        pytest.param("retino", {"answer": "A"}, "A", REWRITTEN, id="letter under a key"),
        pytest.param("retino", ["A", "B"], None, STRUCTURED, id="two letters"),
        pytest.param("retino", {"A": 0.9, "B": 0.1}, None, STRUCTURED, id="probabilities"),
        pytest.param("CMMD", {"subtype": "Luminal a"}, "Luminal a", REWRITTEN, id="label under a key"),
        pytest.param("neurips22cell", COUNTS, "17", REWRITTEN, id="count under a key"),
        pytest.param("boneresorption", [17.5], "17.5", REWRITTEN, id="number in a list"),
        pytest.param("boneresorption", {"low": 1, "high": 2}, None, STRUCTURED, id="two numbers"),
        pytest.param("IU_XRay", SECTIONS, "Findings: Clear lungs.\nImpression: Normal heart.", REWRITTEN, id="two"),
        pytest.param("IU_XRay", {"findings": "Clear lungs."}, "Clear lungs.", REWRITTEN, id="one section"),
        pytest.param("IU_XRay", ["Clear.", "Normal."], "Clear. Normal.", REWRITTEN, id="sentences"),
        pytest.param("IU_XRay", {"edema": {"left": 1}}, None, STRUCTURED, id="a tree"),
        pytest.param("retino", " A\n", "A", REWRITTEN, id="spaces around a letter"),
        pytest.param("IU_XRay", "\tClear lungs. ", "Clear lungs.", REWRITTEN, id="spaces around a report"),
        pytest.param("BUSI-det", " [[10, 20, 50, 60]] ", '[{"bbox_2d":[100,250,500,750],"label":"lesion"}]', [],
                     id="spaces around boxes"),
        pytest.param("boneresorption", "1e-05", "0.00001", REWRITTEN, id="exponent"),
        *(pytest.param("chestdr", word, word, PLACEHOLDER, id=f"{word} for labels")
          for word in ("None", "null", "NaN", "n/a", "<NA>", "none")),
        *(pytest.param("IU_XRay", word, None, PLACEHOLDER, id=f"{word} for a report") for word in ("None", " nan\n")),
        *(pytest.param(dataset, "None", "None", codes, id=f"None in {dataset}")
          for dataset, codes in (("retino", [*PLACEHOLDER, "ANSWER_UNUSUAL"]), ("CMMD", PLACEHOLDER),
                                 ("periapical", PLACEHOLDER))),
        pytest.param("retino", "</think>A", "</think>A", ["ANSWER_UNUSUAL", "OPTION_TEXT"], id="end of thoughts"),
        pytest.param("IU_XRay", "Clear lungs.</s>", "Clear lungs.</s>", ["ANSWER_UNUSUAL"], id="end of turn"),
        pytest.param("retino", "Ａ", "Ａ", [], id="full-width letter"),
        pytest.param("retino", "（A）。", "（A）。", [], id="letter in full-width brackets"),
        pytest.param("retino", "Ｑ", "Ｑ", ["LETTER_NOT_OPTION"], id="full-width letter that is no option"),
        pytest.param("retino", "A、B", "A、B", ["SEVERAL_LETTERS"], id="letters in another list"),
        pytest.param("retino", "答案：A", "答案：A", ["OPTION_TEXT"], id="letter in a sentence"),
        pytest.param("periapical", "Dental Caries；Dental Caries", "Dental Caries；Dental Caries", ["LABEL_REPEATED"],
                     id="label twice, another semicolon"),
        pytest.param("boneresorption", "－３４．７％", "－３４．７％", ["NEGATIVE_NUMBER"], id="full-width number"),
    ],
)  # fmt: skip
def test_what_is_trained_on(tmp_path: Path, dataset: str, answer: Any, target: str | None, codes: list[str]) -> None:
    part = converted(tmp_path, dataset, answer)
    assert outcome(part) == (target, codes)
    assert all(finding.action == ("kept" if part.records else "quarantined") for finding in part.findings)
    if part.records:
        verbatim = answer if isinstance(answer, str) else json.dumps(answer)
        assert part.records[0].source.answer == verbatim


@pytest.mark.parametrize(
    ("dataset", "answer", "target"),
    [
        pytest.param("periapical", ["Mass, left"], None, id="a comma in the only label"),
        pytest.param("periapical", {"Mass, left": 1, "Edema": 0}, None, id="a comma in the only marked label"),
        pytest.param("periapical", ["Mass, left", "Edema"], "Mass, left; Edema", id="a comma in one of two labels"),
        pytest.param("periapical", {"labels": ["Mass"]}, "Mass", id="no comma"),
    ],
)
def test_labels_of_data_are_read_back_from_what_is_trained_on(
    tmp_path: Path, dataset: str, answer: Any, target: str | None
) -> None:
    part = converted(tmp_path, dataset, answer, Question="What is there?")
    assert outcome(part)[0] == target
    assert target is not None or outcome(part)[1][-1] == "ANSWER_STRUCTURED"


@pytest.mark.parametrize(
    ("written", "target"),
    [("1.10", "1.10"), ("0.00001", "0.00001"), ("34.7", "34.7"), ("0.0", "0.0"), ("1E-5", "0.00001"), ("17", "17"),
     ("20.1631313163075", "20.1631313163075"), ("-0.50", "-0.50")],
)  # fmt: skip
def test_numbers_are_trained_on_as_the_file_writes_them(tmp_path: Path, written: str, target: str) -> None:
    (record,) = part_of(read(tmp_path, "boneresorption", written)).records
    assert (record.source.answer, record.target) == (written, target)


@pytest.mark.parametrize(
    ("dataset", "question", "answer"),
    [
        pytest.param("CMMD", "Which abnormality: mass, calcification or none?", "None", id="in the question"),
        pytest.param("endo", "Finding? A: Ulcer, B: None", "None", id="an option"),
        pytest.param("chestdr", "Select from the following: Edema; None.", "None", id="an offered label"),
    ],
)
def test_none_may_be_an_answer(tmp_path: Path, dataset: str, question: str, answer: str) -> None:
    part = converted(tmp_path, dataset, answer, Question=question)
    assert part.records[0].target == answer
    assert "ANSWER_PLACEHOLDER" not in outcome(part)[1]


def test_questions_of_hidden_splits_are_kept_whatever_stands_for_an_answer(tmp_path: Path) -> None:
    part = converted(tmp_path, "chestdr", "None", "hidden")
    assert outcome(part) == ("None", PLACEHOLDER)
    assert part.findings[0].action == "kept"


def test_answers_are_compared_as_they_are_trained_on(tmp_path: Path) -> None:
    records: list[Record] = []
    for index, answer in enumerate(["A", ["A"], " A", "Ａ", "B"]):
        question = read(tmp_path, "retino", json.dumps(answer))
        records += part_of(msgspec.structs.replace(question, index=index)).records
    part = audit(DatasetResult(dataset="retino", split="training", category="x", file="q", rows=5, records=records,
                           findings=[]))  # fmt: skip
    assert [finding.code for finding in part.findings] == ["ROWS_CONTRADICT"] * 5
    assert [finding.code for finding in audit(_without_last(part)).findings][-3:] == ["ROW_REPEATED"] * 3


def _without_last(part: DatasetResult) -> DatasetResult:
    return DatasetResult(dataset=part.dataset, split=part.split, category=part.category, file=part.file, rows=4,
                     records=part.records[:4], findings=[])  # fmt: skip
