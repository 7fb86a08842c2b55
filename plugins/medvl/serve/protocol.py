"""Requests and answers on the wire: LLaMA-Factory's protocol, with what it misreads read as OpenAI means it."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Annotated

from llamafactory.api.protocol import (
    ChatCompletionMessage,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionResponseUsage,
    ChatCompletionStreamResponse,
    ChatCompletionStreamResponseChoice,
    Finish,
    Role,
)
from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from medvl.profiles import Generation
from medvl.serve.engine import Completion
from medvl.serve.limits import Limits, RefusedError
from medvl.wording import listed

DEFAULTS = Limits()
MOST_VALUES = 10_000  # keys, values and parts of one request
LEAST = 1e-6  # logits are divided by the temperature in 32 bits: one that is next to 0 makes them infinite
_LENGTHS = ("max_tokens", "max_completion_tokens")
NUMBERS = frozenset(("n", "temperature", "top_p", "top_k", "repetition_penalty", "presence_penalty", *_LENGTHS))
SHOWN_PROBLEMS = 5


def _divides(temperature: float) -> float:
    if temperature != 0 and not temperature >= LEAST:  # NaN too
        raise PydanticCustomError("temperature", f"Input should be 0 or at least {LEAST}")
    return temperature


class CompletionRequest(ChatCompletionRequest):  # type: ignore[misc]
    """LLaMA-Factory's request, with ranges, and with the names that newer clients and vLLM use."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: str = Field(default="auto", max_length=256)
    n: int = Field(default=1, ge=1, le=1)  # one answer: more would all be the same, or drawn against the profile
    temperature: Annotated[float, Field(le=2), AfterValidator(_divides)] | None = None
    top_p: float | None = Field(default=None, ge=LEAST, le=1)
    top_k: int | None = Field(default=None, ge=1, le=1_000_000)
    repetition_penalty: float | None = Field(default=None, ge=0.1, le=10)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


def read_request(body: bytes, limits: Limits = DEFAULTS) -> CompletionRequest:
    """The request in a body.

    Raises:
        RefusedError: not JSON, or a key or value that cannot be followed (422); a number out of its range, a key that
            stands twice, or a feature that is not served (400); too many values or messages (413).
    """
    # Parsed, a value may take a hundred times its bytes. There are no more of them than of these, which texts hold too.
    if sum(map(body.count, (b",", b"[", b"{"))) > limits.characters + MOST_VALUES:
        raise RefusedError(413, f"the request holds more than {MOST_VALUES} values; send fewer messages and parts")
    try:
        request: CompletionRequest = CompletionRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None  # it holds the whole request
    _refuse_duplicates(body)
    if len(request.messages) > limits.messages:
        raise RefusedError(413, f"{len(request.messages)} messages, the limit is {limits.messages}")
    # LLaMA-Factory takes `presence_penalty` for a repetition penalty, and its engine ignores `stop`.
    unserved = {"tools": request.tools, "stop": request.stop, "presence_penalty": request.presence_penalty}
    for name, value in unserved.items():
        if value:
            raise RefusedError(400, f"{name} is not served; leave it out")
    return request


def _refusal(error: ValidationError) -> RefusedError:
    items = error.errors(include_url=False, include_context=False, include_input=False)
    problems = [f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in items]
    numbers = all(item["loc"] and item["loc"][0] in NUMBERS for item in items)
    return RefusedError(400 if numbers else 422, listed(problems, SHOWN_PROBLEMS, "; "))


def _refuse_duplicates(body: bytes) -> None:
    """Refuse a key that stands twice in one object: whoever reads the request before us may follow the other value."""

    def unique(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RefusedError(400, f"the key {key[:50]!r} stands twice; leave one out")
            seen.add(key)

    json.loads(body, object_pairs_hook=unique, parse_int=str, parse_float=str)


def sampling(request: CompletionRequest, profile: Generation, limits: Limits) -> Generation:
    """How the answer is generated: what the client set, else what the profile says.

    A client that sets a temperature above 0, `top_p` or `top_k` draws tokens; `temperature: 0` never does.

    Raises:
        RefusedError: a longer answer than the server gives.
    """
    longest = request.max_completion_tokens or request.max_tokens or profile.max_new_tokens
    if longest > limits.new_tokens:
        raise RefusedError(400, f"max_tokens is {longest}, the limit is {limits.new_tokens}")
    do_sample = request.do_sample
    if request.temperature == 0:
        do_sample = False
    elif do_sample is None and (request.temperature or request.top_p or request.top_k):
        do_sample = True
    stated = {
        "do_sample": do_sample,
        "temperature": request.temperature or None,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "repetition_penalty": request.repetition_penalty,
    }
    changed = {key: value for key, value in stated.items() if value is not None}
    return replace(profile, max_new_tokens=longest, **changed)


def whole(answer: Completion, model: str) -> str:
    """A completion as JSON."""
    usage = ChatCompletionResponseUsage(
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.new_tokens,
        total_tokens=answer.prompt_tokens + answer.new_tokens,
    )
    message = ChatCompletionMessage(role=Role.ASSISTANT, content=answer.text)
    choice = ChatCompletionResponseChoice(index=0, message=message, finish_reason=Finish(answer.finish))
    response = ChatCompletionResponse(id=new_id(), model=model, choices=[choice], usage=usage)
    return str(response.model_dump_json(exclude_none=True))


def new_id() -> str:
    """A name for one answer."""
    return f"chatcmpl-{uuid.uuid4().hex}"


@dataclass(frozen=True)
class Stream:
    """The events of one streamed answer, which share a name and a time."""

    model: str
    name: str = field(default_factory=new_id)
    created: int = field(default_factory=lambda: int(time.time()))

    def chunk(self, *, text: str | None = None, role: bool = False, finish: str | None = None) -> str:
        """One event as JSON: the role first, then text, then why it ended."""
        delta = ChatCompletionMessage(role=Role.ASSISTANT if role else None, content="" if role else text)
        reason = Finish(finish) if finish else None
        choice = ChatCompletionStreamResponseChoice(index=0, delta=delta, finish_reason=reason)
        event = ChatCompletionStreamResponse(id=self.name, model=self.model, created=self.created, choices=[choice])
        return str(event.model_dump_json(exclude_none=True))
