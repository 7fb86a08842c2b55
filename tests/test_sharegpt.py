"""The record and its files."""

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from medvl.sharegpt import (
    Record,
    RecordError,
    Source,
    encode_records,
    make_record,
    read_records,
    to_json,
    write_atomic,
)  # fmt: skip

SOURCE = Source(split="training", file="/data/q.json", index=0, sizes=[(640, 480)], answer="B")


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "id": "flare/training/Xray/dental/000000",
        "task": "classification",
        "dataset": "dental",
        "question": "Which? A: No, B: Yes",
        "answer": "B",
        "images": ["/data/a.png"],
        "source": SOURCE,
    }
    return make_record(**fields | changes)


def test_a_record_as_llamafactory_reads_it() -> None:
    assert json.loads(encode_records([record()])) == [
        {
            "id": "flare/training/Xray/dental/000000",
            "task": "classification",
            "dataset": "dental",
            "conversations": [
                {"from": "human", "value": "<image>\nWhich? A: No, B: Yes"},
                {"from": "gpt", "value": "B"},
            ],
            "images": ["/data/a.png"],
            "source": {"split": "training", "file": "/data/q.json", "index": 0, "sizes": [[640, 480]], "answer": "B",
                       "names": []},
        }
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 3])
def test_one_tag_per_image(count: int) -> None:
    made = record(images=[f"/data/{i}.png" for i in range(count)])
    assert made.conversations[0].value.count("<image>") == len(made.images) == count
    assert (made.question, made.target) == ("Which? A: No, B: Yes", "B")


@pytest.mark.parametrize("tag", ["<image>", "<video>", "<audio>"])
@pytest.mark.parametrize("part", ["question", "answer"])
def test_a_literal_media_tag_is_refused(part: str, tag: str) -> None:
    with pytest.raises(RecordError, match=f"flare/training/Xray/dental/000000: the {part} holds a literal {tag}"):
        record(**{part: f"What is {tag}?"})


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    records = [record(), record(id="two", question="Größe\u2028?", answer="µ \U0001f600", images=["/a.png", "/b.png"])]
    write_atomic(tmp_path / "set.json", encode_records(records))
    assert read_records(tmp_path / "set.json") == records


def test_files_that_are_written_at_once_have_ordinary_permissions(tmp_path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda name: write_atomic(tmp_path / str(name), b"x"), range(200)))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}
    assert os.umask(mask) == mask


def test_one_record_per_line(tmp_path: Path) -> None:
    lines = encode_records([record(), record()]).splitlines()
    assert len(lines) == 4
    assert json.loads(encode_records([record()])) == json.loads(encode_records([record(), record()]))[:1]
    assert encode_records([]) == b"[]\n"
    assert json.loads(lines[2]) == json.loads(lines[1].rstrip(b","))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"{}", "Expected `array`", id="not-a-list"),
        pytest.param(b'[{"id": "a"}]', "missing required field", id="field-missing"),
        pytest.param(encode_records([record()]).replace(b'["/data/a.png"]', b'"/data/a.png"'), r"\.images",
                     id="images-no-list"),
        pytest.param(encode_records([record()]).replace(b'"human"', b'"user"'), "Invalid enum value 'user'",
                     id="speaker"),
        pytest.param(b'[{"id": ', "truncated", id="cut-off"),
        pytest.param(b'[{"id": "\xff"}]', "byte 0xff at position 9, line 1", id="not-utf-8"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_list_of_records_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "set.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=rf"set\.json: .*{expected}.*expected the output of a preprocess script"):
        read_records(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file.json"
    write_atomic(path, b"old")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*/deep/file\.json'"):
        write_atomic(path, b"new")
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [("file.json", b"old")]


def test_written_files_are_readable_by_others(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"")
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_json_is_sorted_and_indented() -> None:
    assert to_json({"b": 1, "a": {"d": "é", "c": []}}) == (
        '{\n  "a": {\n    "c": [],\n    "d": "é"\n  },\n  "b": 1\n}\n'.encode()
    )


WRITE = """
import sys
from pathlib import Path
from medvl.answers import parse_answer
from medvl.registry import register
from medvl.sharegpt import Source, encode_records, make_record, to_json
from medvl.tasks import Task
names = {"Pneumonia", "Fibrosis", "Nodule", "Edema"}
source = Source(split="training", file="/q.json", index=0, sizes=[(1, 1)], answer="")
text = "; ".join(sorted(names))
question = "Select from the following: " + text
answer = parse_answer(text, Task.MULTI_LABEL, question=question)
boxes = parse_answer('{"b": [[1, 2, 3], [1, 2, 3, 4]], "a": [[4, 3, 2, 1]]}', Task.INSTANCE_DETECTION)
fields = dict(task="x", dataset="y", images=[], source=source)
records = [make_record(id=str(i), question=question, answer=name, **fields) for i, name in enumerate(answer.value)]
register(Path(sys.argv[1]), {name: Path(sys.argv[1]).parent / name for name in names})
sys.stdout.buffer.write(encode_records(records) + to_json({name: boxes.notes for name in names}))
"""


@pytest.mark.subprocess
def test_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    written = []
    for seed in ("0", "4242"):
        registry = tmp_path / seed / "dataset_info.json"
        registry.parent.mkdir()
        command = [sys.executable, "-c", WRITE, registry]
        output = subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        written.append((output, registry.read_bytes()))
    assert written[0] == written[1]
    assert b"Pneumonia" in written[0][0]
