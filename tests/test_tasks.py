"""Task names as they are written in the wild, and the 19 FLARE datasets."""

import pytest

from medvl.sources import label_separator
from medvl.sources.flare_datasets import FLARE_DATASETS
from medvl.tasks import Task, UnknownNameError, canonical_task

SPELLINGS = {
    Task.CLASSIFICATION: ["Classification", "classification", "binary classification", "disease diagnosis",
                          "disease_diagnosis_classification"],
    Task.MULTI_LABEL: ["multi-label classification", "Multi-label Classification", "multi_label_classification",
                       "multilabel classification"],
    Task.DETECTION: ["Detection", "detection", "object detection", "lesion detection"],
    Task.INSTANCE_DETECTION: ["instance_detection", "Instance Detection", "instance segmentation"],
    Task.COUNTING: ["counting", "Counting", "Cell Counting", "cell counting", "cell_counting"],
    Task.REGRESSION: ["regression", "Regression"],
    Task.REPORT: ["report_generation", "Report Generation", "report generation", "Report_Generation", "reporting"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "task"), [pytest.param(name, task, id=name) for task, names in SPELLINGS.items() for name in names]
)
def test_every_spelling_met_means_its_task(name: str, task: Task) -> None:
    assert canonical_task(name) is task
    assert canonical_task(f"  {name.upper()} ") is task
    assert canonical_task(name.replace(" ", "-").replace("_", "  ")) is task


@pytest.mark.parametrize("task", Task)
def test_canonical_names_are_their_own_canonical_names(task: Task) -> None:
    assert canonical_task(task.value) is task


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        pytest.param("clasification", "classification", id="letter-missing"),
        pytest.param("Multi-Lable Classification", "multilabel classification", id="letters-swapped"),
        pytest.param("Detections", "detection", id="plural"),
        pytest.param("report-gnration", "report generation", id="letters-lost"),
    ],
)
def test_an_unknown_task_is_refused_with_the_nearest_known(name: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{nearest}'"):
        canonical_task(name)


@pytest.mark.parametrize("name", ["", "   ", "VQA", "zzzz"])
def test_a_task_like_no_other_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"known: .*regression"):
        canonical_task(name)


def test_what_tasks_answer_with() -> None:
    assert [task for task in Task if task.has_boxes] == [Task.DETECTION, Task.INSTANCE_DETECTION]
    assert [task for task in Task if task.is_number] == [Task.COUNTING, Task.REGRESSION]


def test_the_19_datasets() -> None:
    assert len(FLARE_DATASETS) == 19
    assert {name for name, dataset in FLARE_DATASETS.items() if dataset.multi_image} == {
        "neojaundice", "bcn20000", "endo", "CMMD", "IU_XRay",
    }  # fmt: skip
    assert {dataset.category for dataset in FLARE_DATASETS.values()} == {
        "Retinography", "Ultrasound", "Xray", "Clinical", "Microscopy", "Endoscopy", "Dermatology", "Mammography",
    }  # fmt: skip


def test_label_separators() -> None:
    assert label_separator("periapical") == ";"
    assert label_separator("chestdr") == ","
    assert label_separator("dental") is None
    assert label_separator("never heard of") is None
