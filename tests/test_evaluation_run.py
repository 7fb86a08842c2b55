"""evaluation/run.py as its users meet it: commands in, files, tables, exit codes and messages out."""

import builtins
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evaluation.model_based_metrics import METRICS
from evaluation.run import main
from tests.support.scored_tree import Row, build_tree, entries, score, write_json

# Reasons why a number has no value although all answers are right.
NO_VALUE = {"no reference box", "no image with boxes on both sides", "no image with exactly one reference box",
            "no predicted box on an image of known size", "no predicted box", "no pair of boxes at IoU >= 0.5",
            *(f"not computed; --report-metrics {name} does" for name in METRICS)}  # fmt: skip


def answered(rows: list[Row], answer: object) -> list[Row]:
    return [row | {"Answer": answer} for row in rows]


def assert_perfect(metrics: dict[str, Any]) -> None:
    wrong = {(where, name): entry for where, name, entry in entries(metrics)
             if entry["value"] != pytest.approx(float(entry["higher_is_better"]))}  # fmt: skip
    # An image set without any box has no recall; that is said, not scored. Boxes may occur twice in a reference.
    assert all(entry.get("reason", "").split(": ")[-1] in NO_VALUE or name == "duplicate_rate"
               for (_, name), entry in wrong.items()), wrong  # fmt: skip
    assert metrics["counts"]["invalid"] == 0


def test_references_against_themselves_are_perfect(tmp_path: Path) -> None:
    rows = build_tree(tmp_path / "tree")
    predictions = write_json(tmp_path / "predictions.json", rows)
    metrics = score(predictions, tmp_path / "tree", tmp_path / "out")
    assert_perfect(metrics)
    assert set(metrics["tasks"]) == {"classification", "multi_label_classification", "detection", "instance_detection",
                                     "counting", "regression", "report_generation"}  # fmt: skip


@pytest.mark.parametrize("answer", [
    "",  # blank
    None,  # null: a missing answer
    "Error: CUDA out of memory",  # what producers write in the place of an answer
])  # fmt: skip
def test_without_answers_every_metric_is_worst_and_every_sample_invalid(tmp_path: Path, answer: str | None) -> None:
    rows = build_tree(tmp_path / "tree")
    predictions = write_json(tmp_path / "predictions.json", answered(rows, answer))
    metrics = score(predictions, tmp_path / "tree", tmp_path / "out", "--force")
    for where, name, entry in entries(metrics):
        assert entry["n_invalid"] == entry["n"] > 0
        if name in ("mae", "rmse"):
            assert entry["value"] is None and "no valid answer" in entry["reason"]
        elif entry["higher_is_better"] and entry.get("reason", "").split(": ")[-1] not in NO_VALUE:
            assert entry["value"] == 0.0, (where, name)
    assert metrics["counts"]["invalid"] == len(rows)
    assert metrics["counts"]["missing"] == (len(rows) if answer is None else 0)
    # The worst guess in the range 0-1664 for the references 11 and 1664, and in 0-20.16 for 20.16 and 0.
    assert metrics["tasks"]["counting"]["mae_penalised"]["value"] == pytest.approx((1653 + 1664) / 2)
    assert metrics["tasks"]["regression"]["mae_penalised"]["value"] == pytest.approx(20.1631313163075)


def test_metrics_json_has_the_documented_schema(tmp_path: Path) -> None:
    predictions = write_json(tmp_path / "predictions.json", build_tree(tmp_path / "tree"))
    metrics = score(predictions, tmp_path / "tree", tmp_path / "out", "--seed", "7")
    assert set(metrics) == {"schema", "rules", "counts", "tasks", "datasets", "macro", "groups", "provenance"}
    assert (metrics["schema"], metrics["rules"]) == (1, "strict")
    assert metrics["counts"] == {"references": 21, "predictions": 21, "matched": 21, "missing": 0, "extra": 0,
                                 "duplicates": 0, "invalid": 0}  # fmt: skip
    assert metrics["tasks"]["classification"]["balanced_accuracy"] == {
        "value": 1.0, "ci95": [1.0, 1.0], "n": 7, "n_invalid": 0, "higher_is_better": True,
        "few_images": True}  # fmt: skip
    assert set(metrics["tasks"]["counting"]) == {"mae", "rmse", "mae_penalised", "rmse_penalised"}
    assert set(metrics["tasks"]["detection"]) > {"f1_iou50", "precision_iou50", "recall_iou50", "f1_iou75", "mean_iou"}
    provenance = metrics["provenance"]
    assert provenance["seed"] == 7 and provenance["frame"] == "pixel" and provenance["joined_by"] == "key"
    assert len(provenance["predictions"]["sha256"]) == 64 and provenance["references"]["splits"] == [
        "validation-public"
    ]
    assert provenance["references"]["sha256"].keys() == {str(path) for path in (tmp_path / "tree").rglob("*.json")}


def test_per_sample_has_a_line_for_every_reference_and_left_over_prediction(tmp_path: Path) -> None:
    rows = build_tree(tmp_path / "tree")
    by_task = {row["TaskType"]: index for index, row in enumerate(rows)}
    detection, label_set = by_task["Detection"], by_task["multi-label classification"]
    rows[detection]["Answer"] = "[[10, 20, 110, 120], [0, 0, 5, 5]]"
    rows[label_set]["Answer"] = "Pneumonia"
    extra = rows[0] | {"Question": "Something nobody asked"}
    predictions = write_json(tmp_path / "predictions.json", [*rows, extra, rows[0]])
    score(predictions, tmp_path / "tree", tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "per_sample.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines[-2:]] == ["extra", "duplicate"]
    assert len(lines) == len(rows) + 2
    line = next(line for line in lines if line.get("dataset") == "iugc")
    assert line["id"] == "flare/validation-public/Ultrasound/iugc/000000"
    assert (line["tp"], line["fp"], line["fn"], line["score"]) == (1, 1, 0, pytest.approx(2 / 3))
    assert line["value"][0] == {"box": [10.0, 20.0, 110.0, 120.0], "label": None}
    assert line["prediction"] == rows[detection]["Answer"] and line["reference"] == "[[10, 20, 110, 120]]"


WRITTEN = ("metrics.json", "per_sample.jsonl", "diagnosis.json")


def test_scoring_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    predictions = write_json(tmp_path / "predictions.json", build_tree(tmp_path / "tree"))
    files = []
    for _ in range(2):
        score(predictions, tmp_path / "tree", tmp_path / "out")
        files.append(
            [(tmp_path / "out" / name).read_bytes() for name in ("metrics.json", "per_sample.jsonl", "diagnosis.json")]
        )
    assert files[0] == files[1]


def test_order_of_predictions_changes_nothing(tmp_path: Path) -> None:
    rows = build_tree(tmp_path / "tree")
    rows = [row | {"Answer": "B"} if row["TaskType"] == "Classification" else row for row in rows]
    scored = [
        score(write_json(tmp_path / "predictions.json", listed), tmp_path / "tree", tmp_path / "out")
        for listed in (rows, rows[::-1])
    ]
    for part in ("counts", "tasks", "datasets", "macro"):
        assert scored[0][part] == scored[1][part]


def test_json_prints_the_file_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = write_json(tmp_path / "predictions.json", build_tree(tmp_path / "tree"))
    score(predictions, tmp_path / "tree", tmp_path / "out", "--json")
    assert capsys.readouterr().out == (tmp_path / "out" / "metrics.json").read_text()


def test_table_names_every_task_and_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = build_tree(tmp_path / "tree")
    predictions = write_json(tmp_path / "predictions.json", rows[1:])
    metrics = score(predictions, tmp_path / "tree", tmp_path / "out")
    printed = capsys.readouterr()
    for name in (*metrics["tasks"], *metrics["datasets"], "21 references", "1 missing"):
        assert name in printed.out
    assert "1 references have no prediction and count as wrong (first: flare/validation-public/" in printed.err


def test_default_output_lies_beside_the_predictions(tmp_path: Path) -> None:
    predictions = write_json(tmp_path / "mine.json", build_tree(tmp_path / "tree"))
    assert main([str(predictions), "--references", str(tmp_path / "tree")]) == 0
    assert (tmp_path / "mine_scores" / "metrics.json").is_file()


def test_boxes_of_converted_data_are_scored_in_pixels(tmp_path: Path) -> None:
    """norm1000 boxes on a tree with images of 200 x 180: the image's size is read from its file."""
    build_tree(tmp_path / "tree", with_images=True)
    said = [{"id": "flare/validation-public/Ultrasound/iugc/000000", "prediction": "[[50, 111, 550, 667]]"}]
    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text("\n".join(map(json.dumps, said)))
    metrics = score(predictions, tmp_path / "tree", tmp_path / "out", "--frame", "norm1000", "--force")
    assert metrics["datasets"]["iugc"]["detection"]["f1_iou75"]["value"] == 1.0
    assert metrics["provenance"]["frame"] == "norm1000" and metrics["counts"]["missing"] == 20


def frames_tree(folder: Path, count: int) -> tuple[list[Row], Path]:
    """Rows with one box each, and a tree with their images of 200 x 100."""
    rows = [
        {"TaskType": "detection", "Modality": "Ultrasound", "ImageName": f"imagesVal/IUGC_{place}.png", "Split": "val",
         "Question": "Box the fetal head.", "Answer": f"[[{20 + place}, 20, {120 + place}, 80]]"}
        for place in range(count)
    ]  # fmt: skip
    file = write_json(folder / "validation-public" / "Ultrasound" / "iugc" / "iugc_questions_val.json", rows)
    (file.parent / "imagesVal").mkdir()
    for place in range(count):
        Image.new("L", (200, 100)).save(file.parent / "imagesVal" / f"IUGC_{place}.png")
    return rows, folder


@pytest.mark.parametrize("every", [1, 2], ids=["all boxes", "half of them"])
def test_boxes_that_fit_another_frame_are_said_on_the_console(
    every: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, tree = frames_tree(tmp_path / "tree", 8)
    for place in range(0, 8, every):
        left, top, right, bottom = json.loads(rows[place]["Answer"])[0]
        rows[place] = rows[place] | {"Answer": str([[left * 5, top * 10, right * 5, bottom * 10]])}
    score(write_json(tmp_path / "predictions.json", rows), tree, tmp_path / "out")
    error = capsys.readouterr().err
    said = f"note: boxes of {8 // every} of 8 images of iugc (detection) fit the references far better as norm1000"
    assert said in error
    assert ("--frame norm1000" if every == 1 else "the file mixes frames") in error
    lines = [json.loads(line) for line in (tmp_path / "out" / "per_sample.jsonl").read_text().splitlines()]
    assert [line.get("fits_frame") for line in lines] == ["norm1000" if place % every == 0 else None
                                                          for place in range(8)]  # fmt: skip


REFUSED = {
    "nothing matches": ([{"ImageName": "imagesVal/x.png", "Question": "?", "Answer": "A"}], (),
                        "no prediction of .* matches a reference of .*imagesVal/x.png"),
    "ids of another --name": ([{"id": "starter/validation-public/Ultrasound/iugc/000000", "prediction": "A"}], (),
                              "begin with the --name of the conversion, here 'starter' and 'flare': give the "
                              "converted file of --name starter as --references"),
    "unknown shape": ([{"uid": 1, "text": "A"}], (), "unknown shape, its first row has the keys text, uid; known are"),
    "no predictions": ([], (), "holds no predictions"),
    "not a list of objects": ([1], (), "row 0: a int; expected a JSON object"),
    "unknown frame": ([{"id": "flare/validation-public/Ultrasound/iugc/000000", "prediction": "[[1, 2, 3, 4]]"}], (),
                      "iugc/000000: the frame of its predicted boxes is not known.*--frame"),
    "unknown size": ([{"id": "flare/validation-public/Ultrasound/iugc/000000", "prediction": "[[1, 2, 3, 4]]"}],
                     ("--frame", "norm1000"), "iugc/000000: norm1000 boxes, but the size of its image is not known"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "more", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_data_exits_3_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[Row], more: tuple[str, ...], message: str
) -> None:
    build_tree(tmp_path / "tree")
    predictions = write_json(tmp_path / "predictions.json", rows)
    assert main([str(predictions), "--references", str(tmp_path / "tree"), *more]) == 3
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_blank_references_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = build_tree(tmp_path / "tree")
    blank = write_json(tmp_path / "blank.json", answered(rows, ""))
    predictions = write_json(tmp_path / "predictions.json", rows)
    assert main([str(predictions), "--references", str(blank)]) == 3
    assert "21 questions and not one answer to score against" in capsys.readouterr().err


UNREADABLE = "/proc/self/mem"  # a file that is there and that nobody can read from its start


@pytest.mark.skipif(not Path(UNREADABLE).is_file(), reason="Linux alone has it")
@pytest.mark.parametrize("side", ["predictions", "references"])
def test_an_unreadable_file_cannot_be_read(side: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_json(tmp_path / "good.json", build_tree(tmp_path / "tree"))
    sides = (UNREADABLE, str(good)) if side == "predictions" else (str(good), UNREADABLE)
    assert main([sides[0], "--references", sides[1], "--out", str(tmp_path / "out")]) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"error: {UNREADABLE} cannot be read (Input/output error)") and error.count("\n") == 1


# Where a user's Ctrl-C may hit.
PHASES = {
    "results": ("read_references", "evaluations", "diagnose", "write_scores", "render_page"),
    "command": ("print_scores",),
}


@pytest.mark.parametrize("phase", [f"{module}.{name}" for module, names in PHASES.items() for name in names])
def test_stopping_at_any_time_takes_one_line(
    phase: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    predictions = write_json(tmp_path / "predictions.json", build_tree(tmp_path / "tree"))
    monkeypatch.setattr(f"evaluation.{phase}", stopped)
    assert main([str(predictions), "--references", str(tmp_path / "tree"), "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped; the same command starts over"


def test_stopping_while_it_is_imported_takes_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def stopped(name: str, *rest: Any, **more: Any) -> Any:
        if name == "evaluation.command":
            raise KeyboardInterrupt
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", stopped)
    assert main(["predictions.json", "--references", "tree"]) == 130
    assert capsys.readouterr().err == "stopped; the same command starts over\n"


def test_wrong_arguments_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = write_json(tmp_path / "predictions.json", build_tree(tmp_path / "tree"))
    with pytest.raises(SystemExit) as stopped:
        main([str(predictions)])
    assert stopped.value.code == 2
    assert main([str(predictions), "--references", str(tmp_path / "tree"), "--splits", "hiden"]) == 2
    assert "did you mean 'hidden'?" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    assert main([str(predictions), "--references", str(tmp_path / "tree"), "--out", str(out)]) == 2
    assert "name another folder with --out" in capsys.readouterr().err


def test_training_questions_count_only_where_asked_for_or_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = build_tree(tmp_path / "tree")
    train = tmp_path / "tree" / "training" / "Retinography" / "fundus" / "fundus_questions_train.json"
    write_json(train, [row for row in rows if "FUNDUS" in str(row["ImageName"])])
    predictions = write_json(tmp_path / "predictions.json", rows)
    assert score(predictions, tmp_path / "tree", tmp_path / "out")["counts"]["references"] == 21
    assert "3 training questions are left out; --splits train scores them" in capsys.readouterr().err
    assert score(predictions, tmp_path / "tree", tmp_path / "out", "--splits", "train")["counts"]["references"] == 3
    assert score(predictions, train, tmp_path / "out")["counts"]["references"] == 3


@pytest.mark.subprocess
def test_runs_as_a_script_from_anywhere(tmp_path: Path, repository: Path) -> None:
    predictions = write_json(tmp_path / "predictions.json", build_tree(tmp_path / "tree"))
    command = [sys.executable, str(repository / "evaluation" / "run.py"), str(predictions), "--references", "tree"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "balanced_accuracy" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bccd_flare", "flare_records"])
def test_real_references_against_themselves_are_perfect(tmp_path: Path, shared_data: Path, name: str) -> None:
    """Dirt included: zero-area boxes, an outlier, 98 exact zeros."""
    rows = [
        row
        for path in sorted((shared_data / name / "training").rglob("*.json"))
        for row in json.loads(path.read_text())
    ]
    predictions = write_json(tmp_path / "predictions.json", rows)
    metrics = score(predictions, shared_data / name, tmp_path / "out", "--splits", "train")
    assert metrics["counts"]["matched"] == len(rows)
    assert_perfect(metrics)


@pytest.mark.slow
def test_real_model_outputs_are_scored_against_each_other(tmp_path: Path, shared_data: Path) -> None:
    """Both directions: long prose as truth, and as prediction."""
    files = sorted((shared_data / "flare_predictions").glob("*.json"))
    for predictions, references in (files, files[::-1]):
        metrics = score(predictions, references, tmp_path / "out")
        assert metrics["counts"]["matched"] == 1959
        assert set(metrics["datasets"]) == {"iugc", "boneresorption", "dental", "periapical", "fundus", "chromosome",
                                            "bone_marrow"}  # fmt: skip
