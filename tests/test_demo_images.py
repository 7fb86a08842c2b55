"""The drawn tree has FLARE's layout, is the same every time, and its answers fit its images."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medvl.demo.images import build_tree
from medvl.demo.verdict import DRAWN
from medvl.sources.flare_datasets import FLARE_DATASETS
from medvl.tasks import Task, canonical_task


def fingerprints(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "tree"
    build_tree(root, train=24, val=4)
    return root


def question_files(root: Path) -> list[Path]:
    return sorted(root.glob("*/*/*/*_questions_*.json"))


def rows(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    return [(file.parent, row) for file in question_files(root) for row in json.loads(file.read_text())]


def test_same_seed_same_bytes_also_over_an_older_tree(tree: Path, tmp_path: Path) -> None:
    build_tree(tmp_path, seed=1, train=27, val=5)
    other = fingerprints(tmp_path)
    build_tree(tmp_path, train=24, val=4)
    assert fingerprints(tmp_path) == fingerprints(tree)
    assert set(other.values()).isdisjoint(fingerprints(tree).values())


def test_more_records_leave_the_first_ones_alone(tree: Path, tmp_path: Path) -> None:
    build_tree(tmp_path, train=25, val=4)
    images = {name: digest for name, digest in fingerprints(tree).items() if not name.endswith(".json")}
    assert images.items() <= fingerprints(tmp_path).items()


def test_layout(tree: Path) -> None:
    for file in question_files(tree):
        split, _, dataset = file.relative_to(tree).parts[:3]
        short, images = {"training": ("train", "imagesTr"), "validation-public": ("val", "imagesVal")}[split]
        assert file.name == f"{dataset}_questions_{short}.json"
        assert (file.parent / images).is_dir()
        assert dataset not in FLARE_DATASETS


def test_every_task_has_a_dataset_in_both_splits(tree: Path) -> None:
    for split in ("training", "validation-public"):
        found = {canonical_task(row["TaskType"]) for folder, row in rows(tree) if split in folder.parts}
        assert found == DRAWN == set(Task) - {Task.VQA}


def test_records_have_six_keys_and_their_images(tree: Path) -> None:
    views = set()
    for folder, row in rows(tree):
        assert set(row) == {"TaskType", "Modality", "ImageName", "Question", "Answer", "Split"}
        names = row["ImageName"] if isinstance(row["ImageName"], list) else [row["ImageName"]]
        views.add(len(names))
        for name in names:
            Image.open(folder / name).load()
    assert views == {1, 2}


def test_png_and_jpeg_in_several_sizes(tree: Path) -> None:
    images = [Image.open(path) for path in tree.rglob("images*/*")]
    assert {image.format for image in images} == {"PNG", "JPEG"}
    assert len({image.size for image in images}) == 3


def test_boxes_lie_in_their_image_and_some_images_have_none(tree: Path) -> None:
    counts = set()
    for folder, row in rows(tree):
        if not canonical_task(row["TaskType"]).has_boxes:
            continue
        answer = json.loads(row["Answer"])
        boxes = [box for group in answer.values() for box in group] if isinstance(answer, dict) else answer
        counts.add(len(boxes))
        width, height = Image.open(folder / row["ImageName"]).size
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert counts == {0, 1, 2, 3}


def test_answers_name_an_option_of_the_question(tree: Path) -> None:
    for _, row in rows(tree):
        task = canonical_task(row["TaskType"])
        if task is Task.CLASSIFICATION:
            assert any(f"{row['Answer']}{mark} " in row["Question"] for mark in ":).")
        elif task is Task.MULTI_LABEL:
            assert all(label in row["Question"] for label in row["Answer"].split("; "))
