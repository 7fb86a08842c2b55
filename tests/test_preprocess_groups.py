"""Entries of datasets, tasks, categories and all: every record is in the entries that its names lead to."""

import json
from pathlib import Path

import pytest

from medvl.sharegpt import read_records
from preprocess.results import DatasetResult, group_records
from tests.support.flare_tree import convert, row, write_tree
from tests.support.records import record


def entries(*parts: tuple[str, str, str]) -> dict[str, int]:
    """Entry name -> number of records, of one record per (category, dataset, task)."""
    converted = [
        DatasetResult(dataset=dataset, split="training", category=category, file="q", rows=1, findings=[],
                  records=[record(number, "a.png", dataset=dataset, task=task)])
        for number, (category, dataset, task) in enumerate(parts)
    ]  # fmt: skip
    split_of = {item.id: "train" for part in converted for item in part.records}
    groups = group_records(converted, split_of)
    names = {entry.name("flare"): len(records) for entry, records in groups.items()}
    assert len(names) == len(groups), "two entries of one name"
    return names


COUNTED = ("Microscopy", "neurips22cell", "counting")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param(
            [COUNTED, ("Xray", "dental", "classification")],
            {"flare_neurips22cell_train": 1, "flare_counting_train": 1, "flare_dental_train": 1,
             "flare_classification_train": 1, "flare_microscopy_train": 1, "flare_xray_train": 1},
            id="names of their own",
        ),
        pytest.param(
            [COUNTED, ("Xray", "counting", "detection")],
            {"flare_counting_train": 1, "flare_dataset_counting_train": 1, "flare_detection_train": 1},
            id="dataset like a task",
        ),
        pytest.param(
            [("Xray", "Multi-Label Classification", "multi_label_classification")],
            {"flare_multi_label_classification_train": 1, "flare_dataset_multi_label_classification_train": 1},
            id="in another spelling",
        ),
        pytest.param(
            [("Xray", "dental", "regression"), ("Clinical", "xray", "detection")],
            {"flare_xray_train": 1, "flare_dataset_xray_train": 1, "flare_clinical_train": 1},
            id="dataset like a category",
        ),
        pytest.param(
            [("Xray", "dental", "regression"), ("Xray", "xray", "detection")],
            {"flare_xray_train": 2, "flare_dataset_xray_train": 1},
            id="dataset like its category",
        ),
        pytest.param(
            [COUNTED, ("Counting", "cells", "regression")],
            {"flare_counting_train": 1, "flare_category_counting_train": 1},
            id="category like a task",
        ),
        pytest.param([COUNTED, ("All", "all", "regression")],
                     {"flare_all_train": 2, "flare_dataset_all_train": 1}, id="all"),
    ],
)  # fmt: skip
def test_no_name_takes_the_entry_of_another(parts: list[tuple[str, str, str]], expected: dict[str, int]) -> None:
    found = entries(*parts)
    assert found == found | expected
    assert found["flare_all_train"] == len(parts)


@pytest.mark.subprocess
def test_the_other_name_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(tmp_path / "tree", {"neurips22cell": [row("neurips22cell")], "retino": [row("retino")]})
    folder = tmp_path / "tree" / "training" / "Retinography"
    (folder / "retino").rename(folder / "counting")
    (folder / "counting" / "retino_questions_train.json").rename(folder / "counting" / "counting_questions_train.json")
    convert(tmp_path / "tree", tmp_path / "out")
    registry = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert registry["flare_dataset_counting_train"]["file_name"] == "flare_dataset_counting_train.json"
    (counted,) = read_records(tmp_path / "out" / registry["flare_counting_train"]["file_name"])
    assert counted.dataset == "neurips22cell"
    said = " ".join(capsys.readouterr().err.split())
    assert "note: dataset counting is the entry flare_dataset_counting_train: the short name is another's" in said


def test_a_category_of_one_dataset_of_its_name_is_that_entry() -> None:
    assert entries(("Xray", "xray", "detection")) == {
        "flare_xray_train": 1, "flare_all_train": 1, "flare_detection_train": 1,
    }  # fmt: skip
