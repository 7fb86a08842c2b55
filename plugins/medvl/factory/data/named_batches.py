"""Batches that know their records, so that a failure in one can name them.

The training set gets a column with the row's number; the collator hands it on beside the batch. An exception while a
batch is made names the record that it comes from alone, also out of a data loader's worker. A StopIteration there must
not get out: the trainer would take it for the end of the data, train no further and call that a success.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medvl.factory.collator import WrappedCollator
from medvl.factory.data.records import RecordFinder
from medvl.factory.data.rows import RowReader
from medvl.wording import listed

RECORD = "medvl_record"
MOST_NAMED = 8  # records in a message


def number_records(dataset: Any) -> Any:
    """The tokenised training set with the column `medvl_record`; a stream, or None, as it is."""
    if dataset is None or not hasattr(dataset, "__len__"):
        return dataset
    return dataset.add_column(RECORD, range(len(dataset)))


@dataclass(frozen=True)
class BatchNames:
    """Names the records of rows.

    Attributes:
        reader: Turns tokens into text.
        finder: Looks the text up in the data files.
        evaluated: The same, in those of the eval sets alone.
        cutoff_len: Of the recipe, for the cures.
    """

    reader: RowReader
    finder: RecordFinder
    evaluated: RecordFinder
    cutoff_len: int

    def of_rows(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Names of tokenised rows, with the cause and cure where a row tells it."""
        texts = [(self.reader.text(row["input_ids"]), row.get("images")) for row in rows]
        return [name + self._cut(row) for name, row in zip(self.finder.find(texts), rows, strict=True)]

    def of_tokens(self, input_ids: torch.Tensor, training: bool) -> list[str]:
        """Names of the rows of a batch, shape (rows, tokens), by their text alone; of training or evaluation data."""
        finder = self.finder if training else self.evaluated
        return finder.find([(self.reader.text(row.tolist()), None) for row in input_ids])

    def _cut(self, row: dict[str, Any]) -> str:
        if len(row["input_ids"]) < self.cutoff_len:
            return ""
        return f" [as long as cutoff_len {self.cutoff_len}, so it was cut: raise that, or lower image_max_pixels]"


@dataclass(frozen=True)
class NamingCollator(WrappedCollator):
    """A collator that names the record when a batch cannot be made."""

    names: BatchNames

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """The collator's batch; in training with `medvl_record`, shape (rows,).

        Raises:
            RuntimeError: the collator failed; the text names the records.
        """
        # Copies: the collator takes images out of the features it is given.
        rows = [dict(feature) for feature in features]
        numbers = [row.pop(RECORD) for row in rows if RECORD in row]
        try:
            batch = super().__call__(rows)
        except Exception as error:
            raise RuntimeError(self._told(features, error)) from error
        if numbers:
            batch[RECORD] = torch.tensor(numbers)
        return batch

    def _told(self, features: list[dict[str, Any]], error: Exception) -> str:
        guilty = [feature for feature in features if self._fails(feature)] or features
        named = listed(self.names.of_rows(guilty), MOST_NAMED, "; ")
        return f"No batch could be made of {named}: {_reason(error)}"

    def _fails(self, feature: dict[str, Any]) -> bool:
        row = dict(feature)
        row.pop(RECORD, None)
        try:
            self.collator([row])
        except Exception:  # whatever it is: a record that fails alone is the one to name
            return True
        return False


def _reason(error: Exception) -> str:
    told = f"{type(error).__name__}: {error}".removesuffix(": ")
    if isinstance(error, StopIteration) or "tokens" in str(error):
        return f"{told}. Its text claims other image places than its images fill: a control token, or a cut prompt"
    if isinstance(error, OSError):
        return f"{told}. Put the image back or mend it, or convert the data again"
    return f"{told}. Mend or remove the record, or convert the data again"
