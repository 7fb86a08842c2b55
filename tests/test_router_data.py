"""Training questions: reading, templates, groups of wordings, splits; and the lines that `medvl router` reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from medvl.errors import DataError
from medvl.instructions import GENERAL
from medvl.router.data import (
    LabelledQuestion,
    counts_by_task,
    phrasing_group,
    read_question_set,
    split_by_phrasing,
    with_templates,
)
from medvl.router.lines import LinesError, encode_routes, read_labelled, read_lines
from medvl.router.route import Route
from medvl.router.templates import make_questions, wordings
from medvl.tasks import Task


def question_file(folder: Path, name: str, *rows: tuple[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(
        json.dumps([{"TaskType": task, "Question": text, "ImageName": "a.png", "Answer": ""} for task, text in rows])
    )
    return path


def tree(root: Path) -> Path:
    question_file(
        root / "training" / "X" / "d",
        "d_questions_train.json",
        ("Cell Counting", "How many?"),
        ("counting", "How many?"),
    )
    question_file(root / "training" / "X" / "e", "e_questions_train.json", ("Detection", "Where? [x_min]"))
    question_file(root / "validation-public" / "X" / "d", "d_questions_val.json", ("regression", "How much?"))
    return root


def test_a_tree_gives_each_training_question_once(tmp_path: Path) -> None:
    found = read_question_set([tree(tmp_path)])
    assert [(it.text, it.task, it.dataset) for it in found.questions] == [
        ("How many?", "counting", "d"),
        ("Where? [x_min]", "detection", "e"),
    ]
    assert found.rows == 3
    assert list(found.files) == ["training/X/d/d_questions_train.json", "training/X/e/e_questions_train.json"]


def test_trees_below_a_folder_are_read_as_trees(tmp_path: Path) -> None:
    root = tree(tmp_path / "A" / "flare")
    question_file(tmp_path / "B" / "testing" / "X" / "f", "f_questions_test.json", ("counting", "How many here?"))
    question_file(tmp_path / "own", "my_questions.json", ("regression", "How wide?"))
    found = read_question_set([tmp_path])
    assert found.questions[:2] == read_question_set([root]).questions
    assert [it.text for it in found.questions[2:]] == ["How many here?", "How wide?"]


def test_other_splits_and_files_on_request(tmp_path: Path) -> None:
    root = tree(tmp_path)
    assert [it.task for it in read_question_set([root], ["val"]).questions] == ["regression"]
    file = root / "validation-public" / "X" / "d" / "d_questions_val.json"
    assert [it.task for it in read_question_set([file]).questions] == ["regression"]
    folder = root / "training" / "X" / "d"
    assert [it.task for it in read_question_set([folder, file]).questions] == ["counting", "regression"]


def test_a_contradiction_goes_to_the_majority_and_is_told(tmp_path: Path) -> None:
    file = question_file(tmp_path, "a_questions.json", ("counting", "Q"), ("regression", "Q"), ("counting", " Q "))
    found = read_question_set([file])
    assert [it.task for it in found.questions] == ["counting"]
    assert found.contradictions == ["Q"]


def test_all_bad_rows_are_named(tmp_path: Path) -> None:
    one = question_file(tmp_path, "a_questions.json", ("nonsense", "Q"), ("counting", " "))
    (tmp_path / "b_questions.json").write_text("{")
    with pytest.raises(DataError) as refused:
        read_question_set([tmp_path])
    said = str(refused.value)
    assert f"{one}: row 0: unknown task 'nonsense'" in said
    assert f"{one}: row 1:" in said
    assert "b_questions.json" in said
    assert "3 bad rows" in said


@pytest.mark.parametrize("name", ["absent", ""])
def test_nothing_to_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"no such file|neither a FLARE tree"):
        read_question_set([tmp_path / name])


TWINS = [
    ("Are there roots in the maxillary jaw? A: No, B: Yes", "Are there roots in the mandibular jaw? A: No, B: Yes"),
    ("What is wrong with tooth 13?", "what is wrong with tooth 27"),
    ("Question: What is it? Options: A) x B) y", "Question: What is it? Options: A) u B) v C) w"),
]


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_twins_are_one_wording(one: str, other: str) -> None:
    assert phrasing_group(one) == phrasing_group(other)


def test_other_wordings_are_others() -> None:
    assert phrasing_group("How many cells?") != phrasing_group("Count the cells.")
    assert phrasing_group("A: left B: right")  # nothing but options is a wording too


def questions(**numbers: int) -> list[LabelledQuestion]:
    return [
        LabelledQuestion(f"{task} {i}", task, "d", f"{task} {i}")
        for task, number in numbers.items()
        for i in range(number)
    ]


def test_templates_for_tasks_without_questions_are_marked() -> None:
    filled = with_templates(questions(counting=3), "missing")
    counts = counts_by_task(filled)
    assert counts["counting"] == {"questions": 3, "wordings": 3, "synthetic": 0}
    assert set(counts) == {*map(str, Task), GENERAL}
    assert all(row["synthetic"] == row["questions"] for task, row in counts.items() if task != "counting")
    assert all(it.is_synthetic == (it.dataset == "templates") for it in filled)


def test_templates_for_all_or_none() -> None:
    assert counts_by_task(with_templates(questions(counting=3), "all"))["counting"]["synthetic"] > 100
    assert set(counts_by_task(with_templates(questions(counting=3), "none"))) == {"counting", GENERAL}


def test_templates_are_reproducible_and_have_no_empty_slot() -> None:
    for task in [*map(str, Task), GENERAL]:
        made = make_questions(task, 200, seed=3)
        assert made == make_questions(task, 200, seed=3)
        assert len({text for text, _ in made}) == len(made)
        assert {place for _, place in made} == set(range(wordings(task))) or len(made) == 200
        assert not [text for text, _ in made if "{" in text.replace('{"1"', "")]


def test_a_split_keeps_wordings_together_and_every_task_on_both_sides() -> None:
    rows = questions(counting=10, detection=2, regression=1)
    rows += [LabelledQuestion(f"{row.text} again", row.task, "e", row.group) for row in rows]
    known, held = split_by_phrasing(rows, 0.2)
    assert not {it.group for it in known} & {it.group for it in held}
    assert len(known) + len(held) == len(rows)
    assert counts_by_task(held)["counting"]["wordings"] == 2
    assert counts_by_task(held)["detection"]["wordings"] == 1
    assert "regression" not in counts_by_task(held)  # its only wording is needed for training
    assert split_by_phrasing(rows, 0.2) == (known, held)


def test_lines_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"question": "a", "TaskType": "x"}\r\n{"question": "", "task": 3}\n{"question": "c", "task": "t"}'
    )
    assert [(line.question, line.task) for line in read_lines(path)] == [("a", "x"), ("", None), ("c", "t")]
    path.write_bytes(b'{"question": "a"}\r\n\r\n\n')
    assert [line.question for line in read_lines(path)] == ["a"], "blank lines at the end are no questions"
    path.write_bytes(b"")
    assert read_lines(path) == []


BAD_LINES = [
    ("{", "not JSON"),
    ("", "a blank line"),
    ('["a"]', "expected an object"),
    ('{"text": "a"}', "no question"),
    ('{"question": null}', "question is None"),
    ('{"question": 3}', "question is 3"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_LINES)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, bad: str, said: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(f'{{"question": "a"}}\n{bad}\n{{"question": "b"}}\n')
    with pytest.raises(LinesError) as refused:
        read_lines(path)
    assert f"{path}:2: " in str(refused.value)
    assert said in str(refused.value)


def test_another_encoding_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b'{"question": "a"}\n' + '{"question": "Zählen"}\n'.encode("latin-1"))
    with pytest.raises(LinesError, match=r"q\.jsonl:2: not UTF-8 \(.*\); save the file as UTF-8"):
        read_lines(path)


def test_all_bad_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("x\n" * 30)
    with pytest.raises(LinesError, match=r":1: [\s\S]*:20: [\s\S]*10 more"):
        read_lines(path)
    with pytest.raises(LinesError, match=r"absent"):
        read_lines(tmp_path / "absent")


def test_labelled_lines(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a", "task": "Cell Counting"}\n{"question": "b", "task": "general"}\n')
    assert read_labelled(path) == [("a", "counting"), ("b", GENERAL)]
    assert read_labelled(path, general=True) == [("a", GENERAL), ("b", GENERAL)]
    path.write_text('{"question": "a"}\n{"question": "b", "task": "nonsense"}\n')
    with pytest.raises(LinesError, match=r":1: no task[\s\S]*:2: unknown task"):
        read_labelled(path)


def test_routes_as_lines() -> None:
    route = Route("counting", 0.98765, "rules", {"counting": 0.98765}, margin=0.9, reason="how many")
    assert encode_routes([route, route]).splitlines()[1] == b'{"task":"counting","confidence":0.9877,"source":"rules"}'
    explained: dict[str, Any] = json.loads(encode_routes([route], explain=True))
    assert explained["reason"] == "how many"
    assert explained["scores"] == {"counting": 0.9877}
