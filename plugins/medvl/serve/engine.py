"""One model with its adapters, asked by one request at a time.

The adapter in use, Qwen3-VL's `rope_deltas` and the pixel budget are state of the one model and processor, so two
generations at once would answer with each other's. LLaMA-Factory's engine guards them with a semaphore that a client
who hangs up releases while his generation goes on, and a generation that fails while it streams never releases. Here
everything that touches the model runs in one thread, from the switch of the adapter to the last token.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from llamafactory.chat.hf_engine import HuggingfaceEngine
from llamafactory.hparams import GeneratingArguments
from PIL import Image
from transformers import StoppingCriteria, TextStreamer

from medvl.factory.positions import numbers_pictures, token_types
from medvl.serve.limits import RefusedError

GREEDY = GeneratingArguments(do_sample=False).to_dict()  # LLaMA-Factory's own default draws tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """What the model is asked, and how.

    Attributes:
        turns: LLaMA-Factory's messages: role and content, with an `<image>` per picture.
        images: Their pictures.
        system: System prompt; None for the one the adapter was trained with.
        adapter: Adapter that answers; None for the base model.
        image_max_pixels: Largest area of a picture; None for what the adapter was trained with.
        sampling: Values for `generate`; those left out are LLaMA-Factory's, greedy.
    """

    turns: list[dict[str, str]]
    images: list[Image.Image]
    system: str | None
    adapter: str | None
    image_max_pixels: int | None
    sampling: Mapping[str, Any]


@dataclass(frozen=True)
class Started:
    """The prompt was taken; the answer begins."""

    prompt_tokens: int


@dataclass(frozen=True)
class Answer:
    """A whole answer; `length` where it was cut at its longest."""

    text: str
    prompt_tokens: int
    new_tokens: int
    finish_reason: Literal["stop", "length"]


Piece = Started | str | Answer


class Loaded(Protocol):
    """A model with its adapters, as LLaMA-Factory loads it."""

    model: Any
    tokenizer: Any
    processor: Any
    template: Any

    def using(self, adapter: str | None) -> AbstractContextManager[None]:
        """Answer with this adapter, and with the prompt and pixels it was trained with, until the end."""
        ...


class Engine:
    """Answers prompts one after the other, in the order in which they came."""

    def __init__(self, loaded: Loaded, unfinished: int) -> None:
        """unfinished: How many prompts may wait or be answered; more are refused."""
        self.loaded = loaded
        self.unfinished = unfinished
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._stops: set[threading.Event] = set()

    @property
    def waiting(self) -> int:
        """Prompts that wait or are being answered."""
        return len(self._stops)

    async def pieces(self, prompt: Prompt, *, stream: bool) -> AsyncGenerator[Piece, None]:
        """`Started`, with `stream` the text as it comes, then the whole `Answer`. Closing it ends the generation.

        Raises:
            RefusedError: too many prompts are waiting (503), the prompt is longer than the model reads (400), or the
                accelerator has no memory for it (413).
            Exception: whatever else the generation raised.
        """
        if self.waiting >= self.unfinished:
            raise RefusedError(503, f"{self.waiting} requests are waiting; try again later")
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Piece | BaseException]()
        stop = threading.Event()
        self._stops.add(stop)

        def put(piece: Piece | BaseException) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server was stopped, nobody listens
                loop.call_soon_threadsafe(queue.put_nowait, piece)

        def work() -> None:
            try:
                if not stop.is_set():
                    put(self._answer(prompt, put, stop, stream))
            except BaseException as error:
                put(error)
            finally:
                self._stops.discard(stop)

        self._thread.submit(work)
        try:
            while True:
                piece = await queue.get()
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                if isinstance(piece, Answer):
                    return
        finally:
            stop.set()

    def close(self) -> None:
        """End the generation in progress and those that wait; returns when the thread has ended."""
        for stop in list(self._stops):
            stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _answer(self, prompt: Prompt, put: Callable[[Piece], None], stop: threading.Event, stream: bool) -> Answer:
        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        with self.loaded.using(prompt.adapter):
            try:
                inputs, prompt_tokens = self._inputs(prompt)
                put(Started(prompt_tokens))
                streamer = _Pieces(put, tokenizer) if stream else None
                tokens = model.generate(**inputs, streamer=streamer, stopping_criteria=[_Stop(stop)])
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                raise RefusedError(413, "no memory for this request; send fewer or smaller pictures") from error
        new = tokens[0, prompt_tokens:].tolist()
        text = tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ended = bool(new) and new[-1] in self.loaded.template.get_stop_token_ids(tokenizer)
        return Answer(text, prompt_tokens, len(new), "stop" if ended else "length")

    def _inputs(self, prompt: Prompt) -> tuple[dict[str, Any], int]:
        """The arguments of `generate`, and the prompt's length."""
        model, processor = self.loaded.model, self.loaded.processor
        template = copy.copy(self.loaded.template)
        if prompt.system is not None:
            template.default_system = prompt.system  # as an argument, an empty one would mean the template's own
        budget = processor.image_max_pixels
        processor.image_max_pixels = prompt.image_max_pixels or budget
        try:
            inputs, prompt_tokens = HuggingfaceEngine._process_args(
                model, self.loaded.tokenizer, processor, template, GREEDY, prompt.turns,
                images=prompt.images or None, input_kwargs=dict(prompt.sampling),
            )  # fmt: skip
        finally:
            processor.image_max_pixels = budget
        if numbers_pictures(model):
            config = model.config
            inputs["mm_token_type_ids"] = token_types(inputs["inputs"], config.image_token_id, config.video_token_id)
        longest = model.config.get_text_config().max_position_embeddings
        asked = prompt_tokens + inputs["generation_config"].max_new_tokens
        if asked > longest:
            raise RefusedError(
                400, f"prompt and answer come to {asked} tokens, the model reads {longest}; ask for less"
            )
        return inputs, prompt_tokens


class _Stop(StoppingCriteria):  # type: ignore[misc]
    """Ends a generation that nobody waits for."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.stop.is_set(), dtype=torch.bool, device=input_ids.device)


class _Pieces(TextStreamer):  # type: ignore[misc]
    """Hands on text as whole words are generated."""

    def __init__(self, put: Callable[[Piece], None], tokenizer: Any) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self.put_piece = put

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
        if text:
            self.put_piece(text)
