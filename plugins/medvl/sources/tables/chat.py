"""Conversations that somebody has for LLaMA-Factory or an OpenAI interface: rows of any table, as questions.

    {"conversations": [{"from": "human", "value": "<image>Is it normal?"}, {"from": "gpt", "value": "No."}],
     "images": ["7.png"], "system": "You are a radiologist."}                                        sharegpt
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "7.png"}},
     {"type": "text", "text": "Is it normal?"}]}, {"role": "assistant", "content": "No."}]}          OpenAI
    {"instruction": "Is it normal?", "input": "", "output": "No.", "images": ["7.png"]}              alpaca

Every question with its answer becomes a row. What was said before is part of a later question, since "And on the left?"
means nothing without it: it stands before the question, a line per turn, with a finding. The row has the images of all
turns up to the question.

`<image>` tags are taken out, as records have their own, and counted: the row is set aside if there are more or fewer
than images. With no tag at all the images stand before the first question, with a finding. A tag within a sentence
becomes `Image-1`. A system prompt is no part of a question; it stays in the row, with a finding, for
`default_system` of a recipe. Set aside: turns out of order, tools, images on the network, images in answers.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medvl.sharegpt import IMAGE_TAG
from medvl.sources.base import Problem
from medvl.sources.tables.base import Row, Table
from medvl.sources.tables.chat_turns import Turn, alpaca_turns, conversation_key, turns_of

_IMAGES = ("images", "image", "image_path", "image_paths", "img")
_SPOKEN = {"user": "User", "assistant": "Assistant"}
# Before the text, or after its last sentence or line.
_AT_THE_ENDS = re.compile(rf"\A(?:\s*{IMAGE_TAG})+\s*|(?<=[.?!:\n])\s*(?:{IMAGE_TAG}\s*)+\Z")

Notes = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Asked:
    """A question of a conversation, as a row."""

    row: dict[str, Any]
    notes: Notes = ()
    problem: Problem | None = None


def is_chat(row: Row) -> bool:
    """Whether a row is a conversation in one of these forms."""
    return conversation_key(row) is not None or {"instruction", "output"} <= row.keys()


def as_questions(table: Table) -> Table:
    """The table with a row per question of its conversations, and what is unusual about each."""
    rows, lines = list[Row](), list[int]()
    notes, problems = dict(table.row_notes), dict[int, Problem]()
    for line, row in enumerate(table.rows):
        for asked in _questions(row):
            notes |= {len(rows): asked.notes} if asked.notes else {}
            problems |= {len(rows): asked.problem} if asked.problem else {}
            rows.append(asked.row)
            lines.append(line)
    return replace(
        table,
        rows=rows,
        lines=lines,
        columns={**table.columns, "image": "images", "question": "question", "answer": "answer"},
        row_notes=notes,
        row_problems=problems,
    )


def _questions(row: Row) -> Iterator[_Asked]:
    """The questions of a row; one with a problem where it is no conversation that can be used."""
    key = conversation_key(row)
    column = next((name for name in _IMAGES if row.get(name)), None)
    beside = row[column] if column else []
    beside = list(beside) if isinstance(beside, list | tuple) else [beside]
    try:
        if media := [name for name in ("videos", "audios", "video", "audio") if row.get(name)]:
            raise ValueError(f"{', '.join(media)}: records have images alone")
        if preferred := [name for name in ("chosen", "rejected") if name in row]:
            raise ValueError(f"{', '.join(preferred)}: a choice between answers, not an answer")
        if key is None and "instruction" not in row:
            raise ValueError("no conversation in this row")
        turns = turns_of(row[key]) if key else alpaca_turns(row)
        if row.get("system") and key:
            turns.insert(0, Turn("system", str(row["system"])))
        yield from _in_order(row, turns, beside)
    except ValueError as error:
        code = "TAG_COUNT" if isinstance(error, _TagError) else "TURNS_UNUSABLE"
        problem = Problem("images" if code == "TAG_COUNT" else "question", code, str(error))
        yield _Asked({**row, "question": "", "answer": "", "images": beside}, (), problem)


class _TagError(ValueError):
    """More or fewer tags than images."""


def _in_order(row: Row, turns: Sequence[Turn], beside: Sequence[Any]) -> Iterator[_Asked]:
    """The questions of turns that alternate."""
    systems = [turn.text for turn in turns if turn.speaker == "system" and turn.text.strip()]
    spoken = [turn for turn in turns if turn.speaker != "system"]
    order = [turn.speaker for turn in spoken]
    if order != ["user", "assistant"] * (len(order) // 2) + ["user"] * (len(order) % 2):
        raise ValueError(f"the turns are {', '.join(order) or 'none'}; expected user and assistant in turn")
    if any(IMAGE_TAG in turn.text for turn in spoken[1::2]):
        raise ValueError(f"an answer holds {IMAGE_TAG}, which no record can")
    images, untagged = _images(spoken, beside)
    said: list[tuple[str, str]] = [("SYSTEM_PROMPT", f"{text[:200]!r}") for text in systems]
    said += [("TAG_ABSENT", f"{len(beside)} images, put before the first question")] if untagged else []
    earlier, shown = list[str](), len(beside) if untagged else 0
    for place in range(0, len(spoken), 2):
        tags = spoken[place].text.count(IMAGE_TAG)
        text, within = without_tags(spoken[place].text, shown)
        shown += tags
        answer = spoken[place + 1].text if place + 1 < len(spoken) else ""
        notes = [*said, *([("TAG_WITHIN", f"{within} within the question: {text[:200]!r}")] if within else [])]
        notes += [("TURNS_EARLIER", f"{len(earlier)} turns before {text[:100]!r}")] if earlier else []
        asked = "\n".join([*earlier, *([f"{_SPOKEN['user']}: {text}"] if earlier else [text])])
        row_images = list(images[:shown])
        yield _Asked({**row, "question": asked, "answer": answer, "images": row_images}, tuple(notes))
        earlier += [f"{_SPOKEN['user']}: {text}", f"{_SPOKEN['assistant']}: {answer}"]


def _images(spoken: Sequence[Turn], beside: Sequence[Any]) -> tuple[Sequence[Any], bool]:
    """All images of a conversation, in the order of their tags; whether none has a tag.

    Raises:
        _TagError: there are more or fewer tags than images.
    """
    inside = [image for turn in spoken for image in turn.images]
    if inside and beside and len(inside) != len(beside):
        raise _TagError(f"{len(inside)} images in the turns, and {len(beside)} beside them")
    images, tags = inside or list(beside), sum(turn.text.count(IMAGE_TAG) for turn in spoken)
    if tags not in (0, len(images)):
        raise _TagError(f"{tags} {IMAGE_TAG} tags, and {len(images)} images")
    return images, bool(images) and not tags


def without_tags(text: str, before: int) -> tuple[str, int]:
    """A text without the tags before and after it; those within a sentence become the images' numbers.

    Returns:
        The text, and how many tags became numbers.

    >>> without_tags("<image>\\nIs it larger than in <image>?", 0)
    ('Is it larger than in Image-2?', 1)
    """
    first = re.match(rf"(?:\s*{IMAGE_TAG})+\s*", text)
    number = before + (first[0].count(IMAGE_TAG) if first else 0)
    parts = _AT_THE_ENDS.sub("", text).split(IMAGE_TAG)
    numbered = [f"Image-{number + place}{part}" for place, part in enumerate(parts[1:], 1)]
    return parts[0] + "".join(numbered), len(numbered)
