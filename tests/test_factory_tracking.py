"""`report_to` in real trainings: parameters, parts of the loss, scores and page arrive in the tracker's own store."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llamafactory")
from llamafactory.train.tuner import run_exp

from medvl.cli import main as medvl
from medvl.errors import DataError
from medvl.factory import track_command
from medvl.factory.trackers import FILE_NAME, read_tracked

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
TRACKED = {"medvl_run_card": True, "use_grounding_loss": True, "run_name": "mine", "plot_loss": True,
           "save_strategy": "steps", "save_steps": 2}  # fmt: skip
PARTS = {"loss", "loss_lm", "loss_w1", "loss_iou", "loss_fp", "loss_fn", "boxes_per_batch"}


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """A folder as evaluation/run.py writes it; one metric has no value."""
    entries = {"f1_iou50": {"value": 0.25}, "mean_iou": {"value": None, "reason": "no pair"}}
    folder = tmp_path / "scores"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"tasks": {"detection": entries}}))
    (folder / "report.html").write_text("<!doctype html><title>scores</title>")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """MLflow with a SQLite file, whose tables take seconds to make."""
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'medvl[tracking]'")
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    yield mlflow
    mlflow.set_tracking_uri(None)


@pytest.fixture
def mlflow(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """MLflow with an experiment of the test's own."""
    monkeypatch.chdir(tmp_path)  # where it puts artifacts
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.get_tracking_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    yield store
    store.end_run()


def test_mlflow_has_one_run_with_all_of_a_resumed_training_and_its_scores(
    mlflow: Any, scores: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    evaluated = {"eval_dataset": "tiny_val", "do_eval": True}
    recipe = tiny_recipe("qwen3vl", report_to="mlflow", **TRACKED, **evaluated)
    run_exp(recipe)
    run_exp(recipe | {"max_steps": 3})  # goes on from checkpoint-2
    assert medvl(["track", str(tmp_path / "out"), str(scores), "--as", "val"]) == 0

    (run,) = mlflow.search_runs(experiment_names=[tmp_path.name], output_format="list")
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    client = mlflow.MlflowClient()
    logged = {name: [entry.step for entry in client.get_metric_history(run.info.run_id, name)] for name in PARTS}
    assert logged == {name: [1, 2, 3] for name in PARTS}
    assert {"train_loss", "eval_loss"} <= run.data.metrics.keys()
    assert run.data.metrics["val/detection.f1_iou50"] == 0.25
    assert "val/detection.mean_iou" not in run.data.metrics
    parameters = run.data.params
    assert (parameters["recipe/lora_rank"], parameters["recipe/dataset"]) == ("4", "['tiny_train']")
    card = json.loads((tmp_path / "out" / "medvl_run_card.json").read_text())
    assert card["data"][0]["sha256"] in parameters["data/train/tiny_train"]
    assert parameters["trained_weights"] == str(card["finetuning"]["trainable_parameters"])
    files = {file.path for place in ("run", "val") for file in client.list_artifacts(run.info.run_id, place)}
    assert files == {
        "run/medvl_run_card.json",
        "run/training_loss_components.png",
        "val/report.html",
        "val/metrics.json",
    }
    page = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="val/report.html"))
    assert page.read_text() == (scores / "report.html").read_text()


def test_a_training_that_breaks_is_failed_there_and_a_lost_run_is_refused(
    mlflow: Any, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("qwen3vl", report_to="mlflow", **TRACKED)
    with pytest.raises(RuntimeError, match="loss is nan"):
        run_exp(recipe | {"learning_rate": 1e30, "max_steps": 4, "output_dir": str(tmp_path / "broken")})
    (run,) = mlflow.search_runs(experiment_names=[tmp_path.name], output_format="list")
    assert run.info.status == "FAILED"

    run_exp(recipe)
    (tracked,) = read_tracked(tmp_path / "out")
    changed = {"tracker": "mlflow", "run": "0" * 32, "where": tracked.where}
    (tmp_path / "out" / FILE_NAME).write_text(json.dumps([changed]))
    with pytest.raises(ValueError, match=f"mlflow cannot go on with run 0+ .*delete {FILE_NAME}"):
        run_exp(recipe | {"max_steps": 3})


def test_tensorboard_goes_on_in_its_folder(scores: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    why = "TensorBoard is not installed: pip install 'medvl[tracking]'"
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=why)
    recipe = tiny_recipe("internvl3", report_to="tensorboard", **TRACKED)
    run_exp(recipe)
    run_exp(recipe | {"max_steps": 3})
    (tracked,) = read_tracked(tmp_path / "out")
    track_command.add_scores(tmp_path / "out", scores, "val")
    events = accumulator.EventAccumulator(tracked.run)
    events.Reload()
    tags = events.Tags()
    assert {f"train/{name}" for name in PARTS} | {"val/detection.f1_iou50"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("train/loss_w1")] == [1, 2, 3]
    assert tags["images"] == ["run/training_loss_components"]
    (text,) = events.Tensors("medvl/text_summary")[-1].tensor_proto.string_val
    assert b"| recipe/lora_rank | 4 |" in text


def test_wandb_offline_keeps_parameters_parts_and_scores(
    scores: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="W&B is not installed: pip install 'medvl[tracking]'")
    for key, value in (("WANDB_MODE", "offline"), ("WANDB_DIR", str(tmp_path)), ("WANDB_PROJECT", "boxes")):
        monkeypatch.setenv(key, value)
    run_exp(tiny_recipe("qwen3vl", report_to="wandb", **TRACKED))
    wandb.finish()
    track_command.add_scores(tmp_path / "out", scores, "val")  # as another process does

    (tracked,) = read_tracked(tmp_path / "out")
    # W&B ships no reader of its offline files; names and JSON stand in them as they are.
    stores = sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{tracked.run}.wandb"))
    trained, scored = (path.read_bytes() for path in stores)
    assert tracked.where["project"] == "boxes"
    assert all(trained.count(f"train/{name}".encode()) >= 2 for name in PARTS)
    assert b'"recipe/lora_rank":4' in trained
    assert f"{tracked.run}-run".encode() in trained
    assert b"detection.f1_iou50" in scored and b"val/report" in scored
    assert f"{tracked.run}-val".encode() in scored


def test_scores_of_what_was_not_tracked_are_refused(scores: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"has no {FILE_NAME}"):
        track_command.add_scores(tmp_path, scores, "val")
    (tmp_path / FILE_NAME).write_text('[{"tracker": "tensorboard", "run": "x"}]')
    with pytest.raises(DataError, match=r"has no metrics\.json"):
        track_command.add_scores(tmp_path, tmp_path, "val")
    assert medvl(["track", str(tmp_path), str(tmp_path)]) == track_command.REFUSED
