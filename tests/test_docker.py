"""The container for the challenge: its call, run in folders like the mounted ones. The image itself is not built."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medvl import cli
from tests.support.questions import QUESTIONS

pytestmark = pytest.mark.subprocess

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(repository: Path, tmp_path: Path) -> Call:
    """`call(**variables)`: `sh predict.sh` from another folder, with inputs, outputs and models below tmp_path."""

    def run(*, stub: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        search = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if stub is not None:  # a medvl that only tells how it was called
            (tmp_path / "bin").mkdir(exist_ok=True)
            (tmp_path / "bin" / "medvl").write_text(f"#!/bin/sh\n{stub}\n")
            (tmp_path / "bin" / "medvl").chmod(0o755)
            search.insert(0, str(tmp_path / "bin"))
        folders = {f"MEDVL_{name.upper()}": str(tmp_path / name) for name in ("inputs", "outputs", "models")}
        environment = {**os.environ, **folders, "PATH": os.pathsep.join(search), **variables}
        environment.pop("HF_HUB_OFFLINE", None)
        command = ["sh", str(repository / "docker" / "predict.sh")]
        return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """What the call needs to get as far as `medvl predict`: a question file and something like a model."""
    (tmp_path / "inputs" / "Xray" / "set").mkdir(parents=True)
    (tmp_path / "inputs" / "Xray" / "set" / "set_questions_test.json").write_text("[]")
    (tmp_path / "models" / "base").mkdir(parents=True)
    (tmp_path / "models" / "base" / "config.json").write_text("{}")
    return tmp_path


TELL = 'printf "%s\\n" "$HF_HUB_OFFLINE" "$@"'


def test_call_with_all_there_is(mounted: Path, call: Call) -> None:
    models = mounted / "models"
    for name in ("adapters", "router"):
        (models / name).mkdir()
    (models / "profiles.yaml").write_text("")
    done = call(stub=TELL, MEDVL_OPTIONS="--batch-size 4")
    assert (done.returncode, done.stderr) == (0, "")
    outputs = mounted / "outputs"
    assert done.stdout.split("\n")[:-1] == [
        *("1", "predict", "--data", str(mounted / "inputs"), "--model", str(models / "base")),
        *("--out", str(outputs / "predictions.jsonl"), "--challenge", str(outputs / "predictions.json")),
        *("--adapters", str(models / "adapters"), "--router", str(models / "router")),
        *("--profiles", str(models / "profiles.yaml"), "--batch-size", "4"),
    ]
    assert list(outputs.iterdir()) == []


def test_what_is_missing_but_not_needed_is_said(mounted: Path, call: Call) -> None:
    done = call(stub=TELL)
    assert done.returncode == 0
    assert "adapters, the base model answers" in done.stderr and "routed by rules alone" in done.stderr
    assert not {"--adapters", "--router", "--profiles"} & set(done.stdout.split())


def test_exit_code_is_that_of_the_prediction(mounted: Path, call: Call) -> None:
    assert call(stub="exit 4").returncode == 4


def test_paths_with_spaces(tmp_path: Path, mounted: Path, call: Call) -> None:
    (mounted / "inputs").rename(tmp_path / "my inputs")
    done = call(stub=TELL, MEDVL_INPUTS=str(tmp_path / "my inputs"))
    assert str(tmp_path / "my inputs") in done.stdout.split("\n")


MISSING = {
    "no inputs": ({"MEDVL_INPUTS": "/no/such/folder"}, "there is no folder /no/such/folder; mount the questions"),
    "no questions": ({"MEDVL_INPUTS": "outputs"}, "no question file"),
    "no models": ({"MEDVL_MODELS": "/no/such/folder"}, "no model: /no/such/folder/base/config.json is not there"),
    "no profiles": ({"MEDVL_PROFILES": "/no/such.yaml"}, "there is no file /no/such.yaml (MEDVL_PROFILES)"),
    "outputs not writable": ({"MEDVL_OUTPUTS": "/proc/outputs"}, "cannot write to /proc/outputs; make it writable"),
    "outputs is a file": ({"MEDVL_OUTPUTS": "models/base/config.json"}, "cannot write to"),
}


@pytest.mark.parametrize(("variables", "says"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_said(variables: dict[str, str], says: str, mounted: Path, call: Call) -> None:
    (mounted / "outputs").mkdir()
    placed = {name: value if value.startswith("/") else str(mounted / value) for name, value in variables.items()}
    done = call(stub="echo predicted", **placed)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("predict.sh: ") and says in done.stderr


def test_questions_to_predictions_and_on_from_a_part(
    call: Call, tmp_path: Path, question_tree: Path, marked_adapters: Callable[[str], Path]
) -> None:
    """The real call with a tiny model: every task by its own adapter; what was answered before is not asked again."""
    inputs, outputs, models = (tmp_path / name for name in ("inputs", "outputs", "models"))
    inputs.symlink_to(question_tree)
    models.symlink_to(marked_adapters("qwen3vl"))
    image = next(question_tree.rglob("p4-0.png"))
    whole = image.read_bytes()
    image.write_bytes(bytes(len(whole)))
    options = ["--data", str(inputs), "--model", str(models / "base"), "--adapters", str(models / "adapters")]
    assert cli.main(["predict", *options, "--out", str(outputs / "predictions.jsonl")]) == 4

    image.write_bytes(whole)
    kept = (outputs / "predictions.jsonl").read_text()
    (outputs / "predictions.jsonl").write_text(kept.replace('"prediction":"A"', '"prediction":"B"'))
    done = call()
    assert done.returncode == 0, done.stderr
    assert answers(outputs) == ["B", "B", "C", "D", "E", "F", "G", "H"]


def answers(outputs: Path) -> list[str]:
    rows = json.loads((outputs / "predictions.json").read_text())
    assert [row["Question"] for row in rows] == list(QUESTIONS.values())
    return [row["Answer"] for row in rows]


def test_dockerfile_copies_what_the_build_context_has(repository: Path) -> None:
    allowed = [line[1:] for line in (repository / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (.+) \S+$", (repository / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources == set(allowed)
    assert all((repository / source).exists() for source in sources - {"models"})


def test_image_is_pinned_and_runs_as_nobody_in_particular(repository: Path) -> None:
    lines = (repository / "docker" / "Dockerfile").read_text().splitlines()
    (base,) = [line for line in lines if re.match(r"FROM (?!runtime)", line)]
    assert re.search(r":\d+\.\d+\.\d+-", base)
    assert "USER 1000:1000" in lines
    assert lines.index("USER 1000:1000") < lines.index('CMD ["sh", "/workspace/predict.sh"]')
    assert any("--constraint constraints.txt" in line for line in lines)
