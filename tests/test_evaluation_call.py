"""`evaluate` as it is called from a notebook."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pandas import DataFrame

from evaluation import Resampling, Results, Settings, evaluate
from evaluation.results import evaluate_all, together
from evaluation.run import main
from medvl.errors import DataError
from medvl.sharegpt import Source, make_record
from medvl.tasks import Task
from tests.support.scored_tree import build_tree, write_json

QUICK = Settings(rules=("strict", "official"), resampling=Resampling(20))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A tree, and predictions one of which is wrong."""
    rows = build_tree(tmp_path / "tree")
    rows[0] = rows[0] | {"Answer": "A"}
    return write_json(tmp_path / "predictions.json", rows), tmp_path / "tree"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_saves_what_the_command_writes(files: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, tree = files
    command = [
        str(predictions),
        "--references",
        str(tree),
        "--rules",
        "strict,official",
        "--bootstrap",
        "20",
        "--out",
        str(tmp_path / "a"),
    ]
    assert main(command) == 0
    results = evaluate(predictions, str(tree), QUICK)
    assert results.metrics["provenance"]["command"] == []
    replace(results, command=(sys.argv[0], *command)).save(tmp_path / "b")
    ours, theirs = content(tmp_path / "b"), content(tmp_path / "a")
    assert ours.keys() == {"metrics.json", "diagnosis.json", "per_sample.jsonl", "report.html"}
    assert ours == theirs


def test_results_hold_what_is_written(files: tuple[Path, Path], tmp_path: Path) -> None:
    results = evaluate(*files, QUICK)
    results.save(str(tmp_path / "out"), page=False)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == json.loads(json.dumps(results.metrics))
    assert len((tmp_path / "out" / "per_sample.jsonl").read_text().splitlines()) == len(results.samples)
    assert not (tmp_path / "out" / "report.html").exists()
    value = results.metrics["tasks"]["classification"]["balanced_accuracy"]["value"]
    assert results["classification"]["balanced_accuracy"] == results["Classification"]["balanced_accuracy"] == value
    assert 0 < value < 1 and set(results) == {task.value for task in Task} - {"vqa"}
    with pytest.raises(KeyError, match="'vqa' was not scored; there are classification"):
        results["vqa"]


def test_the_table_knows_rows_columns_direction_and_interval(files: tuple[Path, Path]) -> None:
    table = evaluate(*files, QUICK).table
    assert table.headings == ("strict", "official")
    row = next(row for row in table.dataset_rows if (row.dataset, row.metric) == ("fundus", "balanced_accuracy"))
    strict, official = row.entries
    assert strict and official and strict["n"] == 3 and row.arrow == "↑"
    assert strict["ci95"] and strict["ci95"][0] <= strict["value"] <= strict["ci95"][1]
    lower = {row.metric for row in table.task_rows if not row.higher_is_better}
    assert {"mae", "mean_absolute_error"} <= lower


def test_a_notebook_is_shown_the_table_and_nothing_that_names_inject(tmp_path: Path) -> None:
    records = [record(0), record(1) | {"dataset": "<script>alert(1)</script>"}]
    shown = evaluate({"made/0": "4", "made/1": "9"}, records)._repr_html_()
    assert "<table>" in shown and "&lt;script&gt;" in shown and "<script>" not in shown
    assert "MAE ↓" in shown


def record(place: int, answer: str = "4") -> dict[str, Any]:
    source = Source(answer=answer, split="made", file="made.csv", index=place, sizes=[(10, 10)], names=["a.png"])
    made = make_record(id=f"made/{place}", task="counting", dataset="cells", question="How many?", answer=answer,
                       images=[f"{place}.png"], source=source)  # fmt: skip
    row: dict[str, Any] = msgspec.to_builtins(made)
    return row


def mae(results: Results) -> float | None:
    return results["counting"]["mae_penalised"]


def test_predictions_and_references_in_memory(tmp_path: Path) -> None:
    records = [record(place) for place in range(3)]
    said = {"made/0": "4", "made/1": "7", "made/2": "there are 4"}
    rows = [{"id": name, "prediction": text} for name, text in said.items()]
    path, lines = write_json(tmp_path / "made.json", records), tmp_path / "predictions.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [(predictions, references) for predictions in (said, rows, lines) for references in (records, path)]
    assert [mae(evaluate(*pair)) for pair in given] == [1.0] * 6
    provenance = evaluate(said, records).metrics["provenance"]
    assert (
        provenance["predictions"]["path"] == "in-memory/predictions" and len(provenance["predictions"]["sha256"]) == 64
    )
    assert provenance["references"]["kind"] == "records"


def test_a_baseline_is_compared_with() -> None:
    records = [record(place) for place in range(3)]
    results = evaluate(dict.fromkeys((row["id"] for row in records), "4"), records,
                       baseline=[{"id": row["id"], "prediction": "9"} for row in records])  # fmt: skip
    assert results.metrics["comparison"]["tasks"]["counting"]["mae"]["difference"] == -5.0


def test_several_files_stand_in_one_table_with_the_best_marked() -> None:
    records = [record(place) for place in range(3)]
    ids = [row["id"] for row in records]
    table = together(evaluate_all([dict.fromkeys(ids, "4"), dict.fromkeys(ids, "6")], records))
    assert table.headings == ("in-memory_predictions_1", "in-memory_predictions_2")
    mae = next(row for row in table.task_rows if row.metric == "mae")
    assert [entry and entry["value"] for entry in mae.entries] == [0.0, 2.0]
    assert (mae.best, mae.arrow, mae.n) == ({0}, "↓", 3)  # less is better
    assert {(row["file"], row["value"], row["best"]) for row in table.records() if row["metric"] == "mae"} == {
        ("in-memory_predictions_1", 0.0, True), ("in-memory_predictions_2", 2.0, False)}  # fmt: skip
    heading, *lines = repr(table).splitlines()
    assert heading.split() == ["dataset", "task", "metric", *table.headings, "n"]
    assert any(re.match(r"cells +counting +MAE ↓ +0\.000 \(.*\)†?\* +2 ", line) for line in lines)
    same = together(evaluate_all([dict.fromkeys(ids, "4")] * 2, records))
    assert all(row.best == set() for row in same.task_rows)


REFUSED: dict[str, tuple[Any, Any, Settings, str]] = {
    "no such file": ("nowhere.json", [record(0)], Settings(), "nowhere.json: there is no such file"),
    "predictions of no kind": (5, [record(0)], Settings(), "predictions are a int; give a path"),
    "references of no kind": ({"made/0": "4"}, 5, Settings(), "references are a int; give a path"),
    "a table of pandas": (DataFrame([{"id": "made/0"}]), [record(0)], Settings(), r"or rows, as .to_dict\('records'\)"),
    "a text where a path belongs": ("x" * 5000, [record(0)], Settings(), "cannot be read .File name too long"),
    "rows of no shape": ([{"name": "x"}], [record(0)], Settings(), "in-memory/predictions: unknown shape"),
    "a row that is a text": (["4"], [record(0)], Settings(), "in-memory/predictions, row 0: a str"),
    "not JSON": ({"made/0": object()}, [record(0)], Settings(), "in-memory/predictions: cannot be written as JSON"),
    "no predictions": ({}, [record(0)], Settings(), "in-memory/predictions: holds no predictions"),
    "no references": ({"made/0": "4"}, [], Settings(), "in-memory/references: 0 questions"),
    "a damaged record": ({"made/0": "4"}, [record(0) | {"images": 5}], Settings(), r"in-memory/references: .*images"),
    "other ids": ({"other": "4"}, [record(0)], Settings(), "no prediction of in-memory/predictions matches"),
    "no such rules": ({"made/0": "4"}, [record(0)], Settings(rules=("strickt",)), "did you mean 'strict'"),
    "missing answers": ({"made/0": "4"}, [record(0), record(1)], Settings(), "references have no prediction"),
}


@pytest.mark.parametrize(("predictions", "references", "settings", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_scored_is_a_data_error(
    predictions: Any, references: Any, settings: Settings, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        evaluate(predictions, references, settings)


@pytest.mark.subprocess
def test_importing_the_call_is_cheap() -> None:
    program = "import evaluation, sys; print(sorted({'scipy', 'rich', 'torch', 'jinja2'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
