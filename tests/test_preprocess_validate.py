"""--validate: every way in which a converted folder can be damaged is found, all at once."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medvl.demo.images import build_tree
from preprocess.defects import CHECKS
from preprocess.flare import main
from preprocess.outputs import decode_hashes, encode_hashes
from preprocess.validate import validate

pytestmark = pytest.mark.subprocess

Change = Callable[[dict[str, Any]], Any]
FILE = "flare_all_train.json"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    build_tree(folder / "tree", train=6, val=2)
    run(folder / "tree", folder / "out", "--dev-fraction", "0.34")
    return folder


@pytest.fixture
def folder(converted: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged; its images stay where they are."""
    shutil.copytree(converted / "out", tmp_path / "out")
    return tmp_path / "out"


def run(tree: Path, out: Path, *options: str) -> None:
    arguments = ["--root", str(tree), "--out", str(out), "--dataset-info", str(out / "dataset_info.json")]
    assert main([*arguments, "--workers", "1", *options]) == 0


def codes(folder: Path) -> set[str]:
    return {issue.code for issue in validate(folder, folder / "dataset_info.json")}


def edit(folder: Path, change: Change, *, task: str | None = None, name: str = FILE) -> None:
    """Change the first record (of a task) of a file, and the manifest's hash with it, as a script could."""
    records = json.loads((folder / name).read_text())
    change(next(record for record in records if task in (None, record["task"])))
    write(folder, name, records)


def write(folder: Path, name: str, records: list[dict[str, Any]]) -> None:
    import hashlib

    (folder / name).write_text(json.dumps(records))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    manifest["files"][name]["records"] = len(records)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_whole_folder_has_no_flaw(folder: Path, converted: Path) -> None:
    assert codes(converted / "out") == set()
    assert codes(folder) == set()  # moved together with its registry


def test_findings_for_a_machine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder, gpt(" "), task="classification")
    capsys.readouterr()
    command = ["--validate", str(folder), "--dataset-info", str(folder / "dataset_info.json"), "--json"]
    assert main(command) == 3
    (found,) = [issue for issue in json.loads(capsys.readouterr().out) if issue["code"] == "ANSWER_EMPTY"]
    assert (found["level"], found["where"][:6]) == ("error", "flare/")


def human(text: str) -> Change:
    return lambda record: record["conversations"][0].update(value=text)


def gpt(text: str) -> Change:
    return lambda record: record["conversations"][1].update(value=text)


def image(record: dict[str, Any], name: str) -> None:
    record["images"][0] = name


RECORDS: dict[str, tuple[str | None, Change, str]] = {
    "a tag too many": (None, human("<image>\n<image>\n<image>\nWhich?"), "TAG_COUNT"),
    "a tag too few": (None, human("Which?"), "TAG_COUNT"),
    "a tag in the answer": (None, gpt("<image>"), "LITERAL_TAG"),
    "a video": (None, human("<image>\n<video>"), "LITERAL_TAG"),
    "a control token": (None, human("<image>\n<image>\n<|image_pad|> which?"), "CONTROL_TOKEN"),
    "a control token in the answer": ("report_generation", gpt("Clear.<|im_end|>"), "CONTROL_TOKEN"),
    "markup in a letter": ("classification", gpt("<box>"), "CONTROL_TOKEN"),
    "a control token in boxes": ("detection", gpt('[{"bbox_2d":[0,0,9,9]}]<|im_end|>'), "CONTROL_TOKEN"),
    "a control token without a box": ("detection", gpt('{"a":[[0,0,9,9]],"\\u003cbox>":[]}'), "CONTROL_TOKEN"),
    "a control token as a label": ("detection", gpt('[{"bbox_2d":[0,0,9,9],"label":"\\u003cbox>"}]'), "CONTROL_TOKEN"),
    "a field too few": (None, lambda record: record.pop("task"), "RECORD_SCHEMA"),
    "images that are no list": (None, lambda record: record.update(images="x.png"), "RECORD_SCHEMA"),
    "a speaker of another format": (
        None,
        lambda record: record["conversations"][0].update({"from": "user"}),
        "RECORD_SCHEMA",
    ),
    "a third turn": (None, lambda record: record["conversations"].append({"from": "human", "value": "?"}), "TURNS"),
    "turns the wrong way": (None, lambda record: record["conversations"].reverse(), "TURNS"),
    "an image that is gone": (None, lambda record: image(record, "/nowhere/x.png"), "IMAGE_MISSING"),
    "an image of another size": (None, lambda record: record["source"]["sizes"][0].reverse(), "IMAGE_SIZE"),
    "a size too many": (None, lambda record: record["source"]["sizes"].append([1, 1]), "SIZE_COUNT"),
    "an unknown task": (None, lambda record: record.update(task="segmentation"), "TASK_UNKNOWN"),
    "no answer": ("classification", gpt(" "), "ANSWER_EMPTY"),
    "another letter": ("classification", gpt("perhaps"), "ANSWER_UNUSUAL"),
    "no number": ("regression", gpt("many"), "ANSWER_UNUSABLE"),
    "no boxes": ("detection", gpt("somewhere"), "ANSWER_UNUSABLE"),
    "boxes in pixels": ("detection", lambda record: gpt(record["source"]["answer"])(record), "BOX_FRAME"),
    "boxes beyond": ("detection", gpt('[{"bbox_2d":[0,0,2000,900]}]'), "BOX_OUTSIDE"),
}


@pytest.mark.parametrize(("task", "change", "code"), RECORDS.values(), ids=RECORDS.keys())
def test_damaged_records(folder: Path, task: str | None, change: Change, code: str) -> None:
    edit(folder, change, task=task)
    found = codes(folder)
    assert code in found
    assert not {"FILE_CHANGED", "COUNT"} & found


def test_a_record_of_another_schema_hides_no_other(folder: Path) -> None:
    records = json.loads((folder / FILE).read_text())
    records[0].pop("images")
    records[2]["conversations"] = 5
    records[1]["task"] = "segmentation"
    write(folder, FILE, records)
    issues = validate(folder)
    assert {issue.code for issue in issues} == {"RECORD_SCHEMA", "TASK_UNKNOWN", "ID_DIFFERS"}
    where = [(issue.where, issue.detail) for issue in issues if issue.code == "RECORD_SCHEMA"]
    assert [place for place, _ in where] == [f"{FILE}, record 0", f"{FILE}, record 2"]
    assert "images" in where[0][1]


def test_a_image_replaced_by_another_of_its_size(converted: Path, folder: Path) -> None:
    path = Path(json.loads((folder / FILE).read_text())[0]["images"][0])
    before = path.read_bytes()
    with Image.open(path) as image:
        other = Image.new("RGB", image.size)
    try:
        other.save(path)
        issues = [issue for issue in validate(folder) if issue.code == "IMAGE_CHANGED"]
        assert issues
        assert str(path) in issues[0].detail
    finally:
        path.write_bytes(before)
    assert codes(converted / "out") == set()


def test_hashes_of_images_are_those_that_sha256sum_checks(converted: Path) -> None:
    command = ["sha256sum", "--check", "--quiet", "--strict", str(converted / "out" / "images.sha256")]
    assert subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0
    odd = {"/a/b.png": bytes(32), "/a\\n/b\n\\.png": bytes(range(32)), "/\u2028/c\r.png": bytes(32)}
    assert decode_hashes(encode_hashes(odd)) == odd
    assert decode_hashes(encode_hashes({})) == {}


def test_a_pipe_in_the_place_of_a_image(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    edit(folder, lambda record: image(record, str(tmp_path / "pipe.png")))
    assert "IMAGE_MISSING" in codes(folder)


def test_images_are_opened(folder: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    edit(folder, lambda record: image(record, str(tmp_path / "turned.jpg")))
    edit(folder, lambda record: image(record, str(tmp_path / "broken.png")), name="flare_all_val.json")
    assert {"IMAGE_ROTATED", "IMAGE_UNREADABLE", "IMAGE_SIZE"} <= codes(folder)


class TestFiles:
    def test_no_manifest_is_no_output(self, folder: Path) -> None:
        (folder / "manifest.json").unlink()
        assert codes(folder) == {"MANIFEST"}

    @pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}'])
    def test_damaged_manifest(self, folder: Path, text: str) -> None:
        (folder / "manifest.json").write_text(text)
        assert codes(folder) == {"MANIFEST"}

    def test_changed_missing_unlisted_and_unreadable_files(self, folder: Path) -> None:
        (folder / FILE).write_text("[{")
        (folder / "flare_all_val.json").unlink()
        (folder / "flare_old_train.json").write_text("[]")
        assert codes(folder) == {"FILE_CHANGED", "FILE_MISSING", "FILE_UNLISTED", "FILE_UNREADABLE"}
        (folder / FILE).write_bytes(b"[{}, {\xff}]")
        (unreadable,) = [issue.detail for issue in validate(folder) if issue.where == FILE and "UTF-8" in issue.detail]
        assert "byte 0xff at position 6, line 1" in unreadable

    def test_report_of_another_run(self, folder: Path) -> None:
        (folder / "report.json").write_text("{}")
        assert codes(folder) == {"FILE_CHANGED"}

    def test_count(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][FILE]["records"] += 1
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert codes(folder) == {"COUNT"}


class TestIds:
    def test_twice_in_a_file(self, folder: Path) -> None:
        edit(folder, lambda record: record.update(id="flare/training/Clinical/demo-newborn/x"))
        records = json.loads((folder / FILE).read_text())
        write(folder, FILE, [*records, records[0]])
        assert codes(folder) == {"ID_TWICE"}

    def test_one_id_for_two_records(self, folder: Path) -> None:
        edit(folder, human("<image>\n<image>\nAnother question? A: yes B: no"))
        assert "ID_DIFFERS" in codes(folder)

    def test_the_same_question_on_another_image_is_no_duplicate(self, folder: Path) -> None:
        """As one public converter thought, which compared the text alone."""
        records = json.loads((folder / FILE).read_text())
        one = next(record for record in records if record["task"] == "classification")
        same_text = {**one, "id": "other", "images": list(reversed(one["images"]))}
        write(folder, FILE, [*records, same_text])
        assert "RECORD_TWICE" not in codes(folder)
        write(folder, FILE, [*records, {**one, "id": "other"}])
        assert "RECORD_TWICE" in codes(folder)


class TestRegistry:
    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda entries: entries.pop("flare_all_train"), id="no entry"),
            pytest.param(lambda entries: entries["flare_all_train"].update(file_name="x.json"), id="another file"),
            pytest.param(lambda entries: entries["flare_all_train"].pop("tags"), id="other tags"),
            pytest.param(lambda entries: entries["flare_all_train"].update(hf_hub_url="a/b"), id="another source"),
        ],
    )
    def test_entry(self, folder: Path, change: Change) -> None:
        entries = json.loads((folder / "dataset_info.json").read_text())
        change(entries)
        (folder / "dataset_info.json").write_text(json.dumps(entries))
        assert codes(folder) == {"REGISTRY"}

    def test_keys_that_a_user_added_are_no_flaw(self, folder: Path) -> None:
        entries = json.loads((folder / "dataset_info.json").read_text())
        entries["flare_all_train"]["num_samples"] = 5
        (folder / "dataset_info.json").write_text(json.dumps(entries))
        assert codes(folder) == set()

    def test_the_one_that_was_used_is_found(self, converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--validate", str(converted / "out")]) == 0
        assert "REGISTRY" not in capsys.readouterr().out

    @pytest.mark.parametrize("data", [b"{", b'{"a": {"file_name": "\xff"}}', b"[]"], ids=["cut", "not UTF-8", "a list"])
    def test_damaged(self, folder: Path, data: bytes) -> None:
        (folder / "dataset_info.json").write_bytes(data)
        assert codes(folder) == {"REGISTRY"}

    @pytest.mark.parametrize(
        ("file_name", "code"),
        [
            pytest.param("flare_old_train.json", {"REGISTRY"}, id="left over"),
            pytest.param(FILE, {"REGISTRY_UNLISTED"}, id="a second name"),
            pytest.param("../elsewhere.json", set(), id="elsewhere"),
        ],
    )
    def test_entries_that_the_manifest_does_not_know(self, folder: Path, file_name: str, code: set[str]) -> None:
        entries = json.loads((folder / "dataset_info.json").read_text())
        (folder / "dataset_info.json").write_text(json.dumps(entries | {"other": {"file_name": file_name}}))
        assert codes(folder) == code

    def test_no_registry(self, folder: Path) -> None:
        assert {issue.code for issue in validate(folder, folder / "gone.json")} == {"REGISTRY"}


def test_overlap_of_splits_that_were_made(folder: Path) -> None:
    dev = json.loads((folder / "flare_all_dev.json").read_text())
    write(folder, FILE, [*json.loads((folder / FILE).read_text()), {**dev[0], "id": "moved"}])
    assert "SPLIT_OVERLAP" in codes(folder)


def test_exit_codes_and_all_findings_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--validate", str(folder), "--dataset-info", str(folder / "dataset_info.json")]
    assert main(command) == 0
    edit(folder, human("no tag"))
    edit(folder, gpt("somewhere"), task="detection")
    assert main(command) == 3
    printed = capsys.readouterr().out
    assert "TAG_COUNT" in printed
    assert "ANSWER_UNUSABLE" in printed
    with pytest.raises(SystemExit, match="2"):
        main([])


def test_codes_are_explained() -> None:
    assert all(level in ("error", "note") and meaning for level, meaning in CHECKS.values())


@pytest.mark.parametrize("options", [["--frame", "pixel", "--box-style", "flare"], ["--frame", "norm1"],
                                     ["--box-style", "internvl"], ["--box-style", "qwen_vl1"]])  # fmt: skip
def test_real_records_in_every_frame(shared_data: Path, tmp_path: Path, options: list[str]) -> None:
    run(shared_data / "bccd_flare", tmp_path / "out", "--contamination", "off", "--limit", "50", *options)
    assert codes(tmp_path / "out") == set()
