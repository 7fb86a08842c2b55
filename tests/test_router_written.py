"""The questions as people of several professions ask them: enough, balanced, each once, and held out where said."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from medvl.instructions import GENERAL
from medvl.router.data import LabelledQuestion, split_for_calibration, with_templates, with_written
from medvl.router.lines import read_labelled
from medvl.router.route import normalise
from medvl.router.written import (
    CALIBRATION_PROFILES,
    HELD_OUT_PROFILES,
    HELD_OUT_STYLES,
    QUESTIONS,
    held_out,
    to_train_on,
    written_questions,
)
from medvl.tasks import Task

SETS = sorted((Path(__file__).parent / "data").glob("router_*.jsonl"))


def bare(text: str) -> str:
    """The words alone; the text itself where it has none."""
    return " ".join(re.sub(r"[\W_]+", " ", text.casefold()).split()) or text


def test_there_are_as_many_as_promised_and_a_fifth_or_more_are_no_task() -> None:
    questions = written_questions()
    assert len(questions) >= 13000
    assert 0.2 <= sum(it.task == GENERAL for it in questions) / len(questions) <= 0.25
    assert all(it.question.strip() for it in questions)


def test_a_file_holds_its_profile_and_no_task_is_asked_much_more_than_others() -> None:
    for path in QUESTIONS.glob("*.jsonl"):
        own = [it for it in written_questions() if it.profile == path.stem]
        assert len(own) == len(path.read_text().splitlines())
        if path.stem not in ("chatter", "curious"):  # ask for everything but images
            assert {it.task for it in own} == {*map(str, Task), GENERAL}
    counts = Counter(it.task for it in written_questions() if it.task != GENERAL)
    assert min(counts.values()) > 0.5 * max(
        counts.values()
    )  # open questions and classes are the hardest, so there are more


def test_no_question_stands_twice_or_in_another_set() -> None:
    counts = Counter(bare(it.question) for it in written_questions())
    assert [text for text, number in counts.items() if number > 1] == []
    assert SETS
    others = {bare(text) for path in SETS for text, _ in read_labelled(path, general="out_of_domain" in path.name)}
    assert others
    assert others & set(counts) == set()


def test_training_never_reads_a_held_out_profile_or_style() -> None:
    rows = with_written(with_templates([], "all"))
    read = {row.text for row in rows}
    assert {normalise(it.question) for it in to_train_on()} <= read
    assert not {normalise(it.question) for it in held_out()} & read
    assert {it.profile for it in held_out() if it.style not in HELD_OUT_STYLES} == set(HELD_OUT_PROFILES)
    assert {row.dataset for row in rows if "/" in row.dataset} == {
        f"written/{path.stem}" for path in QUESTIONS.glob("*.jsonl") if path.stem not in HELD_OUT_PROFILES
    }
    assert all(row.is_synthetic for row in rows)


def test_the_router_is_calibrated_on_profiles_that_its_first_training_has_not_read() -> None:
    asked = [LabelledQuestion(f"How many {word}?", "counting", "d", word) for word in ("cells", "ribs", "teeth")]
    rows = with_written(with_templates(asked, "all"))
    known, held = split_for_calibration(rows, 0.34)
    assert {row.dataset for row in held} == {"d", *(f"written/{profile}" for profile in CALIBRATION_PROFILES)}
    assert not {row.dataset for row in known} & {f"written/{profile}" for profile in CALIBRATION_PROFILES}
    assert len(known) + len(held) == len(rows)
    assert not set(CALIBRATION_PROFILES) & set(HELD_OUT_PROFILES)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    good = {"question": "Q", "task": "counting", "style": "terse", "profile": "p"}
    for bad in ("{", json.dumps(good | {"task": "nonsense"}), '{"question": "Q"}'):
        (tmp_path / "p.jsonl").write_text(f"{json.dumps(good)}\n{bad}\n")
        written_questions.cache_clear()
        with pytest.raises(ValueError, match=r"p\.jsonl:2: "):
            written_questions(tmp_path)
    written_questions.cache_clear()
