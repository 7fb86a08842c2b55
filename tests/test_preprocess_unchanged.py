"""A second run over an unchanged tree does nothing; any change of what goes in or came out makes it work again."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from benchmarks.flare_tree import build
from medvl.sources.base import Source, SourceFile
from preprocess import conversion
from tests.support.flare_tree import convert, row, write_tree

pytestmark = pytest.mark.subprocess


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_tree(tmp_path / "tree", {"BUSI": [row("BUSI")], "retino": [row("retino")]})
    return tmp_path / "tree"


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every run that looks at rows."""
    runs: list[int] = []
    original = conversion.read_rows

    def recording(source: Source, files: list[SourceFile], refused: list[str], name: str) -> object:
        runs.append(len(files))
        return original(source, files, refused, name)

    monkeypatch.setattr(conversion, "read_rows", recording)
    return runs


def bytes_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if not path.name.startswith(".")}


def test_an_unchanged_tree_is_not_read_again(
    tree: Path, tmp_path: Path, worked: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    convert(tree, tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    convert(tree, tmp_path / "out")
    assert worked == [2]
    assert bytes_of(tmp_path / "out") == before
    assert "nothing has changed since the last run: rows: 2 in, 2 kept" in " ".join(capsys.readouterr().out.split())


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "image touched": lambda tree, out: touch(next(tree.rglob("BUSI_1.png"))),
    "image gone": lambda tree, out: next(tree.rglob("BUSI_1.png")).unlink(),
    "question file touched": lambda tree, out: touch(next(tree.rglob("BUSI_questions_train.json"))),
    "a better question file": lambda tree, out: next(tree.rglob("BUSI_questions_train.json")).rename(
        next(tree.rglob("BUSI_questions_train.json")).with_name("BUSI_questions_train_withGT.json")
    ),
    "records deleted": lambda tree, out: (out / "flare_all_train.json").unlink(),
    "records changed": lambda tree, out: (out / "flare_all_train.json").write_text("[]"),
    "manifest deleted": lambda tree, out: (out / "manifest.json").unlink(),
    "registry deleted": lambda tree, out: (out / "dataset_info.json").unlink(),
    "entry changed": lambda tree, out: (out / "dataset_info.json").write_text('{"flare_all_train": {}}'),
}


def test_a_registry_that_is_none_is_refused_after_a_complete_run_too(tree: Path, tmp_path: Path) -> None:
    convert(tree, tmp_path / "out")
    (tmp_path / "out" / "dataset_info.json").write_text("[]")
    convert(tree, tmp_path / "out", code=3)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_is_noticed(
    tree: Path, tmp_path: Path, worked: list[int], change: Callable[[Path, Path], object]
) -> None:
    convert(tree, tmp_path / "out")
    change(tree, tmp_path / "out")
    convert(tree, tmp_path / "out")
    assert worked == [2, 2]
    convert(tree, tmp_path / "out")
    assert worked == [2, 2]


def test_a_question_file_that_changed_after_it_was_read(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worked: list[int]
) -> None:
    read = conversion.read_rows

    def overtaken(source: Source, files: list[SourceFile], refused: list[str], name: str) -> object:
        rows = read(source, files, refused, name)
        if len(worked) == 1:
            touch(next(tree.rglob("BUSI_questions_train.json")))
        return rows

    monkeypatch.setattr(conversion, "read_rows", overtaken)
    convert(tree, tmp_path / "out")  # the tree may have been listed before or after that
    convert(tree, tmp_path / "out")
    assert worked == [2, 2]


@pytest.mark.parametrize("options", [["--clean"], ["--frame", "pixel"], ["--limit", "1"], ["--hash-images"]])
def test_other_options_are_other_work(tree: Path, tmp_path: Path, worked: list[int], options: list[str]) -> None:
    convert(tree, tmp_path / "out")
    convert(tree, tmp_path / "out", *options)
    assert worked == [2, 2]


def test_what_changes_no_output_is_no_other_work(tree: Path, tmp_path: Path, worked: list[int]) -> None:
    convert(tree, tmp_path / "out")
    convert(tree, tmp_path / "out", "--workers", "2")
    (tmp_path / "out/.cache").mkdir()
    convert(tree, tmp_path / "out", "--workers=3")
    assert worked == [2]


@pytest.mark.parametrize("form", [["--exclude-audit", "{}"], ["--exclude-audit={}"], ["--exclude-a", "{}"]])
def test_a_file_that_an_option_names_is_compared(
    tree: Path, tmp_path: Path, worked: list[int], form: list[str]
) -> None:
    reviewed = tmp_path / "reviewed.txt"
    options = [word.format(reviewed) for word in form]
    reviewed.write_text("flare/training/Ultrasound/BUSI/000000\n")
    for _ in range(2):
        assert convert(tree, tmp_path / "out", *options)["counts"]["kept"] == 1
    reviewed.write_text("# nothing is left out\n")
    assert convert(tree, tmp_path / "out", *options)["counts"]["kept"] == 2
    assert worked == [2, 2]


@pytest.mark.parametrize("option", ["--ou", "--dataset-in"])
def test_an_abbreviated_option_means_what_it_says(tree: Path, tmp_path: Path, worked: list[int], option: str) -> None:
    other = str(tmp_path / "other")
    for _ in range(2):
        convert(tree, tmp_path / "out", option, other, code=0)
    assert (tmp_path / "other").exists()
    assert worked == [2, 2]  # it is not compared, so the work is done again


def test_an_output_folder_in_the_tree_is_no_change_of_it(tree: Path, worked: list[int]) -> None:
    convert(tree, tree / "converted")
    convert(tree, tree / "converted")
    assert worked == [2]


def test_what_was_unpacked_is_part_of_the_tree(tmp_path: Path, worked: list[int]) -> None:
    build(tmp_path / "tree", scale=0.001, side=24)
    convert(tmp_path / "tree", tmp_path / "out")
    convert(tmp_path / "tree", tmp_path / "out")
    assert len(worked) == 1


def test_a_copy_that_no_record_shows_is_removed(tree: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = next(tree.rglob("BUSI_1.png"))
    Image.new("RGB", (8, 6)).save(image, exif=exif)
    convert(tree, tmp_path / "out")
    assert len(list((tmp_path / "out/copies").rglob("*.png"))) == 1
    Image.new("RGB", (8, 6)).save(image)
    convert(tree, tmp_path / "out")
    assert not list((tmp_path / "out/copies").iterdir())


def test_a_second_run_into_the_same_folder_is_refused(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.lock"):
        assert convert(tree, tmp_path / "out", code=3) == {}
    assert "another run is writing there" in " ".join(capsys.readouterr().err.split())


def test_what_a_killed_run_half_wrote_is_removed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out/copies").mkdir(parents=True)
    (tmp_path / "out/.report.json.abc.tmp").write_text("{")
    (tmp_path / "out/copies/.x.png.abc.tmp").write_text("{")
    convert(tree, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.tmp"))
