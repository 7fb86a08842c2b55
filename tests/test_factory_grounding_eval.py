"""Which eval records are asked while a model trains, and what its answers are worth. Nothing is trained here."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llamafactory")
from transformers import AutoTokenizer

from medvl.factory.grounding_eval import Scored, choose_questions, left_padding, score, summary, until
from medvl.factory.grounding_log import GroundingLog
from medvl.factory.loss_plot import running_mean
from medvl.losses.grounding import GroundingSettings

pytestmark = pytest.mark.training

BOX, OTHER = '[{"bbox_2d":[100,100,500,500]}]', '[{"bbox_2d":[600,600,900,900]}]'


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Callable[[str], Path]) -> Any:
    return AutoTokenizer.from_pretrained(tiny_checkpoint("internvl3"))


def record(tokenizer: Any, *turns: tuple[str, str]) -> dict[str, Any]:
    """A record of questions and answers, as LLaMA-Factory tokenises it."""
    ids: list[int] = []
    labels: list[int] = []
    for question, answer in turns:
        asked, said = tokenizer.encode(question), tokenizer.encode(answer + tokenizer.eos_token + "\n")
        ids += asked + said
        labels += [-100] * len(asked) + said
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids), "images": ["a.png"]}


def test_only_box_answers_are_asked_and_the_empty_list_is_one(tokenizer: Any) -> None:
    answers = [BOX, "A", "[]", "There is one lesion.", "<ref>cell</ref><box>[[1,2,30,40]]</box>", "42"]
    dataset = [record(tokenizer, ("Where?", answer)) for answer in answers]
    questions = choose_questions(dataset, tokenizer, 64)
    assert sorted(question.answer for question in questions) == sorted([answers[0], answers[2], answers[4]])
    assert choose_questions(dataset, tokenizer, 64) == questions, "the same ones every time"
    assert len(choose_questions(dataset, tokenizer, 2)) == 2


def test_prompt_ends_before_the_answer_and_of_several_turns_the_first_is_asked(tokenizer: Any) -> None:
    (question,) = choose_questions([record(tokenizer, ("Where?", BOX), ("And there?", OTHER))], tokenizer, 1)
    prompt = question.prompt()
    assert tokenizer.decode(prompt["input_ids"]) == "Where?"
    assert set(prompt["labels"]) == {-100} and prompt["images"] == ["a.png"]
    assert len(prompt["labels"]) == len(prompt["input_ids"]) == len(prompt["attention_mask"])
    assert question.answer == BOX
    assert question.length == len(tokenizer.encode(BOX))


REFUSED: dict[str, tuple[Any, str]] = {
    "stream": (iter(()), "`streaming` gives no eval set"),
    "no boxes": ([{"labels": [-100, -100], "input_ids": [1, 2]}], "no record of the eval set has a box answer"),
}


@pytest.mark.parametrize(("dataset", "message"), REFUSED.values(), ids=REFUSED)
def test_eval_sets_without_questions(dataset: Any, message: str, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=message):
        choose_questions(dataset, tokenizer, 8)


# Answer, truth, expected: F1 at 0.5, mean IoU of pairs, false positives, misses, unreadable.
BY_MODELS = {
    "exact": (BOX, BOX, (1, 1, 0, 0, 0)),
    "corners in another order": ("[[500,500,100,100]]", BOX, (1, 1, 0, 0, 0)),
    "half of it": ("[[100,100,500,300]]", BOX, (1, 0.5, 0, 0, 0)),
    "elsewhere": (OTHER, BOX, (0, 0, 1, 1, 0)),
    "one too many": (f"{BOX[:-1]},{OTHER[1:]}", BOX, (2 / 3, 1, 1, 0, 0)),
    "cut off in the second": (BOX[:-1] + ',{"bbox_2d":[600,6', BOX, (1, 1, 0, 0, 0)),
    "missed": ("[]", BOX, (0, 0, 0, 1, 0)),
    "nothing there, nothing said": ("[]", "[]", (1, 1, 0, 0, 0)),
    "nothing there, something said": (BOX, "[]", (0, 0, 1, 0, 0)),
    "no box answer: one wrong box": ("no lesion", BOX, (0, 0, 1, 1, 1)),
    "a blank answer": (" ", BOX, (0, 0, 1, 1, 1)),
    "no box answer where nothing is": ("lesion lesion", "[]", (0, 0, 1, 0, 1)),
}


@pytest.mark.parametrize(("text", "truth", "expected"), BY_MODELS.values(), ids=BY_MODELS)
def test_worth_of_one_answer(text: str, truth: str, expected: tuple[float, ...]) -> None:
    found = summary([score(text, truth, 0.25)], GroundingSettings(alpha=2, beta=3, gamma=5))
    names = ("boxes_f1", "boxes_iou", "boxes_fp", "boxes_fn", "boxes_unreadable")
    assert tuple(found[name] for name in names) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("truth", ["[]", BOX, f"{BOX[:-1]},{OTHER[1:]}"], ids=["none", "one", "two"])
def test_an_unreadable_answer_is_worth_one_wrong_box(truth: str) -> None:
    weights = GroundingSettings(alpha=2, beta=3, gamma=5)
    silent, wrong = (
        summary([score(BOX, BOX, 0.25), score(text, truth, 0.25)], weights) for text in ("???", "[[800,800,900,900]]")
    )
    assert silent.pop("boxes_unreadable") == 0.5 and wrong.pop("boxes_unreadable") == 0
    assert silent == wrong


def test_documented_loss_has_the_recipes_weights_and_the_language_loss() -> None:
    filtered = [score(BOX, BOX, 0.25), score("[[100,100,500,300]]", BOX, 0.25), score(OTHER, BOX, 1.0)]
    found = summary(filtered, GroundingSettings(alpha=2, beta=3, gamma=5))
    assert found["boxes_loss"] == pytest.approx(0.5 + (2 * (0 + 0.5 + 1) + 3 + 5) / 3)
    assert found["boxes_iou_all"] == pytest.approx(1.5 / 3)
    assert found["boxes_answers"] == 3
    assert all(isinstance(one, Scored) for one in filtered)


def test_tokens_after_the_end_are_no_answer() -> None:
    assert until([5, 6, 9, 7, 9], 9) == [5, 6]
    assert until([5, 6], 9) == [5, 6]


def test_padding_side_comes_back_after_an_error(tokenizer: Any) -> None:
    with pytest.raises(KeyError), left_padding(tokenizer):
        assert tokenizer.padding_side == "left"
        raise KeyError
    assert tokenizer.padding_side == "right"


WARNED: dict[str, tuple[int, int, str | None]] = {
    "no boxes": (0, 0, "no answer so far holds a box"),
    "one in fifty": (49, 1, "1 of 50 boxes are left out"),
    "one in a hundred": (99, 1, None),
}


@pytest.mark.parametrize(("boxes", "skipped", "message"), WARNED.values(), ids=WARNED)
def test_boxes_left_out_are_told_once(
    boxes: int, skipped: int, message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    seen = GroundingLog()
    seen.boxes, seen.skipped = boxes, skipped
    with caplog.at_level(logging.WARNING, logger="medvl"):
        seen.warn_once()
        seen.warn_once()
    assert [message in line for line in caplog.messages if message] == ([True] if message else [])


def test_running_mean_looks_back_only() -> None:
    assert running_mean((1.0, 3.0, 5.0, 7.0), 2) == [1.0, 2.0, 4.0, 6.0]
