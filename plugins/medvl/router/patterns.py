"""The rules' word lists and regular expressions: YAML files beside this module, whose form rules.yaml explains."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from medvl.normalisation import UNSPACED
from medvl.tasks import Task
from medvl.yaml_files import read_yaml

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FOLDER = Path(__file__).parent

_Text = Annotated[str, Meta(min_length=1)]
_Phrases = Annotated[list[_Text], Meta(min_length=1)]
_NAME = re.compile(r"\{([a-z_]+)\}")  # of a word list; numbers in braces belong to the expression
_UNSPACED = re.compile(f"[{UNSPACED}]")

D = TypeVar("D", bound="DataclassInstance")


@dataclass(frozen=True)
class Rule:
    """What a text shows that asks for a task.

    Attributes:
        name: What it is called.
        task: The task it tells.
        matches: Whether a text shows it; a match counts as true.
    """

    name: str
    task: Task
    matches: Callable[[str], object]


@dataclass(frozen=True)
class _File:
    words: Mapping[str, tuple[str, ...]]
    patterns: Mapping[str, re.Pattern[str]]
    rules: tuple[Rule, ...]


class _RuleEntry(msgspec.Struct, forbid_unknown_fields=True):
    name: _Text
    task: Task
    phrases: _Phrases


def read_patterns(path: Path, kind: type[D]) -> D:
    """The `patterns` of a file, compiled to ignore case, as the fields of the dataclass `kind`.

    Raises:
        ValueError: naming file and key: no such file, not YAML, another form than rules.yaml explains, other names than
            those of the fields, a word list that is not there, no regular expression.
    """
    return _filled(kind, _read(path).patterns, f"{path}: patterns")


def read_words(path: Path, kind: type[D]) -> D:
    """The `words` of a file as tuples, in the fields of the dataclass `kind`. Raises as `read_patterns` does."""
    return _filled(kind, _read(path).words, f"{path}: words")


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The `rules` of a file in their order. Raises as `read_patterns` does."""
    return _read(path).rules


def _filled(kind: type[D], found: Mapping[str, object], where: str) -> D:
    names = {field.name for field in fields(kind)}
    if unknown := set(found) - names:
        raise ValueError(f"{where}: unknown {', '.join(sorted(unknown))}; known: {', '.join(sorted(names))}")
    if missing := names - set(found):
        raise ValueError(f"{where}: missing {', '.join(sorted(missing))}")
    return kind(**found)


@cache
def _read(path: Path) -> _File:
    content = read_yaml(path)
    if unknown := set(content) - {"words", "patterns", "rules"}:
        raise ValueError(f"{path}: unknown {', '.join(sorted(unknown))}; known: words, patterns, rules")
    words = {name: tuple(text.split()) for name, text in section(content, "words", _Text, path).items()}
    patterns = section(content, "patterns", _Text | _Phrases, path)
    rules: dict[str, Rule] = {}
    for number, value in enumerate(converted(content.get("rules", []), list[dict[str, Any]], f"{path}: rules"), 1):
        entry = converted(value, _RuleEntry, f"{path}: rules: {value.get('name', f'number {number}')}")
        where = f"{path}: rules: {entry.name}"
        if entry.name in rules:
            raise ValueError(f"{where}: the name stands twice")
        rules[entry.name] = Rule(entry.name, entry.task, _compiled(entry.phrases, words, where).search)
    return _File(
        words,
        {name: _compiled(value, words, f"{path}: patterns: {name}") for name, value in patterns.items()},
        tuple(rules.values()),
    )


def section(content: Mapping[str, Any], name: str, kind: Any, path: Path) -> dict[str, Any]:
    """The mapping `name` of a file, every value one of `kind`; otherwise a ValueError with file and key."""
    values = converted(content.get(name, {}), dict[str, Any], f"{path}: {name}")
    return {key: converted(value, kind, f"{path}: {name}: {key}") for key, value in values.items()}


def converted(value: object, kind: Any, where: str) -> Any:
    """The value, if it is one of `kind`; otherwise a ValueError that says where it stands and what is wrong."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from error


def _compiled(stated: str | list[str], words: Mapping[str, tuple[str, ...]], where: str) -> re.Pattern[str]:
    def any_of(name: re.Match[str]) -> str:
        if name[1] not in words:
            raise ValueError(f"{where}: no words {name[0]}; known: {', '.join(words) or 'none'}")
        return f"(?:{'|'.join(words[name[1]])})".replace("_", " ")

    parts = [stated] if isinstance(stated, str) else stated
    parts = [_NAME.sub(any_of, "".join(map(str.strip, part.splitlines()))) for part in parts]
    expression = parts[0] if isinstance(stated, str) else _whole_words(parts)
    try:
        return re.compile(expression, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{where}: {error.msg} near {expression[max(0, (error.pos or 0) - 20) :][:40]}") from error


def _whole_words(phrases: list[str]) -> str:
    """Any of the phrases; those of a script without spaces may stand within other characters."""
    spaced = [phrase for phrase in phrases if not _UNSPACED.search(phrase)]
    unspaced = [phrase for phrase in phrases if _UNSPACED.search(phrase)]
    return "|".join([*([rf"(?<!\w)(?:{'|'.join(spaced)})(?!\w)"] if spaced else []), *unspaced])
