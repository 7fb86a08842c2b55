"""Open questions: every metric beside an independent one, closed questions apart, unreadable answers wrong."""

# ruff: noqa: RUF001 (characters that look like ASCII are tested)

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import corpus_bleu

from evaluation import Settings, evaluate
from evaluation.metrics.vqa import tokens
from evaluation.run import main
from evaluation.scores import Resampling
from medvl.answers import parse_answer
from medvl.postprocessing import postprocess
from medvl.tasks import Task
from tests.support.samples import Case, samples_of, values

ALL_RIGHT = {"exact_match": 1.0, "token_f1": 1.0}
OPEN = {"open_recall", "rouge_l", "bleu4"}

# Reference and answer -> exact match, token F1.
CASES: dict[str, tuple[str, str, float, float]] = {
    "the same": ("right upper lobe", "right upper lobe", 1, 1),
    "case, articles, punctuation": ("right upper lobe", "The Right, Upper lobe.", 1, 1),
    "a sentence says more": ("pneumonia", "The diagnosis shows pneumonia", 0, 0.5),
    "the conclusion of a long answer": (
        "pneumonia", "I see a white patch in the lung that was not there before. The answer is: Pneumonia.", 1, 1),
    "half of it": ("right lung", "left lung", 0, 0.5),
    "another order": ("upper right", "right upper", 0, 1),
    "a repeated word counts once": ("lung", "lung lung lung", 0, 0.5),
    "nothing of it": ("liver", "spleen", 0, 0),
    "a decimal is one word": ("2.5 cm", "5 cm", 0, 0.5),
    "full width": ("CT", "ＣＴ", 1, 1),
    "a script without spaces": ("左肺", "右肺", 0, 0.5),
    "an article alone": ("A", "a", 1, 1),
    "data": ("liver", '{"answer": "Liver"}', 1, 1),
    "thoughts": ("liver", "<think>spleen? no</think>liver", 1, 1),
    "yes": ("Yes", "yes, there is a mass", 1, 1),
    "no": ("no", "No.", 1, 1),
    "no instead of yes": ("yes", "no", 0, 0),
    "neither yes nor no": ("yes", "a mass", 0, 0),
    "no answer": ("liver", "", 0, 0),
    "a refusal that has the word": ("left lung", "I cannot tell left lung from right lung", 0, 0),
    "an answer that denies": ("cannot be excluded", "A fracture cannot be excluded", 0, 6 / 7),
    "signs": ("?", "!?", 0, 0),
}  # fmt: skip


@pytest.mark.parametrize(("truth", "said", "exact", "f1"), CASES.values(), ids=CASES)
def test_answer_case(truth: str, said: str, exact: float, f1: float) -> None:
    found = values(Task.VQA, [(truth, said)])
    assert (found["exact_match"], found["token_f1"]) == (exact, pytest.approx(f1))


def test_closed_questions_are_apart() -> None:
    cases: list[Case] = [("yes", "Yes."), ("no", "yes"), ("left lung", "lung"), ("liver", "liver")]
    found = values(Task.VQA, cases)
    assert found["closed_accuracy"] == 0.5
    assert found["open_recall"] == 0.75
    assert found["exact_match"] == 0.5
    assert found["token_f1"] == pytest.approx((1 + 0 + 2 / 3 + 1) / 4)
    open_alone, closed_alone = values(Task.VQA, cases[2:]), values(Task.VQA, cases[:2])
    assert {name: found[name] for name in OPEN} == {name: open_alone[name] for name in OPEN}
    assert open_alone["closed_accuracy"] is None
    assert {closed_alone[name] for name in OPEN} == {None}


WORDS = ["left", "right", "upper", "lobe", "lung", "mass"]
phrases = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
pairs = st.lists(st.tuples(phrases, phrases), min_size=1, max_size=8)


def _shared(truth: Sequence[str], said: Sequence[str]) -> int:
    left = list(truth)
    return sum(1 for word in said if word in left and (left.remove(word) or True))


@lru_cache
def _subsequence(truth: tuple[str, ...], said: tuple[str, ...]) -> int:
    if not truth or not said:
        return 0
    if truth[0] == said[0]:
        return 1 + _subsequence(truth[1:], said[1:])
    return max(_subsequence(truth[1:], said), _subsequence(truth, said[1:]))


@given(pairs)
def test_f1_recall_and_rouge_are_those_counted_by_hand(cases: list[tuple[str, str]]) -> None:
    found = values(Task.VQA, list(cases))
    split = [(tuple(truth.split()), tuple(said.split())) for truth, said in cases]
    f1 = [2 * _shared(*pair) / (len(pair[0]) + len(pair[1])) for pair in split]
    rouge = [2 * _subsequence(*pair) / (len(pair[0]) + len(pair[1])) for pair in split]
    recall = [_shared(*pair) / len(pair[0]) for pair in split]
    for name, expected in (("token_f1", f1), ("rouge_l", rouge), ("open_recall", recall)):
        assert found[name] == pytest.approx(sum(expected) / len(expected)), name
    assert found["exact_match"] == pytest.approx(sum(truth == said for truth, said in cases) / len(cases))


# nltk counts an n-gram where a sentence is too short for one, so none is.
long_phrases = st.lists(st.sampled_from(WORDS), min_size=4, max_size=6).map(" ".join)


@given(st.lists(st.tuples(long_phrases, long_phrases), max_size=5))
def test_bleu_is_that_of_nltk_where_every_order_matches(cases: list[tuple[str, str]]) -> None:
    cases = [("left upper lobe mass", "left upper lobe mass"), *cases]
    expected = corpus_bleu([[truth.split()] for truth, _ in cases], [said.split() for _, said in cases])
    assert values(Task.VQA, list(cases))["bleu4"] == pytest.approx(expected)


@given(pairs, st.sampled_from(["", None, "Error: timeout", "???", "I'm sorry, I cannot answer."]))
def test_an_unreadable_answer_is_never_better_than_a_wrong_one(
    cases: list[tuple[str, str]], unreadable: str | None
) -> None:
    wrong = values(Task.VQA, [*cases, ("liver", "spleen")])
    silent = values(Task.VQA, [*cases, ("liver", unreadable)])
    assert all((silent[name] or 0) <= (wrong[name] or 0) + 1e-12 for name in ("exact_match", "token_f1", "open_recall"))
    (sample,) = samples_of(Task.VQA, [("liver", unreadable)])
    assert sample.invalid


@given(st.text(max_size=40))
def test_any_text_has_tokens_of_one_width_and_is_right_against_itself(text: str) -> None:
    assert all(token == token.casefold() for token in tokens(text))
    if text.strip():
        assert values(Task.VQA, [(text, text)])["exact_match"] == 1.0


def test_answers_are_tidied_and_never_invented() -> None:
    assert postprocess("**Right upper lobe.**", "phrase").text == "Right upper lobe"
    refused = postprocess("I cannot answer that.", "phrase")
    assert (refused.valid, refused.text, refused.answer.reason) == (False, "I cannot answer that.", "refusal")
    assert parse_answer("...", Task.VQA).reason == "no_words"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with open and closed questions."""
    folder = tmp_path / "tree" / "validation-public" / "Xray" / "rad"
    folder.mkdir(parents=True)
    rows = [
        {"TaskType": task, "Modality": "X-Ray", "ImageName": f"imagesVal/{number}.png", "Question": question,
         "Answer": answer, "Split": "val"}
        for number, (task, question, answer) in enumerate([
            ("open-ended", "Which lobe is affected?", "right upper lobe"), ("VQA", "Is it normal?", "no"),
            ("Classification", "Is it normal? A: No, B: Yes", "A"),
        ])
    ]  # fmt: skip
    (folder / "rad_questions_val.json").write_text(json.dumps(rows))
    return tmp_path / "tree"


def test_a_file_is_scored_and_shown(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = tree.rglob("*.json")
    out = tmp_path / "out"
    assert main([str(file), "--references", str(tree), "--rules", "strict,official", "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert {name: metrics["tasks"]["vqa"][name]["value"] for name in ALL_RIGHT} == ALL_RIGHT
    assert metrics["tasks"]["vqa"]["closed_accuracy"]["value"] == metrics["tasks"]["vqa"]["open_recall"]["value"] == 1.0
    assert "closed_accuracy" in capsys.readouterr().out
    assert "closed accuracy" in (out / "report.html").read_text()


def test_the_public_scorer_knows_no_open_question(tree: Path) -> None:
    (file,) = tree.rglob("*.json")
    evaluation = evaluate(file, tree, Settings(rules=("official", "strict"), resampling=Resampling())).evaluation
    assert list(evaluation.scores["official"]) == [Task.CLASSIFICATION]
    assert set(evaluation.scores["strict"]) == {Task.CLASSIFICATION, Task.VQA}
    (finding,) = [finding for finding in evaluation.findings if finding.code == "official_tasks"]
    assert (finding.count, "vqa" in finding.text) == (2, True)
