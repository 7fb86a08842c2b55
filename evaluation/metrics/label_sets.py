"""Multi-label classification: micro, macro and sample-averaged F1."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.metrics import f1_score

from evaluation.metrics.registry import Table, UndefinedError, metric, table
from evaluation.samples import Sample
from medvl.choices import normal
from medvl.tasks import Task

# In the place of a label: what an invalid answer to a question without findings says. See `label_sets`.
_NO_ANSWER = "\0no answer"


@dataclass(frozen=True)
class LabelSets(Table):
    """Label sets as indicator matrices of shape (samples, labels); sparse, since a prediction may hold any label.

    Attributes:
        truth: Labels of the references.
        predicted: Labels of the predictions.
        hits: Number of labels on both sides, per sample.
        truths: Number of the reference's labels, per sample.
        predictions: Number of predicted labels, per sample.
    """

    truth: csr_matrix
    predicted: csr_matrix
    hits: NDArray[np.int64]
    truths: NDArray[np.int64]
    predictions: NDArray[np.int64]

    def counts(self, row: int) -> dict[str, int]:
        """Labels found, invented and missed."""
        hits = int(self.hits[row])
        return {"tp": hits, "fp": int(self.predictions[row]) - hits, "fn": int(self.truths[row]) - hits}


@table(Task.MULTI_LABEL)
def label_sets(samples: Sequence[Sample]) -> LabelSets:
    """Labels of truths and predictions, each label together with its dataset.

    An invalid answer has no labels. Where the reference has none either that would be right, so it is given one false
    label there: failing to answer is never right.
    """
    truths, predictions = [], []
    for sample in samples:
        truth = frozenset(_labels(sample.truth.value, [sample.reference.answer]))
        predicted = truth if sample.exact else frozenset(_labels(sample.answer.value, []))
        if sample.invalid and not truth:
            predicted = frozenset([_NO_ANSWER])
        truths.append([(sample.reference.dataset, label) for label in sorted(truth)])
        predictions.append([(sample.reference.dataset, label) for label in sorted(predicted)])
    columns: dict[tuple[str, str], int] = {}
    for label in (label for labels in [*truths, *predictions] for label in labels):
        columns.setdefault(label, len(columns))
    truth_matrix, predicted_matrix = _indicator(truths, columns), _indicator(predictions, columns)
    invalid = np.array([sample.invalid for sample in samples], dtype=bool)
    hits = _per_row(truth_matrix.multiply(predicted_matrix))
    sizes = _per_row(truth_matrix), _per_row(predicted_matrix)
    either = sum(sizes)
    score = np.divide(2.0 * hits, either, out=np.ones(len(samples)), where=either > 0)
    return LabelSets(invalid, score, truth_matrix, predicted_matrix, hits, *sizes)


def _labels(value: object, otherwise: Iterable[str]) -> Iterable[str]:
    return [normal(str(label)) for label in (value if isinstance(value, tuple) else otherwise)]


def _indicator(rows: Sequence[Sequence[tuple[str, str]]], columns: dict[tuple[str, str], int]) -> csr_matrix:
    indices = [columns[label] for labels in rows for label in labels]
    starts = np.cumsum([0, *(len(labels) for labels in rows)])
    shape = len(rows), max(2, len(columns))  # scikit-learn takes a single column for something else than label sets
    return csr_matrix((np.ones(len(indices), dtype=np.int64), indices, starts), shape=shape)


def _per_row(matrix: csr_matrix) -> NDArray[np.int64]:
    return np.asarray(matrix.sum(axis=1), dtype=np.int64).ravel()


@metric(Task.MULTI_LABEL, name="f1_micro", headline=True)
def f1_micro(table: LabelSets) -> float:
    """F1 over all labels of all samples; 1 if there are no labels on either side."""
    return float(f1_score(table.truth, table.predicted, average="micro", zero_division=1))


@metric(Task.MULTI_LABEL, name="f1_macro")
def f1_macro(table: LabelSets) -> float:
    """Mean F1 over the references' labels; a label that is never the truth is a false positive, not a class."""
    labels = np.flatnonzero(np.asarray(table.truth.sum(axis=0)).ravel())
    if not len(labels):
        raise UndefinedError("no reference has a label")
    return float(f1_score(table.truth, table.predicted, labels=labels, average="macro", zero_division=0))


@metric(Task.MULTI_LABEL, name="f1_samples")
def f1_samples(table: LabelSets) -> float:
    """Mean F1 over samples; a sample without labels on both sides is 1."""
    return float(f1_score(table.truth, table.predicted, average="samples", zero_division=1))
