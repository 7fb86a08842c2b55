"""Tokens of a record as LLaMA-Factory will make them: its own template, its plug-in, the checkpoint's processor.

torch, transformers and LLaMA-Factory are imported when a counter is made: the rest of `preprocess` works without them.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from PIL import Image

from medvl.boxes import Size
from medvl.errors import UsageError
from medvl.sharegpt import IMAGE_TAG, Record

# Keys of a recipe that change tokens. Others would have LLaMA-Factory check for a GPU, or for the dataset.
_MODEL_KEYS = ("image_max_pixels", "image_min_pixels", "image_do_pan_and_scan", "crop_to_patches", "add_tokens",
               "add_special_tokens", "split_special_tokens", "use_fast_tokenizer", "cache_dir", "model_revision")  # fmt: skip  # noqa: E501
_DATA_KEYS = ("template", "cutoff_len", "default_system", "enable_thinking", "tool_format")


class TokenCounter:
    """Counts the tokens of records under one recipe."""

    def __init__(self, processor: str, recipe: Mapping[str, Any]) -> None:
        """Load what decides about tokens; no weights.

        Args:
            processor: Folder of a checkpoint, or its name on the hub.
            recipe: The recipe's keys.

        Raises:
            UsageError: there is no processor for images at that place.
        """
        from llamafactory.data import get_template_and_fix_tokenizer
        from llamafactory.hparams import DataArguments, ModelArguments
        from llamafactory.model import load_tokenizer

        model_args = ModelArguments(model_name_or_path=processor, **_known(recipe, ModelArguments, _MODEL_KEYS))
        data_args = DataArguments(**_known(recipe, DataArguments, _DATA_KEYS))
        try:
            loaded = load_tokenizer(model_args)
        except OSError as error:
            raise UsageError(f"--processor {processor}: {error}; expected a checkpoint folder or hub name") from error
        self.tokenizer, self.processor = loaded["tokenizer"], loaded["processor"]
        if self.processor is None:
            raise UsageError(
                f"--processor {processor}: no processor for images there; InternVL needs `-hf` checkpoints"
            )
        self.template = get_template_and_fix_tokenizer(self.tokenizer, data_args)
        self._expanded: dict[Size, tuple[str, int]] = {}

    def __call__(self, record: Record) -> tuple[int, int]:
        """The tokens of a record, exactly, before anything is cut: of text, and those that stand for pixels."""
        image = 0
        prompt = record.conversations[0].value
        for size in record.source.sizes:
            text, count = self._image(size)
            prompt = prompt.replace(IMAGE_TAG, text, 1)
            image += count
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": record.target}]
        total = sum(len(ids) for pair in self.template.encode_multiturn(self.tokenizer, messages) for ids in pair)
        total += 1 if self.template.efficient_eos else 0
        return total - image, image

    def _image(self, size: Size) -> tuple[str, int]:
        """What stands for an image in the prompt, and how many of its tokens stand for pixels.

        Only the size matters, so a blank image of that size is enough, and every size is done once.
        """
        if size not in self._expanded:
            blank = [Image.new("L", size)]
            messages = [{"role": "user", "content": IMAGE_TAG}, {"role": "assistant", "content": ""}]
            text = self.template.mm_plugin.process_messages(messages, blank, [], [], self.processor)[0]["content"]
            ids = self.tokenizer.encode(text, add_special_tokens=False)
            # The marks around an image occur once or, between tiles, now and then; pixels repeat one token.
            self._expanded[size] = text, max(map(ids.count, set(ids)))
        return self._expanded[size]


def _known(recipe: Mapping[str, Any], arguments: type, keys: tuple[str, ...]) -> dict[str, Any]:
    names = {field.name for field in fields(arguments)}
    return {key: recipe[key] for key in keys if key in recipe and key in names}
