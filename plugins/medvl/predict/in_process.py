"""The model in this process: LLaMA-Factory's own prompts and images, so that asking equals training.

The base model is loaded once, with all its adapters beside it. Nothing here may be called by two threads at once but
`encode_turns` and `batch`.
"""

from __future__ import annotations

import contextlib
import copy
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from llamafactory.data.collator import MultiModalDataCollatorForSeq2Seq
from llamafactory.extras.constants import IGNORE_INDEX
from PIL import Image
from transformers import GenerationConfig

from medvl.control_tokens import BOX_MARKUP, KNOWN, control_tokens
from medvl.errors import UsageError
from medvl.factory.positions import tell_token_types
from medvl.predict.adapter_spec import Budget, vision_budget
from medvl.predict.loading import load
from medvl.predict.questions import holds_control_tokens
from medvl.predict.reply import Reply
from medvl.predict.setup import Setup
from medvl.profiles import Generation
from medvl.sharegpt import IMAGE_TAG
from medvl.weights import is_finite

# Tags in pairs, without which the labels and boxes of an answer could not be told from its words.
_BOX_TAGS = re.compile(r"<box>.*?</box>|<\|box_start\|>.*?<\|box_end\|>", re.DOTALL)


@dataclass(frozen=True)
class Encoded:
    """A prompt as LLaMA-Factory's collator takes it: token ids, and the images."""

    tokens: list[int]
    images: list[Image.Image]


class InProcess:
    """A loaded model with its adapters."""

    def __init__(self, setup: Setup) -> None:
        """Load everything, and try it once.

        Raises:
            UsageError: a model without image processor; weights that are no numbers; or an adapter that is not loaded
                whole, or changes nothing.
        """
        loaded = load(setup)
        self.tokenizer, self.processor, self.template = loaded.tokenizer, loaded.processor, loaded.template
        self.model, self._names = loaded.model, loaded.names
        special = {
            token.content: place for place, token in self.tokenizer.added_tokens_decoder.items() if token.special
        }
        self._control_tokens = (KNOWN | frozenset(special)) - BOX_MARKUP - {IMAGE_TAG}
        self._box_tags = {place for token, place in special.items() if token in BOX_MARKUP}
        self._ends = {*self.template.get_stop_token_ids(self.tokenizer), *special.values()} - self._box_tags
        self._active: str | None = None
        self._collators: dict[Budget, Any] = {}
        self._lock = threading.Lock()
        self._try(setup)

    def _try(self, setup: Setup) -> None:
        """Raise UsageError for a model that gives no numbers, and for an adapter that does not change them."""
        budget, image = vision_budget(setup.base), Image.linear_gradient("L").resize((64, 64)).convert("RGB")
        encoded = self.encode_turns([{"role": "user", "content": f"{IMAGE_TAG}\n?"}], [image], "", budget)
        batch = self.batch([encoded], budget)
        without = self._logits(batch, None)
        if not is_finite(without):
            raise UsageError(f"{setup.model}: the model computes NaN or infinity; copy or train it again")
        for name, adapter_spec in setup.adapters.items():
            logits = self._logits(batch, name)
            if not is_finite(logits):
                raise UsageError(f"{adapter_spec.folder}: with it the model computes NaN or infinity; train it again")
            if torch.equal(logits, without):
                raise UsageError(
                    f"{adapter_spec.folder}: the adapter changes nothing, the model computes the same without it; "
                    "train it, or ask the model alone"
                )

    def _logits(self, batch: Mapping[str, torch.Tensor], adapter: str | None) -> torch.Tensor:
        inputs = {name: self._placed(value) for name, value in batch.items()}
        with torch.inference_mode(), self._using(adapter):
            logits: torch.Tensor = self.model(**inputs).logits
        return logits

    def encode_turns(
        self, turns: Sequence[Mapping[str, str]], images: Sequence[Image.Image], system: str | None, budget: Budget
    ) -> Encoded:
        """A prompt exactly as training renders it.

        Args:
            turns: LLaMA-Factory's messages up to the user's last, with an `<image>` per image.
            images: The images.
            system: System prompt.
            budget: Vision budget that the adapter was trained with.

        Raises:
            ValueError: a turn holds control tokens, which would be read as images or as the turn's end.
        """
        if found := self.control_tokens(*(turn["content"] for turn in turns)):
            raise ValueError(holds_control_tokens(found))
        plugin, processor, loaded = self.template.mm_plugin, self._collator(budget).processor, list(images)
        messages = [*map(dict, turns), {"role": "assistant", "content": ""}]
        messages = plugin.process_messages(messages, loaded, [], [], processor)
        with self._lock:  # a tokenizer may be changed by one thread while another uses it
            tokens, _ = self.template.encode_oneturn(self.tokenizer, messages, system, None)
        tokens, _ = plugin.process_token_ids(tokens, None, loaded, [], [], self.tokenizer, processor)
        return Encoded(tokens, loaded)

    def control_tokens(self, *texts: str) -> list[str]:
        """The control tokens in these texts, as this checkpoint's tokenizer has them and as both families do.

        Tags of boxes are none of them: an instruction may show them, and earlier answers are written with them.
        """
        return control_tokens("\n".join(texts).replace(IMAGE_TAG, " "), self._control_tokens)

    def batch(self, encoded: Sequence[Encoded], budget: Budget) -> dict[str, torch.Tensor]:
        """A batch for the model, padded on the left."""
        features = [
            {
                "input_ids": list(item.tokens),
                "attention_mask": [1] * len(item.tokens),
                "labels": [IGNORE_INDEX] * len(item.tokens),
                "images": list(item.images),
            }
            for item in encoded
        ]
        collated = self._collator(budget)(features)
        return {name: value for name, value in collated.items() if name != "labels" and isinstance(value, torch.Tensor)}

    def _collator(self, budget: Budget) -> Any:
        """LLaMA-Factory's collator; its processor has this vision budget."""
        with self._lock:
            if budget not in self._collators:
                processor = copy.copy(self.processor)
                processor.image_max_pixels, processor.image_min_pixels, processor.crop_to_patches = budget
                collator = MultiModalDataCollatorForSeq2Seq(
                    template=self.template,
                    tokenizer=self.tokenizer,
                    processor=processor,
                    label_pad_token_id=IGNORE_INDEX,
                )
                self._collators[budget] = tell_token_types(collator, self.model)
            return self._collators[budget]

    def generation(self, stated: Generation) -> GenerationConfig:
        """Settings for `generate`; it ends at the template's stop tokens and, as in `do_predict`, at special ones.

        Those of boxes are none of them: `do_predict` ends an answer before its first `<box>`.
        """
        sampling = {"temperature": stated.temperature or 1.0, "top_p": stated.top_p or 1.0, "top_k": stated.top_k or 0}
        return GenerationConfig(
            max_new_tokens=stated.max_new_tokens,
            do_sample=stated.do_sample,
            repetition_penalty=stated.repetition_penalty or 1.0,
            eos_token_id=sorted(self._ends),
            pad_token_id=self.tokenizer.pad_token_id,
            **(sampling if stated.do_sample else {}),
        )

    def generate(
        self, batch: Mapping[str, torch.Tensor], adapter: str | None, generation: GenerationConfig, **more: Any
    ) -> list[list[int]]:
        """The new token ids of every prompt, padding included.

        Args:
            batch: From `batch`.
            adapter: Name of the adapter that answers; None for the base model.
            generation: From `generation`.
            more: Further arguments of transformers' `generate`: a streamer, stopping criteria.
        """
        inputs = {name: self._placed(value) for name, value in batch.items()}
        with torch.inference_mode(), self._using(adapter):
            output = self.model.generate(**inputs, generation_config=generation, **more)
        tokens: list[list[int]] = output[:, inputs["input_ids"].shape[1] :].tolist()
        return tokens

    def reply(self, tokens: Sequence[int], generation: GenerationConfig) -> Reply:
        """The text up to the first special token, as LLaMA-Factory's `do_predict` writes it.

        Tags around boxes stay, where they come in pairs: InternVL's `<ref>…</ref><box>…</box>`.
        """
        stops = set(generation.eos_token_id)
        end = _first(tokens, stops)
        text = self._decoded(tokens[:end])
        if not _BOX_TAGS.search(text):
            end = _first(tokens, stops | self._box_tags)
            text = self._decoded(tokens[:end])
        return Reply(text, "length" if end is None else "stop")

    def _decoded(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _placed(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)

    def _using(self, adapter: str | None) -> contextlib.AbstractContextManager[object]:
        """Switch to an adapter if it is not the one in use; the base model is the one with adapters off."""
        if adapter is None:
            return self.model.disable_adapter() if self._names else contextlib.nullcontext()
        if adapter != self._active:
            self.model.set_adapter(self._names[adapter])
            self._active = adapter
        return contextlib.nullcontext()


def _first(tokens: Sequence[int], among: set[int]) -> int | None:
    return next((place for place, token in enumerate(tokens) if token in among), None)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was lacking, on a GPU or here."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
