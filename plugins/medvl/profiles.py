"""Profiles: per task, which adapter answers, how it is asked, how long it may speak, and how its text is checked.

The same file formats training data (`preprocess/flare.py --profiles`) and asks in prediction and serving, so that a
model meets the prompt it was trained on. A profiles file is YAML with a mapping per task and one for `general`, which
takes the questions whose task is not known; `recipes/profiles/default.yaml` explains every key. Keys left out have
defaults.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from medvl.instructions import GENERAL, Instruction, Position
from medvl.instructions import fingerprint as instructions_fingerprint
from medvl.sharegpt import MEDIA_TAGS
from medvl.tasks import POSTPROCESSORS, TASKS, Task, UnknownNameError, canonical_task, unknown_name
from medvl.yaml_files import read_yaml


@dataclass(frozen=True)
class Generation:
    """How an answer is generated: greedy unless `do_sample`. None changes nothing; an endpoint may have its own value.

    Attributes:
        max_new_tokens: Longest answer, tokens. Chromosome maps need about 1,200.
        do_sample: Draw tokens instead of taking the likeliest one.
        temperature: Of the draw.
        top_p: Draw from the likeliest tokens that add up to this probability.
        top_k: Draw from this many tokens.
        repetition_penalty: Above 1, tokens that stand already become less likely: digits of boxes too.
    """

    max_new_tokens: int
    do_sample: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True)
class Profile:
    """How questions of one task are answered.

    Attributes:
        name: A task, or "general".
        adapter: Name of its folder among the adapters (or a model name at an endpoint); None for the base model.
        system: System prompt; None for the one the adapter was trained with.
        instruction: What is said about the form of the answer; None asks verbatim.
        image_max_pixels: Largest area of an image, pixels; None for what the adapter was trained with.
        generation: How its answer is generated.
        postprocess: What its answer is checked for.
        min_confidence: Routes below it are answered by `general`; None leaves that to the router's own threshold.
    """

    name: str
    adapter: str | None
    system: str | None
    instruction: Instruction | None
    image_max_pixels: int | None
    generation: Generation
    postprocess: str
    min_confidence: float | None


@dataclass(frozen=True)
class Profiles:
    """The profile of every task, and the general one.

    >>> read_profiles(None)["counting"].postprocess
    'count'
    """

    by_name: Mapping[str, Profile]

    def __getitem__(self, name: str) -> Profile:
        """The profile of a task; the general one for any other name."""
        return self.by_name.get(name, self.by_name[GENERAL])

    def chosen(self, task: str, confidence: float = 1.0) -> Profile:
        """The profile that answers a question routed to `task` with that confidence."""
        profile = self[task]
        least = profile.min_confidence
        return self[GENERAL] if least is not None and confidence < least else profile

    @property
    def instructions(self) -> dict[Task, Instruction]:
        """The instructions of all tasks that have one."""
        return {task: item for task in Task if (item := self[task].instruction) is not None}

    @property
    def instructions_fingerprint(self) -> str:
        """SHA-256 of all instructions, as the manifest of data made with these profiles has it."""
        return instructions_fingerprint(self.instructions)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything: equal if and only if all profiles are."""
        stated = {name: dataclasses.asdict(profile) for name, profile in self.by_name.items()}
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


class _Stated(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The keys of one profile in a file."""

    adapter: Annotated[str, Meta(min_length=1)] | None
    system: str | None = None
    instruction: str | None = None
    instruction_position: str = "suffix"
    image_max_pixels: Annotated[int, Meta(ge=1)] | None = None
    max_new_tokens: Annotated[int, Meta(ge=1)]
    do_sample: bool = False
    temperature: Annotated[float, Meta(gt=0)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    postprocess: str
    min_confidence: Annotated[float, Meta(ge=0, le=1)] | None = None


# (longest answer, postprocessor). `general` may be asked anything, and leaves its answers alone.
_DEFAULTS: dict[str, tuple[int, str]] = {
    **{task: (spec.max_new_tokens, spec.postprocess) for task, spec in TASKS.items()},
    GENERAL: (2048, "text"),
}


def read_profiles(path: Path | None) -> Profiles:
    """The profiles of a file, or the defaults; a profile or key that the file leaves out has its default.

    Raises:
        ValueError: no such file, or profiles that cannot be followed; every problem has a line that names it.
    """
    given: dict[str, Any] = {}
    problems: list[str] = []
    for written, stated in (read_yaml(path) if path else {}).items():
        try:
            name = GENERAL if written == GENERAL else str(canonical_task(written))
        except UnknownNameError as error:
            problems.append(str(error))
            continue
        if name in given:
            problems.append(f"{written}: {name} stands twice")
        given[name] = stated
    profiles = {}
    for name in _DEFAULTS:
        found = _profile(name, given.get(name, {}))
        if isinstance(found, Profile):
            profiles[name] = found
        else:
            problems += [f"{name}: {problem}" for problem in found]
    if problems:
        raise ValueError("\n".join(f"{path}: {problem}" for problem in problems))
    return Profiles(profiles)


def _profile(name: str, given: object) -> Profile | list[str]:
    """The profile, or why it cannot be followed."""
    if not isinstance(given, dict):
        return [f"expected a mapping of keys to values, found {given!r}"]
    known = _Stated.__struct_fields__
    problems = [str(unknown_name("key", str(key), known)) for key in given if key not in known]
    if problems:
        return problems
    limit, postprocessor = _DEFAULTS[name]
    defaults = {"adapter": str(name), "max_new_tokens": limit, "postprocess": postprocessor}
    try:
        stated = msgspec.convert(defaults | given, _Stated)
    except msgspec.ValidationError as error:
        return [str(error).replace("`$.", "`")]
    if problems := _problems(name, stated):
        return problems
    position = next(known for known in get_args(Position) if known == stated.instruction_position)
    sampling = {field.name: getattr(stated, field.name) for field in dataclasses.fields(Generation)}
    return Profile(
        name=str(name),
        adapter=stated.adapter,
        system=stated.system,
        instruction=None if stated.instruction is None else Instruction(stated.instruction.strip(), position),
        image_max_pixels=stated.image_max_pixels,
        generation=Generation(**sampling),
        postprocess=stated.postprocess,
        min_confidence=stated.min_confidence,
    )


def _problems(name: str, stated: _Stated) -> list[str]:
    found = []
    for key, value, known in (
        ("instruction_position", stated.instruction_position, get_args(Position)),
        ("postprocess", stated.postprocess, POSTPROCESSORS),
    ):
        if value not in known:
            found.append(f"{key} is {value!r}; expected {' or '.join(known)}")
    for key, text in (("instruction", stated.instruction), ("system", stated.system)):
        if text is not None and any(tag in text for tag in MEDIA_TAGS):
            found.append(f"{key} holds one of {', '.join(MEDIA_TAGS)}, which stand for images; say it in other words")
    if stated.instruction is not None and not stated.instruction.strip():
        found.append("instruction is blank; leave the key out to ask verbatim")
    if not stated.do_sample and (stated.temperature or stated.top_p or stated.top_k):
        found.append("temperature, top_p and top_k do nothing without `do_sample: true`; remove them or set it")
    return found + (_general_problems(stated) if name == GENERAL else [])


def _general_problems(stated: _Stated) -> list[str]:
    found = []
    if stated.instruction is not None:
        found.append("an instruction would be asked whatever the question is; general asks verbatim")
    if stated.postprocess != "text":
        found.append("postprocess must be `text`: what an answer should look like is not known")
    if stated.min_confidence is not None:
        found.append("min_confidence does nothing: there is no other profile to fall back to")
    return found
