"""Any server with OpenAI's chat completions: vLLM, SGLang, `llamafactory-cli api`, `medvl serve`.

Requests run side by side. The client library waits and tries again after time-outs, lost connections and 408, 409, 429
and 5xx answers, twice as long each time and with jitter. What a server sends is checked before it is used: 200 is no
promise of an answer.
"""

import base64
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
import httpx
import msgspec
import openai
from anyio.from_thread import BlockingPortal, start_blocking_portal
from PIL import Image

from medvl.errors import UsageError
from medvl.images import decode, shown
from medvl.predict.plan import Request
from medvl.predict.reply import Reply, failed
from medvl.sharegpt import IMAGE_TAG

ImagesAs = Literal["data", "path"]
KEY_VARIABLES = ("MEDVL_API_KEY", "OPENAI_API_KEY")
# Formats that every server takes as a data URI; others are sent as PNG, which loses nothing.
_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}
# Answers to the wrong key are the same for every question.
_FATAL = (openai.AuthenticationError, openai.PermissionDeniedError)
_SHOWN_BYTES = 120  # of an answer in another form
_T = TypeVar("_T")


@dataclass(frozen=True)
class Connection:
    """How to reach the server.

    Attributes:
        url: Base address, e.g. http://127.0.0.1:8000/v1.
        concurrency: Requests at the same time.
        timeout: Seconds that one attempt may take in all, however slowly its answer comes.
        retries: Attempts after the first.
        images_as: data: in the request. path: as a file:// address where the server may open the file and it can be
            used as it is; `medvl.images` and the pixel budget decide.
        template_breaks_lines: Whether the server's chat template writes a line break after each image, as that of
            InternVL3 does; the prompt's own is then left out.
    """

    url: str
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    images_as: ImagesAs = "data"
    template_breaks_lines: bool = False


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: Any = None


class _Completion(msgspec.Struct):
    """What is read of a chat completion."""

    choices: list[_Choice]


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    """What is read of the list of models."""

    data: list[_Model]


class _Client(openai.DefaultAsyncHttpxClient):
    """A client whose time limit is for a whole attempt. That of httpx is for each piece, and a drip never meets it."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def send(self, request: Any, **options: Any) -> Any:
        """As httpx, with the answer read to its last byte; raises httpx.ReadTimeout, after which openai tries again."""
        try:
            with anyio.fail_after(self._seconds):
                response = await super().send(request, **options)
                await response.aread()
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"no whole answer within {self._seconds:g} seconds") from error
        return response


class Endpoint:
    """A server that answers."""

    def __init__(self, connection: Connection) -> None:
        """Nothing is sent yet. The API key comes from the environment: `KEY_VARIABLES`."""
        self.connection = connection

    def models(self) -> set[str] | None:
        """Names of the models that the server has; None if it does not say, or not in the usual form.

        Raises:
            UsageError: nothing answers there, or the key is wrong.
        """
        try:
            with start_blocking_portal() as portal:
                listed = portal.call(self._listed)
            return {model.id for model in _read(listed, _Models).data}
        except _FATAL as error:
            raise self._refused(error) from error
        except (openai.APIStatusError, ValueError):
            return None
        except openai.APIConnectionError as error:
            reason = error.__cause__ or error
            raise UsageError(f"{self.connection.url}: no server answers there: {reason}") from error

    def at_once(self, _: Request, /) -> int:
        """Whatever: the server decides what it computes together."""
        return self.connection.concurrency

    def answers(self, batches: Iterable[Sequence[Request]]) -> Iterator[list[tuple[Request, Reply]]]:
        """Replies as they come. `batches` only give the order in which questions are sent.

        Raises:
            UsageError: the server refuses the key.
        """
        questions = (asked for batch in batches for asked in batch)
        # Left half-way, the portal ends what is under way, and then the pool need not wait for it.
        with ThreadPoolExecutor(self.connection.concurrency) as pool, start_blocking_portal() as portal:
            client = self._client()
            running: dict[Future[Reply], Request] = {}
            try:
                for asked in questions:
                    running[pool.submit(self._answer, asked, portal, client)] = asked
                    if len(running) > self.connection.concurrency:  # one waits, so that no worker does
                        yield _finished(running)
                while running:
                    yield _finished(running)
            finally:
                for future in running:
                    future.cancel()
            portal.call(client.close)

    def _answer(self, item: Request, portal: BlockingPortal, client: openai.AsyncOpenAI) -> Reply:
        """Ask one question.

        Raises:
            UsageError: the server refuses the key.
        """
        try:
            request = self._request(item)
        except Exception as error:  # whatever is wrong with one image must not end a run
            return failed(error)
        try:
            sent = portal.call(partial(client.chat.completions.with_raw_response.create, **request))
            return _reply(_read(sent.content, _Completion))
        except _FATAL as error:
            raise self._refused(error) from error
        except Exception as error:  # nor whatever a server does
            return failed(error, broken=True)

    def _client(self) -> openai.AsyncOpenAI:
        key = next((value for name in KEY_VARIABLES if (value := os.environ.get(name))), "none")
        stated = self.connection
        return openai.AsyncOpenAI(
            base_url=stated.url,
            api_key=key,
            timeout=stated.timeout,
            max_retries=stated.retries,
            http_client=_Client(stated.timeout),
        )

    async def _listed(self) -> bytes:
        async with self._client() as client:
            return (await client.models.with_raw_response.list()).content

    def _refused(self, error: openai.APIStatusError) -> UsageError:
        names = " or ".join(KEY_VARIABLES)
        return UsageError(f"{self.connection.url}: {error.message}; set the key in the environment as {names}")

    def _request(self, request: Request) -> dict[str, Any]:
        stated = request.generation
        sampling = (
            {"temperature": stated.temperature, "top_p": stated.top_p} if stated.do_sample else {"temperature": 0}
        )
        extra = {"top_k": stated.top_k, "repetition_penalty": stated.repetition_penalty}
        system = [{"role": "system", "content": request.system}] if request.system else []
        return {
            "model": request.adapter_spec.name,
            "messages": [*system, {"role": "user", "content": self._content(request)}],
            "max_tokens": stated.max_new_tokens,
            **{name: value for name, value in sampling.items() if value is not None},
            "extra_body": {name: value for name, value in extra.items() if value is not None} or None,
        }

    def _content(self, request: Request) -> list[dict[str, Any]]:
        """The prompt in parts: each tag becomes its image, the text between stays."""
        if request.question.problem is not None:
            raise ValueError(request.question.problem)
        before, *texts = request.prompt.split(IMAGE_TAG)
        parts: list[dict[str, Any]] = [{"type": "text", "text": before}] if before else []
        for path, text in zip(request.question.images, texts, strict=True):
            address = self._address(path, request)
            parts.append({"type": "image_url", "image_url": {"url": address}})
            text = text.removeprefix("\n") if self.connection.template_breaks_lines else text
            parts += [{"type": "text", "text": text}] if text else []
        return parts

    def _address(self, path: Path, request: Request) -> str:
        data, media_type, unchanged = image_data(path, request.image_max_pixels, normalised=request.question.normalised)
        if unchanged and self.connection.images_as == "path":
            return path.resolve().as_uri()
        return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _read(content: bytes, form: type[_T]) -> _T:
    """What a server sent, in the form it should have; raises ValueError where it has another."""
    try:
        # Half a pair of surrogates, where a server cut an emoji in two, is more than msgspec's own decoder takes.
        return msgspec.convert(json.loads(content), form)
    except (ValueError, RecursionError) as error:
        begin = content[:_SHOWN_BYTES].decode(errors="replace")
        raise ValueError(f"the server sent no answer in OpenAI's form ({error}), but {begin!r}") from error


def _reply(completion: _Completion) -> Reply:
    if not completion.choices or completion.choices[0].message.content is None:
        return failed("the server sent no text")
    choice = completion.choices[0]
    # Half of a pair is no Unicode and cannot be written to a file.
    text = (choice.message.content or "").encode("utf-8", "replace").decode()
    return Reply(text, "length" if choice.finish_reason == "length" else "stop")


def _finished(running: dict[Future[Reply], Request]) -> list[tuple[Request, Reply]]:
    """Wait for at least one; those that are done leave `running`."""
    finished, _ = wait(running, return_when=FIRST_COMPLETED)
    return [(running.pop(future), future.result()) for future in sorted(finished, key=list(running).index)]


def image_data(path: Path, max_pixels: int | None, *, normalised: bool) -> tuple[bytes, str, bool]:
    """An image as training shows it: normalised, and within the budget. Its bytes, media type, and whether the file's
    own.

    Raises:
        ValueError, OSError: the image is broken, or missing.
    """
    data = path.read_bytes()
    image = decode(path, data)
    layout = image.format or ""
    shown_image = image if normalised else shown(image)
    if shown_image is image and layout in _MEDIA_TYPES and not _too_large(image, max_pixels):
        return data, _MEDIA_TYPES[layout], True
    buffer = io.BytesIO()
    _within(shown_image, max_pixels).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue(), "image/png", False


def _too_large(image: Image.Image, max_pixels: int | None) -> bool:
    return max_pixels is not None and image.width * image.height > max_pixels


def _within(image: Image.Image, max_pixels: int | None) -> Image.Image:
    """The image within its budget, as LLaMA-Factory 0.9.5 shrinks it: same sides' ratio, rounded down, bicubic."""
    if max_pixels is None or not _too_large(image, max_pixels):
        return image
    factor = math.sqrt(max_pixels / (image.width * image.height))
    return image.resize((int(image.width * factor), int(image.height * factor)))
