"""The contract of data sources, beside what tests of FLARE and of the toy source show."""

import json
from pathlib import Path
from typing import Any

import pytest

from medvl.boxes import as_boxes
from medvl.errors import DataError, UsageError
from medvl.sources import SOURCES, file_at, label_separator, source_named, tree_at
from medvl.sources.base import BoxAnswer, Found, Problem, Sample, SourceFile, image_path
from medvl.sources.flare import FLARE
from medvl.sources.places import OutsideError, place_in
from medvl.tasks import Task
from preprocess.decoding import ImageInfo
from preprocess.options import Options
from preprocess.rows import convert

FILE = SourceFile(FLARE.splits["train"], "Xray", "dental", Path("/tree/training/Xray/dental/q.json"))
OPTIONS = Options(FLARE, "norm1000", "json", "drop", "flare")
IMAGES = {"a.png": ImageInfo("/tree/a.png", (100, 80))}


def sample(**changes: Any) -> Sample:
    fields = {"file": FILE, "index": 3, "row": {}, "task": Task.CLASSIFICATION, "question": "Which? A: a, B: b"}
    return Sample(**fields | {"images": ("a.png",), "answer": "B"} | changes)


def test_a_source_that_is_not_known_yet_is_named_with_the_cure() -> None:
    with pytest.raises(UsageError, match=r"folders\.py: its source is not known yet; add it to SOURCES"):
        source_named("folders")


def test_a_sample_without_images_is_a_record_of_text_alone() -> None:
    record, findings = convert(sample(images=()), {}, OPTIONS)
    assert record
    assert (record.images, record.source.sizes, record.conversations[0].value) == ([], [], "Which? A: a, B: b")
    assert findings == []


@pytest.mark.parametrize("answer", [{"boxes": BoxAnswer(as_boxes([1, 2, 3, 4]), (None,), "pixel"), "answer": ""},
                                    {"answer": "[[1, 2, 3, 4]]"}])  # fmt: skip
def test_boxes_need_an_image(answer: dict[str, Any]) -> None:
    record, (finding,) = convert(sample(images=(), task=Task.DETECTION, **answer), {}, OPTIONS)
    assert (record, finding.code, finding.action) == (None, "ANSWER_UNUSABLE", "quarantined")
    assert "boxes without an image" in finding.detail


@pytest.mark.parametrize(
    ("task", "labels", "frame", "target", "kept"),
    [
        pytest.param(Task.DETECTION, ("x", None), "norm1",
                     '[{"bbox_2d":[100,200,500,600],"label":"x"},{"bbox_2d":[0,0,1000,1000]}]',
                     '[{"bbox_2d":[10,16,50,48],"label":"x"},{"bbox_2d":[0,0,100,80]}]', id="names in part"),
        pytest.param(Task.DETECTION, (None, None), "norm1",
                     '[{"bbox_2d":[100,200,500,600]},{"bbox_2d":[0,0,1000,1000]}]',
                     "[[10, 16, 50, 48], [0, 0, 100, 80]]", id="no names"),
        pytest.param(Task.INSTANCE_DETECTION, ("1", "1"), "norm1", '{"1":[[100,200,500,600],[0,0,1000,1000]]}',
                     '{"1":[[10,16,50,48],[0,0,100,80]]}', id="instances"),
    ],
)  # fmt: skip
def test_boxes_as_data_become_the_text_that_boxes_as_text_do(
    task: Task, labels: tuple[str | None, ...], frame: Any, target: str, kept: str
) -> None:
    boxes = BoxAnswer(as_boxes([[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1]]), labels, frame)
    record, findings = convert(sample(task=task, answer="", boxes=boxes), IMAGES, OPTIONS)
    assert record
    assert (record.target, record.source.answer, findings) == (target, kept, [])


@pytest.mark.parametrize(
    ("part", "code", "action"),
    [("images", "IMAGE_NAME", "quarantined"), ("task", "TASK_UNKNOWN", "quarantined"),
     ("question", "QUESTION_EMPTY", "dropped"), ("answer", "ANSWER_UNUSABLE", "quarantined")],
)  # fmt: skip
def test_what_a_source_says_is_wrong_is_the_finding(part: Any, code: str, action: str) -> None:
    record, (finding,) = convert(sample(problems=(Problem(part, code, "bad"),)), IMAGES, OPTIONS)
    assert (record, finding.code, finding.action) == (None, code, action)
    assert finding.detail == "flare/training/Xray/dental/000003: bad"


def test_everything_that_was_refused_is_raised_at_once() -> None:
    assert Found((FILE,)).all() == (FILE,)
    with pytest.raises(DataError, match=r"^one\ntwo$"):
        Found((FILE,), ("one", "two")).all()


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.png", "x/../../a.png", "..", "C:/a.png", "a\0.png", "..\\a.png"])
def test_names_that_lead_out_of_a_folder(name: str) -> None:
    with pytest.raises(OutsideError, match="leads out of /data"):
        place_in("/data", name)
    assert place_in("/data", "x\\..\\b.png") == "/data/b.png"


def test_the_tree_of_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "training" / "Xray" / "dental"
    folder.mkdir(parents=True)
    path = folder / "dental_questions_train.json"
    path.write_text(json.dumps([]))
    whole, part = tree_at(tmp_path), tree_at(folder)
    assert whole
    assert part
    assert (whole.split, part.split, part.root) == (None, FLARE.splits["train"], tmp_path)
    assert [file.path for file in whole.files()] == [file.path for file in part.files()] == [path]
    assert tree_at(tmp_path.parent) is None
    assert file_at(path) == (FLARE, SourceFile(FLARE.splits["train"], "Xray", "dental", path))


def test_the_table_of_sources() -> None:
    assert {name: source.name for name, source in SOURCES.items()} == {name: name for name in SOURCES}
    for source in SOURCES.values():
        assert {name: split.name for name, split in source.splits.items()} == {name: name for name in source.splits}
        assert len({split.folder for split in source.splits.values()}) == len(source.splits)
    assert label_separator("periapical") == ";"


def test_an_image_is_where_it_is_a_file_else_at_the_likeliest_place(tmp_path: Path) -> None:
    file = SourceFile(FLARE.splits["train"], "Xray", "dental", tmp_path / "q.json")
    assert image_path(FLARE, file, "a.png") == tmp_path / "a.png"
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "a.png").write_bytes(b"x")
    assert image_path(FLARE, file, "a.png") == tmp_path / "imagesTr" / "a.png"
