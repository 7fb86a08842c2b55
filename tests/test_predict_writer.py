"""The file of predictions: nothing lost, nothing twice, whenever the writer is killed."""

from pathlib import Path

import msgspec
import pytest

from medvl.errors import DataError, UsageError
from medvl.predict.writer import Row, done, opened, stale


def row(name: str, prediction: str = "A", **changes: object) -> Row:
    made = Row(id=name, prediction=prediction, task="counting", confidence=0.9, source="rules", adapter=None,
               frame="norm1000", finish="stop", fingerprint=f"f{name}")  # fmt: skip
    return msgspec.structs.replace(made, **changes)


ROWS = [row("1", "line\nbreak"), row("2", "\u2028 é"), row("3", ""), row("4", error="no memory", finish=None)]
PRINTS = {item.id: item.fingerprint for item in ROWS}


def test_rows_are_on_disk_when_append_returns(tmp_path: Path) -> None:
    with opened(tmp_path / "new" / "p.jsonl") as predictions:
        predictions.append(ROWS[:2])
        lines = (tmp_path / "new" / "p.jsonl").read_bytes().split(b"\n")
        assert [msgspec.json.decode(line, type=Row) for line in lines[:-1]] == ROWS[:2]
        assert lines[-1] == b""


def test_a_torn_line_is_dropped_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with opened(path) as predictions:
        predictions.append(ROWS)
    whole = path.read_bytes()
    ends = [place + shift for place in (whole.index(b"\n"), len(whole)) for shift in (-1, 0, 1)]
    for length in sorted({0, *range(1, len(whole), 37), *ends} - {len(whole) + 1}):
        path.write_bytes(whole[:length])
        with opened(path) as predictions:
            kept = list(predictions.rows)
            predictions.append([item for item in ROWS if item.id not in kept])
        assert kept == [item.id for item in ROWS][: whole[:length].count(b"\n")]
        assert path.read_bytes() == whole, f"torn at {length}"


def test_failed_questions_are_asked_again_and_answered_ones_are_not() -> None:
    rows = {item.id: item for item in ROWS}
    assert done(rows, PRINTS) == {"1", "2", "3"}
    assert stale(rows, PRINTS) == []
    changed = PRINTS | {"2": "other"}
    assert done(rows, changed) == {"1", "3"}
    assert stale(rows, changed) == ["2"]
    assert done(rows, {"9": "f9"}) == set()
    assert stale(rows, {"9": "f9"}) == []


def test_the_last_row_of_an_id_counts_and_the_finished_file_is_in_order(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with opened(path) as predictions:
        predictions.append(ROWS)
    with opened(path) as predictions:
        predictions.append([row("4", "B"), row("0")])
        predictions.finish(["0", "1", "4", "missing"])
    with opened(path) as predictions:
        found = list(predictions.rows.values())
    assert [item.id for item in found] == ["0", "1", "4", "2", "3"]
    assert found[2].prediction == "B"
    assert path.read_bytes().count(b"\n") == 5


def test_only_one_run_writes(tmp_path: Path) -> None:
    with opened(tmp_path / "p.jsonl"), pytest.raises(UsageError, match="another run"), opened(tmp_path / "p.jsonl"):
        pass
    with opened(tmp_path / "p.jsonl"):
        pass


@pytest.mark.parametrize("name", ["p.jsonl", "deep/p.jsonl"])
def test_a_place_where_nothing_can_be_written_is_no_other_run(name: str) -> None:
    with (
        pytest.raises(UsageError, match=r"cannot be written to \(.+\); choose another --out"),
        opened(Path("/proc") / name),
    ):
        pass


@pytest.mark.parametrize("content", [b"[{}]", b'[\n{"Question": "How many?"}\n]', b"torn", b"\0\0"])
def test_a_file_of_something_else_is_not_emptied(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="another --out"), opened(tmp_path / "p.jsonl"):
        pass
    assert (tmp_path / "p.jsonl").read_bytes() == content


def test_a_link_to_a_file_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "p.jsonl")
    with opened(tmp_path / "p.jsonl"), pytest.raises(UsageError, match="another run"), opened(tmp_path / "link.jsonl"):
        pass
    with opened(tmp_path / "link.jsonl") as predictions:
        predictions.append(ROWS)
        predictions.finish(["2", "1"])
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "p.jsonl").read_bytes().count(b"\n") == len(ROWS)


@pytest.mark.parametrize("line", [b'{"id": "1"}', b"[1]", b"\xff", b"{}"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "p.jsonl").write_bytes(line + b"\n")
    with pytest.raises(DataError, match="line 1"), opened(tmp_path / "p.jsonl"):
        pass
    assert (tmp_path / "p.jsonl").read_bytes() == line + b"\n"
