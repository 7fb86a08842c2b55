"""The second opinion by words alone, how training questions are varied, and how both opinions are weighed."""

import random
from pathlib import Path

import numpy as np
import pytest
import yaml

from medvl.instructions import GENERAL
from medvl.router.augmentation import FILE, read_topics, varied
from medvl.router.calibration import calibrate, fit_weight
from medvl.router.hidden import HiddenLayer, fit_hidden
from medvl.router.labels import LABELS
from medvl.router.wording import WordingClassifier, evidence, fit_wording, letters, marked, shapes, topics, words
from medvl.tasks import Task

ASKED = {
    "counting": ["How many cells are there?", "Count the lesions.", "Number of teeth?", "How many stones?"],
    "detection": ["Where is the tumour?", "Draw a box around the polyp.", "Locate the cyst.", "Where is the stent?"],
    GENERAL: ["Write a poem.", "Which drug helps against gout?", "Tell me a joke.", "Write an e-mail."],
}
TEXTS = [text for own in ASKED.values() for text in own]
TASKS = [task for task, own in ASKED.items() for _ in own]


@pytest.fixture(scope="module")
def wording() -> WordingClassifier:
    return fit_wording(TEXTS, TASKS, list(LABELS))


MARKED = [
    pytest.param("Is it cystic, not solid?", "is it cystic, no_not no_solid?", id="up to the end"),
    pytest.param("Neither cyst nor tumour, is it?", "no_neither no_cyst no_nor no_tumour, is it?", id="up to a comma"),
    pytest.param("Without drawing boxes, say how many.", "say how many.", id="what another task would be is gone"),
    pytest.param("A note on knots", "a note on knots", id="no negation"),
    pytest.param("What is it? A: cyst, B: no cyst", "what is it? a: b:", id="options are topic"),
]


@pytest.mark.parametrize(("text", "expected"), MARKED)
def test_refused_words_are_other_words(text: str, expected: str) -> None:
    assert marked(text) == expected


def test_what_is_counted() -> None:
    assert words("a b") == ["^", "a", "b", "$", "^ a", "a b", "b $", "^ a b", "a b $"]
    assert set(letters("ab cup")) == {" ab", "ab ", " ab ", " cu", "cup", "up ", " cup", "cup ", " cup "}
    assert topics("the tumour") == topics("the cyst") != topics("the cat")
    assert topics("the tumour") != topics(marked("not the tumour"))[2:]
    assert "no_<singular>" in topics(marked("Is it a stone, not a tumour?"))
    common = {"where", "is", "the"}.__contains__
    assert shapes("where is the small round tumour", common) == shapes("where is the cat", common)
    assert shapes("where is it", common) != shapes("is it where", common)
    assert "how many" in evidence("How many cells are in this image?")
    assert f"decides: {Task.COUNTING}" in evidence("How many cells are in this image?")
    assert "decides: None" in evidence("Tell me a joke.")


def test_it_learns_and_a_label_without_questions_is_never_chosen(wording: WordingClassifier) -> None:
    scores = wording.score(TEXTS)
    assert scores.shape == (len(TEXTS), len(LABELS))
    assert [list(LABELS)[place] for place in scores.argmax(1)] == TASKS
    assert [list(LABELS)[place] for place in wording.score(["how many nodules?"]).argmax(1)] == ["counting"]
    assert scores[:, list(LABELS).index("regression")].max() < -5


def test_scores_do_not_depend_on_the_batch_and_survive_the_disk(wording: WordingClassifier, tmp_path: Path) -> None:
    together = wording.score(TEXTS)
    single = np.concatenate([wording.score([text]) for text in TEXTS])
    np.testing.assert_allclose(together, single, atol=1e-5)
    wording.save(tmp_path)
    np.testing.assert_allclose(WordingClassifier.load(tmp_path).score(TEXTS), together, atol=0.02)


@pytest.mark.parametrize("kinds", [1, 2])
def test_one_or_two_tasks_are_enough(kinds: int) -> None:
    some = list(ASKED)[:kinds]
    fitted = fit_wording([t for k in some for t in ASKED[k]], [k for k in some for _ in ASKED[k]], list(LABELS))
    assert np.isfinite(fitted.score(TEXTS)).all()
    if kinds == 2:
        chosen = fitted.score(ASKED["counting"] + ASKED["detection"]).argmax(1)
        assert [list(LABELS)[place] for place in chosen] == ["counting"] * 4 + ["detection"] * 4


def test_a_question_nobody_ever_asked_has_scores(wording: WordingClassifier) -> None:
    assert np.isfinite(wording.score(["?", "\u8fd9\u662f\u4ec0\u4e48", "half a pair \ud800", "x" * 4000])).all()


def test_varied_questions_keep_what_is_asked() -> None:
    rng = random.Random(0)
    made = {varied("How many cells are in this image?", "counting", rng) for _ in range(200)}
    assert len(made) > 100
    assert all("how many" in text.casefold() for text in made)
    refused = {phrase.casefold() for phrase in read_topics().refused["counting"]}
    assert not [text for text in made if any(phrase in text.casefold() for phrase in refused)]


def test_variations_are_reproducible() -> None:
    first, second = (
        [varied("Where is the lesion?", "detection", random.Random(5)) for _ in range(3)] for _ in range(2)
    )
    assert first == second


def test_the_file_of_topics_is_checked(tmp_path: Path) -> None:
    content = yaml.safe_load(FILE.read_text("utf-8"))
    bad = tmp_path / "topics.yaml"
    for key, value, said in (
        ("refused", content["refused"] | {"nonsense": ["No nonsense"]}, "nonsense"),
        ("refused", {"counting": ["No count"]}, "missing or unknown"),
        ("histories", [], "histories"),
        ("openings", ["fine", {"ok next": None}], "openings"),
        ("swaps", {"plural": "cells"}, "swaps"),
    ):
        bad.write_text(yaml.safe_dump(content | {key: value}))
        with pytest.raises(ValueError, match=said) as refused:
            read_topics(bad)
        assert str(bad) in str(refused.value)


def test_the_better_opinion_weighs_more() -> None:
    rng = np.random.default_rng(0)
    truth = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 600)]
    good = (4 * truth - 2 + rng.normal(0, 1, truth.shape)).astype(np.float32)
    noise = rng.normal(0, 1, truth.shape).astype(np.float32)
    assert fit_weight(good, noise, truth) < 0.2
    assert fit_weight(noise, good, truth) > 3


def test_calibration_reads_both_opinions() -> None:
    labels = ["counting", "detection"]
    tasks = ["counting", "detection"] * 40
    truth = np.array([[task == label for label in labels] for task in tasks], np.float32)
    mute, sure = np.zeros_like(truth), (8 * truth - 4).astype(np.float32)
    gate = np.ones(len(tasks), np.float32)
    found = calibrate(mute, gate, tasks, labels, wording=sure)
    assert found.wording > 0
    assert max(found.thresholds.values()) < 0.95
    assert calibrate(sure, gate, tasks, labels).wording == 0


def test_the_hidden_layer_learns_what_comes_together() -> None:
    """Exclusive or of two features, which no linear classifier tells."""
    pairs = [(first, second) for first in (0, 1) for second in (0, 1)] * 100
    rows = [(np.array([first, 2 + second]), np.ones(2, np.float32)) for first, second in pairs]
    truth = [first ^ second for first, second in pairs]
    layer = fit_hidden(rows, truth, width=4, number=3, epochs=60)
    scores = np.stack([layer.score(*row) for row in rows])
    assert scores.argmax(1).tolist() == truth
    assert (scores[:, 2] < scores[:, :2].min(1) - 10).all()  # no row had it
    again = fit_hidden(rows, truth, width=4, number=3, epochs=60)
    np.testing.assert_array_equal(layer.inner, again.inner)
    kept = HiddenLayer.of(layer.parts())
    np.testing.assert_allclose(kept.score(*rows[0]), layer.score(*rows[0]), atol=0.05)
