"""Classification: balanced accuracy, accuracy, macro F1."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, recall_score

from evaluation.metrics.registry import Table, metric, table
from evaluation.samples import Sample
from medvl.choices import normal, options
from medvl.tasks import Task

# Stands for every answer that is no class of the references: INVALID, or a class that never is the truth.
WRONG = -1


@dataclass(frozen=True)
class Choices(Table):
    """Classes as numbers.

    Attributes:
        truth: Class of the reference.
        predicted: Class of the prediction, or `WRONG`.
    """

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]


def class_of(sample: Sample, value: str) -> tuple[str, str, str]:
    """What makes two answers the same class: the dataset, the option letters offered, and the letter or label.

    Letter A means another thing in every dataset, and within dental in each of its three questions, which offer A-B,
    A-D and A-F. The options' wording is not part of it: ten rewordings of one question would become ten sets of classes
    with a handful of samples each, and balanced accuracy gives every class the same weight.
    """
    return sample.reference.dataset, _letters(sample.reference.question), value


@lru_cache(maxsize=65536)
def _letters(question: str) -> str:
    return "".join(options(question))


def truth_of(sample: Sample) -> str:
    """The reference's class; its own text where it is none of the options (`T` in endo)."""
    return sample.truth.value if isinstance(sample.truth.value, str) else normal(sample.reference.answer)


@table(Task.CLASSIFICATION)
def choices(samples: Sequence[Sample]) -> Choices:
    """Classes of truths and predictions; the classes that exist are those of the references."""
    codes: dict[tuple[str, str, str], int] = {}
    truth = [codes.setdefault(class_of(sample, truth_of(sample)), len(codes)) for sample in samples]
    predicted = [
        code if sample.exact else _predicted(sample, codes) for code, sample in zip(truth, samples, strict=True)
    ]
    hit = np.equal(truth, predicted)
    invalid = np.array([sample.invalid for sample in samples], dtype=bool)
    return Choices(invalid, hit.astype(float), np.array(truth, dtype=np.int64), np.array(predicted, dtype=np.int64))


def _predicted(sample: Sample, codes: dict[tuple[str, str, str], int]) -> int:
    value = sample.answer.value
    return codes.get(class_of(sample, value), WRONG) if isinstance(value, str) else WRONG


@metric(Task.CLASSIFICATION, name="balanced_accuracy", headline=True)
def balanced_accuracy(table: Choices) -> float:
    """Mean over the references' classes of the share recognised."""
    # Equal to balanced_accuracy_score, which warns about every prediction that is no class of the truth.
    labels = np.unique(table.truth)
    return float(recall_score(table.truth, table.predicted, labels=labels, average="macro", zero_division=0))


@metric(Task.CLASSIFICATION, name="accuracy")
def accuracy(table: Choices) -> float:
    """Share of right answers."""
    return float(accuracy_score(table.truth, table.predicted))


@metric(Task.CLASSIFICATION, name="f1_macro")
def f1_macro(table: Choices) -> float:
    """Mean F1 over the references' classes."""
    labels = np.unique(table.truth)
    return float(f1_score(table.truth, table.predicted, labels=labels, average="macro", zero_division=0))
