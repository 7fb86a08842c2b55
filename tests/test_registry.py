"""The registry of datasets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from medvl import registry as registry_module
from medvl.registry import dataset_entry, register


def test_registering_writes_paths_relative_to_the_registry(tmp_path: Path) -> None:
    registry = tmp_path / "dataset_info" / "dataset_info.json"
    assert register(registry, {"set": tmp_path / "data" / "set.json"}) == []
    assert json.loads(registry.read_bytes()) == {"set": dataset_entry("../data/set.json")}


def test_registering_twice_changes_nothing(tmp_path: Path) -> None:
    registry, files = tmp_path / "dataset_info.json", {"b": tmp_path / "b.json", "a": tmp_path / "a.json"}
    register(registry, files)
    before = registry.read_bytes(), registry.stat().st_mtime_ns, registry.stat().st_ino
    assert register(registry, dict(reversed(files.items()))) == []
    assert (registry.read_bytes(), registry.stat().st_mtime_ns, registry.stat().st_ino) == before


def test_a_registry_that_stays_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_LOCKED_FOR", 0.1)
    registry = tmp_path / "dataset_info.json"
    with FileLock(f"{registry}.lock"), pytest.raises(TimeoutError, match="another run has held"):
        register(registry, {"set": tmp_path / "set.json"})
    assert not registry.exists()


def test_registering_keeps_other_entries_and_what_users_added(tmp_path: Path) -> None:
    registry = tmp_path / "dataset_info.json"
    other = {"file_name": "mine.json", "ranking": True}
    registry.write_text(json.dumps({"mine": other, "set": dataset_entry("old.json") | {"num_samples": 50}}))
    assert register(registry, {"set": tmp_path / "set.json"}) == ["set"]
    assert json.loads(registry.read_bytes()) == {"mine": other, "set": dataset_entry("set.json") | {"num_samples": 50}}


def test_registering_takes_out_what_an_earlier_run_left_but_not_what_moved_on(tmp_path: Path) -> None:
    registry = tmp_path / "dataset_info.json"
    register(registry, {name: tmp_path / "a" / f"{name}.json" for name in ("old", "moved")})
    register(registry, {"moved": tmp_path / "b" / "moved.json"})
    before = {name: (tmp_path / "a" / f"{name}.json", ()) for name in ("old", "moved", "gone")}
    register(registry, {"new": tmp_path / "a" / "new.json"}, before=before)
    assert {name: entry["file_name"] for name, entry in json.loads(registry.read_bytes()).items()} == {
        "moved": "b/moved.json", "new": "a/new.json"}  # fmt: skip


@pytest.mark.parametrize("content", [b"[]", b'{"set": []}', b'{"set": ', b'{"\xff": {}}', b""])
def test_a_registry_that_is_none_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    registry = tmp_path / "dataset_info.json"
    registry.write_bytes(content)
    with pytest.raises(ValueError, match=r"dataset_info\.json: .*mend or delete it"):
        register(registry, {"set": tmp_path / "set.json"})
    assert registry.read_bytes() == content


REGISTER = """
import sys
from pathlib import Path
from medvl.registry import register
registry, name = Path(sys.argv[1]), sys.argv[2]
for i in range(25):
    register(registry, {f"{name}_{i}": registry.parent / f"{name}_{i}.json"})
"""


@pytest.mark.subprocess
def test_two_processes_registering_at_once_lose_nothing(tmp_path: Path) -> None:
    registry = tmp_path / "dataset_info.json"
    running = [subprocess.Popen([sys.executable, "-c", REGISTER, registry, name]) for name in ("left", "right")]
    assert [process.wait(60) for process in running] == [0, 0]
    expected = {f"{name}_{i}" for name in ("left", "right") for i in range(25)}
    assert json.loads(registry.read_bytes()).keys() == expected
