"""Input as it comes: archives, odd question files, several of them broken at once, and the gated download."""

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalTokenNotFoundError
from PIL import Image

from medvl.errors import DataError
from medvl.sources.base import SourceFile
from medvl.sources.flare import FLARE
from preprocess import archives
from preprocess.archives import Limits, unpack_all
from preprocess.download import download, tree_in
from preprocess.unchanged import REPOSITORY as CLONE
from tests.support.flare_tree import convert, converted, row, write_tree

BUSI = "training/Ultrasound/BUSI"


def pack(folder: Path, *, top: str = "imagesTr/", extra: dict[str, bytes] | None = None) -> Path:
    """`imagesTr/` of a dataset folder as `imagesTr.zip`, the folder removed."""
    archive = folder / "imagesTr.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for path in sorted((folder / "imagesTr").iterdir()):
            writer.write(path, f"{top}{path.name}")
        for name, content in (extra or {}).items():
            writer.writestr(name, content)
    shutil.rmtree(folder / "imagesTr")
    return archive


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The folder of a dataset with three images."""
    write_tree(tmp_path / "tree", {"BUSI": [row("BUSI", ImageName=f"imagesTr/{i}.png") for i in range(3)]})
    return tmp_path / "tree" / BUSI


def question_file(dataset: Path) -> SourceFile:
    return SourceFile(FLARE.splits["train"], "Ultrasound", "BUSI", dataset / "BUSI_questions_train.json")


def left_over(dataset: Path) -> list[str]:
    return sorted(path.name for path in dataset.iterdir() if path.name.startswith("."))


@pytest.mark.subprocess
@pytest.mark.parametrize(
    "top",
    [
        pytest.param("imagesTr/", id="as in the release"),
        pytest.param("", id="packed from inside"),
        pytest.param("BUSI/imagesTr/", id="a folder around it"),
        pytest.param("imagesTr\\", id="packed on Windows"),
    ],
)
def test_an_archive_becomes_its_folder(dataset: Path, tmp_path: Path, top: str) -> None:
    pack(dataset, top=top, extra={"__MACOSX/._0.png": b"x", "imagesTr/.DS_Store": b"x"})
    assert convert(tmp_path / "tree", tmp_path / "out")["counts"]["kept"] == 3
    assert sorted(path.name for path in (dataset / "imagesTr").iterdir()) == ["0.png", "1.png", "2.png"]
    assert left_over(dataset) == []


def test_a_folder_that_is_there_is_left_alone(dataset: Path) -> None:
    (dataset / "imagesTr.zip").write_bytes(b"no archive")
    assert unpack_all(FLARE, [question_file(dataset)]) == []


@pytest.mark.subprocess
def test_a_folder_in_a_folder_is_found(dataset: Path, tmp_path: Path) -> None:
    (dataset / "imagesTr").rename(dataset / "inner")
    (dataset / "imagesTr").mkdir()
    (dataset / "inner").rename(dataset / "imagesTr" / "imagesTr")
    assert convert(tmp_path / "tree", tmp_path / "out")["counts"]["kept"] == 3


def test_several_archives_fill_one_folder(dataset: Path) -> None:
    first = pack(dataset).rename(dataset / "imagesTr_1.zip")
    with zipfile.ZipFile(dataset / "imagesTr_2.zip", "w") as writer:
        writer.writestr("imagesTr/3.png", b"x")
    unpack_all(FLARE, [question_file(dataset)])
    assert first.is_file()
    assert len(list((dataset / "imagesTr").iterdir())) == 4


def test_an_interrupted_extraction_goes_on(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(dataset)
    write, written = archives._write, []

    def stop_at_the_second(reader: Any, info: zipfile.ZipInfo, path: Path) -> None:
        if len(written) == 1:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path)
        write(reader, info, path)

    monkeypatch.setattr(archives, "_write", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        unpack_all(FLARE, [question_file(dataset)])
    assert not (dataset / "imagesTr").exists()  # a half folder would look like a whole one with images missing
    before = written[0].stat()
    monkeypatch.setattr(archives, "_write", write)
    unpack_all(FLARE, [question_file(dataset)])
    assert (dataset / "imagesTr/0.png").stat().st_mtime_ns == before.st_mtime_ns  # not written twice
    with zipfile.ZipFile(dataset / "imagesTr.zip") as reader:
        assert all((dataset / name).read_bytes() == reader.read(name) for name in reader.namelist())
    assert left_over(dataset) == []


def test_what_another_archive_left_half_unpacked_is_thrown_away(dataset: Path) -> None:
    pack(dataset)
    (dataset / ".imagesTr.unpacking").mkdir()
    (dataset / ".imagesTr.unpacking/old.png").write_bytes(b"x")
    unpack_all(FLARE, [question_file(dataset)])
    assert not (dataset / "imagesTr/old.png").exists()


@pytest.mark.parametrize(
    "left",
    [
        pytest.param([], id="empty"),
        pytest.param(["imagesTr/"], id="an empty folder in it"),
        pytest.param([".DS_Store"], id="litter"),
    ],
)
def test_a_folder_without_images_does_not_block_the_archive(dataset: Path, left: list[str]) -> None:
    pack(dataset)
    (dataset / "imagesTr").mkdir()
    for name in left:
        path = dataset / "imagesTr" / name
        path.mkdir() if name.endswith("/") else path.write_bytes(b"x")
    assert unpack_all(FLARE, [question_file(dataset)]) == [dataset / "imagesTr"]
    assert sorted(path.name for path in (dataset / "imagesTr").iterdir()) == ["0.png", "1.png", "2.png"]


def test_a_folder_with_a_link_in_it_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    pack(dataset)
    (dataset / "imagesTr").mkdir()
    (dataset / "imagesTr" / "imagesTr").symlink_to(tmp_path)
    assert unpack_all(FLARE, [question_file(dataset)]) == []
    assert (dataset / "imagesTr" / "imagesTr").is_symlink()


def test_an_archive_without_files_is_refused_and_leaves_no_folder(dataset: Path) -> None:
    shutil.rmtree(dataset / "imagesTr")
    with zipfile.ZipFile(dataset / "imagesTr.zip", "w") as writer:
        writer.mkdir("imagesTr")
    with pytest.raises(DataError, match=r"imagesTr\.zip: no file in it; download it again"):
        unpack_all(FLARE, [question_file(dataset)])
    assert not (dataset / "imagesTr").exists()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        pytest.param("../../evil.png", "leads out", id="dots"),
        pytest.param("imagesTr/../../evil.png", "leads out", id="dots further in"),
        pytest.param("..\\evil.png", "leads out", id="backslashes"),
        pytest.param("/etc/evil.png", "leads out", id="absolute"),
        pytest.param("C:/evil.png", "leads out", id="drive"),
        pytest.param(link("imagesTr/link.png"), "is a link", id="link"),
    ],
)  # fmt: skip
def test_a_hostile_archive_is_refused_before_anything_is_written(
    dataset: Path, member: str | zipfile.ZipInfo, message: str
) -> None:
    with zipfile.ZipFile(pack(dataset), "a") as writer:
        writer.writestr(member, b"/etc/passwd")
    before = sorted(dataset.parent.rglob("*"))
    with pytest.raises(DataError, match=rf"imagesTr\.zip: .* {message}.* nothing was unpacked"):
        unpack_all(FLARE, [question_file(dataset)])
    assert sorted(dataset.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        pytest.param(Limits(members=3), "4 files, more than 3", id="count"),
        pytest.param(Limits(bytes=1000), "more than 1000", id="size"),
        pytest.param(Limits(small=1000, ratio=100), "times their size", id="ratio"),
    ],
)
def test_limits_of_an_archive(dataset: Path, limits: Limits, message: str) -> None:
    with zipfile.ZipFile(pack(dataset), "a", zipfile.ZIP_DEFLATED, compresslevel=9) as writer:
        writer.writestr("imagesTr/bomb.png", bytes(1_000_000))
    with pytest.raises(DataError, match=message):
        unpack_all(FLARE, [question_file(dataset)], limits)
    assert not (dataset / "imagesTr").exists()


def test_a_damaged_archive_names_itself_and_the_cure(dataset: Path) -> None:
    archive = pack(dataset)
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(DataError, match=r"imagesTr\.zip: .*; download it again"):
        unpack_all(FLARE, [question_file(dataset)])


@pytest.mark.subprocess
@pytest.mark.parametrize("wrapper", ["data", "questions", "annotations", "items"])
def test_an_object_around_the_rows_is_a_finding(dataset: Path, tmp_path: Path, wrapper: str) -> None:
    path = question_file(dataset).path
    other = {"version": 2, "categories": [{"id": 1, "name": "lesion"}], "info": {"url": "x"}}
    path.write_text(json.dumps(other | {wrapper: json.loads(path.read_text())}))
    report = convert(tmp_path / "tree", tmp_path / "out")
    assert report["counts"]["kept"] == 3
    assert [(finding["code"], finding["index"]) for finding in report["findings"]] == [("FILE_WRAPPED", -1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b'[{"Answer": "A", "Answer": "B"}]', "the key 'Answer' twice", id="repeated key"),
        pytest.param(b'[{"Answer": NaN}]', "write null where a value is missing", id="NaN"),
        pytest.param(b'{"rows": []}', "expected a JSON list", id="object"),
        pytest.param(b'[{}, "x"]', "row 1 is 'x'", id="row that is no object"),
        pytest.param(
            b'[{"Answer":\n"a \xff"}]', r"byte 0xff at position 15, line 2, .* save the file as UTF-8", id="not UTF-8"
        ),
        pytest.param("[]".encode("utf-16"), "byte 0xff at position 0, line 1", id="UTF-16"),
        pytest.param(b"[" * 100_000, "not JSON", id="hostile nesting"),
        pytest.param(b'{"data": [{}], "items": [{}, {}]}', "several keys, data, items", id="several lists"),
        pytest.param(b'{"data": [{}], "more": [{"Question": "?"}]}', "several keys, data, more", id="an unknown key"),
        pytest.param(b'{"data": [{}], "part2": {"rows": [{"Answer": "A"}]}}', "several keys, data, part2", id="deeper"),
        pytest.param(b'{"data": [{}], "extra": {"ImageName": "x"}}', "several keys, data, extra", id="a single row"),
    ],
)
def test_files_that_are_refused_say_why(dataset: Path, content: bytes, message: str) -> None:
    file = question_file(dataset)
    file.path.write_bytes(content)
    with pytest.raises(DataError, match=rf"BUSI_questions_train\.json: .*{message}"):
        FLARE.read(file)


@pytest.mark.subprocess
@pytest.mark.parametrize("folders", ["training", "training/Xray", "training/.cache/x", "training/Xray/a"])
def test_a_tree_without_a_dataset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], folders: str) -> None:
    (tmp_path / "tree" / folders).mkdir(parents=True)
    assert convert(tmp_path / "tree", tmp_path / "out", code=3) == {}
    said = " ".join(capsys.readouterr().err.split())
    assert "expected training/<Category>/<dataset>/" in said or "expected a_questions_train.json" in said


@pytest.mark.subprocess
@pytest.mark.parametrize("name", ["BUSI_questions_train.json", "imagesTr.zip"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(dataset: Path, tmp_path: Path, name: str) -> None:
    shutil.rmtree(dataset / "imagesTr")
    (dataset / name).unlink(missing_ok=True)
    os.mkfifo(dataset / name)
    convert(tmp_path / "tree", tmp_path / "out", code=3)


@pytest.mark.subprocess
def test_a_folder_whose_name_is_not_utf8_is_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(os.fsdecode(os.fsencode(dataset) + b"\xff")).mkdir()
    assert convert(tmp_path / "tree", tmp_path / "out", code=3) == {}
    assert "its name is not UTF-8; rename the folder" in " ".join(capsys.readouterr().err.split())


@pytest.mark.subprocess
@pytest.mark.parametrize("name", ["x" * 250, "\u7ec6" * 83], ids=["letters", "Chinese"])
def test_a_copy_of_a_image_with_a_long_name(dataset: Path, tmp_path: Path, name: str) -> None:
    path = question_file(dataset).path
    path.write_text(json.dumps([row("BUSI", ImageName=f"imagesTr/{name}{number}.png") for number in (1, 2)]))
    for number in (1, 2):
        Image.new("RGBA", (9, number), (1, 2, 3, 4)).save(dataset / f"imagesTr/{name}{number}.png", "PNG")
    report = convert(tmp_path / "tree", tmp_path / "out")
    assert (report["counts"]["kept"], len(report["findings"])) == (2, 2)
    sizes = [Image.open(record.images[0]).size for record in converted(tmp_path / "out", "busi_train")]
    assert sizes == [(9, 1), (9, 2)]


@pytest.mark.subprocess
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
def test_a_console_of_another_encoding_loses_nothing(dataset: Path, tmp_path: Path, encoding: str) -> None:
    folder = dataset.rename(dataset.with_name("\u0142\u7ec6\u80de-\U0001f600"))
    (folder / "BUSI_questions_train.json").rename(folder / "cells_train.json")
    (folder / "imagesTr/0.png").unlink()
    command = [sys.executable, "preprocess/flare.py", "--root", str(tmp_path / "tree"), "--out", str(tmp_path / "out"),
               "--dataset-info", str(tmp_path / "out/dataset_info.json")]  # fmt: skip
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "300"}
    done = subprocess.run(command, cwd=CLONE, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"2 kept" in done.stdout
    assert (tmp_path / "out/manifest.json").is_file()


def test_byte_order_mark_and_windows_line_ends_are_read(dataset: Path) -> None:
    file = question_file(dataset)
    text = json.dumps(json.loads(file.path.read_text()), indent=1).replace("\n", "\r\n")
    file.path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    samples, notes = FLARE.read(file)
    assert (len(samples), notes) == (3, ())


@pytest.mark.subprocess
def test_every_problem_of_a_tree_is_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "tree"
    write_tree(root, {name: [row(name)] for name in ("BUSI", "dental", "retino", "fundus")})
    (root / "training/Xray/dental/dental_questions_train.json").write_text("[{")
    (root / "training/Retinography/retino/retino_questions_train.json").unlink()
    (root / "training/Retinography/fundus/fundus_questions_train.json").write_text('{"a": 1}')
    with zipfile.ZipFile(pack(root / BUSI), "a") as writer:
        writer.writestr("../x.png", b"x")
    assert convert(root, tmp_path / "out", code=3) == {}
    said = " ".join(capsys.readouterr().err.split())
    for part in ("retino_questions_train.json", "dental_questions_train.json", "expected a JSON list", "leads out"):
        assert part in said


def test_good_files_come_before_the_errors_of_others(tmp_path: Path) -> None:
    write_tree(tmp_path, {"BUSI": [row("BUSI")], "retino": [row("retino")]})
    (tmp_path / "training/Retinography/retino/retino_questions_train.json").unlink()
    found = FLARE.find(tmp_path)
    assert [file.dataset for file in found.files] == ["BUSI"]
    with pytest.raises(DataError, match="retino"):
        found.all()


class TestDownload:
    @pytest.mark.subprocess
    def test_fetches_the_splits_that_are_asked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: dict[str, Any] = {}

        def snapshot_download(repository: str, **options: Any) -> None:
            asked.update(options, repository=repository)
            write_tree(Path(options["local_dir"]) / "organized_dataset", {"BUSI": [row("BUSI")]})

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        report = convert(tmp_path / "tree", tmp_path / "out", "--download", "--splits", "train")
        assert (asked["repository"], asked["repo_type"], asked["local_dir"]) == (
            FLARE.hub, "dataset", tmp_path / "tree",
        )  # fmt: skip
        assert asked["allow_patterns"] == ["training/**", "*/training/**"]
        assert report["counts"]["kept"] == 1
        assert converted(tmp_path / "out", "busi_train")[0].images[0].startswith(str(tmp_path / "tree/organized"))

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            pytest.param(LocalTokenNotFoundError("Token is required"), "hf auth login", id="no access"),
            pytest.param(ConnectionError("no route to host"), "run the command again", id="no network"),
        ],
    )
    def test_says_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
    ) -> None:
        def snapshot_download(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        with pytest.raises(DataError, match=message):
            download(FLARE, tmp_path)

    def test_the_tree_may_be_one_folder_further_down(self, tmp_path: Path) -> None:
        (tmp_path / "organized_dataset/training").mkdir(parents=True)
        assert tree_in(FLARE, tmp_path) == tmp_path / "organized_dataset"
        (tmp_path / "other/testing").mkdir(parents=True)
        assert tree_in(FLARE, tmp_path) == tmp_path  # which one is meant is not guessed
