"""Profiles: one file says how every task is asked and answered, in training, prediction and serving."""

# ruff: noqa: RUF001 (characters that look like ASCII are tested)

from pathlib import Path

import pytest

from medvl.instructions import Instruction
from medvl.postprocessing import postprocess
from medvl.profiles import GENERAL, Generation, read_profiles
from medvl.tasks import POSTPROCESSORS, Task

LETTERS = "What is it? A: Normal, B: Glaucoma, C: Other"


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "profiles.yaml").write_text(text)
    return tmp_path / "profiles.yaml"


def test_the_file_in_recipes_states_the_defaults(repository: Path) -> None:
    shipped, defaults = read_profiles(repository / "recipes" / "profiles" / "default.yaml"), read_profiles(None)
    assert shipped == defaults
    assert shipped.fingerprint == defaults.fingerprint
    assert set(shipped.by_name) == {*Task, GENERAL}


def test_defaults_are_greedy_verbatim_and_long_enough() -> None:
    profiles = read_profiles(None)
    assert profiles.instructions == {}
    for name, profile in profiles.by_name.items():
        assert profile.adapter == profile.name == name
        assert profile.generation == Generation(profile.generation.max_new_tokens)
        assert profile.system is profile.image_max_pixels is None
    # A chromosome answer needs about 1,200 tokens, and a question that goes to general may be one.
    for name in (Task.INSTANCE_DETECTION, GENERAL):
        assert profiles[name].generation.max_new_tokens >= 1536
    assert profiles[GENERAL].postprocess == "text"


def test_a_profile_states_what_differs(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        Multi-label Classification:
          adapter: null
          system: You are a dentist.
          instruction: |
            Name every finding.
          instruction_position: prefix
          image_max_pixels: 4194304
          max_new_tokens: 99
          do_sample: true
          temperature: 0.5
          min_confidence: 0.8
        """,
    )
    profile = read_profiles(file)["multi_label_classification"]
    assert profile.adapter is None
    assert profile.system == "You are a dentist."
    assert profile.instruction == Instruction("Name every finding.", "prefix")
    assert profile.image_max_pixels == 2048**2
    assert profile.generation == Generation(99, do_sample=True, temperature=0.5)
    assert profile.postprocess == "labels"
    assert read_profiles(file)["detection"] == read_profiles(None)["detection"]


def test_unknown_names_and_unsure_routes_go_to_general(tmp_path: Path) -> None:
    profiles = read_profiles(written(tmp_path, "counting: {min_confidence: 0.8}"))
    assert profiles["poetry"] is profiles[GENERAL]
    assert profiles.chosen("counting", 0.8).name == "counting"
    assert profiles.chosen("counting", 0.79).name == GENERAL
    assert profiles.chosen("detection", 0.01).name == "detection"
    assert profiles.chosen(GENERAL, 0.0).name == GENERAL


def test_the_fingerprint_is_of_everything_that_is_said(tmp_path: Path) -> None:
    texts = ("counting: {}", "counting: {max_new_tokens: 33}", "counting: {system: x}", "counting: {adapter: x}")
    assert len({read_profiles(written(tmp_path, text)).fingerprint for text in texts}) == len(texts)
    assert read_profiles(written(tmp_path, texts[0])).fingerprint == read_profiles(None).fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("detecton: {instruction: x}", "did you mean 'detection'", id="unknown task"),
        pytest.param("detection: {instuction: x}", "detection: .*did you mean 'instruction'", id="misspelt key"),
        pytest.param("detection: {instruction: x, instruction_position: middle}", "suffix or prefix", id="position"),
        pytest.param("detection: {instruction: 'an <image>'}", "<image>", id="a tag"),
        pytest.param("detection: {system: 'an <image>'}", "<image>", id="a tag in the system prompt"),
        pytest.param("detection: {instruction: 7}", "str.*instruction", id="a number"),
        pytest.param("detection: {instruction: ' '}", "blank", id="a blank instruction"),
        pytest.param("detection: Boxes.", "mapping", id="no mapping"),
        pytest.param(
            "detection: {}\nDetection: {instruction: x}\nobject detection: {instruction: y}", "twice", id="alias"
        ),
        pytest.param("detection: {}\ndetection: {}", "stands twice", id="a key twice"),
        pytest.param("- detection", "expected a mapping", id="a list"),
        pytest.param("detection: {", "profiles.yaml", id="no YAML"),
        pytest.param("detection: !!python/object:os.system {}", "profiles.yaml", id="code"),
        pytest.param("detection: {max_new_tokens: 0}", "max_new_tokens", id="no room for an answer"),
        pytest.param("detection: {max_new_tokens: many}", "max_new_tokens", id="words for a number"),
        pytest.param("detection: {min_confidence: 80}", "min_confidence", id="percent"),
        pytest.param("detection: {temperature: 0.5}", "do_sample: true", id="a temperature without effect"),
        pytest.param("detection: {postprocess: letter}", "'letter'; expected", id="unknown postprocessor"),
        pytest.param("general: {instruction: x}", "verbatim", id="general asks verbatim"),
        pytest.param("general: {postprocess: boxes}", "must be `text`", id="general alters nothing"),
        pytest.param("general: {min_confidence: 0.5}", "fall back", id="general is the fallback"),
    ],
)
def test_files_that_cannot_be_followed_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_profiles(written(tmp_path, text))


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="detecton") as error:
        read_profiles(written(tmp_path, "detecton: {}\ncounting: {max_new_tokens: 0}\ngeneral: {instruction: x}"))
    assert "counting" in str(error.value)
    assert "general" in str(error.value)


@pytest.mark.parametrize(
    ("by", "text", "tidied"),
    [
        pytest.param("choice", "The answer is B.", "B", id="a sentence"),
        pytest.param("choice", "B", "B", id="a letter"),
        pytest.param("labels", "- Normal\n- Other", "Normal; Other", id="a list of labels"),
        pytest.param("count", "There are 12 cells.", "12", id="a count"),
        pytest.param("number", "34.7 %", "34.7", id="a percentage"),
        pytest.param("boxes", '[{"bbox_2d":[1,2,3,4]}]', '[{"bbox_2d":[1,2,3,4]}]', id="boxes keep their frame"),
        pytest.param("text", "First line\nsecond line", "First line\nsecond line", id="a report keeps its first line"),
    ],
)
def test_valid_answers_are_tidied(by: str, text: str, tidied: str) -> None:
    done = postprocess(text, by, question=LETTERS)  # type: ignore[arg-type]
    assert done.text == tidied
    assert done.valid


@pytest.mark.parametrize(
    ("by", "question", "text", "tidied"),
    [
        pytest.param("labels", "Which of the following: Nodule; Fibrosis?", "nodule", "Nodule", id="offered"),
        pytest.param("labels", "Is it normal? Choose: Normal, Old Fracture.", "normal, old  fracture",
                     "Normal; Old Fracture", id="listed with commas"),
        pytest.param("labels", "Options: A: Nodule B: Fibrosis", "FIBROSIS; Nodule", "Fibrosis; Nodule", id="lettered"),
        pytest.param("labels", "Options: A: Nodule B: Fibrosis", "A; B", "A; B", id="letters"),
        pytest.param("labels", "Findings?", "Pleural Effusion, Normal", "Pleural Effusion; Normal", id="not listed"),
        pytest.param("labels", "Nodule or fibrosis?", "None", "None", id="none is an answer"),
        pytest.param("labels", "x", "C++, Old (healed), é", "C++; Old (healed); é", id="brackets and accents"),
        pytest.param("labels", "从以下选项中选择：龋齿；牙周病（慢性）。", "牙周病(慢性)；龋齿", "牙周病（慢性）; 龋齿",
                     id="another script"),
        pytest.param("choice", "Which subtype?", " Luminal a.", "Luminal a", id="a choice without letters"),
        pytest.param("choice", "Which subtype? A: x, B: y", "y", "B", id="a choice with letters"),
    ],
)  # fmt: skip
def test_labels_keep_the_questions_spelling(by: str, question: str, text: str, tidied: str) -> None:
    assert postprocess(text, by, question=question).text == tidied  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("by", "text"),
    [
        pytest.param("choice", "I see a retina.", id="no letter"),
        pytest.param("count", "many", id="no number, and no zero in its place"),
        pytest.param("number", "between 3 and 5 or 10-20", id="several numbers"),
        pytest.param("boxes", "nothing to see", id="no boxes"),
        pytest.param("instance_boxes", "Error: CUDA out of memory", id="an error message"),
        pytest.param("text", "  ", id="nothing"),
    ],
)
def test_other_texts_are_kept_and_marked(by: str, text: str) -> None:
    done = postprocess(text, by, question=LETTERS)  # type: ignore[arg-type]
    assert not done.valid
    assert done.text == text
    assert done.answer.reason


def test_every_task_has_its_check() -> None:
    assert set(POSTPROCESSORS.values()) == set(Task)
    profiles = read_profiles(None)
    assert all(POSTPROCESSORS[profiles[task].postprocess] is task for task in Task)
