"""preprocess/flare.py: every row of a FLARE tree is kept, dropped or quarantined, and says why."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medvl.box_text import parse_boxes
from medvl.registry import register
from medvl.sources.flare_datasets import FLARE_DATASETS
from preprocess.flare import main
from preprocess.unchanged import REPOSITORY
from tests.support.flare_tree import ROWS, convert, converted, row, write_tree

pytestmark = pytest.mark.subprocess

SHARED = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="module")
def all_datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("flare")
    write_tree(root, {dataset: [row(dataset)] for dataset in ROWS})
    return root


def test_every_flare_dataset_is_converted(all_datasets: Path, tmp_path: Path) -> None:
    report = convert(all_datasets, tmp_path)
    assert report["counts"] == {"in": 19, "kept": 19, "dropped": 0, "quarantined": 0}
    assert {record.dataset for record in converted(tmp_path, "all_train")} == set(FLARE_DATASETS)
    assert [finding["code"] for finding in report["findings"]] == ["LETTER_NOT_OPTION"]  # endo's T


@pytest.mark.parametrize(
    ("dataset", "target"),
    [
        pytest.param("retino", "C", id="letter"),
        pytest.param("boneresorption", "34.7", id="number"),
        pytest.param("neurips22cell", "1664", id="count"),
        pytest.param("BUSI-det", '[{"bbox_2d":[100,250,500,750],"label":"lesion"}]', id="box"),
        pytest.param("iugc", '[{"bbox_2d":[50,75,400,375],"label":"pubic symphysis"}]', id="box as a real list"),
        pytest.param("endo", "T", id="dirty letter"),
        pytest.param("CMMD", "Luminal a", id="free text label"),
        pytest.param("IU_XRay", "Heart size is normal.", id="report"),
        pytest.param("periapical", ROWS["periapical"][3], id="comma inside a label"),
    ],
)
def test_target_text(all_datasets: Path, tmp_path: Path, dataset: str, target: str) -> None:
    convert(all_datasets, tmp_path, "--datasets", dataset)
    (record,) = converted(tmp_path, "all_train")
    assert record.target == target


def test_instance_answers_stay_maps_with_converted_boxes(all_datasets: Path, tmp_path: Path) -> None:
    convert(all_datasets, tmp_path, "--datasets", "chromosome")
    (record,) = converted(tmp_path, "chromosome_train")
    boxes = {"1": [[100, 125, 200, 250], [300, 375, 400, 500]], "X": [[500, 625, 600, 750]]}
    assert json.loads(record.target) == boxes


@pytest.mark.parametrize("dataset", [name for name, known in FLARE_DATASETS.items() if known.multi_image])
def test_one_tag_per_image(all_datasets: Path, tmp_path: Path, dataset: str) -> None:
    convert(all_datasets, tmp_path, "--datasets", dataset)
    (record,) = converted(tmp_path, "all_train")
    assert record.conversations[0].value == "<image>\n" * len(record.images) + ROWS[dataset][2]
    assert len(record.images) == len(ROWS[dataset][1]) == len(record.source.sizes)


@pytest.mark.parametrize("frame", ["norm1000", "norm1", "pixel"])
@pytest.mark.parametrize("style", ["json", "internvl", "flare", "qwen_vl1"])
def test_boxes_survive_every_frame_and_style(all_datasets: Path, tmp_path: Path, frame: str, style: str) -> None:
    convert(all_datasets, tmp_path, "--datasets", "BUS-UCLM-det", "chromosome", "--frame", frame, "--box-style", style)
    side = {"norm1000": (1000 / 100, 1000 / 80), "norm1": (1 / 100, 1 / 80), "pixel": (1, 1)}[frame]
    for record in converted(tmp_path, "all_train"):
        truth = parse_boxes(record.source.answer)
        read = parse_boxes(record.target)
        np.testing.assert_allclose(read.boxes, truth.boxes * np.array([*side, *side]), atol=5e-4)
        if record.task == "instance_detection":
            assert read.labels == truth.labels


@pytest.mark.parametrize("dataset", ["BUS-UCLM-det", "chromosome"])
def test_the_challenges_own_form_is_not_touched(all_datasets: Path, tmp_path: Path, dataset: str) -> None:
    convert(all_datasets, tmp_path, "--datasets", dataset, "--frame", "pixel", "--box-style", "flare")
    assert converted(tmp_path, "all_train")[0].target == ROWS[dataset][3]


# What is wrong with a row -> (changes to a good row of the dataset, its code, what becomes of it).
BAD = {
    "unknown task": ("BUSI", {"TaskType": "segmentation"}, "TASK_UNKNOWN", "quarantined"),
    "no question": ("BUSI", {"Question": "  "}, "QUESTION_EMPTY", "dropped"),
    "no answer": ("BUSI", {"Answer": ""}, "ANSWER_EMPTY", "dropped"),
    "null answer": ("BUSI", {"Answer": None}, "ANSWER_EMPTY", "dropped"),
    "no boxes": ("BUSI-det", {"Answer": "no lesion"}, "ANSWER_UNUSABLE", "quarantined"),
    "half a box": ("BUSI-det", {"Answer": "[[1, 2, 3, 4], [5, 6, 7]]"}, "ANSWER_UNUSABLE", "quarantined"),
    "no number": ("boneresorption", {"Answer": "n/a"}, "ANSWER_UNUSABLE", "quarantined"),
    "zero area": ("BUSI-det", {"Answer": "[[1, 2, 3, 4], [7, 7, 7, 7]]"}, "ZERO_AREA_BOX", "kept"),
    "inverted": ("BUSI-det", {"Answer": "[[30, 40, 3, 4]]"}, "INVERTED_BOX", "kept"),
    "outside": ("BUSI-det", {"Answer": "[[30, 40, 101, 50]]"}, "BOX_OUTSIDE", "kept"),
    "several letters": ("retino", {"Answer": "A B"}, "SEVERAL_LETTERS", "kept"),
    "label not offered": ("periapical", {"Answer": "Dental Caries; Gingivitis"}, "ANSWER_UNUSUAL", "kept"),
    "flat eight": ("BUSI-det", {"Answer": "[1, 2, 3, 4, 5, 6, 7, 8]"}, "ANSWER_UNUSUAL", "kept"),
    "tag in the question": ("BUSI", {"Question": "<image> which? A: a, B: b"}, "LITERAL_TAG", "quarantined"),
    "image gone": ("BUSI", {"ImageName": "imagesTr/gone.png"}, "IMAGE_MISSING", "dropped"),
    "path out of the tree": ("BUSI", {"ImageName": "../../../../etc/passwd"}, "IMAGE_OUTSIDE", "quarantined"),
    "absolute path": ("BUSI", {"ImageName": "/etc/passwd"}, "IMAGE_OUTSIDE", "quarantined"),
    "no image name": ("BUSI", {"ImageName": []}, "IMAGE_NAME", "quarantined"),
}


@pytest.mark.parametrize(("dataset", "changes", "code", "action"), BAD.values(), ids=BAD.keys())
def test_bad_rows_are_listed(tmp_path: Path, dataset: str, changes: dict[str, Any], code: str, action: str) -> None:
    good = row(dataset, ImageName="imagesTr/other.png")
    write_tree(tmp_path / "tree", {dataset: [good, row(dataset, **changes)]})
    report = convert(tmp_path / "tree", tmp_path / "out")
    assert report["counts"] == {"in": 2, "kept": 1, "dropped": 0, "quarantined": 0} | (
        {"kept": 2} if action == "kept" else {action: 1}
    )
    (finding,) = report["findings"]
    assert (finding["code"], finding["action"], finding["index"]) == (code, action, 1)
    assert finding["id"].endswith(f"{dataset}/000001")


def test_broken_image_is_found_by_decoding(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", {"BUSI": [row("BUSI", ImageName="imagesTr/x.jpg")]})
    image = tmp_path / "tree/training/Ultrasound/BUSI/imagesTr/x.jpg"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (80, 100, 3), dtype=np.uint8)).save(image)
    image.write_bytes(image.read_bytes()[:-600])
    assert convert(tmp_path / "tree", tmp_path / "out", code=3)["findings"][0]["code"] == "IMAGE_UNREADABLE"


def test_exif_rotation_is_applied_to_a_copy_and_to_the_boxes(tmp_path: Path) -> None:
    write_tree(
        tmp_path / "tree", {"BUSI-det": [row("BUSI-det", ImageName="imagesTr/x.jpg", Answer="[[0, 0, 40, 50]]")]}
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    place = tmp_path / "tree/training/Ultrasound/BUSI-det/imagesTr/x.jpg"
    Image.new("RGB", (100, 80)).save(place, exif=exif)
    report = convert(tmp_path / "tree", tmp_path / "out")
    (record,) = converted(tmp_path / "out", "all_train")
    assert [finding["code"] for finding in report["findings"]] == ["EXIF_ROTATED"]
    assert record.source.sizes == [(80, 100)]
    assert Image.open(record.images[0]).size == (80, 100)
    assert parse_boxes(record.target).boxes.tolist() == [[0, 0, 500, 500]]


@pytest.mark.parametrize("answer", ["[[1, 2, 30, 40]]", '{"": [[1, 2, 30, 40]]}'])
@pytest.mark.parametrize("options", [(), ("--frame", "pixel", "--box-style", "flare"), ("--box-style", "internvl")])
def test_an_instance_without_an_identifier_is_quarantined(
    tmp_path: Path, answer: str, options: tuple[str, ...]
) -> None:
    write_tree(tmp_path / "tree", {"chromosome": [row("chromosome"), row("chromosome", Answer=answer)]})
    report = convert(tmp_path / "tree", tmp_path / "out", *options)
    assert (report["counts"]["kept"], report["counts"]["quarantined"]) == (1, 1)
    assert "000001: a box without an identifier" in report["findings"][0]["detail"]


def test_what_a_killed_run_registered_is_gone_after_the_next(
    all_datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: Any, **options: Any) -> None:
        register(*arguments, **options)
        raise KeyboardInterrupt

    convert(all_datasets, tmp_path)
    before = {path.name for path in tmp_path.glob("*.json")}
    registry = (tmp_path / "dataset_info.json").read_bytes()
    monkeypatch.setattr("preprocess.outputs.register", killed)
    convert(all_datasets, tmp_path, "--split-train", "A=0.5", code=130)
    convert(all_datasets, tmp_path, "--sample", "endo=3", code=130)
    assert b"num_samples" in (tmp_path / "dataset_info.json").read_bytes()
    monkeypatch.undo()
    assert (tmp_path / "flare_all_A.json").is_file()
    convert(all_datasets, tmp_path)
    assert {path.name for path in tmp_path.glob("*.json")} == before
    assert (tmp_path / "dataset_info.json").read_bytes() == registry


@pytest.mark.parametrize("step", ["preprocess.unchanged.summary_if_unchanged", "preprocess.conversion.convert_tree"])
def test_ctrl_c_at_any_step_says_how_to_go_on(
    all_datasets: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(step, stop)
    assert convert(all_datasets, tmp_path, code=130) == {}
    assert "stopped; the same command starts over" in capsys.readouterr().err
    monkeypatch.undo()
    assert convert(all_datasets, tmp_path)["counts"]["kept"] == 19


class TestOnMissing:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        names = ["imagesTr/J-1.png", "imagesTr/gone.png", "imagesTr/J-3.png"]
        write_tree(tmp_path / "tree", {"neojaundice": [row("neojaundice"), row("neojaundice", ImageName=names)]})
        return tmp_path / "tree"

    def test_drop(self, tree: Path, tmp_path: Path) -> None:
        assert convert(tree, tmp_path / "out")["counts"]["dropped"] == 1

    def test_error_writes_nothing(self, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert convert(tree, tmp_path / "out", "--on-missing", "error", code=3) == {}
        assert "--on-missing drop" in capsys.readouterr().err

    def test_going_on_with_the_other_images(self, tree: Path, tmp_path: Path) -> None:
        report = convert(tree, tmp_path / "out", "--on-missing", "keep-sample-drop-image")
        record = converted(tmp_path / "out", "all_train")[1]
        assert report["counts"]["kept"] == 2
        assert len(record.images) == record.conversations[0].value.count("<image>") == 2
        assert [finding["code"] for finding in report["findings"]] == ["IMAGE_DROPPED"]

    @pytest.mark.parametrize(
        ("names", "counts"),
        [
            pytest.param(["gone.png", "b.png"], (0, 1), id="boxes lie on the first"),
            pytest.param(["b.png", "gone.png"], (1, 0), id="another is lost"),
        ],
    )
    def test_boxes_never_move_to_another_image(self, tmp_path: Path, names: list[str], counts: tuple[int, int]) -> None:
        rows = [row("iugc"), row("iugc", ImageName=[f"imagesTr/{name}" for name in names])]
        write_tree(tmp_path / "tree", {"iugc": rows})
        report = convert(tmp_path / "tree", tmp_path / "out", "--on-missing", "keep-sample-drop-image")
        assert (report["counts"]["kept"] - 1, report["counts"]["dropped"]) == counts


class TestHiddenSplit:
    def test_file_with_answers_is_preferred_and_never_both_are_read(self, tmp_path: Path) -> None:
        good = [row("dental", folder="validation-hidden")]
        write_tree(tmp_path / "tree", {"dental": [{**good[0], "Answer": ""}]}, "validation-hidden")
        write_tree(tmp_path / "tree", {"dental": good}, "validation-hidden", "_withGT")
        assert convert(tmp_path / "tree", tmp_path / "out")["counts"]["in"] == 1
        (record,) = converted(tmp_path / "out", "dental_hidden")
        assert (record.target, record.source.split) == ("F", "validation-hidden")

    def test_blank_copy_alone_is_kept_for_prediction(self, tmp_path: Path) -> None:
        write_tree(tmp_path / "tree", {"dental": [row("dental", folder="testing", Answer="")]}, "testing")
        assert convert(tmp_path / "tree", tmp_path / "out")["counts"]["kept"] == 1
        assert converted(tmp_path / "out", "dental_test")[0].target == ""


@pytest.mark.parametrize("name", ["../flare", "a,b", ".hidden", ""])
def test_names_that_no_entry_can_have(all_datasets: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        convert(all_datasets, tmp_path / "out", "--name", name)


def test_unknown_dataset_is_converted_by_its_task_type(tmp_path: Path) -> None:
    place = tmp_path / "tree/training/Clinical/wounds"
    (place / "imagesTr").mkdir(parents=True)
    Image.new("L", (10, 10)).save(place / "imagesTr/1.png")
    rows = [
        {"TaskType": "Object_Detection", "ImageName": "imagesTr/1.png", "Question": "Where?", "Answer": "[0, 0, 5, 5]"}
    ]
    (place / "wounds_questions_train.json").write_text("\ufeff" + json.dumps(rows))
    convert(tmp_path / "tree", tmp_path / "out")
    assert converted(tmp_path / "out", "wounds_train")[0].target == '[{"bbox_2d":[0,0,500,500]}]'


@pytest.mark.subprocess
def test_same_bytes_whatever_the_workers_hash_seed_and_folder(all_datasets: Path, tmp_path: Path) -> None:
    outputs = []
    for number, (seed, workers) in enumerate([("0", "1"), ("1", "2")]):
        out = tmp_path / str(number)
        command = [
            sys.executable,
            str(REPOSITORY / "preprocess/flare.py"),
            "--root",
            str(all_datasets),
            "--out",
            str(out),
        ]
        command += ["--dataset-info", str(out / "dataset_info.json"), "--workers", workers]
        (tmp_path / f"cwd{number}").mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(command, check=True, cwd=tmp_path / f"cwd{number}", env=environment)
        outputs.append({path.name: path.read_bytes() for path in out.glob("*.json")})
    assert outputs[0] == outputs[1]


def test_manifest_and_registry_describe_the_files(all_datasets: Path, tmp_path: Path) -> None:
    convert(all_datasets, tmp_path, "--datasets", "BUSI-det", "--frame", "pixel", "--box-style", "flare")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    registry = json.loads((tmp_path / "dataset_info.json").read_text())
    assert (manifest["options"]["frame"], manifest["options"]["box_style"]) == ("pixel", "flare")
    assert {f"{name}.json" for name in registry} == set(manifest["files"]) == {
        "flare_all_train.json", "flare_busi_det_train.json", "flare_ultrasound_train.json",
        "flare_detection_train.json"}  # fmt: skip
    assert registry["flare_all_train"]["file_name"] == "flare_all_train.json"


def test_limit_is_a_seeded_sample_of_each_file(tmp_path: Path) -> None:
    rows = [row("BUSI", Question=f"Question {i}? A: a, B: b") for i in range(30)]
    write_tree(tmp_path / "tree", {"BUSI": rows})
    taken = []
    for seed in ("0", "0", "1"):
        convert(tmp_path / "tree", tmp_path / "out", "--limit", "10", "--seed", seed)
        taken.append([record.source.index for record in converted(tmp_path / "out", "all_train")])
    assert taken[0] == taken[1] == sorted(taken[0]) != taken[2]
    assert len(set(taken[0])) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--datasets", "BUSY"], "did you mean 'BUSI'?", id="dataset"),
        pytest.param(["--splits", "trian"], "did you mean 'train'?", id="split"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(
    all_datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert convert(all_datasets, tmp_path, *options, code=2) == {}
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_is_no_tree_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(tmp_path, tmp_path / "out", code=3) == {}
    assert "training" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
class TestRealRecords:
    def test_blood_cells_are_all_kept(self, tmp_path: Path) -> None:
        report = convert(SHARED / "bccd_flare", tmp_path)
        kept = {part["split"]: part["kept"] for part in report["datasets"]}
        assert kept == {"training": 1229, "validation-public": 521, "validation-hidden": 428}
        assert report["counts"]["in"] == report["counts"]["kept"]

    def test_flare_rows_are_kept_but_for_unusable_answers(self, tmp_path: Path) -> None:
        root = tmp_path / "tree"
        blank = tmp_path / "blank.png"
        Image.new("1", (1024, 1024)).save(blank)
        for file in (SHARED / "flare_records").rglob("*.json"):
            place = root / file.parent.relative_to(SHARED / "flare_records")
            (place / "imagesTr").mkdir(parents=True)
            (place / file.name).write_bytes(file.read_bytes())
            for name in {item["ImageName"] for item in json.loads(file.read_text())}:
                (place / name).hardlink_to(blank)
        report = convert(root, tmp_path / "out")
        zero_area = [finding for finding in report["findings"] if finding["code"] == "ZERO_AREA_BOX"]
        assert report["counts"]["in"] == 4086
        assert report["counts"]["kept"] + len([f for f in report["findings"] if f["action"] != "kept"]) == 4086
        assert sum(int(finding["detail"].split(": ")[1].split()[0]) for finding in zero_area) == 19
        assert all(finding["action"] == "kept" for finding in zero_area)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        pytest.param(["--splits", "test"], 3, "no folder testing", id="split that is not there"),
        pytest.param([], 3, "no record was kept", id="nothing left"),
    ],
)
def test_an_empty_outcome_is_an_error(
    tmp_path: Path, options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / "tree", {"IU_XRay": [row("IU_XRay", Question=" ")]})
    convert(tmp_path / "tree", tmp_path / "out", *options, code=code)
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("options", [["--limit", "-1"], ["--limit", "0"], ["--workers", "0"]])
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--root", str(tmp_path), *options])
    assert stopped.value.code == 2


def test_a_dataset_named_like_markup_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "tree/training/Clinical/[bold]x[red]"
    (place / "imagesTr").mkdir(parents=True)
    Image.new("L", (10, 10)).save(place / "imagesTr/1.png")
    rows = [row("BUSI", ImageName="imagesTr/1.png")]
    (place / "[bold]x[red]_questions_train.json").write_text(json.dumps(rows))
    convert(tmp_path / "tree", tmp_path / "out")
    assert "[bold]x[red]" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--limit", "--workers", "--max-images-per-sample", "--cutoff-len"])
def test_numbers_below_one_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--root", "tree", option, "0"])
    assert stopped.value.code == 2
    assert f"argument {option}: '0': expected a number of at least 1" in capsys.readouterr().err
