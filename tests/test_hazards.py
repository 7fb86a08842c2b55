"""Hazards of input, one named test each, from the raw tree to the records: nothing escapes, nothing is lost."""

import json
import os
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.flare_issues import ISSUES
from benchmarks.flare_tree import KINDS, build
from medvl import sharegpt
from medvl.sharegpt import write_atomic
from preprocess.unchanged import REPOSITORY
from tests.support.flare_tree import convert, converted, converted_row, row, write_tree

BUSI = "training/Ultrasound/BUSI"


def one_row(root: Path, dataset: str = "BUSI", **changes: Any) -> Path:
    write_tree(root, {dataset: [row(dataset, ImageName="imagesTr/x.png") | changes]})
    return next(root.rglob("x.png"), root)


def codes(report: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in report["findings"]]


@pytest.mark.subprocess
def test_zip_slip_links_and_shell_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image_file = one_row(tmp_path / "tree")
    home = image_file.parent.parent
    data = image_file.read_bytes()
    image_file.unlink()
    image_file.parent.rmdir()
    link = zipfile.ZipInfo("imagesTr/link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    for member in (zipfile.ZipInfo("../../../../slipped.png"), link):
        with zipfile.ZipFile(home / "imagesTr.zip", "w") as archive:
            archive.writestr("imagesTr/x.png", data)
            archive.writestr(member, "/etc/passwd")
        assert convert(tmp_path / "tree", tmp_path / "out", code=3) == {}
        assert "nothing was unpacked" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.rglob("slipped*"))
    with zipfile.ZipFile(home / "imagesTr.zip", "w") as archive:
        archive.writestr("imagesTr/x.png", data)
        archive.writestr("imagesTr/$(touch slipped); `touch slipped` ;.png", data)
    assert convert(tmp_path / "tree", tmp_path / "out")["counts"]["kept"] == 1
    assert len(list((home / "imagesTr").iterdir())) == 2


@pytest.mark.subprocess
@pytest.mark.parametrize(
    "name",
    ["../../../../etc/passwd", "imagesTr/../../../x.png", "/etc/passwd", "..\\..\\x.png", "C:\\x.png",
     "\\\\host\\x.png", "imagesTr/x.png\0.jpg"],
)  # fmt: skip
def test_image_names_that_lead_out_of_the_dataset(tmp_path: Path, name: str) -> None:
    one_row(tmp_path / "tree")
    Image.new("L", (9, 9)).save(tmp_path / "x.png")
    file = tmp_path / "tree" / BUSI / "BUSI_questions_train.json"
    file.write_text(json.dumps([row("BUSI", ImageName=name)]))
    assert codes(convert(tmp_path / "tree", tmp_path / "out")) == ["IMAGE_OUTSIDE"]


@pytest.mark.subprocess
def test_links_in_the_users_own_tree_are_followed(tmp_path: Path) -> None:
    image_file = one_row(tmp_path / "tree")  # as the Hugging Face cache lays files out
    image_file.rename(tmp_path / "blob")
    image_file.symlink_to(tmp_path / "blob")
    assert convert(tmp_path / "tree", tmp_path / "out")["counts"]["kept"] == 1


@pytest.mark.subprocess
def test_names_differ_by_case(tmp_path: Path) -> None:
    image_file = one_row(tmp_path / "tree")
    image_file.rename(image_file.with_name("X.png"))
    assert codes(convert(tmp_path / "tree", tmp_path / "out")) == ["IMAGE_MISSING"]


@pytest.mark.subprocess
def test_decompression_bomb(tmp_path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(one_row(tmp_path / "tree"))
    report = convert(tmp_path / "tree", tmp_path / "out")
    assert (codes(report), report["counts"]["quarantined"]) == (["IMAGE_TOO_LARGE"], 1)


@pytest.mark.subprocess
def test_truncated_jpeg_passes_verify_but_not_here(tmp_path: Path) -> None:
    image_file = one_row(tmp_path / "tree")
    noise = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(image_file, "JPEG")
    image_file.write_bytes(image_file.read_bytes()[:-900])
    with Image.open(image_file) as image:
        image.verify()
    assert codes(convert(tmp_path / "tree", tmp_path / "out")) == ["IMAGE_UNREADABLE"]


@pytest.mark.subprocess
def test_boxes_and_pixels_stand_the_same_way_up(tmp_path: Path) -> None:
    image_file = one_row(tmp_path / "tree", "BUSI-det", Answer="[[0, 0, 40, 50]]")
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (100, 80)).save(image_file, "JPEG", exif=exif)
    report = convert(tmp_path / "tree", tmp_path / "out", "--frame", "pixel", "--box-style", "flare")
    (record,) = converted(tmp_path / "out", "all_train")
    assert codes(report) == ["EXIF_ROTATED"]
    assert record.source.sizes == [(80, 100)] == [Image.open(record.images[0]).size]
    assert record.target == "[[0, 0, 40, 50]]"


@pytest.mark.subprocess
def test_16_bit_images_are_not_clipped_to_white(tmp_path: Path) -> None:
    image_file = one_row(tmp_path / "tree")
    Image.fromarray(np.linspace(3000, 9000, 8000).astype(np.uint16).reshape(80, 100)).save(image_file)
    assert codes(convert(tmp_path / "tree", tmp_path / "out")) == ["DEPTH_WINDOWED"]
    (record,) = converted(tmp_path / "out", "all_train")
    shown = np.asarray(Image.open(record.images[0]).convert("RGB"))  # as LLaMA-Factory does
    assert (shown.min(), shown.max()) == (0, 255)
    assert 100 < shown.mean() < 155


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.json"
    write_atomic(path, b"old")

    def fail(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sharegpt.os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new and longer")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("records.json", b"old")]


@pytest.mark.subprocess
@pytest.mark.parametrize("answer", ["No", "yes", "null", "true", "1e-4", "NaN", "E"])
def test_words_that_parsers_like_to_convert_stay_text(tmp_path: Path, answer: str) -> None:
    one_row(tmp_path / "tree", "CMMD", Answer=answer)
    convert(tmp_path / "tree", tmp_path / "out")
    assert converted(tmp_path / "out", "all_train")[0].target == answer


@pytest.mark.subprocess
def test_json_with_byte_order_mark_windows_lines_and_other_scripts(tmp_path: Path) -> None:
    one_row(tmp_path / "tree")
    rows = [row("BUSI", ImageName="imagesTr/x.png", Question="Größe? Ã¤ 囊肿 \U0001fa7b A: a, B: b")]
    text = json.dumps(rows, ensure_ascii=False, indent=1).replace("\n", "\r\n")
    (tmp_path / "tree" / BUSI / "BUSI_questions_train.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    convert(tmp_path / "tree", tmp_path / "out")
    assert converted(tmp_path / "out", "all_train")[0].question == rows[0]["Question"]  # mojibake is not "repaired"


@pytest.mark.subprocess
@pytest.mark.parametrize("where", ["Question", "Answer"])
@pytest.mark.parametrize("tag", ["<image>", "<video>", "<audio>"])
def test_literal_media_tags(tmp_path: Path, where: str, tag: str) -> None:
    one_row(tmp_path / "tree", "CMMD", **{where: f"see {tag} here"})
    assert "LITERAL_TAG" in codes(convert(tmp_path / "tree", tmp_path / "out"))


@pytest.mark.subprocess
def test_a_row_twice_keeps_both_under_different_ids(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", {"periapical": [row("periapical")] * 2})
    assert codes(convert(tmp_path / "tree", tmp_path / "out")) == ["ROW_REPEATED"]
    assert len({record.id for record in converted(tmp_path / "out", "all_train")}) == 2


HOSTILE = {"brackets": "[", "braces": '{"1": ', "digits": "9", "numbers": "1, ", "quotes": '"', "letters": "A"}
ASKED = ["BUSI-det", "chromosome", "boneresorption", "retino", "chestdr", "IU_XRay"]


@pytest.mark.subprocess
def test_hostile_answers_are_kept_or_refused_one_by_one(tmp_path: Path) -> None:
    answers = [unit * (10_000 // len(unit)) for unit in HOSTILE.values()]
    write_tree(tmp_path / "tree", {name: [row(name, Answer=answer) for answer in answers] for name in ASKED})
    counts = convert(tmp_path / "tree", tmp_path / "out")["counts"]
    assert counts["in"] == len(ASKED) * len(HOSTILE) == counts["kept"] + counts["quarantined"]


@pytest.mark.parametrize("dataset", ASKED)
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_time_of_a_hostile_answer_is_linear_in_its_length(dataset: str, unit: str) -> None:
    def seconds(length: int) -> float:
        answer = unit * (length // len(unit))
        start = time.process_time()
        converted_row(dataset, Answer=answer)
        return time.process_time() - start

    # Four times the text takes four times as long, sixteen if quadratic. The best of some runs: the machine is shared.
    assert min(seconds(40_000) for _ in range(3)) < 10 * min(seconds(10_000) for _ in range(3)) + 0.002


@pytest.mark.subprocess
def test_unknown_tasks_are_refused_not_guessed(tmp_path: Path) -> None:
    one_row(tmp_path / "tree", TaskType="Clasification")
    report = convert(tmp_path / "tree", tmp_path / "out")
    assert codes(report) == ["TASK_UNKNOWN"]
    assert "did you mean 'classification'" in report["findings"][0]["detail"]


@pytest.mark.subprocess
def test_metadata_does_not_travel_into_copies(tmp_path: Path) -> None:
    image_file = one_row(tmp_path / "tree")
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 3, "Dr. Jane Doe"
    Image.new("RGB", (100, 80)).save(image_file, "PNG", exif=exif)
    convert(tmp_path / "tree", tmp_path / "out")
    (record,) = converted(tmp_path / "out", "all_train")
    assert b"Jane" in image_file.read_bytes()
    assert b"Jane" not in Path(record.images[0]).read_bytes()


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full-size tree of the benchmarks, at a hundredth of its size."""
    root = tmp_path_factory.mktemp("full") / "tree"
    build(root, scale=0.004, side=48)
    return root


@pytest.mark.subprocess
def test_every_kind_of_dirt_is_found_and_every_row_accounted_for(small_tree: Path, tmp_path: Path) -> None:
    report = convert(small_tree, tmp_path / "out")
    found = {(finding["id"], finding["code"]): finding["action"] for finding in report["findings"]}
    for issue in ISSUES:
        matching = [action for (id_, code), action in found.items()
                    if id_.startswith("flare/training/") and id_.endswith(f"/{issue.dataset}/{issue.index:06d}")
                    and code == issue.code]  # fmt: skip
        assert matching == [issue.action], issue
    for part in report["datasets"]:
        assert part["in"] == part["kept"] + part["dropped"] + part["quarantined"]
    lost = [issue for issue in ISSUES if issue.action != "kept"]
    assert report["counts"]["dropped"] + report["counts"]["quarantined"] == len(lost)
    assert {part["dataset"] for part in report["datasets"]} == set(KINDS)


@pytest.mark.subprocess
def test_same_bytes_whatever_the_workers_folder_locale_and_hash_seed(small_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = []
    for number, (workers, locale) in enumerate([("1", "C"), ("4", "C.UTF-8"), ("2", "tr_TR.UTF-8")]):
        command = [sys.executable, str(REPOSITORY / "preprocess/flare.py"), "--root", str(small_tree), "--clean"]
        command += ["--out", str(out), "--dataset-info", str(out / "dataset_info.json"), "--workers", workers]
        (tmp_path / f"cwd{number}").mkdir()
        environment = os.environ | {"PYTHONHASHSEED": str(number), "LC_ALL": locale, "LANG": locale}
        subprocess.run(command, check=True, cwd=tmp_path / f"cwd{number}", env=environment, capture_output=True)
        results.append({str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*"))
                        if path.is_file() and not path.name.startswith(".")})  # fmt: skip
        out.rename(tmp_path / f"out{number}")
    assert results[0] == results[1] == results[2]
    assert "copies/training/Ultrasound/BUSI/imagesTr/BUSI_00004.png.png" in results[0]
