"""Task names as they are written in the wild, what each task has to have everywhere, and the 19 FLARE datasets."""

from pathlib import Path

import pytest

from evaluation.metrics.registry import metrics_of
from evaluation.scoring import score
from medvl.answers import challenge_text, parse_answer, target_text
from medvl.postprocessing import postprocess
from medvl.profiles import read_profiles
from medvl.router.labels import LABELS
from medvl.router.templates import wordings
from medvl.sharegpt import Source, make_record
from medvl.sources import label_separator
from medvl.sources.flare_datasets import FLARE_DATASETS
from medvl.tasks import POSTPROCESSORS, TASKS, Task, UnknownNameError, canonical_task
from medvl.yaml_files import read_yaml
from preprocess.audit import audit
from preprocess.report import CODES
from preprocess.results import DatasetResult
from tests.support.samples import samples_of

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
    Task.VQA: ["vqa", "VQA", "open-ended", "Open ended", "visual question answering", "Open_VQA"],
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


@pytest.mark.parametrize("name", ["", "   ", "zzzz"])
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


# --- Each task has everything, everywhere -----------------------------------------------------------------------------

# Task -> a question, its answer, an answer that cannot be read, and an odd one with the code that the audit gives it.
WALK: dict[Task, tuple[str, str, str, str, str]] = {
    Task.CLASSIFICATION: ("Is it normal? A: No, B: Yes", "A", "???", "Yes", "OPTION_TEXT"),
    Task.MULTI_LABEL: ("Which of the following: Caries; Cyst; Normal?", "Caries; Cyst", "", "Caries; Normal",
                       "NORMAL_WITH_FINDINGS"),
    Task.DETECTION: ("Where is the lesion?", "[[10, 10, 20, 20]]", "nowhere", "[[10, 10, 20, 20]]", ""),
    Task.INSTANCE_DETECTION: ("Map the chromosomes.", '{"1": [[10, 10, 20, 20]]}', "none", "[[1, 2, 3, 4]]",
                              "MAP_MALFORMED"),
    Task.COUNTING: ("How many cells?", "12", "many", "2.5", "COUNT_NOT_WHOLE"),
    Task.REGRESSION: ("How long is it?", "3.5", "long", "-1", "NEGATIVE_NUMBER"),
    Task.REPORT: ("Describe it.", "The heart is normal.", "", "Normal.", "REPORT_SHORT"),
    Task.VQA: ("Which lobe is affected?", "right upper lobe", "I cannot tell.", "[[1, 2, 3, 4]]", "BOXES_UNEXPECTED"),
}  # fmt: skip


def test_the_table_holds_every_task_once() -> None:
    assert list(TASKS) == list(WALK) == list(Task)
    assert all(spec.task is task for task, spec in TASKS.items())
    spellings = [spelling for spec in TASKS.values() for spelling in spec.spellings]
    assert len(spellings) == len(set(spellings))
    assert set(POSTPROCESSORS.values()) == set(Task)


@pytest.mark.parametrize("task", Task)
def test_a_task_has_a_profile_and_the_file_in_recipes_states_it(task: Task, repository: Path) -> None:
    profile, stated = read_profiles(None)[task], read_yaml(repository / "recipes" / "profiles" / "default.yaml")[task]
    assert POSTPROCESSORS[profile.postprocess] is task
    assert (stated["max_new_tokens"], stated["postprocess"]) == (TASKS[task].max_new_tokens, TASKS[task].postprocess)
    assert stated["adapter"] == task


@pytest.mark.parametrize("task", Task)
def test_a_task_has_words_for_the_router(task: Task) -> None:
    assert LABELS[task] == TASKS[task].label
    assert list(LABELS.values()).count(TASKS[task].label) == 1
    assert wordings(task) >= 15


@pytest.mark.parametrize("task", Task)
def test_an_answer_is_read_written_and_read_again(task: Task) -> None:
    question, right, unreadable, *_ = WALK[task]
    answer = parse_answer(right, task, question=question)
    assert answer.parsed
    assert postprocess(right, TASKS[task].postprocess, question=question).text == right
    handed_in = challenge_text(answer, right, size=(100, 100), frame="pixel")
    again = parse_answer(handed_in, task, question=question)
    assert again.parsed
    assert challenge_text(again, handed_in, size=(100, 100), frame="pixel") == handed_in
    assert target_text(answer, right, size=(100, 100), frame="pixel", style="flare", label=None) == right
    assert not parse_answer(unreadable, task, question=question).parsed


@pytest.mark.parametrize("task", Task)
def test_a_task_is_scored_by_its_headline_and_unreadable_is_worst(task: Task) -> None:
    question, right, unreadable, *_ = WALK[task]
    spec = TASKS[task]
    declared = {metric.name: metric for metric in metrics_of("strict", task)}[spec.headline]
    assert declared.headline and declared.higher_is_better == spec.higher_is_better
    names = [spec.headline, "mae_penalised"] if task.is_number else [spec.headline]
    for name in names[-1:]:
        best, worst = (
            score(samples_of(task, [(right, said)], question), "strict")[task].pooled[name]["value"]
            for said in (right, unreadable)
        )
        assert best == float(spec.higher_is_better)
        assert worst < best if spec.higher_is_better else worst > best


@pytest.mark.parametrize("task", Task)
def test_odd_answers_of_a_task_are_listed(task: Task) -> None:
    question, right, _, odd, code = WALK[task]

    def codes(answer: str) -> list[str]:
        source = Source(split="training", file="f.json", index=0, sizes=[(100, 100)], answer=answer)
        record = make_record(question=question, answer=answer, images=["a.png"], id="a", task=task, dataset="d",
                             source=source)  # fmt: skip
        part = DatasetResult(dataset="d", split="train", category="c", file="f.json", rows=1, records=[record],
                             findings=[])  # fmt: skip
        return [finding.code for finding in audit(part).findings]

    assert codes(right) == []
    assert codes(odd) == ([code] if code else [])
    assert not code or code in CODES
