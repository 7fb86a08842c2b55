"""One model with its adapters, asked by one request at a time.

The adapter in use and Qwen3-VL's `rope_deltas` are state of the one model, so two generations at once would answer with
each other's. LLaMA-Factory's engine guards them with a semaphore that a client who hangs up releases while his
generation goes on, and that a generation which fails while it streams never releases. Here everything that touches the
model runs in one thread, from the switch of the adapter to the last token.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig, StoppingCriteria, TextStreamer

from medvl.control_tokens import KNOWN
from medvl.predict.adapter_spec import AdapterSpec, Budget, vision_budget
from medvl.predict.in_process import Encoded, InProcess, is_out_of_memory
from medvl.predict.questions import holds_control_tokens
from medvl.profiles import Generation
from medvl.serve.limits import RefusedError


@dataclass(frozen=True)
class Prompt:
    """What the model is asked, and how.

    Attributes:
        encoded: The conversation as token ids, and its images.
        budget: What turns them into tokens.
        adapter: Adapter that answers; None for the base model.
        generation: How the answer is generated.
    """

    encoded: Encoded
    budget: Budget
    adapter: str | None
    generation: GenerationConfig


class Started:
    """The prompt was taken; the answer begins."""


@dataclass(frozen=True)
class Completion:
    """A whole answer; `finish` is stop, or length where it was cut at its longest."""

    text: str
    prompt_tokens: int
    new_tokens: int
    finish: str


Piece = Started | str | Completion


class Engine:
    """Answers prompts one after the other, in the order in which they came."""

    def __init__(self, loaded: InProcess) -> None:
        """The model, which nothing else may ask from now on."""
        self.loaded = loaded
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._asked: dict[threading.Event, Callable[[], Prompt]] = {}
        self.control_tokens = _control_tokens(loaded.tokenizer)

    @property
    def waiting(self) -> int:
        """Prompts that wait or are being answered."""
        return len(self._asked)

    def prompt(
        self,
        turns: Sequence[Mapping[str, str]],
        images: Sequence[Image.Image],
        system: str | None,
        adapter_spec: AdapterSpec,
        stated: Generation,
        image_max_pixels: int | None,
    ) -> Prompt:
        """A conversation ready to be asked.

        Args:
            turns: LLaMA-Factory's messages, with an `<image>` per image.
            images: The images.
            system: System prompt; None for the one the adapter was trained with.
            adapter_spec: The adapter that answers, or the base model.
            stated: How the answer is generated.
            image_max_pixels: Largest area of an image; None for what the adapter was trained with.

        Raises:
            RefusedError: the text holds control tokens, or prompt and answer may be longer than the model reads (400).
        """
        if found := self.loaded.control_tokens(*(turn["content"] for turn in turns), system or ""):
            raise RefusedError(400, holds_control_tokens(found))
        budget = vision_budget(adapter_spec, image_max_pixels)
        encoded = self.loaded.encode_turns(turns, images, adapter_spec.system if system is None else system, budget)
        longest = self.loaded.model.config.get_text_config().max_position_embeddings
        asked = len(encoded.tokens) + stated.max_new_tokens
        if asked > longest:
            raise RefusedError(400, f"prompt and answer may take {asked} tokens, the model reads {longest}")
        return Prompt(encoded, budget, adapter_spec.name, self.loaded.generation(stated))

    async def pieces(self, ask: Callable[[], Prompt], *, stream: bool) -> AsyncGenerator[Piece, None]:
        """`Started`, with `stream` the text as it comes, then the whole `Completion`. Closing it ends the generation.

        Args:
            ask: Makes the prompt. Called when its turn comes, so that a request that waits holds no decoded image.
            stream: Whether the text is wanted as it comes.

        Raises:
            RefusedError: there is no memory for this prompt (413), or `ask` refuses it.
            Exception: whatever else the generation raised.
        """
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Piece | BaseException]()
        stop = threading.Event()
        self._asked[stop] = ask
        del ask  # else this frame would hold it after a client is gone

        def put(piece: Piece | BaseException) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server was stopped, nobody listens
                loop.call_soon_threadsafe(queue.put_nowait, piece)

        def work() -> None:
            try:
                if not stop.is_set():
                    put(self._answer(self._asked[stop], put, stop, stream))
            except BaseException as error:
                put(error)
            finally:
                self._asked.pop(stop, None)

        turn = self._thread.submit(work)
        try:
            while True:
                piece = await queue.get()
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                if isinstance(piece, Completion):
                    return
        finally:
            stop.set()
            if turn.cancel():  # it was still waiting: its place is free at once
                self._asked.pop(stop, None)

    def close(self) -> None:
        """End the generation in progress and those that wait; returns when the thread has ended."""
        for stop in list(self._asked):
            stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _answer(
        self, ask: Callable[[], Prompt], put: Callable[[Piece], None], stop: threading.Event, stream: bool
    ) -> Completion:
        try:
            return self._generate(ask(), put, stop, stream)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            error.__traceback__ = None  # its frames hold the tensors that did not fit
            torch.cuda.empty_cache()
            raise RefusedError(413, "no memory for this request; send fewer or smaller images") from None

    def _generate(
        self, prompt: Prompt, put: Callable[[Piece], None], stop: threading.Event, stream: bool
    ) -> Completion:
        loaded, generation, length = self.loaded, prompt.generation, len(prompt.encoded.tokens)
        batch = loaded.batch([prompt.encoded], prompt.budget)
        put(Started())
        streamer = _Pieces(put, loaded.tokenizer, set(generation.eos_token_id)) if stream else None
        (tokens,) = loaded.generate(
            batch, prompt.adapter, generation, streamer=streamer, stopping_criteria=[_Stop(stop)]
        )
        reply = loaded.reply(tokens, generation)
        return Completion(reply.text, length, len(tokens), reply.finish or "stop")


def _control_tokens(tokenizer: Any) -> frozenset[str]:
    """What no client may write: the special tokens of this tokenizer, and the known ones of both families."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return KNOWN | {token for token in special | set(tokenizer.all_special_tokens) if token.strip()}


class _Stop(StoppingCriteria):  # type: ignore[misc]
    """Ends a generation that nobody waits for."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.stop.is_set(), dtype=torch.bool, device=input_ids.device)


class _Pieces(TextStreamer):  # type: ignore[misc]
    """Hands on text as whole words are generated. The tags of boxes stay, where whole answers keep those in pairs."""

    def __init__(self, put: Callable[[Piece], None], tokenizer: Any, stops: set[int]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        self.put_piece, self.stops = put, stops

    def put(self, value: torch.Tensor) -> None:
        if self.next_tokens_are_prompt or int(value) not in self.stops:
            super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
        if text:
            self.put_piece(text)
