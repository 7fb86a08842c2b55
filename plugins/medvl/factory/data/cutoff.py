"""Records that are longer than `cutoff_len`.

LLaMA-Factory cuts them while it tokenises and says nothing. Without the end of the question, or some image tokens,
training fails with a shape mismatch or goes on without the question; without the end of the answer it trains answers
that stop in the middle. The first is refused, the second is said.

Needs of LLaMA-Factory: the template's `encode_oneturn`, `SupervisedDatasetProcessor._encode_data_example`,
`get_dataset_converter`.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any, Literal

from medvl.factory.data.issues import Dataset
from medvl.losses import IGNORED

_SHOWN = 5
_UNLIMITED = 10**9
Part = Literal["question", "answer"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Reader:
    """Tells rows that are whole from rows that were cut, and which records they were.

    Attributes:
        template: LLaMA-Factory's, fixed for the tokenizer.
        tokenizer: Of the model.
        processor: Of the model.
        data_args: LLaMA-Factory's data arguments.
        datasets: Where the rows come from.
    """

    template: Any
    tokenizer: Any
    processor: Any
    data_args: Any
    datasets: tuple[Dataset, ...]

    @cached_property
    def marks(self) -> tuple[list[int], list[int]]:
        """Tokens between question and answer, and behind the answer."""
        turns = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            for question, answer in (("a", "b"), ("7 x", "y 9"))
        ]
        prompts, answers = zip(*(self.template.encode_oneturn(self.tokenizer, pair) for pair in turns), strict=True)
        return _shared_end(*prompts), _shared_end(*answers)

    def cut(self, row: Row, generating: bool) -> Part | None:
        """What a tokenised row lost: a question (also if no answer is left), else the end of its last answer.

        Args:
            row: With `input_ids` and `labels`.
            generating: Whether `input_ids` are the prompt alone, for answers to be generated.
        """
        between, behind = self.marks
        ids, labels = list(row["input_ids"]), list(row["labels"])
        starts = [len(ids)] if generating else _starts(labels)
        if not starts or any(start and not _ends(ids[:start], between) for start in starts):
            return "question"
        return None if _ends(labels, behind) else "answer"

    def find(self, row: Row, generating: bool, besides: set[str]) -> tuple[str, int | None]:
        """(words that name the row's record, tokens that it needs); where nothing tells, (its images, None).

        besides: records that were found for other rows; the same question and answer may stand in several.
        """
        images = [str(image) for image in row.get("images") or []]
        for where, converted in self._converted:
            if where in besides or [str(image) for image in converted["_images"] or []] != images:
                continue
            ids, labels = self._whole(converted)
            start = next(iter(_starts(labels)), len(labels))
            kept, known = list(row["input_ids"]), list(row["labels"])
            own = len(kept) if generating else next(iter(_starts(known)), len(known))
            answer = list(takewhile(lambda label: label != IGNORED, known[own:]))
            same = kept[:own] == ids[:own] and (generating or answer == ids[start : start + len(answer)])
            if same and len(ids) > len(kept):
                return where, len(ids)
        return f"a record with the images {', '.join(images) or 'none'}", None

    @cached_property
    def _converted(self) -> list[tuple[str, Row]]:
        """Every record as LLaMA-Factory reads it."""
        from llamafactory.data.converter import get_dataset_converter

        found = []
        for dataset in self.datasets:
            convert = get_dataset_converter(dataset.form.formatting, dataset.form, self.data_args)
            for where, record in dataset.records():
                found.append((where, convert(defaultdict(lambda: None, record))))
        return found

    def _whole(self, converted: Row) -> tuple[list[int], list[int]]:
        """(input_ids, labels) of a record that nothing was cut from."""
        from llamafactory.data.processor import SupervisedDatasetProcessor

        unlimited = copy.copy(self.data_args)
        unlimited.cutoff_len, unlimited.train_on_prompt = _UNLIMITED, False
        processor = SupervisedDatasetProcessor(self.template, self.tokenizer, self.processor, unlimited)
        parts = {name: converted[f"_{name}"] for name in ("prompt", "response", "system", "tools")}
        media = {name: converted[f"_{name}"] or [] for name in ("images", "videos", "audios")}
        ids, labels = processor._encode_data_example(**parts, **media)
        return ids, labels


def check_rows(rows: Any, reader: Reader, role: str, generating: bool) -> str | None:
    """A sentence about answers that were cut; None if there are none.

    Args:
        rows: A tokenised dataset of LLaMA-Factory.
        reader: Of its rows.
        role: What the rows are, e.g. "training data".
        generating: Whether the rows are prompts, for answers to be generated.

    Raises:
        ValueError: rows whose question or images were cut.
    """
    lost: dict[Part, list[Row]] = {"question": [], "answer": []}
    for row in _longest(rows, reader.data_args.cutoff_len, generating):
        if part := reader.cut(row, generating):
            lost[part].append(row)
    limit = reader.data_args.cutoff_len
    if lost["question"]:
        raise ValueError(
            f"cutoff_len: {limit} tokens do not hold images and question of {_count(lost['question'])} of the {role}:\n"
            f"{_told(lost['question'], reader, generating)}\n"
            "Raise cutoff_len, lower image_max_pixels, or leave these records out"
        )
    if not lost["answer"]:
        return None
    return (
        f"cutoff_len: {limit} tokens cut off the end of the answer of {_count(lost['answer'])} of the {role}, "
        f"which {'is' if len(lost['answer']) == 1 else 'are'} used without it; raise cutoff_len:\n"
        f"{_told(lost['answer'], reader, generating)}"
    )


def _longest(rows: Any, limit: int, generating: bool) -> Iterator[Row]:
    """The rows that may have been cut: as long as the limit, or as the longest of those that were tokenised before."""
    import numpy as np
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    lengths: list[Any] = []
    for table in rows.select_columns(["input_ids", "labels"]).with_format("arrow").iter(batch_size=1000):
        length = pc.list_value_length(table["input_ids"]).to_numpy()
        lengths.append(length + pc.list_value_length(table["labels"]).to_numpy() if generating else length)
    if not lengths:
        return
    together = np.concatenate(lengths)
    for index in np.flatnonzero(together >= min(limit, together.max())):
        yield rows[int(index)]


def _told(rows: list[Row], reader: Reader, generating: bool) -> str:
    lines, found = [], set[str]()
    for row in rows[:_SHOWN]:
        where, needed = reader.find(row, generating, found)
        found.add(where)
        lines.append(f"  {where}" + ("" if needed is None else f": {needed} tokens"))
    return "\n".join(lines + ([f"  … and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else []))


def _count(rows: list[Row]) -> str:
    return f"{len(rows)} record" + ("s" if len(rows) > 1 else "")


def _starts(labels: Sequence[int]) -> list[int]:
    """Where each answer begins."""
    return [
        place for place, label in enumerate(labels) if label != IGNORED and (place == 0 or labels[place - 1] == IGNORED)
    ]


def _shared_end(one: list[int], other: list[int]) -> list[int]:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)][::-1]


def _ends(tokens: list[int], end: list[int]) -> bool:
    return not end or tokens[-len(end) :] == end
