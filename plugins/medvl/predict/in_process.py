"""The model in this process: LLaMA-Factory's own loading, prompts and pictures, so that asking equals training.

The base model is loaded once with all adapters beside it. Pictures of the next batches are prepared while the model
answers one.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from llamafactory.data import get_template_and_fix_tokenizer
from llamafactory.data.collator import MultiModalDataCollatorForSeq2Seq
from llamafactory.extras.constants import IGNORE_INDEX
from llamafactory.hparams import get_infer_args
from llamafactory.model import load_model, load_tokenizer
from peft import PeftModel
from PIL import Image
from transformers import GenerationConfig

from medvl.factory.positions import tell_token_types
from medvl.pictures import FORMATS, MAX_PIXELS, shown
from medvl.predict.errors import UsageError
from medvl.predict.plan import Asked
from medvl.predict.reply import Reply, failed
from medvl.predict.setup import Setup
from medvl.profiles import Generation

log = logging.getLogger("medvl")

_AHEAD = 2  # batches whose pictures are prepared while one is answered


@dataclass(frozen=True)
class Encoded:
    """A question as LLaMA-Factory's collator takes it: token ids of the prompt, and its pictures."""

    tokens: list[int]
    images: list[Image.Image]


@dataclass(frozen=True)
class Prepared:
    """A batch before it is answered.

    Attributes:
        ready: Questions that can be asked.
        refused: The others, with the reason.
        collated: The ready ones as the model takes them.
    """

    ready: list[tuple[Asked, Encoded]]
    refused: list[tuple[Asked, Reply]]
    collated: dict[str, Any]


class InProcess:
    """A loaded model with its adapters."""

    def __init__(self, setup: Setup) -> None:
        """Load everything; raises UsageError for a model without image processor."""
        model_args, data_args, finetuning_args, _ = get_infer_args(_arguments(setup))
        loaded = load_tokenizer(model_args)
        self.tokenizer, self.processor = loaded["tokenizer"], loaded["processor"]
        if getattr(self.processor, "image_processor", None) is None:
            raise UsageError(f"{setup.model}: no image processor; InternVL3 needs a checkpoint whose name ends in -hf")
        self.tokenizer.padding_side = "left"
        self.template = get_template_and_fix_tokenizer(self.tokenizer, data_args)
        base = load_model(self.tokenizer, model_args, finetuning_args, is_trainable=False)
        # A checkpoint's own settings would make greedy answers stray: repetition penalties, forced tokens.
        base.generation_config = GenerationConfig()
        self.model, self._names = _with_adapters(base, setup)
        self._lock = threading.Lock()
        self._active: str | None = None
        self._collators: dict[tuple[int, int, bool], Any] = {}
        self._processors: dict[tuple[int, int, bool], Any] = {}
        self.batch_limit: int | None = None

    def answers(self, batches: Iterable[Sequence[Asked]]) -> Iterator[list[tuple[Asked, Reply]]]:
        """The replies of every batch, in order."""
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

    def prepare(self, batch: Sequence[Asked]) -> Prepared:
        """A batch ready for the model, and what cannot be asked."""
        ready, refused = [], []
        for asked in batch:
            try:
                ready.append((asked, self.encode(asked)))
            except Exception as error:  # decoders raise a dozen types; one bad sample must not end a run
                refused.append((asked, failed(f"{type(error).__name__}: {error}")))
        try:
            return Prepared(ready, refused, self.collate(ready) if ready else {})
        except Exception:  # done again when the batch is answered, where its questions are told apart
            return Prepared(ready, refused, {})

    def _answered(self, prepared: Prepared) -> list[tuple[Asked, Reply]]:
        ready, collated = prepared.ready, prepared.collated
        if self.batch_limit and len(ready) > self.batch_limit:
            collated = {}
        return [*prepared.refused, *self._generate_all(ready, collated)]

    def encode(self, asked: Asked) -> Encoded:
        """The prompt as token ids, exactly as training renders it, with its pictures."""
        if asked.question.problem is not None:
            raise ValueError(asked.question.problem)
        plugin, processor = self.template.mm_plugin, self._processor(asked)
        images = [_open(path, mended=asked.question.mended) for path in asked.question.images]
        messages = [{"role": "user", "content": asked.prompt}, {"role": "assistant", "content": ""}]
        messages = plugin.process_messages(messages, images, [], [], processor)
        with self._lock:  # a tokenizer may be changed by one thread while another uses it
            tokens, _ = self.template.encode_oneturn(self.tokenizer, messages, asked.system, None)
        tokens, _ = plugin.process_token_ids(tokens, None, images, [], [], self.tokenizer, processor)
        return Encoded(tokens, images)

    def collate(self, ready: Sequence[tuple[Asked, Encoded]]) -> dict[str, Any]:
        """A batch for the model, padded on the left. Its questions have the same vision budget."""
        features = [
            {
                "input_ids": list(item.tokens),
                "attention_mask": [1] * len(item.tokens),
                "labels": [IGNORE_INDEX] * len(item.tokens),
                "images": list(item.images),
            }
            for _, item in ready
        ]
        batch: dict[str, Any] = self._collator(ready[0][0])(features)
        batch.pop("labels")
        return batch

    def _processor(self, asked: Asked) -> Any:
        """The processor with the vision budget of the question's adapter."""
        budget = _budget(asked)
        if budget not in self._processors:
            processor = copy.copy(self.processor)
            processor.image_max_pixels, processor.image_min_pixels, processor.crop_to_patches = budget
            self._processors[budget] = processor
        return self._processors[budget]

    def _collator(self, asked: Asked) -> Any:
        budget = _budget(asked)
        if budget not in self._collators:
            collator = MultiModalDataCollatorForSeq2Seq(
                template=self.template,
                tokenizer=self.tokenizer,
                processor=self._processor(asked),
                label_pad_token_id=IGNORE_INDEX,
            )
            self._collators[budget] = tell_token_types(collator, self.model)
        return self._collators[budget]

    def _generate_all(
        self, ready: Sequence[tuple[Asked, Encoded]], collated: dict[str, Any] | None = None
    ) -> Iterator[tuple[Asked, Reply]]:
        """Replies to all; a batch that does not fit the memory is halved, and later ones are asked in such parts.

        Args:
            ready: What is asked.
            collated: The same as a batch, where that is there already.
        """
        size = max(1, min(len(ready), self.batch_limit or len(ready)))
        for first in range(0, len(ready), size):
            part = ready[first : first + size]
            try:
                replies = self._generate(part[0][0], collated or self.collate(part))
            except Exception as error:
                del error.__traceback__  # its frames hold the tensors that did not fit
                yield from self._apart(part, error)
            else:
                yield from zip((asked for asked, _ in part), replies, strict=True)

    def _apart(self, part: Sequence[tuple[Asked, Encoded]], error: Exception) -> Iterator[tuple[Asked, Reply]]:
        """What to do with a batch that failed: halve it for want of memory, else ask its questions one by one."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(part) == 1:
            yield part[0][0], failed(f"{type(error).__name__}: {error}")
        elif is_out_of_memory(error):
            self.batch_limit = len(part) // 2
            log.warning("out of memory with %d questions at a time; going on with %d", len(part), self.batch_limit)
            yield from self._generate_all(part)
        else:
            for item in part:
                yield from self._generate_all([item])

    def _generate(self, asked: Asked, batch: Mapping[str, Any]) -> list[Reply]:
        inputs = {name: self._placed(value) for name, value in batch.items() if isinstance(value, torch.Tensor)}
        generation = self._generation(asked.generation)
        if asked.generation.do_sample:
            torch.manual_seed(int(asked.fingerprint[:8], 16))  # drawn alike by a run that goes on after a kill
        with torch.inference_mode(), self._using(asked.served.name):
            output = self.model.generate(**inputs, generation_config=generation)
        answers = output[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._reply(tokens, set(generation.eos_token_id)) for tokens in answers]

    def _placed(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)

    def _generation(self, stated: Generation) -> GenerationConfig:
        sampling = {"temperature": stated.temperature or 1.0, "top_p": stated.top_p or 1.0, "top_k": stated.top_k or 0}
        return GenerationConfig(
            max_new_tokens=stated.max_new_tokens,
            do_sample=stated.do_sample,
            repetition_penalty=stated.repetition_penalty or 1.0,
            eos_token_id=self.template.get_stop_token_ids(self.tokenizer),
            pad_token_id=self.tokenizer.pad_token_id,
            **(sampling if stated.do_sample else {}),
        )

    def _reply(self, tokens: list[int], stops: set[int]) -> Reply:
        """The text up to the first stop token. Special tokens before it stay: `<box>` is one in InternVL."""
        end = next((place for place, token in enumerate(tokens) if token in stops), None)
        text = self.tokenizer.decode(tokens[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return Reply(text, "length" if end is None else "stop")

    def _using(self, name: str | None) -> contextlib.AbstractContextManager[object]:
        """Switch to an adapter, once per group; the base model is the one with adapters off."""
        if name is None:
            return self.model.disable_adapter() if self._names else contextlib.nullcontext()
        if name != self._active:
            self.model.set_adapter(self._names[name])
            self._active = name
        return contextlib.nullcontext()


def _arguments(setup: Setup) -> dict[str, Any]:
    quantization, base = setup.quantization, setup.base
    arguments = {
        "model_name_or_path": setup.model,
        "template": setup.template,
        # Every question brings its system prompt; an empty one must stay empty.
        "default_system": "",
        "image_max_pixels": base.image_max_pixels,
        "image_min_pixels": base.image_min_pixels,
        "crop_to_patches": base.crop_to_patches,
        "infer_dtype": setup.dtype,
        "trust_remote_code": False,
    }
    if setup.enable_thinking is not None:
        arguments["enable_thinking"] = setup.enable_thinking
    if quantization.bit is not None:
        arguments |= {
            "quantization_bit": quantization.bit,
            "quantization_method": quantization.method,
            "quantization_type": quantization.type,
            "double_quantization": quantization.double_quantization,
        }
    return arguments


def _with_adapters(base: Any, setup: Setup) -> tuple[Any, Mapping[str, str]]:
    """The model, and PEFT's names of the adapters: module names, in which a dot cannot stand."""
    names = {name: f"adapter_{place}" for place, name in enumerate(setup.adapters)}
    model = base
    for name, served in setup.adapters.items():
        if model is base:
            model = PeftModel.from_pretrained(base, str(served.folder), adapter_name=names[name])
        else:
            model.load_adapter(str(served.folder), adapter_name=names[name])
    model.requires_grad_(False)
    return model.eval(), names


def _budget(asked: Asked) -> tuple[int, int, bool]:
    served = asked.served
    return asked.image_max_pixels or served.image_max_pixels or 0, served.image_min_pixels, served.crop_to_patches


def _open(path: Any, *, mended: bool) -> Image.Image:
    """A picture, decoded once; LLaMA-Factory looks at it twice."""
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{path}: {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        image.load()
        return image if mended else shown(image)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was lacking, on a GPU or here."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
