"""The commands of the demo: what is typed, in which order, and what happens when one fails or is stopped."""

import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from medvl.demo.running import run_step, training_progress
from medvl.demo.sample import spread, write_sample
from medvl.demo.steps import DEFAULT_OUT, RECIPES, Pipeline, Step, after_conversion, convert, train
from medvl.processes import CommandFailedError
from medvl.sharegpt import MANIFEST, Record, Source, encode_records, make_record, read_manifest

ROOT = Path(__file__).parents[1]


def test_the_plain_road_trains_the_recipe_as_it_is() -> None:
    for family, recipe in RECIPES.items():
        assert train(Pipeline(family, DEFAULT_OUT)).shown() == f"llamafactory-cli train {recipe}"


def test_the_recipe_uses_the_folders_of_the_plain_road() -> None:
    for family, file in RECIPES.items():
        recipe, pipeline = yaml.safe_load((ROOT / file).read_text()), Pipeline(family, DEFAULT_OUT)
        assert Path(recipe["model_name_or_path"]) == pipeline.checkpoint
        assert Path(recipe["output_dir"]) == pipeline.trained


def test_order() -> None:
    pipeline = Pipeline("qwen3vl", DEFAULT_OUT)
    names = " ".join(step.name for step in (convert(pipeline), *after_conversion(pipeline)))
    assert names == "convert build predict_untrained score_untrained train predict_trained score_trained"


def test_every_change_becomes_an_override() -> None:
    shown = train(Pipeline("internvl3", Path("/tmp/my demo"), seed=3, max_steps=5)).shown()
    assert "'model_name_or_path=/tmp/my demo/internvl3/checkpoint'" in shown
    assert shown.endswith("seed=3 max_steps=5")


def test_real_data_is_predicted_in_a_sample_with_room_for_long_answers() -> None:
    pipeline = Pipeline("qwen3vl", DEFAULT_OUT, data=Path("/data/flare"))
    predict = after_conversion(pipeline)[1].command
    assert {"eval_dataset=demo_sample_val", "cutoff_len=4096", "max_new_tokens=1024"} <= set(predict)
    assert "cutoff_len=4096" in train(pipeline).command


def record(task: str, index: int) -> Record:
    source = Source(split="validation-public", file="f.json", index=index, sizes=[(8, 8)], answer="1")
    fields = {"id": f"{task}/{index}", "task": task, "dataset": "d", "source": source}
    return make_record(question="?", answer="1", images=["a.png"], **fields)


def test_the_sample_takes_from_every_task_in_turn() -> None:
    records = [record("counting", index) for index in range(9)] + [record("detection", 0), record("regression", 0)]
    assert [item.id for item in spread(records, 4)] == ["counting/0", "detection/0", "regression/0", "counting/1"]
    assert len(spread(records, 99)) == len(records)


def python(code: str) -> Step:
    return Step("step", "A step", (sys.executable, "-c", code), seconds=1)


@pytest.mark.subprocess
def test_output_goes_to_the_log(tmp_path: Path) -> None:
    run_step(python("print('hello')"), tmp_path, tmp_path / "logs" / "step.log", lambda fraction, note: None)
    assert (tmp_path / "logs" / "step.log").read_text() == "hello\n"


@pytest.mark.subprocess
def test_a_failure_shows_the_end_of_the_output(tmp_path: Path) -> None:
    step = python("import sys; print('noise\\n' * 100); sys.exit('out of tea')")
    with pytest.raises(CommandFailedError, match="out of tea") as caught:
        run_step(step, tmp_path, tmp_path / "step.log", lambda fraction, note: None)
    assert "A step: exit code 1" in str(caught.value)
    assert str(caught.value).count("noise") < 40


@pytest.mark.subprocess
def test_ctrl_c_ends_the_command_and_what_it_started(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes of pytest-xdist ignore it
    child = "import pathlib, time; time.sleep(3); pathlib.Path('alive').touch()"
    step = python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")
    threading.Timer(1.0, signal.raise_signal, (signal.SIGINT,)).start()
    with pytest.raises(KeyboardInterrupt):
        run_step(step, tmp_path, tmp_path / "step.log", lambda fraction, note: None)
    time.sleep(3.0)
    assert not (tmp_path / "alive").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, (0.0, "")),  # not written yet
        ("", (0.0, "")),  # just opened
        ('{"current_steps": 5, "total_steps": 20, "loss": 1.25}\n', (0.25, "step 5/20, loss 1.250")),  # running
        ('{"current_steps": 20, "total_steps": 20}\n', (1.0, "step 20/20")),  # the last line has no loss
        (
            '{"current_steps": 5, "total_steps": 20, "loss": 2.0}\n{"curr',
            (0.25, "step 5/20, loss 2.000"),
        ),  # half a line
    ],
)
def test_progress_from_the_trainer_log(content: str | None, expected: tuple[float, str], tmp_path: Path) -> None:
    log = tmp_path / "trainer_log.jsonl"
    if content is not None:
        log.write_text(content)
    assert training_progress(log) == expected


def test_the_sample_is_registered_and_listed_so_that_scoring_knows_its_frame(tmp_path: Path) -> None:
    pipeline = Pipeline("qwen3vl", Path("demo"), data=tmp_path / "tree")
    records = tmp_path / pipeline.records
    records.mkdir(parents=True)
    source = Source(split="training", file="f", index=0, sizes=[(9, 9)], answer="A")
    one = make_record(question="?", answer="A", images=["/x.png"], id="1", task="counting", dataset="d", source=source)
    (records / "demo_all_train.json").write_bytes(encode_records([one]))
    (records / MANIFEST).write_text('{"options": {"frame": "norm1000"}, "files": {}}')
    write_sample(tmp_path, pipeline)
    manifest = read_manifest(records)
    assert manifest is not None
    assert (manifest.options.frame, manifest.files["demo_sample_val.json"].records) == ("norm1000", 1)
    assert "demo_sample_val" in (tmp_path / "dataset_info" / "dataset_info.json").read_text()
