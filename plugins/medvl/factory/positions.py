"""Image positions in prediction, for models that number image tokens by row and column (Qwen-VL's M-RoPE).

LLaMA-Factory 0.9.5 hands its collator no model when `predict_with_generate` is set. The collator then makes no position
ids, and transformers 5 can make them only if it is told which tokens are images, which LLaMA-Factory never does:
neither in `do_predict` nor in the engine behind `chat`, `webchat` and `api`. So the model is trained with positions by
row and column and asked with plain counting ones. Measured with the weights that `medvl demo` trains (16 tokens per
image): F1 of instance detection 0.00 stock and 1.00 with the token types, of detection 0.71 and 1.00.

Needs of `llamafactory.chat.hf_engine`: `HuggingfaceEngine`, its four arguments, its `model`, and its static
`_process_args`, which takes the model first and returns the arguments of `generate` and the prompt's length.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from medvl.factory.arguments import requested_keys
from medvl.factory.checks.adapter_fit import without_adapter
from medvl.factory.collator import WrappedCollator

IMAGE, VIDEO = 1, 2  # transformers' mm_token_type_ids; 0 is text
_ASKED: WeakSet[Any] = WeakSet()  # models of the engines whose recipe asks for image positions


def numbers_images(model: Any) -> bool:
    """Whether the model computes positions from token types, as the Qwen-VL families do."""
    inner = without_adapter(model)
    compute = getattr(getattr(inner, "model", inner), "get_rope_index", None)
    return compute is not None and "mm_token_type_ids" in inspect.signature(compute).parameters


def token_types(tokens: Any, image: int, video: int) -> Any:
    """Which of the token ids stand for an image or a video; a tensor of their shape."""
    return IMAGE * (tokens == image).long() + VIDEO * (tokens == video).long()


@dataclass(frozen=True)
class TokenTypes(WrappedCollator):
    """A collator that also tells the model which tokens are images.

    Attributes:
        image: Id of the token that stands for a piece of an image.
        video: The same for video.
    """

    image: int
    video: int

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """The collator's batch with `mm_token_type_ids` of the shape of `input_ids`."""
        batch = super().__call__(features)
        batch["mm_token_type_ids"] = token_types(batch["input_ids"], self.image, self.video)
        return batch


def tell_token_types(collator: Any, model: Any) -> Any:
    """`collator` with token types if `model` needs them, else as it is."""
    if not numbers_images(model):
        return collator
    return TokenTypes(collator, model.config.image_token_id, model.config.video_token_id)


def extend_engine(module: Any) -> None:
    """Let the engine of `chat`, `webchat` and `api` tell its model too; AttributeError when it has other names."""
    engine = module.HuggingfaceEngine
    if getattr(engine, "tells_token_types", False):
        return
    start, prepare = engine.__init__, engine._process_args

    @functools.wraps(start)
    def started(self: Any, model_args: Any, data_args: Any, finetuning_args: Any, generating_args: Any) -> None:
        start(self, model_args, data_args, finetuning_args, generating_args)
        if "medvl_image_positions" in requested_keys(finetuning_args) and numbers_images(self.model):
            _ASKED.add(self.model)

    @functools.wraps(prepare)
    def prepared(model: Any, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], int]:
        inputs, prompt_length = prepare(model, *args, **kwargs)
        if model in _ASKED:
            config = model.config
            inputs["mm_token_type_ids"] = token_types(inputs["inputs"], config.image_token_id, config.video_token_id)
        return inputs, prompt_length

    engine.__init__, engine._process_args = started, staticmethod(prepared)
    engine.tells_token_types = True
