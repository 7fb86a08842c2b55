"""The run card as a file, and the fingerprints in it; no torch."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from medvl.factory import fingerprints, run_card
from tests.support.records import a_card

RECORDS = [{"id": "a"}, {"id": "b"}, {"id": "c"}]


def test_card_comes_back_from_file_and_from_folder_and_nan_as_none(tmp_path: Path) -> None:
    file = run_card.write_run_card(a_card(), tmp_path / "new" / "folder")
    expected = a_card(run=msgspec.structs.replace(a_card().run, final_loss=None))
    assert run_card.read_run_card(file) == expected
    assert run_card.read_run_card(file.parent) == expected


def test_writing_replaces_the_old_card_and_leaves_nothing_else(tmp_path: Path) -> None:
    run_card.write_run_card(a_card(git_revision="old"), tmp_path)
    run_card.write_run_card(a_card(git_revision="new"), tmp_path)
    assert run_card.read_run_card(tmp_path).git_revision == "new"
    assert [file.name for file in tmp_path.iterdir()] == [run_card.FILE_NAME]


def test_failed_write_keeps_the_old_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_card.write_run_card(a_card(git_revision="old"), tmp_path)

    def full_disk(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        run_card.write_run_card(a_card(git_revision="new"), tmp_path)
    assert run_card.read_run_card(tmp_path).git_revision == "old"
    assert [file.name for file in tmp_path.iterdir()] == [run_card.FILE_NAME]


DAMAGED = {
    "cut off": ('{"schema": 1, "model": {', "not a run card"),
    "another schema": ('{"schema": 2}', "schema 2, this medvl reads 1"),
    "not a card at all": ("[]", "not a run card"),
    "a field of the wrong type": ('{"schema": 1, "model": 3}', "not a run card"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_card_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / run_card.FILE_NAME).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        run_card.read_run_card(tmp_path)
    assert str(tmp_path / run_card.FILE_NAME) in str(caught.value)


def test_missing_card_says_which_key_writes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="medvl_run_card: true"):
        run_card.read_run_card(tmp_path)


@pytest.fixture
def dataset_dir(tmp_path: Path) -> Path:
    """dataset_info/ and data/ side by side, as the preprocessors leave them."""
    (tmp_path / "dataset_info").mkdir()
    data = tmp_path / "data"
    (data / "parts").mkdir(parents=True)
    content = json.dumps(RECORDS)
    (data / "train.json").write_text(content)
    (data / "lines.jsonl").write_text('{"id": "a"}\n\n{"id": "b"}\n')
    for part in ("b.json", "a.json"):
        (data / "parts" / part).write_text(content)
    manifest = {
        "schema": 1,
        "source": "flare",
        "root": "/somewhere",
        "options": {"frame": "norm1000", "box_style": "json", "seed": 0, "instructions": {"counting": "f"}},
        "files": {"train.json": {"sha256": hashlib.sha256(content.encode()).hexdigest(), "records": 3, "entry": "t"}},
    }
    (data / "manifest.json").write_text(json.dumps(manifest))
    info = {
        "t": {"file_name": "../data/train.json", "num_samples": 2},
        "lines": {"file_name": "../data/lines.jsonl"},
        "parts": {"file_name": "../data/parts"},
        "hub": {"hf_hub_url": "some/dataset"},
    }
    (tmp_path / "dataset_info" / "dataset_info.json").write_text(json.dumps(info))
    return tmp_path / "dataset_info"


def described(dataset_dir: Path, name: str) -> list[run_card.DataFile]:
    return fingerprints.describe_data([name], "train", str(dataset_dir))


def test_frame_and_box_style_come_from_the_manifest(dataset_dir: Path) -> None:
    (file,) = described(dataset_dir, "t")
    assert (file.frame, file.box_style, file.manifest_matches) == ("norm1000", "json", True)
    assert file.instructions == {"counting": "f"}
    assert (file.records, file.num_samples) == (3, 2)


def test_file_that_changed_after_its_manifest_is_told_apart(
    dataset_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (dataset_dir.parent / "data" / "train.json").write_text("[]")
    (file,) = described(dataset_dir, "t")
    assert (file.records, file.manifest_matches) == (0, False)
    assert "has changed since" in caplog.text


def test_file_outside_the_manifest_has_no_frame(dataset_dir: Path) -> None:
    (file,) = described(dataset_dir, "lines")
    assert (file.records, file.frame, file.box_style, file.manifest_matches) == (2, None, None, None)


def test_folder_gives_one_record_per_file_in_order(dataset_dir: Path) -> None:
    files = described(dataset_dir, "parts")
    assert [Path(file.path or "").name for file in files] == ["a.json", "b.json"]


def test_hub_entry_has_no_file(dataset_dir: Path) -> None:
    (file,) = described(dataset_dir, "hub")
    assert (file.path, file.sha256, file.records) == (None, None, None)


def test_damaged_manifest_names_the_cure(dataset_dir: Path) -> None:
    (dataset_dir.parent / "data" / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="run the preprocess script again"):
        described(dataset_dir, "t")


def test_no_names_need_no_registry(tmp_path: Path) -> None:
    assert fingerprints.describe_data(None, "eval", str(tmp_path)) == []


def test_hub_model_in_the_local_cache_is_hashed_with_its_commit(tmp_path: Path) -> None:
    repository = tmp_path / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    (repository / "snapshots" / "abc123").mkdir(parents=True)
    (repository / "snapshots" / "abc123" / "config.json").write_text("{}")
    expected = hashlib.sha256(b"{}").hexdigest()
    assert fingerprints.base_model("some/model", "main", str(tmp_path)) == (expected, "abc123")
    assert fingerprints.base_model("some/other", "main", str(tmp_path)) == (None, None)


@pytest.mark.subprocess
def test_git_revision_of_a_clone_and_of_none(tmp_path: Path) -> None:
    assert fingerprints.git_revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert fingerprints.git_revision(tmp_path) == head


def test_versions_name_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "PACKAGES", ("msgspec", "no-such-package"))
    found = fingerprints.versions()
    assert found["msgspec"] == msgspec.__version__
    assert found["no-such-package"] is None
    assert set(found) == {"python", "msgspec", "no-such-package"}
