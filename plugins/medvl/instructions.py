"""Answer instructions per task, from the profiles that prediction uses, so that training and serving see one prompt.

A profiles file is YAML with a mapping per task. Two of its keys are read here, the others belong to prediction:

    detection:
      instruction: Answer with a JSON list of boxes, nothing else.
      instruction_position: suffix        # after the question (default), or prefix: before it
"""

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from medvl.sharegpt import IMAGE_TAG, MEDIA_TAGS, Record, Turn
from medvl.tasks import Task, UnknownNameError, canonical_task
from medvl.yaml_files import read_yaml

Position = Literal["suffix", "prefix"]
GENERAL = "general"  # the profile for questions whose task the router does not know; no training record is of it
_KEYS = ("instruction", "instruction_position")


@dataclass(frozen=True)
class Instruction:
    """What is said about the form of an answer, and where.

    Attributes:
        text: The instruction.
        position: suffix: on a line of its own after the question. prefix: before it.
    """

    text: str
    position: Position = "suffix"


def read_instructions(path: Path) -> dict[Task, Instruction]:
    """The instructions of a profiles file; tasks without one are asked verbatim.

    Raises:
        ValueError: no such file, an unknown task or position, a misspelt key, or a media tag in an instruction.
    """
    found = {}
    for name, profile in read_yaml(path).items():
        if name == GENERAL:
            continue
        try:
            task = canonical_task(name)
        except UnknownNameError as error:
            raise ValueError(f"{path}: {error}") from error
        if not isinstance(profile, dict):
            raise ValueError(f"{path}: {name}: expected a mapping with an `instruction`")
        if task in found:
            raise ValueError(f"{path}: {name}: {task} stands twice")
        instruction = _instruction(f"{path}: {name}", profile)
        if instruction is not None:
            found[task] = instruction
    return found


def _instruction(where: str, profile: Mapping[object, object]) -> Instruction | None:
    for key in profile:
        nearest = difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0.85)
        if nearest and key not in _KEYS:
            raise ValueError(f"{where}: unknown key {key!r}; did you mean {nearest[0]!r}?")
    text, position = profile.get("instruction"), profile.get("instruction_position", "suffix")
    if text is None:
        return None
    if not isinstance(text, str) or not text.strip() or any(tag in text for tag in MEDIA_TAGS):
        raise ValueError(f"{where}: instruction is {text!r}; expected text without <image> and the like")
    for known in get_args(Position):
        if position == known:
            return Instruction(text.strip(), known)
    raise ValueError(f"{where}: instruction_position is {position!r}; expected {' or '.join(get_args(Position))}")


def fingerprint(instructions: Mapping[Task, Instruction]) -> str:
    """SHA-256 of all instructions: equal if and only if every prompt is."""
    stated = {str(task): [item.text, item.position] for task, item in instructions.items()}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def instruct(question: str, instruction: Instruction | None) -> str:
    """The question as it is asked."""
    if instruction is None:
        return question
    lines = (question, instruction.text) if instruction.position == "suffix" else (instruction.text, question)
    return "\n".join(lines)


def instruct_record(record: Record, instructions: Mapping[Task, Instruction]) -> Record:
    """The record with its question as it is asked, after its pictures; unchanged for a task without instruction."""
    instruction = instructions.get(Task(record.task))
    if instruction is None:
        return record
    prompt, *rest = record.conversations
    head, tag, question = prompt.value.rpartition(IMAGE_TAG)
    if tag:
        head, question = f"{head}{tag}\n", question.removeprefix("\n")
    asked = Turn(prompt.speaker, head + instruct(question, instruction))
    return Record(
        id=record.id,
        task=record.task,
        dataset=record.dataset,
        conversations=[asked, *rest],
        images=record.images,
        source=record.source,
    )
