"""Answer instructions: what a question says about the form of its answer. Profiles hold them (`medvl.profiles`)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from medvl.sharegpt import Record, Turn, split_prompt
from medvl.tasks import Task

Position = Literal["suffix", "prefix"]
GENERAL = "general"  # the profile for questions whose task is not known; no training record is of it


@dataclass(frozen=True)
class Instruction:
    """What is said about the form of an answer, and where.

    Attributes:
        text: The instruction.
        position: suffix: on a line of its own after the question. prefix: before it.
    """

    text: str
    position: Position = "suffix"


def fingerprint(instructions: Mapping[Task, Instruction]) -> str:
    """SHA-256 of all instructions: equal if and only if every prompt is."""
    stated = {str(task): [item.text, item.position] for task, item in instructions.items()}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def fingerprint_each(instructions: Mapping[Task, Instruction]) -> dict[str, str]:
    """Task -> SHA-256 of its instruction; a task that is asked verbatim is not among them."""
    return {str(task): fingerprint({task: item}) for task, item in instructions.items()}


def instruct(question: str, instruction: Instruction | None) -> str:
    """The question as it is asked."""
    if instruction is None:
        return question
    lines = (question, instruction.text) if instruction.position == "suffix" else (instruction.text, question)
    return "\n".join(lines)


def instruct_prompt(prompt: str, instruction: Instruction) -> str:
    """A prompt with its question as it is asked, on a line of its own after the images."""
    head, question = split_prompt(prompt)
    if head and not head.endswith("\n"):
        head += "\n"
    return head + instruct(question, instruction)


def without_instruction(text: str, instruction: Instruction | None) -> str:
    """The question before `instruct` added the instruction of its task."""
    if instruction is None:
        return text
    if instruction.position == "suffix":
        return text.removesuffix(f"\n{instruction.text}")
    return text.removeprefix(f"{instruction.text}\n")


def instruct_record(record: Record, instructions: Mapping[Task, Instruction]) -> Record:
    """The record with its question as it is asked, after its images; unchanged for a task without instruction."""
    instruction = instructions.get(Task(record.task))
    if instruction is None:
        return record
    prompt, *rest = record.conversations
    asked = Turn(prompt.speaker, instruct_prompt(prompt.value, instruction))
    return Record(
        id=record.id,
        task=record.task,
        dataset=record.dataset,
        conversations=[asked, *rest],
        images=record.images,
        source=record.source,
    )
