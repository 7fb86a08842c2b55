"""From a request to a prompt that may wait for its turn: what is bounded, and when a request is told to come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.requests import Request

from medvl.serve.arrivals import Arrivals
from medvl.serve.choice import Choice, Chooser
from medvl.serve.conversation import read_conversation
from medvl.serve.engine import Engine, Prompt
from medvl.serve.images import decode
from medvl.serve.limits import Limits, RefusedError
from medvl.serve.memory import Hold, Memory
from medvl.serve.protocol import read_request, sampling


@dataclass(frozen=True)
class Prepared:
    """A request that may wait for its turn: it holds its images as they were sent, and nothing else that is large.

    Attributes:
        model: What the client named.
        stream: Whether the answer is wanted as it comes.
        choice: Who answers.
        prompt: Decodes the images and makes the prompt.
    """

    model: str
    stream: bool
    choice: Choice
    prompt: Callable[[], Prompt]


def prepare(body: bytes, engine: Engine, chooser: Chooser, limits: Limits, hold: Hold) -> Prepared:
    """What the model is asked. The client's system message and sampling win over the profile's."""
    wanted = read_request(body, limits)
    conversation = read_conversation(wanted.messages, limits, engine.control_tokens, hold)
    choice = chooser.choose(wanted.model, conversation.question)
    profile = choice.profile
    generation = sampling(wanted, profile.generation, limits)

    def prompt() -> Prompt:
        images = [decode(image) for image in conversation.images]
        asked = conversation.in_frame(choice.adapter_spec.frame, [image.size for image in images])
        asked = asked.instructed(profile.instruction)
        return engine.prompt(
            [{"role": turn.speaker, "content": turn.text} for turn in asked.turns],
            images,
            profile.system if asked.system is None else asked.system,
            choice.adapter_spec,
            generation,
            profile.image_max_pixels,
        )

    return Prepared(wanted.model, wanted.stream, choice, prompt)


class Admission:
    """All requests that are not in the engine's hands yet."""

    def __init__(self, engine: Engine, chooser: Chooser, limits: Limits) -> None:
        """What answers, who is asked, and what is allowed."""
        self.engine, self.chooser, self.limits = engine, chooser, limits
        self.memory = Memory(limits)
        self._arrivals = Arrivals(limits)
        self._preparing = 0
        # Each request has a thread of its own: one whose images are fetched slowly holds nobody up.
        self._threads = ThreadPoolExecutor(limits.unfinished, thread_name_prefix="request")

    async def prepared(self, request: Request, hold: Hold) -> Prepared:
        """A request that has arrived and was understood.

        Args:
            request: Whose body has not been read yet.
            hold: Told of all bytes that it keeps.

        Raises:
            RefusedError: too many wait (503), or whatever else is wrong with the request.
        """
        self._check_places()  # before its body is sent
        body = await self._arrivals.read(request, hold)
        self._check_places()
        self._preparing += 1
        try:
            # Reading and routing take a while; other clients' streams go on meanwhile.
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, prepare, body, self.engine, self.chooser, self.limits, hold
            )
        finally:
            self._preparing -= 1

    def close(self) -> None:
        """Start nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check_places(self) -> None:
        if self._preparing + self.engine.waiting >= self.limits.unfinished:
            raise RefusedError(503, f"{self.limits.unfinished} requests are waiting; try again later")
