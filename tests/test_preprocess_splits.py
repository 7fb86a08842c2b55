"""Splits by image, and images on both sides of a split."""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from medvl.sharegpt import read_records
from preprocess.contamination import find_contamination
from preprocess.fingerprint_cache import CACHE, fingerprints
from preprocess.fingerprints import Fingerprint, difference_hash, fingerprint
from preprocess.flare import main
from preprocess.splits import linked, split_by_image
from tests.support.records import record

Draw = Callable[..., Image.Image]


def prints(*names: str, same: dict[str, str] | None = None) -> dict[str, Fingerprint]:
    """Fingerprints by name; `same` names files with another's content."""
    content = dict(zip(names, names, strict=True)) | (same or {})
    return {name: Fingerprint(1, 1, known.encode().ljust(32), 0, None) for name, known in content.items()}


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """An image of soft random blobs; another seed, another image."""
    noise = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


class TestSplitByImage:
    def test_questions_about_one_image_stay_together(self) -> None:
        records = [record(6 * image + question, f"{image}") for image in range(50) for question in range(6)]
        split = split_by_image(records, prints(*map(str, range(50))), {"dev": 0.1, "train": 0.9}, seed=0)
        by_image: dict[str, set[str]] = defaultdict(set)
        for item in records:
            by_image[item.images[0]].add(split[item.id])
        assert all(len(names) == 1 for names in by_image.values())
        assert Counter(split.values()) == {"dev": 30, "train": 270}

    def test_same_bytes_under_another_name_are_one_image(self) -> None:
        known = prints("a", "b", same={"copy": "a"})
        assert [len(group) for group in linked([record(0, "a"), record(1, "b"), record(2, "copy")], known)] == [2, 1]

    def test_views_of_a_case_link_their_records(self) -> None:
        records = [record(0, "a", "b"), record(1, "b", "c"), record(2, "c"), record(3, "d")]
        assert [[item.id for item in group] for group in linked(records, prints(*"abcd"))] == [["r0", "r1", "r2"], ["r3"]]  # fmt: skip  # noqa: E501

    @pytest.mark.parametrize("shares", [{"dev": 0.1, "train": 0.9}, {"true_test": 0.1, "A": 0.45, "B": 0.45}])
    def test_every_dataset_and_task_has_its_share(self, shares: dict[str, float]) -> None:
        records, sizes = [], {("dental", "classification"): 400, ("iugc", "detection"): 80, ("endo", "regression"): 20}
        for (dataset, task), size in sizes.items():
            for _ in range(size):
                number = len(records)
                records.append(record(number, str(number), dataset=dataset, task=task))
        split = split_by_image(records, prints(*map(str, range(len(records)))), shares, seed=3)
        counts = Counter((item.dataset, split[item.id]) for item in records)
        for (dataset, _), size in sizes.items():
            for name, share in shares.items():
                assert abs(counts[dataset, name] - share * size) <= 1

    def test_the_seed_decides_and_the_order_of_rows_does_not(self) -> None:
        records = [record(number, str(number)) for number in range(40)]
        known = prints(*map(str, range(40)))
        shares = {"dev": 0.25, "train": 0.75}
        first = split_by_image(records, known, shares, seed=0)
        assert split_by_image(records[::-1], known, shares, seed=0) == first
        assert split_by_image(records, known, shares, seed=1) != first


class TestSimilarity:
    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda image: image.resize((80, 60)), id="half the size"),
            pytest.param(lambda image: image.resize((320, 240)), id="twice the size"),
            pytest.param(lambda image: ImageEnhance.Brightness(image).enhance(0.9), id="darker"),
            pytest.param(lambda image: image.convert("L"), id="grey"),
            pytest.param(lambda image: image.filter(ImageFilter.GaussianBlur(1)), id="blurred"),
        ],
    )
    @pytest.mark.parametrize("name", ["x.png", "x.jpg"])
    def test_the_same_image_saved_anew_is_near(self, tmp_path: Path, change: Draw, name: str) -> None:
        scene(1).save(tmp_path / "original.png")
        change(scene(1)).save(tmp_path / name)
        (pair,) = leaks_between(tmp_path, ["original.png"], [name])
        assert pair.kind == "near"

    def test_other_images_are_not(self, tmp_path: Path) -> None:
        names = [f"{seed}.png" for seed in range(60)]
        for seed, name in enumerate(names):
            scene(seed).save(tmp_path / name)
        assert leaks_between(tmp_path, names[:30], names[30:]) == []

    def test_even_images_are_alike_in_their_grey_only(self, tmp_path: Path) -> None:
        for name, grey in (("black.png", 0), ("black2.png", 1), ("white.png", 255)):
            Image.new("L", (60, 40), grey).save(tmp_path / name)
        (pair,) = leaks_between(tmp_path, ["black.png"], ["white.png", "black2.png"])
        assert pair.other_image.endswith("black2.png")

    def test_sixteen_bits_are_scaled_not_clipped(self, tmp_path: Path) -> None:
        values = np.asarray(scene(5).convert("L"), dtype=np.uint16)
        Image.fromarray(values * 100 + 20_000).save(tmp_path / "deep.png")
        scene(5).convert("L").save(tmp_path / "shallow.png")
        assert fingerprint(tmp_path / "deep.png").dhash == difference_hash(scene(5).convert("L"))

    def test_the_nearest_of_several_is_named(self, tmp_path: Path) -> None:
        scene(1).save(tmp_path / "original.png")
        scene(1).save(tmp_path / "good.jpg", quality=95)
        ImageEnhance.Brightness(scene(1).filter(ImageFilter.GaussianBlur(3))).enhance(0.7).save(tmp_path / "bad.jpg")
        (pair,) = leaks_between(tmp_path, ["original.png"], ["bad.jpg", "good.jpg"])
        assert pair.other_image.endswith("good.jpg")


def leaks_between(folder: Path, here: list[str], there: list[str]) -> list[Any]:
    records = {
        split: [record(number, str(folder / name)) for number, name in enumerate(names)]
        for split, names in (("train", here), ("val", there))
    }
    paths = [str(folder / name) for name in here + there]
    return find_contamination(records, fingerprints(paths, folder, 1, look=True))


def test_fingerprints_are_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    scene(1).save(path)
    first = fingerprints([str(path)], tmp_path, 1, look=False)
    assert first[str(path)].dhash is None
    looked = fingerprints([str(path)], tmp_path, 1, look=True)
    assert looked[str(path)].dhash is not None
    monkeypatch.setattr("preprocess.fingerprint_cache.fingerprint", lambda *_, **__: pytest.fail("read again"))
    assert fingerprints([str(path)], tmp_path, 1, look=True) == looked
    monkeypatch.undo()
    scene(2, (150, 100)).save(path)
    assert fingerprints([str(path)], tmp_path, 1, look=True) != looked
    (tmp_path / CACHE).write_bytes(b"\xff not a cache")
    assert fingerprints([str(path)], tmp_path, 1, look=False)[str(path)].sha256


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """20 training images with two questions each, 3 validation images; train 0 is val 0, train 1 nearly val 1."""
    root = tmp_path / "tree"
    for folder, stem, images, seeds in (
        ("training", "train", "imagesTr", range(20)),
        ("validation-public", "val", "imagesVal", (0, 1, 100)),
    ):
        place = root / folder / "Ultrasound" / "BUSI"
        (place / images).mkdir(parents=True)
        rows = []
        for seed in seeds:
            image = scene(seed) if (folder, seed) != ("training", 1) else scene(seed, (200, 150))
            image.save(place / images / f"p{seed}.png")
            rows += [
                {"TaskType": "classification", "ImageName": f"{images}/p{seed}.png", "Answer": "A",
                 "Question": f"{question}? A: yes, B: no"} for question in ("Benign", "Present")
            ]  # fmt: skip
        (place / f"BUSI_questions_{stem}.json").write_text(json.dumps(rows))
    return root


def convert(tree: Path, out: Path, *options: str) -> tuple[int, dict[str, Any]]:
    arguments = ["--root", str(tree), "--out", str(out), "--dataset-info", str(out / "dataset_info.json")]
    try:
        code = main([*arguments, "--workers", "1", *options])
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    report = out / "report.json"
    return code, json.loads(report.read_text()) if report.exists() else {}


class TestCommandLine:
    @pytest.mark.subprocess
    def test_leaks_are_reported_with_pairs_and_nothing_is_left_out(self, tree: Path, tmp_path: Path) -> None:
        _, report = convert(tree, tmp_path / "out")
        pairs = [(pair["kind"], Path(pair["picture"]).name, Path(pair["other_picture"]).name, pair["other_split"])
                 for pair in report["leaks"]]  # fmt: skip
        assert pairs == [("exact", "p0.png", "p0.png", "val"), ("near", "p1.png", "p1.png", "val")]
        assert Counter(finding["code"] for finding in report["findings"]) == {"LEAK_EXACT": 2, "LEAK_NEAR": 2}
        assert report["counts"]["kept"] == 46

    @pytest.mark.subprocess
    def test_excluded_leaks_are_dropped_with_their_reason(self, tree: Path, tmp_path: Path) -> None:
        _, report = convert(tree, tmp_path / "out", "--exclude-contaminated")
        assert report["counts"] == {"in": 46, "kept": 42, "dropped": 4, "quarantined": 0}
        trained = read_records(tmp_path / "out" / "flare_all_train.json")
        assert not {"p0.png", "p1.png"} & {Path(item.images[0]).name for item in trained}
        assert len(read_records(tmp_path / "out" / "flare_all_val.json")) == 6

    @pytest.mark.subprocess
    def test_leaks_are_not_excluded_where_there_is_nothing_to_compare_with(
        self, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert convert(tree, tmp_path / "out", "--exclude-contaminated", "--splits", "train") == (3, {})
        assert "all records are in train" in capsys.readouterr().err
        assert (
            convert(tree, tmp_path / "out", "--exclude-contaminated", "--splits", "train", "--dev-fraction", "0.2")[0]
            == 0
        )

    @pytest.mark.subprocess
    def test_a_leak_in_a_drawn_split_names_it_and_the_entries_are_listed(
        self, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        place = tree / "training" / "Ultrasound" / "BUSI"
        for seed in range(2, 20):  # each has a twin, so that some are on the other side whatever is drawn
            scene(seed, (200, 150)).save(place / "imagesTr" / f"twin{seed}.png")
        file = place / "BUSI_questions_train.json"
        rows = json.loads(file.read_text())
        rows += [row | {"ImageName": row["ImageName"].replace("/p", "/twin")} for row in rows[4:]]
        file.write_text(json.dumps(rows))
        _, report = convert(tree, tmp_path / "out", "--dev-fraction", "0.2")
        said = [finding["detail"] for finding in report["findings"] if finding["code"] == "LEAK_NEAR"]
        assert [text for text in said if ", drawn for dev, is nearly the same image" in text]
        assert not [text for text in said if "drawn for train" in text]
        sizes = {
            name: len(read_records(tmp_path / "out" / f"flare_all_{name}.json")) for name in ("train", "dev", "val")
        }
        listed = ", ".join(f"flare_all_{name} ({records} records)" for name, records in sizes.items())
        assert f"for recipes: {listed}" in capsys.readouterr().out

    @pytest.mark.subprocess
    def test_exact_leaks_alone(self, tree: Path, tmp_path: Path) -> None:
        _, report = convert(tree, tmp_path / "out", "--contamination", "exact")
        assert [pair["kind"] for pair in report["leaks"]] == ["exact"]

    @pytest.mark.subprocess
    def test_dev_fraction_holds_images_out(self, tree: Path, tmp_path: Path) -> None:
        _, report = convert(tree, tmp_path / "out", "--dev-fraction", "0.2")
        images = {
            split: {item.images[0] for item in read_records(tmp_path / "out" / f"flare_busi_{split}.json")}
            for split in ("train", "dev")
        }
        assert (len(images["train"]), len(images["dev"])) == (16, 4)
        assert not images["train"] & images["dev"]
        assert [(row["split"], row["records"]) for row in report["splits"]] == [("dev", 8), ("train", 32)]

    @pytest.mark.subprocess
    def test_named_splits_that_take_all_leave_no_train(self, tree: Path, tmp_path: Path) -> None:
        convert(tree, tmp_path / "out", "--split-train", "true_test=0.1", "A=0.45", "B=0.45")
        entries = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
        assert {name for name in entries if name.startswith("flare_all")} == {
            "flare_all_true_test", "flare_all_A", "flare_all_B", "flare_all_val"}  # fmt: skip
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["options"]["split_train"] == {"true_test": 0.1, "A": 0.45, "B": 0.45}

    @pytest.mark.subprocess
    @pytest.mark.parametrize(
        "options",
        [
            pytest.param(["--split-train", "A=0.7", "B=0.7"], id="more than all"),
            pytest.param(["--split-train", "A=0.1", "A=0.2"], id="a name twice"),
            pytest.param(["--split-train", "val=0.1"], id="the name of a published split"),
            pytest.param(["--split-train", "A"], id="no share"),
            pytest.param(["--dev-fraction", "1.5"], id="not a fraction"),
            pytest.param(["--dev-fraction", "0.1", "--split-train", "A=0.1"], id="both"),
            pytest.param(["--exclude-contaminated", "--contamination", "off"], id="leaks that nobody looks for"),
        ],
    )
    def test_splits_that_cannot_be_made_are_refused(self, tree: Path, tmp_path: Path, options: list[str]) -> None:
        assert convert(tree, tmp_path / "out", *options) == (2, {})

    @pytest.mark.subprocess
    def test_two_entries_never_share_a_name(
        self, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        second = tree / "training" / "Ultrasound" / "BUSI_A"
        shutil.copytree(second.parent / "BUSI", second)
        (second / "BUSI_questions_train.json").rename(second / "BUSI_A_questions_train.json")
        assert convert(tree, tmp_path / "out", "--split-train", "a_train=0.5") == (3, {})
        assert "would both be the entry flare_busi_a_train" in capsys.readouterr().err

    @pytest.mark.subprocess
    def test_same_bytes_with_two_workers(self, tree: Path, tmp_path: Path) -> None:
        outputs = []
        for number, workers in enumerate(("1", "2")):
            convert(tree, tmp_path / str(number), "--dev-fraction", "0.2", "--workers", workers)
            outputs.append({path.name: path.read_bytes() for path in (tmp_path / str(number)).glob("flare_*.json")})
        assert outputs[0] == outputs[1]


@pytest.mark.subprocess
def test_blood_smears_hold_one_pair_of_near_duplicates(shared_data: Path, tmp_path: Path) -> None:
    _, report = convert(shared_data / "bccd_flare", tmp_path)
    (pair,) = report["leaks"]
    assert [Path(pair[key]).name for key in ("picture", "other_picture")] == ["BloodImage_00038.jpg",
                                                                              "BloodImage_00037.jpg"]  # fmt: skip
