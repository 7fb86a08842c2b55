"""Requests and answers on the wire: LLaMA-Factory's protocol, with what it misreads read as OpenAI means it."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field, replace

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
from pydantic import Field, ValidationError

from medvl.profiles import Generation
from medvl.serve.engine import Answer
from medvl.serve.limits import Limits, RefusedError


class CompletionRequest(ChatCompletionRequest):  # type: ignore[misc]
    """LLaMA-Factory's request, with ranges, and with the names that newer clients and vLLM use."""

    model: str = "auto"
    n: int = Field(default=1, ge=1, le=1)  # one answer: more would all be the same, or drawn against the profile
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


def read_request(body: bytes) -> CompletionRequest:
    """The request in a body.

    Raises:
        RefusedError: not JSON, a key or value that cannot be followed, or a feature that is not served.
    """
    try:
        request: CompletionRequest = CompletionRequest.model_validate_json(body)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in error.errors())
        raise RefusedError(422, "; ".join(problems)) from error
    # LLaMA-Factory takes `presence_penalty` for a repetition penalty, and its engine ignores `stop`.
    unserved = {"tools": request.tools, "stop": request.stop, "presence_penalty": request.presence_penalty}
    for name, value in unserved.items():
        if value:
            raise RefusedError(400, f"{name} is not served; leave it out")
    return request


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


def whole(answer: Answer, model: str) -> str:
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
