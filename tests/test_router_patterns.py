"""The rules' data: what a phrase means, and that a wrong file is refused with its name and key."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from medvl.router.patterns import FOLDER, read_patterns, read_rules, read_words
from medvl.router.templates import FILE as TEMPLATES
from medvl.router.templates import read_templates
from medvl.tasks import Task
from medvl.yaml_files import read_yaml


@dataclass(frozen=True)
class One:
    """Files here have one pattern."""

    cell: re.Pattern[str]


@dataclass(frozen=True)
class Lists:
    """Files here have one list of words."""

    kind: tuple[str, ...]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rules.yaml"


MEANT = [  # a pattern, a text, what of it is found
    ("['cells?', 'blasts?']", "Two BLASTS, one cell", "BLASTS"),  # any of them; case does not count
    ("[cell]", "cells and a nucleus", None),  # whole words
    ("['cells?|blasts?', nuclei]", "few blasts", "blasts"),  # alternatives in a phrase need no brackets
    ("['{kind} cells?']", "three red blood cells", "red blood cells"),  # _ is a space
    ("['\\w{3} cells?']", "few red cells", "red cells"),  # a number in braces is the expression's own
    ("[细胞]", "图中细胞数", "细胞"),  # a script without spaces has no words to be whole
    ("'cell'", "unicellular", "cell"),  # a text is an expression as it stands
    ("|\n    red\n    (?=\\ c)\n", "red cells", "red"),  # line breaks do not count
]


@pytest.mark.parametrize(("pattern", "text", "found"), MEANT)
def test_what_a_pattern_finds(file: Path, pattern: str, text: str, found: str | None) -> None:
    file.write_text(f"words: {{kind: white red_blood}}\npatterns:\n  cell: {pattern}\n")
    match = read_patterns(file, One).cell.search(text)
    assert (match and match[0]) == found


def test_rules_keep_their_order(file: Path) -> None:
    file.write_text(
        "rules:\n- {name: b, task: counting, phrases: [how many]}\n- {name: a, task: detection, phrases: [where]}\n"
    )
    first, second = read_rules(file)
    assert (first.name, first.task, second.name, second.task) == ("b", Task.COUNTING, "a", Task.DETECTION)
    assert first.matches("How many?") and not second.matches("How many?")


def test_words_are_told_apart_by_blanks(file: Path) -> None:
    file.write_text("words:\n  kind: |\n    white red\n    blue\n")
    assert read_words(file, Lists) == Lists(("white", "red", "blue"))


REFUSED = [  # a file's text, what the message says behind the file's name
    ("pattern: {}", "unknown pattern; known: words, patterns, rules"),
    ("patterns: {cells: [a]}", "patterns: unknown cells; known: cell"),
    ("patterns: {}", "patterns: missing cell"),
    ("patterns: [cell]", "patterns: Expected `object`, got `array`"),
    ("patterns: {cell: []}", "patterns: cell: Expected `array` of length >= 1"),
    ("patterns: {cell: [yes]}", "patterns: cell: Expected `str`, got `bool` - at `$[0]`"),
    ("patterns: {cell: ['(cell']}", "patterns: cell: missing ), unterminated subpattern near"),
    ("patterns: {cell: ['{kinds}']}\nwords: {kind: red}", "patterns: cell: no words {kinds}; known: kind"),
    ("patterns: {cell: ['{kind}']}\nwords: {kind: [red]}", "words: kind: Expected `str`, got `array`"),
    ("patterns: {cell: [a], cell: [b]}", "the key 'cell' stands twice"),
    ("rules: [{name: a, task: count, phrases: [b]}]", "rules: a: Invalid enum value 'count'"),
    ("rules: [{task: counting, phrases: [b]}]", "rules: number 1: Object missing required field `name`"),
    ("rules: [{name: a, task: counting, phrase: [b]}]", "rules: a: Object contains unknown field `phrase`"),
    ("rules: [{name: a, task: counting, phrases: ['*']}]", "rules: a: nothing to repeat near"),
    (
        "rules: [{name: a, task: counting, phrases: [b]}, {name: a, task: counting, phrases: [c]}]",
        "rules: a: the name stands twice",
    ),
]


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=[text for text, _ in REFUSED])
def test_a_wrong_file_is_refused_with_its_name_and_key(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_patterns(file, One)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)


def test_a_missing_file_is_refused(file: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{file}: ")):
        read_words(file, Lists)


def test_a_wrong_list_of_words_is_refused(file: Path) -> None:
    file.write_text("words: {kinds: red}")
    with pytest.raises(ValueError, match=r"rules\.yaml: words: unknown kinds; known: kind$"):
        read_words(file, Lists)


WRONG_TEMPLATES = [  # what is replaced in templates.yaml, by what, what is said
    ("  counting:\n", "  count:\n", "questions: missing or unknown count, counting"),
    ("How many {things} are", "How many {thing} are", "questions: classification: How many {thing} are"),
    ("[lesion, nodule,", "[3, nodule,", "slots: one: Expected `str`, got `int` - at `$[0]`"),
    ("preambles:", "preamble:", "preambles: Expected `array`, got `null`"),
]


@pytest.mark.parametrize(("old", "new", "said"), WRONG_TEMPLATES)
def test_wrong_templates_are_refused_with_file_and_key(file: Path, old: str, new: str, said: str) -> None:
    text = TEMPLATES.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{file}: {said}")):
        read_templates(file)


def test_every_list_of_words_is_used() -> None:
    for path in sorted(FOLDER.glob("*.yaml")):
        content = read_yaml(path)
        phrases = repr([content.get("patterns"), content.get("rules")])
        unused = [name for name in content.get("words", {}) if f"{{{name}}}" not in phrases]
        assert unused == (["known", "right"] if path.name == "spelling.yaml" else []), path
