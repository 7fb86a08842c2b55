"""docs/add_a_task.md and docs/add_a_metric.md: each ends in a small diff; applied, the task or metric is everywhere."""

import doctest
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.clones import copy_code

pytestmark = pytest.mark.subprocess

MOST_LINES = 15


def diff_of(page: Path) -> str:
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return str(diff)


def applied(repository: Path, name: str, folder: Path) -> Path:
    """A copy of the clone with the diff of a page applied."""
    clone = copy_code(repository, folder / "clone", "plugins", "evaluation", "preprocess")
    diff = diff_of(repository / "docs" / name)
    subprocess.run(["git", "apply", "-"], cwd=clone, input=diff, text=True, check=True)
    return clone


def run(clone: Path, *command: str) -> str:
    path = os.pathsep.join([str(clone), str(clone / "plugins")])
    done = subprocess.run([sys.executable, *command], cwd=clone, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": path})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def scored(clone: Path, folder: Path, task: str, answers: list[tuple[str, str]]) -> dict[str, Any]:
    """The task's metrics of made-up questions: (right answer, the model's)."""
    place = folder / "tree" / "validation-public" / "Fundus" / "made_up"
    place.mkdir(parents=True)
    rows = [{"TaskType": task, "Modality": "Fundus", "ImageName": f"imagesVal/{number}.png", "Question": "Which?",
             "Answer": right, "Split": "val"} for number, (right, _) in enumerate(answers)]  # fmt: skip
    (place / "made_up_questions_val.json").write_text(json.dumps(rows))
    said = [row | {"Answer": answer} for row, (_, answer) in zip(rows, answers, strict=True)]
    (folder / "predictions.json").write_text(json.dumps(said))
    run(clone, "evaluation/run.py", str(folder / "predictions.json"), "--references", str(folder / "tree"), "--out",
        str(folder / "out"), "--force")  # fmt: skip
    metrics: dict[str, Any] = json.loads((folder / "out" / "metrics.json").read_text())["tasks"]
    return metrics


@pytest.mark.parametrize("name", ["add_a_task.md", "add_a_metric.md"])
def test_a_diff_is_small(repository: Path, name: str) -> None:
    changed = [line for line in diff_of(repository / "docs" / name).splitlines()
               if re.match(r"[+-](?!(?:\+\+|--) )", line)]  # fmt: skip
    assert 5 <= len(changed) <= MOST_LINES


KNOWN = """
import doctest
import json
from medvl.postprocessing import postprocess
from medvl.profiles import read_profiles
from medvl.router.labels import LABELS
from medvl.router.templates import make_questions
from medvl.tasks import TASKS, Task, canonical_task
task = canonical_task("Severity-Grading")
assert list(TASKS) == list(Task) and task.is_number
profile = read_profiles(None)[task]
done = postprocess("The grade is 3.", profile.postprocess)
print(json.dumps([task, profile.adapter, done.text, done.answer.task, LABELS[task], len(make_questions(task, 9))]))
"""


def test_the_task_of_the_page_is_known_everywhere(repository: Path, tmp_path: Path) -> None:
    clone = applied(repository, "add_a_task.md", tmp_path)
    assert json.loads(run(clone, "-c", KNOWN)) == [
        "grading", "grading", "3", "grading", "give the grade or score on a scale", 9,
    ]  # fmt: skip
    metrics = scored(clone, tmp_path, "severity grading", [("2", "2"), ("4", "grade 1"), ("0", "no idea")])
    assert metrics["grading"]["mae"] | {"ci95": None} == {
        "value": 1.5, "ci95": None, "n": 3, "n_invalid": 1, "higher_is_better": False,
    } | {key: metrics["grading"]["mae"][key] for key in metrics["grading"]["mae"] if key == "few_images"}  # fmt: skip


def test_the_metric_of_the_page_is_scored_with_an_interval(repository: Path, tmp_path: Path) -> None:
    clone = applied(repository, "add_a_metric.md", tmp_path)
    metrics = scored(clone, tmp_path, "counting", [("12", "12"), ("12", "13"), ("12", "20"), ("12", "many")])
    entry = metrics["counting"]["within_one"]
    assert (entry["value"], entry["n"], entry["n_invalid"]) == (0.5, 4, 1)
    assert entry["ci95"][0] < 0.5 < entry["ci95"][1]
    assert "within one" in (tmp_path / "out" / "report.html").read_text()


def test_the_examples_of_the_pages_hold(repository: Path) -> None:
    found = doctest.testfile(str(repository / "docs" / "add_a_task.md"), module_relative=False)
    assert (found.failed, found.attempted) == (0, 3)
