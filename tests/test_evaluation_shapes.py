"""One run, written in every shape of prediction file: the official rules give it the same numbers in all of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from evaluation import Settings, evaluate
from evaluation.scores import Evaluation, Resampling
from medvl.predict.challenge import write_challenge
from medvl.predict.questions import read_questions
from medvl.predict.writer import Row
from medvl.profiles import read_profiles
from medvl.sharegpt import Record, read_records
from medvl.tasks import Task
from preprocess.flare import main as convert
from tests.support.scored_tree import build_tree

pytestmark = pytest.mark.subprocess

WRONG = {
    Task.CLASSIFICATION: "C",
    Task.MULTI_LABEL: "Pulp Diseases; Nodule",
    Task.DETECTION: '[{"bbox_2d":[900,900,1100,1000]}]',  # beyond the image: what is handed in ends at its edge
    Task.INSTANCE_DETECTION: '{"1":[[900,900,1000,1000]],"7":[[0,0,9,9]]}',
    Task.COUNTING: "about 5 cells",
    Task.REGRESSION: "99.5 %",
    Task.REPORT: "Pneumothorax.",
}
# What a model says to a record, boxes in the frame of the data.
KINDS: dict[str, Callable[[Record], str]] = {
    "right": lambda record: record.target,
    "right with spaces": lambda record: f"\n {record.target} \n",
    "right in a fence": lambda record: f"```json\n{record.target}\n```",
    "right in a sentence": lambda record: f"The answer is {record.target}.",
    "right in a list": lambda record: json.dumps([record.target]),
    "right in an object": lambda record: json.dumps({"answer": record.target}),
    "wrong": lambda record: WRONG[Task(record.task)],
    "unreadable": lambda record: "I cannot tell from this image.",
    "another task's answer": lambda record: '[{"bbox_2d":[100,100,500,500],"label":"x"}]',
    "null as text": lambda record: "None",
    "cut off": lambda record: record.target[: len(record.target) // 2],
    "error message": lambda record: "Error: CUDA out of memory",
    "blank": lambda record: "",
    "all of them": lambda record: list(KINDS.values())[(int(record.id[-1]) + len(record.dataset)) % (len(KINDS) - 1)](
        record
    ),
}
# The scorer reads these right, once they are handed in.
PERFECT = ("right", "right with spaces")


@dataclass(frozen=True)
class Data:
    tree: Path
    converted: Path
    records: list[Record]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("shapes")
    build_tree(folder / "tree", with_images=True)
    out = folder / "data"
    assert convert(["--root", str(folder / "tree"), "--out", str(out), "--workers", "1",
                    "--dataset-info", str(out / "dataset_info.json")]) == 0  # fmt: skip
    path = out / "flare_all_val.json"
    return Data(folder / "tree", path, read_records(path))


def files(
    data: Data, say: Callable[[Record], str], folder: Path, route: Callable[[Record], str] = lambda record: record.task
) -> dict[str, Path]:
    """Shape -> the file that one run wrote in it."""
    rows = {
        record.id: Row(id=record.id, prediction=say(record), task=route(record), confidence=1.0, source="rules",
                       adapter=None, frame="norm1000", finish="stop", fingerprint="f")
        for record in data.records
    }  # fmt: skip
    questions = [question for question in read_questions(data.tree) if question.id in rows]
    challenge = folder / "predictions.json"
    write_challenge(challenge, questions, rows, read_profiles(None))
    handed_in = json.loads(challenge.read_text())
    references = [read["Answer"] for question in questions
              for read in [json.loads(question.file.read_text())[question.index]]]  # fmt: skip
    lines = {
        "medvl predict": [msgspec.to_builtins(row) for row in rows.values()],
        "challenge, lines": handed_in,
        "challenge, absolute folders": [
            row | {"ImageName": [f"/x/{name}" for name in row["ImageName"]] if isinstance(row["ImageName"], list) else
                   f"/x/{row['ImageName']}"} for row in handed_in
        ],
        "FLARE25-QWen3VL-4B": [row | {"Answer": truth, "prediction": row["Answer"]}
                               for row, truth in zip(handed_in, references, strict=True)],
        "LLaMA-Factory": [{"prompt": "", "predict": rows[record.id].prediction, "label": record.target}
                          for record in data.records],
    }  # fmt: skip
    paths = {"challenge": challenge}
    for shape, written in lines.items():
        paths[shape] = folder / f"{shape}.jsonl"
        paths[shape].write_text("".join(json.dumps(line) + "\n" for line in written))
    return paths


BOTH = Settings(rules=("official", "strict"), resampling=Resampling(), force=True)


def official(path: Path, references: Path) -> Evaluation:
    return evaluate(path, references, BOTH).evaluation


def numbers(evaluation: Evaluation) -> dict[str, Any]:
    return {task.value: scores.pooled for task, scores in evaluation.scores["official"].items()}


@pytest.mark.parametrize("say", KINDS.values(), ids=KINDS)
def test_every_shape_of_one_run_has_equal_official_numbers(
    data: Data, say: Callable[[Record], str], tmp_path: Path
) -> None:
    paths = files(data, say, tmp_path)
    expected = numbers(official(paths["challenge"], data.tree))
    assert set(expected) == {task.value for task in Task} - {"vqa"}
    for shape, path in paths.items():
        if shape not in ("LLaMA-Factory", "challenge, absolute folders"):
            assert numbers(official(path, data.tree)) == expected, shape
        assert numbers(official(path, data.converted)) == expected, f"{shape}, converted references"


@pytest.mark.parametrize("kind", PERFECT)
def test_right_answers_of_a_run_are_right_to_the_scorer(data: Data, kind: str, tmp_path: Path) -> None:
    for shape, path in files(data, KINDS[kind], tmp_path).items():
        evaluation = official(path, data.converted)
        strict = {task: next(iter(scores.pooled.values())) for task, scores in evaluation.scores["strict"].items()}
        for task, entries in numbers(evaluation).items():
            (entry,) = entries.values()
            if task == "report_generation":
                assert entry["value"] is None
            elif task == "detection":  # a reference without area matches nothing there, not even itself
                assert entry["value"] == pytest.approx(2 * 2 / (3 + 3)), shape
            else:
                assert entry["value"] == pytest.approx(float(entry["higher_is_better"])), (shape, task)
        assert strict[Task.CLASSIFICATION]["value"] == 1.0


@pytest.mark.parametrize("kind", ["right", "another task's answer", "all of them"])
@pytest.mark.parametrize("route", ["general", *Task])
def test_a_question_is_handed_in_as_its_route_says(data: Data, kind: str, route: str, tmp_path: Path) -> None:
    paths = files(data, KINDS[kind], tmp_path, lambda record: route)
    assert numbers(official(paths["medvl predict"], data.tree)) == numbers(official(paths["challenge"], data.tree))


def test_a_tree_is_told_apart_by_the_key_as_written(data: Data, tmp_path: Path) -> None:
    path = files(data, KINDS["right"], tmp_path)["challenge, absolute folders"]
    for entries in numbers(official(path, data.tree)).values():
        (entry,) = entries.values()
        assert (entry["value"], entry["n"]) == (None, 0)
