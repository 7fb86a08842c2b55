"""The HTTP side: OpenAI's chat completions, the list of models, and a health check."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from llamafactory.api.protocol import ModelCard, ModelList
from sse_starlette import EventSourceResponse
from starlette.requests import ClientDisconnect

from medvl.serve.choice import Choice, Chooser
from medvl.serve.conversation import read_conversation
from medvl.serve.engine import Answer, Engine, Piece, Prompt
from medvl.serve.limits import MIB, Limits, RefusedError
from medvl.serve.protocol import CompletionRequest, Stream, read_request, sampling, whole

T = TypeVar("T")
HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        api_key: What clients must send as `Authorization: Bearer …`; None: nobody is asked.
        hosts: Names of this server that a request may use; None: any.
    """

    api_key: str | None = None
    hosts: frozenset[str] | None = None

    async def check(self, request: Request) -> None:
        """Raise RefusedError (401, 403) for a request that may not ask."""
        if self.api_key is not None:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            # Compared in constant time: the time to the first wrong letter would tell the letter.
            if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self.api_key.encode()):
                raise RefusedError(401, "wrong or missing API key; send it as `Authorization: Bearer KEY`")
        elif self.hosts is not None and _hostname(request) not in self.hosts:
            # A web page can point a name of its own at 127.0.0.1 and ask in its visitor's browser (DNS rebinding).
            known = ", ".join(sorted(self.hosts))
            raise RefusedError(403, f"a server without an API key is only asked as {known}; set a key for other names")


def create_application(engine: Engine, chooser: Chooser, limits: Limits, access: Access) -> FastAPI:
    """The application; it closes the engine when it shuts down."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)

    # The pages of /docs load scripts from elsewhere.
    application = FastAPI(title="medvl", lifespan=lifespan, docs_url=None, redoc_url=None)
    arriving: set[Request] = set()

    @application.exception_handler(RefusedError)
    async def refuse(_: Request, error: RefusedError) -> JSONResponse:
        return JSONResponse(problem(error), error.status, HEADERS.get(error.status))

    @application.exception_handler(Exception)  # its traceback goes to the server's log
    async def fail(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(problem(error), 500)

    @application.get("/health")
    async def health() -> dict[str, object]:
        failures = chooser.router.failures if chooser.router else 0
        return {"status": "ok", "waiting": engine.waiting, "router_failures": failures}

    @application.get("/v1/models", dependencies=[Depends(access.check)])
    async def models() -> ModelList:
        return ModelList(data=[ModelCard(id=name) for name in chooser.names])

    @application.post("/v1/chat/completions", dependencies=[Depends(access.check)])
    async def complete(request: Request) -> Response:
        if len(arriving) + engine.waiting >= limits.unfinished:
            raise RefusedError(503, f"{limits.unfinished} requests are waiting; try again later")
        arriving.add(request)
        try:
            body = await read_body(request, limits)
            # Reading, decoding images and routing take a while; other clients' streams go on meanwhile.
            wanted = await asyncio.to_thread(read_request, body)
            prompt, choice = await asyncio.to_thread(understand, wanted, engine, chooser, limits)
        finally:
            arriving.discard(request)
        pieces = engine.pieces(prompt, stream=wanted.stream)
        if not wanted.stream:
            answer = await while_connected(request, last(pieces))
            return Response(whole(answer, wanted.model), media_type="application/json", headers=choice.headers)
        await while_connected(request, anext(pieces))  # what is refused by now is answered with a status of its own
        return EventSourceResponse(events(pieces, wanted.model), headers=choice.headers, sep="\n")

    return application


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a request, never more of it than the limit.

    Raises:
        RefusedError: it is longer (413), takes too long (408), its client is gone (499), or it is not declared as JSON
            (415), which web pages cannot send to other servers unasked.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "send JSON, as `Content-Type: application/json`")
    limit = f"{limits.body_bytes / MIB:.0f} MiB"
    too_large = RefusedError(413, f"the request is larger than {limit}; send fewer or smaller images")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:
                    raise too_large
    except TimeoutError as error:
        raise RefusedError(408, f"the request did not arrive within {limits.body_seconds:.0f} seconds") from error
    except ClientDisconnect as error:
        raise RefusedError(499, "the client is gone") from error
    return bytes(body)


def understand(wanted: CompletionRequest, engine: Engine, chooser: Chooser, limits: Limits) -> tuple[Prompt, Choice]:
    """What the model is asked. The client's system message and sampling win over the profile's."""
    conversation = read_conversation(wanted.messages, limits)
    choice = chooser.choose(wanted.model, conversation.question)
    profile = choice.profile
    asked = conversation.in_frame(choice.adapter_spec.frame).instructed(profile.instruction)
    prompt = engine.prompt(
        [{"role": turn.speaker, "content": turn.text} for turn in asked.turns],
        asked.images,
        profile.system if asked.system is None else asked.system,
        choice.adapter_spec,
        sampling(wanted, profile.generation, limits),
        profile.image_max_pixels,
    )
    return prompt, choice


async def last(pieces: AsyncGenerator[Piece, None]) -> Answer:
    """The whole answer."""
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Answer):
                return piece
    raise RuntimeError("the engine gave no answer")


async def events(pieces: AsyncGenerator[Piece, None], model: str) -> AsyncIterator[str]:
    """The events of a streamed answer; one that fails on the way ends with an `error` and without `[DONE]`."""
    stream = Stream(model)
    yield stream.chunk(role=True)
    async with contextlib.aclosing(pieces):
        try:
            async for piece in pieces:
                if isinstance(piece, str):
                    yield stream.chunk(text=piece)
                elif isinstance(piece, Answer):
                    yield stream.chunk(finish=piece.finish)
        except Exception as error:  # the status line is out: this is the only way left to tell
            log.exception("a streamed answer failed")
            yield json.dumps(problem(error))
            return
    yield "[DONE]"


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is given up when the client is gone."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise RefusedError(499, "the client is gone")
    finally:
        for future in (task, gone):
            if future.cancel():  # False once it is done
                with contextlib.suppress(asyncio.CancelledError):
                    await future


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def problem(error: Exception) -> dict[str, dict[str, object]]:
    """What went wrong, in OpenAI's form. Only refusals say why: other messages may hold a patient's question."""
    if isinstance(error, RefusedError):
        return {"error": {"message": str(error), "type": "invalid_request_error", "code": error.status}}
    message = f"the answer could not be generated ({type(error).__name__}); the server's log says more"
    return {"error": {"message": message, "type": "server_error", "code": 500}}


def _hostname(request: Request) -> str | None:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return None
