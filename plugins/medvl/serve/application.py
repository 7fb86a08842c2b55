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

from medvl.serve.admission import Admission
from medvl.serve.choice import Chooser
from medvl.serve.engine import Completion, Engine, Piece
from medvl.serve.limits import Limits, RefusedError
from medvl.serve.protocol import Stream, whole

T = TypeVar("T")
HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    408: {"Connection": "close"},  # else a client that goes on sending would hold it
    503: {"Retry-After": "5"},
}
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
        admission.close()

    # The pages of /docs load scripts from elsewhere.
    application = FastAPI(title="medvl", lifespan=lifespan, docs_url=None, redoc_url=None)
    admission = Admission(engine, chooser, limits)

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
        with admission.memory.request() as hold:
            asked = await admission.prepared(request, hold)
            pieces = engine.pieces(asked.prompt, stream=asked.stream)
            if not asked.stream:
                answer = await while_connected(request, last(pieces))
                return Response(whole(answer, asked.model), media_type="application/json", headers=asked.choice.headers)
            # What is refused by now is answered with a status of its own.
            await while_connected(request, anext(pieces))
        return EventSourceResponse(events(pieces, asked.model), headers=asked.choice.headers, sep="\n")

    return application


async def last(pieces: AsyncGenerator[Piece, None]) -> Completion:
    """The whole answer."""
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, Completion):
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
                elif isinstance(piece, Completion):
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
