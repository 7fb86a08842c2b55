"""Reading a FLARE tree: which question file counts, and what its rows hold."""

import json
from pathlib import Path
from typing import Any

import pytest

from medvl.errors import DataError
from medvl.sources.base import Problem, Sample, SourceFile, image_path
from medvl.sources.flare import FLARE
from medvl.sources.places import OutsideError
from medvl.tasks import Task, UnknownNameError

ROW = {"TaskType": "Classification", "Modality": "X-ray", "ImageName": "imagesTr/PXMT_00736.png",
       "Question": "Root fragments? A: No, B: Yes", "Answer": "B", "Split": "train"}  # fmt: skip


def place(root: Path, name: str, content: Any = ()) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def rows(tmp_path: Path, *rows: dict[str, Any]) -> list[Sample]:
    path = place(tmp_path, "training/Xray/dental/dental_questions_train.json", rows)
    return FLARE.read(FLARE.file_at(path)).samples


def found(root: Path, *splits: str, datasets: tuple[str, ...] = ()) -> list[str]:
    return [file.path.relative_to(root).as_posix() for file in FLARE.find(root, splits, datasets).all()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place(tmp_path, "validation-hidden/Xray/dental/dental_questions_val.json")
    place(tmp_path, "validation-hidden/Xray/dental/dental_questions_val_withGT.json")
    place(tmp_path, "training/Xray/dental/dental_questions_train.json")
    place(tmp_path, "training/Ultrasound/BUSI-det/BUSI-det_questions_train.json")
    place(tmp_path, "testing/Xray/dental/dental_questions_test.json")
    return tmp_path


def test_files_come_in_a_fixed_order_and_the_one_with_answers_wins(tree: Path) -> None:
    assert found(tree) == [
        "training/Ultrasound/BUSI-det/BUSI-det_questions_train.json",
        "training/Xray/dental/dental_questions_train.json",
        "validation-hidden/Xray/dental/dental_questions_val_withGT.json",
        "testing/Xray/dental/dental_questions_test.json",
    ]


def test_splits_by_short_name_or_folder_and_datasets_by_name(tree: Path) -> None:
    assert found(tree, "hidden") == found(tree, "validation-hidden")
    assert found(tree, "train", datasets=("dental",)) == ["training/Xray/dental/dental_questions_train.json"]


@pytest.mark.parametrize(
    ("splits", "datasets", "message"),
    [
        pytest.param(("hiden",), (), "unknown split 'hiden'; did you mean 'hidden'", id="split"),
        pytest.param((), ("Dental",), "unknown dataset 'Dental'; did you mean 'dental'", id="dataset"),
        pytest.param(("test",), ("BUSI-det",), "unknown dataset 'BUSI-det'; known: dental", id="dataset-not-in-split"),
    ],
)
def test_what_is_asked_for_but_not_there(
    tree: Path, splits: tuple[str, ...], datasets: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UnknownNameError, match=message):
        found(tree, *splits, datasets=datasets)


def test_a_folder_that_is_no_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no FLARE tree; expected one of the folders training"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        pytest.param(["IU_XRay_all_train.json"], "IU_XRay_all_train.json", id="name-of-another-revision"),
        pytest.param(["a_train.json", "dataset_info.json", "train_predictions.json"], "a_train.json", id="others"),
        pytest.param(["old_train.json", "IU_XRay_questions_train.json"], "IU_XRay_questions_train.json",
                     id="canonical"),
        pytest.param(["a_train.json", "a_train_withGT.json"], "a_train_withGT.json", id="one-with-answers"),
        pytest.param(["a_train.json", "b_train.json"], None, id="two-that-could-be-meant"),
        pytest.param(["a_val.json"], None, id="only-another-split"),
        pytest.param([], None, id="none"),
    ],
)  # fmt: skip
def test_which_file_of_a_dataset_counts(tmp_path: Path, names: list[str], chosen: str | None) -> None:
    folder = tmp_path / "training" / "Xray" / "IU_XRay"
    folder.mkdir(parents=True)
    for name in names:
        place(folder, name)
    if chosen is None:
        with pytest.raises(DataError, match=r"IU_XRay: expected IU_XRay_questions_train\.json"):
            found(tmp_path)
    else:
        assert found(tmp_path) == [f"training/Xray/IU_XRay/{chosen}"]


def test_folders_that_tools_leave_behind_are_passed_over(tree: Path) -> None:
    before = found(tree)
    place(tree, "training/Xray/.ipynb_checkpoints/x.json")
    place(tree, "training/__MACOSX/dental/._x.json")
    place(tree, "training/Xray/notes.json")
    assert found(tree) == before


@pytest.mark.parametrize(
    ("name", "split", "dataset"),
    [
        ("validation-public/Xray/chestdr/chestdr_questions_val.json", "val", "chestdr"),
        ("validation-hidden/Xray/dental/dental_questions_val.json", "hidden", "dental"),
        ("elsewhere/Microscopy/cells/cells_test.json", "test", "cells"),
        ("elsewhere/Microscopy/cells/questions.json", "val", "cells"),
        ("training/validation-hidden/Xray/dental/dental_questions_val.json", "hidden", "dental"),
    ],
)
def test_a_single_file_tells_its_split_and_dataset_by_its_place(
    tmp_path: Path, name: str, split: str, dataset: str
) -> None:
    path = place(tmp_path, name)
    assert FLARE.file_at(path) == SourceFile(FLARE.splits[split], path.parts[-3], dataset, path)


def test_a_row(tmp_path: Path) -> None:
    first, second = rows(tmp_path, ROW, ROW | {"Answer": "A"})
    assert (first.id, second.id) == ("training/Xray/dental/000000", "training/Xray/dental/000001")
    assert (first.task, first.question, first.answer) == (Task.CLASSIFICATION, ROW["Question"], "B")
    assert first.images == ("imagesTr/PXMT_00736.png",)
    assert second.row == ROW | {"Answer": "A"}


@pytest.mark.parametrize(
    ("answer", "text"),
    [(None, ""), ("", ""), ("  ", ""), (34.7, "34.7"), (11, "11"), ([[1, 2, 3, 4]], "[[1, 2, 3, 4]]"),
     ({"1": [[1, 2, 3, 4]]}, '{"1": [[1, 2, 3, 4]]}'), (" D ", " D ")],
)  # fmt: skip
def test_answers_of_every_type_are_text(tmp_path: Path, answer: object, text: str) -> None:
    assert rows(tmp_path, ROW | {"Answer": answer})[0].answer == text


def test_a_row_without_an_answer_has_a_blank_one(tmp_path: Path) -> None:
    assert rows(tmp_path, {key: value for key, value in ROW.items() if key != "Answer"})[0].answer == ""


def test_several_images(tmp_path: Path) -> None:
    assert rows(tmp_path, ROW | {"ImageName": ["imagesTr/a-1.jpg", "imagesTr/a-2.jpg"]})[0].images == (
        "imagesTr/a-1.jpg", "imagesTr/a-2.jpg",
    )  # fmt: skip


@pytest.mark.parametrize("names", ["", [], None, 7, [""], ["a.png", None]])
def test_a_row_without_image_names_is_refused(tmp_path: Path, names: object) -> None:
    problem = rows(tmp_path, ROW | {"ImageName": names})[0].problem("images")
    said = f"training/Xray/dental/000000: ImageName is {names!r}; expected a file name or a list of file names"
    assert problem == Problem("images", "IMAGE_NAME", said)


@pytest.mark.parametrize("name", ["imagesTr/a.png", "other/b.png", "../BUSI/imagesTr/c.png"])
def test_an_absolute_path_in_the_tree_is_followed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "tree" / "training" / "Xray" / "dental"
    path = (folder / name).resolve()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    file = SourceFile(FLARE.splits["train"], "Xray", "dental", folder / "q.json")
    assert image_path(FLARE, file, str(path)) == path
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    assert image_path(FLARE, file, str(path).replace("/tree/", "/link/")).samefile(path)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        pytest.param("tree/training/Xray/dental", "/etc/passwd", id="elsewhere"),
        pytest.param("tree/training/Xray/dental", "{root}/secret.png", id="beside-the-tree"),
        pytest.param("tree/training/Xray/dental", "{root}/tree/../secret.png", id="by-way-of-the-tree"),
        pytest.param("tree/training/Xray/dental", "{root}/tree2/secret.png", id="a-name-that-begins-alike"),
        pytest.param("alone/x/dental", "{root}/secret.png", id="no-tree"),
        pytest.param("tree/training/Xray/dental", "../BUSI/imagesTr/c.png", id="relative"),
    ],
)
def test_other_paths_lead_out(tmp_path: Path, folder: str, name: str) -> None:
    file = SourceFile(FLARE.splits["train"], "Xray", "dental", tmp_path / folder / "q.json")
    with pytest.raises(OutsideError, match="leads out of"):
        image_path(FLARE, file, name.format(root=tmp_path))


@pytest.mark.parametrize("question", ["", "  ", None, ["a"]])
def test_a_row_without_a_question_is_refused(tmp_path: Path, question: object) -> None:
    problem = rows(tmp_path, ROW | {"Question": question})[0].problem("question")
    said = f"training/Xray/dental/000000: Question is {question!r}; expected text"
    assert problem == Problem("question", "QUESTION_EMPTY", said)


def test_an_unknown_task_is_a_problem_of_the_row(tmp_path: Path) -> None:
    row = rows(tmp_path, ROW | {"TaskType": "Clasification"})[0]
    problem = row.problem("images", "question", "task")
    assert (row.task, problem and problem.code) == (None, "TASK_UNKNOWN")
    assert problem and "did you mean 'classification'" in problem.detail


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([ROW]).encode())
    assert len(FLARE.read(FLARE.file_at(path)).samples) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not JSON"), (b"[{", "not JSON"), (b'["\xff"]', "not JSON"), (b"{}", "expected a JSON list"),
     (b"[1]", "expected a JSON list"), (b'[{"a": NaN}]', "not JSON")],
)  # fmt: skip
def test_a_file_that_holds_no_rows_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "q.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"q\.json: {message}"):
        FLARE.read(FLARE.file_at(path))


def test_real_trees(shared_data: Path) -> None:
    sizes = [len(FLARE.read(file).samples) for file in FLARE.find(shared_data / "bccd_flare").all()]
    assert sizes == [1229, 521, 428]
    for file in FLARE.find(shared_data / "flare_records").all():
        assert all(sample.answer and not sample.problems for sample in FLARE.read(file).samples)
