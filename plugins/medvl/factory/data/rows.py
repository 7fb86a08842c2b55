"""A tokenised training row as text, and an answer as the tokens LLaMA-Factory makes of it.

LLaMA-Factory 0.9.5 hands its collator `input_ids`, `labels` and images; ids, tasks and answers of the records are
gone by then, and image tokens are already there in the number that fits the image's size.

Needs of the template: `encode_oneturn`, `format_assistant` and `_convert_elements_to_ids`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import track

from medvl.losses import IGNORED

_SLOW = 10_000  # rows from which on reading shows its progress
_QUESTION = "{question}"


@dataclass(frozen=True)
class Row:
    """One row with a single answer.

    Attributes:
        prompt: Everything before the answer, without image tokens.
        question: The prompt without the template's own text.
        answer: The answer without the template's closing.
        start: Place of the first supervised token.
        stop: Place after the last one.
    """

    prompt: str
    question: str
    answer: str
    start: int
    stop: int


class RowReader:
    """Reads rows of one tokenizer and template."""

    def __init__(self, template: Any, tokenizer: Any, image_tokens: Sequence[int | None]) -> None:
        """image_tokens: ids that stand for a piece of an image or video; None for kinds the model lacks."""
        self.template, self.tokenizer = template, tokenizer
        self.image_tokens = {token for token in image_tokens if token is not None}
        turn = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": ""}]
        prompt, closing = template.encode_oneturn(tokenizer, turn)
        self.before, _, self.after = self.text(prompt).partition(_QUESTION)
        self.closing = self.text(closing)

    def read(self, input_ids: Sequence[int], labels: Sequence[int]) -> Row | None:
        """The row as text; None if it has no answer, several (turns), or one cut off by `cutoff_len`."""
        supervised = [place for place, label in enumerate(labels) if label != IGNORED]
        if not supervised or supervised[-1] - supervised[0] + 1 != len(supervised):
            return None
        start, stop = supervised[0], supervised[-1] + 1
        prompt = self.text(input_ids[:start])
        question = prompt.removesuffix(self.after).removeprefix(self.before)
        text = self.text(input_ids[start:stop])
        if not text.endswith(self.closing):
            return None
        return Row(prompt, question, text.removesuffix(self.closing), start, stop)

    def answer_tokens(self, answer: str) -> list[int]:
        """The supervised tokens of an answer, as LLaMA-Factory makes them."""
        elements = self.template.format_assistant.apply(content=answer)
        tokens: list[int] = self.template._convert_elements_to_ids(self.tokenizer, elements)
        return tokens

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text, those of images left out."""
        words = [token for token in tokens if token not in self.image_tokens]
        return str(self.tokenizer.decode(words, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def row_reader(collator: Any, tokenizer: Any, model: Any) -> RowReader:
    """The reader for the rows that this collator batches for this model."""
    config = model.config
    names = ("image_token_id", "video_token_id")
    return RowReader(collator.template, tokenizer, [getattr(config, name, None) for name in names])


def read_rows(dataset: Any, *columns: str) -> Iterable[dict[str, Any]]:
    """These columns of every row of a tokenised dataset, with progress on stderr if there are many rows."""
    rows = dataset.select_columns(list(columns))
    return track(rows, "Reading answers", console=Console(stderr=True), disable=len(dataset) < _SLOW)
