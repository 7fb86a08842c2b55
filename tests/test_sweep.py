"""`medvl sweep`: what a sweep file may say, what is trained again and what not, and the table that comes of it."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from medvl.errors import UsageError
from medvl.factory.trackers import FILE_NAME
from medvl.processes import CommandFailedError
from medvl.sweep import commands, running
from medvl.sweep.plan import Run, read_sweep
from medvl.tasks import Task

Recipe = Callable[..., dict[str, Any]]
# FADA's ablation: which layers are trained.
LAYERS = {
    "A": {"freeze_vision_tower": True, "lora_target": "q_proj,v_proj"},
    "B": {"freeze_vision_tower": True, "lora_target": "gate_proj,up_proj,down_proj"},
    "C": {"freeze_vision_tower": True, "lora_target": "all"},
    "D": {"freeze_vision_tower": False, "lora_target": "all"},
    "E": {"freeze_vision_tower": True, "lora_target": "all", "lora_rank": 8},
}


class InProcess:
    """Runs the commands of a sweep without processes, and counts what was trained."""

    def __init__(self) -> None:
        """Nothing was trained yet."""
        self.trained: list[str] = []
        self.fails: set[str] = set()

    def __call__(self, title: str, command: Sequence[str], log: Path) -> None:
        from llamafactory.train.tuner import run_exp

        from evaluation.run import main as score
        from medvl.cli import main as medvl

        name = Path(command[-1]).parent.name
        if command[0] == "llamafactory-cli":
            if name in self.fails:
                raise CommandFailedError(f"CUDA out of memory\n\n{title}: exit code 1. Whole output: {log}")
            run_exp(yaml.safe_load(Path(command[2]).read_text()))
            self.trained.append(name)
        elif command[0] == "medvl":
            assert medvl(command[1:]) == 0
        else:
            assert command[0] == sys.executable
            assert score(command[2:]) == 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted drawn images: entries s_all_train and s_all_val."""
    from medvl.demo.images import build_tree
    from preprocess.flare import main as convert

    folder = tmp_path_factory.mktemp("sweep_data")
    build_tree(folder / "tree", train=4, val=2, seed=0)
    words = ["--root", str(folder / "tree"), "--out", str(folder / "out"), "--name", "s", "--workers", "1",
             "--dataset-info", str(folder / "out/dataset_info.json"), "--contamination", "off"]  # fmt: skip
    assert convert(words) == 0
    profiles = {name: {"max_new_tokens": 4} for name in (*map(str, Task), "general")}
    (folder / "profiles.yaml").write_text(json.dumps(profiles))
    return folder


@pytest.fixture
def sweep(data: Path, tiny_recipe: Recipe, tmp_path: Path) -> Callable[..., Path]:
    """`sweep(**keys)`: a sweep file over a tiny recipe, judged by classification on val; other keys are added."""
    recipe = tiny_recipe("qwen3vl", dataset="s_all_train", dataset_dir=str(data / "out"), max_steps=1)
    del recipe["output_dir"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    val = str(data / "out/s_classification_val.json")
    predict = ["--no-router", "--profiles", str(data / "profiles.yaml")]

    def write(**keys: Any) -> Path:
        score = {"val": val, "test": val, "metric": "classification.balanced_accuracy", "predict": predict}
        content = {"recipe": str(tmp_path / "recipe.yaml"), "score": score} | keys
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / "sweep.yaml"

    return write


def run(path: Path, runner: Any, *words: str) -> int:
    parser = ArgumentParser()
    commands.add_arguments(parser)
    return commands.run(parser.parse_args([str(path), "--out", str(path.parent / "out"), *words]), runner)


def test_a_layer_ablation_ends_in_one_table_and_is_not_done_twice(
    sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep(runs=[{"name": name, "overrides": keys} for name, keys in LAYERS.items()])
    runner = InProcess()
    runner.fails = {"D"}
    assert run(path, runner) == commands.INCOMPLETE
    out = path.parent / "out"
    first = {row["name"]: row for row in json.loads((out / "table.json").read_text())}
    assert first["D"]["state"].startswith("failed: training D: exit code 1")
    assert not (out / "test.json").exists()
    runner.fails = set()
    assert run(path, runner) == commands.OK
    assert runner.trained == ["A", "B", "C", "E", "D"]

    rows = {row["name"]: row for row in json.loads((out / "table.json").read_text())}
    assert {row["state"] for row in rows.values()} == {"finished"}
    weights = {name: row["trainable"] for name, row in rows.items()}
    assert weights["A"] < weights["C"]
    assert weights["B"] < weights["C"] < weights["D"]
    assert weights["E"] == 2 * weights["C"]
    assert all(row["final_loss"] > 0 and row["value"] is not None for row in rows.values())
    assert [name for name, row in rows.items() if row["difference"] is None] == ["A"]
    (best,) = [row for row in rows.values() if row["chosen"]]
    assert best["value"] == max(row["value"] for row in rows.values()) == best["test"]
    assert json.loads((out / "test.json").read_text()) == [best["name"]]
    for name in ("table.csv", "table.md", "table.html"):
        text = (out / name).read_text()
        assert all(keys["lora_target"] in text for keys in LAYERS.values())
        assert f"{weights['D']:,}" in text
    assert "lora_rank" in capsys.readouterr().out

    assert run(path, runner, "--collect") == commands.OK
    assert len(runner.trained) == 5
    path.write_text(path.read_text().replace("lora_rank: 8", "lora_rank: 2"))
    assert run(path, runner) == commands.INCOMPLETE
    assert "holds E with other settings" in capsys.readouterr().err


def test_a_search_goes_on_where_it_was_stopped(sweep: Callable[..., Path]) -> None:
    path = sweep(search={"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "lora_rank": [2, 4]})
    runner = InProcess()
    assert run(path, runner, "--search", "1") == commands.OK
    runner.fails = {"trial_001"}  # another takes its place
    assert run(path, runner, "--search", "2") == commands.OK
    rows = json.loads((path.parent / "out/table.json").read_text())
    assert [row["name"] for row in rows] == runner.trained == ["trial_000", "trial_002"]
    rates = {row["changed"]["learning_rate"] for row in rows}
    assert len(rates) == 2
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert sum(row["chosen"] for row in rows) == 1


def test_one_command_line_per_run_for_a_scheduler(
    sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep(grid={"lora_rank": [4, 8], "lora_target": ["all", "q_proj,v_proj"]})
    assert run(path, InProcess(), "--commands") == commands.OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[1].endswith("--only lora_rank=4,lora_target=q_proj_v_proj")
    assert run(path, InProcess(), "--only", "nobody") == commands.USAGE
    assert run(path, InProcess(), "--collect") == commands.INCOMPLETE


def test_tracked_runs_have_their_name_and_one_experiment(
    sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sweep(overrides={"report_to": "mlflow"}, runs=[{"name": "a"}, {"name": "b", "overrides": {"run_name": "x"}}])
    environments: list[dict[str, str]] = []
    monkeypatch.setattr(running, "run_logged", lambda _command, **keys: environments.append(keys["env"]))
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    assert run(path, None) == commands.INCOMPLETE
    assert [env["MLFLOW_EXPERIMENT_NAME"] for env in environments] == ["sweep", "sweep"]
    assert {env["WANDB_RUN_GROUP"] for env in environments} == {"mine"}
    names = [yaml.safe_load((path.parent / "out" / name / "recipe.yaml").read_text())["run_name"] for name in "ab"]
    assert names == ["a", "x"]


def test_scores_are_told_to_a_tracker_once(tmp_path: Path) -> None:
    folder = running.RunFolder(tmp_path, Run("a"), {})
    folder.model.mkdir()
    folder.scores("val").mkdir()
    (folder.scores("val") / "metrics.json").write_text('{"tasks": {"vqa": {"accuracy": {"value": 0.5}}}}')
    told: list[Sequence[str]] = []

    def tell(_title: str, command: Sequence[str], log: Path) -> None:
        told.append(command)
        if len(told) == 1:
            raise CommandFailedError(f"no connection. Whole output: {log}")

    running.track(folder, "val", tell)  # not tracked
    assert not told
    (folder.model / FILE_NAME).write_text('[{"tracker": "tensorboard", "run": "x"}]')
    with pytest.raises(CommandFailedError, match="no connection"):
        running.track(folder, "val", tell)
    for _ in range(2):
        running.track(folder, "val", tell)
    expected = ["medvl", "track", str(folder.model), str(folder.scores("val")), "--as", "val"]
    assert told == [expected, expected]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "no runs"),
        ({"runs": [{"name": "a"}, {"name": "a"}]}, "two runs are called a"),
        ({"runs": [{"name": "a/b"}]}, "no name for a folder"),
        ({"runs": [{"name": "..", "overrides": {}}]}, "no name for a folder"),
        ({"runs": [{"name": "a", "overrides": {"output_dir": "x"}}]}, "which the sweep sets itself"),
        ({"runs": [{"name": "a", "override": {}}]}, "unknown field `override`"),
        ({"grid": {"lora_rank": 8}}, "Expected `array`"),
        ({"search": {"lora_rank": {"low": 8, "high": 2}}}, "low must be below high"),
        ({"search": {"lora_rank": [2]}, "score": None}, "search needs score"),
        ({"runs": [{"name": "a"}], "score": {"val": "v", "metric": "accuracy"}}, "expected <task>.<metric>"),
        ({"recipe": "nowhere.yaml", "runs": [{"name": "a"}]}, "there is no recipe nowhere.yaml"),
    ],
)
def test_what_a_sweep_file_may_not_say(sweep: Callable[..., Path], keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_sweep(sweep(**keys))


def test_nothing_is_trained_whose_references_are_not_there(
    sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = str(tmp_path / "absent_val.json")
    path = sweep(runs=[{"name": "A"}], score={"val": absent, "metric": "classification.accuracy"})
    runner = InProcess()
    assert run(path, runner) == commands.USAGE
    assert f"{absent}, which is not there" in " ".join(capsys.readouterr().err.split())
    assert runner.trained == []
    assert run(path, runner, "--commands") == commands.OK


def test_overrides_of_all_runs_and_of_one(sweep: Callable[..., Path]) -> None:
    path = sweep(
        overrides={"max_steps": 5, "seed": 1}, runs=[{"name": "a", "overrides": {"seed": 2, "lora_rank": None}}]
    )
    read = read_sweep(path)
    settings = read.settings(read.runs[0])
    assert (settings["max_steps"], settings["seed"], "lora_rank" in settings) == (5, 2, False)
