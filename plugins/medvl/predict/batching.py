"""Questions by the batch, for the model in this process. Images of the next batches are prepared meanwhile."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from medvl.images import decode, shown
from medvl.predict.adapter_spec import vision_budget
from medvl.predict.in_process import Encoded, InProcess, is_out_of_memory
from medvl.predict.memory import questions_at_once
from medvl.predict.plan import Request, prompt_tokens
from medvl.predict.reply import Reply, failed

log = logging.getLogger("medvl")

ON_CPU = 8  # questions at a time
_AHEAD = 2  # batches that are prepared while one is answered

Ready = tuple[Request, Encoded]


@dataclass(frozen=True)
class Prepared:
    """A batch before it is answered.

    Attributes:
        ready: Questions that can be asked.
        refused: The others, with the reason.
        collated: The ready ones as the model takes them; empty if that failed.
    """

    ready: list[Ready]
    refused: list[tuple[Request, Reply]]
    collated: Mapping[str, torch.Tensor]


class Batches:
    """A loaded model that answers batches."""

    def __init__(self, loaded: InProcess) -> None:
        """`limit` is how many questions fitted into the memory at a time when more did not."""
        self.loaded = loaded
        self.limit: int | None = None

    def at_once(self, longest: Request, /) -> int:
        """What the GPU's memory holds of such questions; `ON_CPU` without one."""
        # Prompts are estimated; languages without spaces have more tokens than a quarter of their letters.
        tokens = 2 * prompt_tokens(longest) + longest.generation.max_new_tokens
        return questions_at_once(self.loaded.model, tokens) or ON_CPU

    def answers(self, batches: Iterable[Sequence[Request]]) -> Iterator[list[tuple[Request, Reply]]]:
        """The replies of every batch, in order. The questions of one have the same adapter and profile."""
        with ThreadPoolExecutor(_AHEAD) as pool:
            waiting: deque[Future[Prepared]] = deque()
            try:
                for batch in batches:
                    waiting.append(pool.submit(self.prepare, batch))
                    if len(waiting) > _AHEAD:
                        yield self._answered(waiting.popleft().result())
                while waiting:
                    yield self._answered(waiting.popleft().result())
            finally:
                for future in waiting:
                    future.cancel()

    def prepare(self, batch: Sequence[Request]) -> Prepared:
        """A batch ready for the model, and what cannot be asked."""
        ready, refused = [], []
        for asked in batch:
            try:
                ready.append((asked, self.encode(asked)))
            except Exception as error:  # decoders raise a dozen types; one bad sample must not end a run
                refused.append((asked, failed(error)))
        try:
            return Prepared(ready, refused, self._collate(ready) if ready else {})
        except Exception:  # done again when the batch is answered, where its questions are told apart
            return Prepared(ready, refused, {})

    def encode(self, request: Request) -> Encoded:
        """One question as the model is asked.

        Raises:
            Exception: of many types, if it cannot be asked or an image is missing or broken.
        """
        if request.question.problem is not None:
            raise ValueError(request.question.problem)
        images = [_open(path, normalised=request.question.normalised) for path in request.question.images]
        turn = {"role": "user", "content": request.prompt}
        return self.loaded.encode_turns(
            [turn], images, request.system, vision_budget(request.adapter_spec, request.image_max_pixels)
        )

    def _collate(self, ready: Sequence[Ready]) -> dict[str, torch.Tensor]:
        asked, _ = ready[0]  # they all have the same budget
        return self.loaded.batch(
            [encoded for _, encoded in ready], vision_budget(asked.adapter_spec, asked.image_max_pixels)
        )

    def _answered(self, prepared: Prepared) -> list[tuple[Request, Reply]]:
        fits = self.limit is None or len(prepared.ready) <= self.limit
        return [*prepared.refused, *self._generate_all(prepared.ready, prepared.collated if fits else {})]

    def _generate_all(
        self, ready: Sequence[Ready], collated: Mapping[str, torch.Tensor]
    ) -> Iterator[tuple[Request, Reply]]:
        """Replies to all; a batch that does not fit into the memory is halved, and so are later ones.

        Args:
            ready: What is asked.
            collated: The same as a batch, where that is there already.
        """
        size = max(1, min(len(ready), self.limit or len(ready)))
        for first in range(0, len(ready), size):
            part = ready[first : first + size]
            try:
                replies = self._generate(part[0][0], collated or self._collate(part))
            except Exception as error:
                error.__traceback__ = None  # its frames hold the tensors that did not fit
                yield from self._apart(part, error)
            else:
                yield from zip((asked for asked, _ in part), replies, strict=True)

    def _apart(self, part: Sequence[Ready], error: Exception) -> Iterator[tuple[Request, Reply]]:
        """What to do with a batch that failed: halve it for want of memory, else ask its questions one by one."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(part) == 1:
            yield part[0][0], failed(error, broken=not is_out_of_memory(error))
        elif is_out_of_memory(error):
            self.limit = len(part) // 2
            log.warning("out of memory with %d questions at a time; going on with %d", len(part), self.limit)
            yield from self._generate_all(part, {})
        else:
            for item in part:
                yield from self._generate_all([item], {})

    def _generate(self, request: Request, batch: Mapping[str, Any]) -> list[Reply]:
        generation = self.loaded.generation(request.generation)
        if request.generation.do_sample:
            torch.manual_seed(int(request.fingerprint[:8], 16))  # drawn alike by a run that goes on after a kill
        answers = self.loaded.generate(batch, request.adapter_spec.name, generation)
        return [self.loaded.reply(tokens, generation) for tokens in answers]


def _open(path: Path, *, normalised: bool) -> Image.Image:
    """An image as it is shown, decoded once; LLaMA-Factory looks at it twice."""
    image = decode(path)
    return image if normalised else shown(image)
