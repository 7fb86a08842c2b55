"""Classification: balanced accuracy, accuracy, macro F1."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from evaluation.metrics.registry import Floats, Sums, Table, indicator, mean_of_classes, metric, ratio, table
from evaluation.metrics.unreadable import charged_classes
from evaluation.samples import Sample
from medvl.choices import normal, options
from medvl.tasks import Task

# Stands for every answer that is no class of the references: INVALID, or a class that never is the truth.
WRONG = -1


def class_of(sample: Sample, value: str) -> tuple[str, str, str]:
    """What makes two answers the same class: the dataset, the option letters offered, and the letter or label.

    Letter A means another thing in every dataset, and within dental in each of its three questions, which offer A-B,
    A-D and A-F. The options' wording is not part of it: ten rewordings of one question would become ten sets of classes
    with a handful of samples each, and balanced accuracy gives every class the same weight.
    """
    return sample.reference.dataset, letters_of(sample.reference.question), value


@lru_cache(maxsize=65536)
def letters_of(question: str) -> str:
    """Letters of the options a question offers, e.g. "ABCD"; empty if it has none."""
    return "".join(options(question))


def truth_of(sample: Sample) -> str:
    """The reference's class; its own text where it is none of the options (`T` in endo)."""
    return sample.truth.value if isinstance(sample.truth.value, str) else normal(sample.reference.answer)


@table(Task.CLASSIFICATION)
def choices(samples: Sequence[Sample]) -> Table:
    """Columns, one per class of the references: `references`, `predictions` (answered so) and `hits` (rightly).

    An invalid answer counts as a class too, the one that costs most (`unreadable`): it is never better than a wrong
    one.
    """
    codes: dict[tuple[str, str, str], int] = {}
    truth = np.array([codes.setdefault(class_of(sample, truth_of(sample)), len(codes)) for sample in samples])
    predicted = np.array(
        [code if sample.exact else _predicted(sample, codes) for code, sample in zip(truth, samples, strict=True)]
    )
    invalid = np.array([sample.invalid for sample in samples], dtype=bool)
    hit = truth == predicted
    counts = [np.bincount(each[each >= 0], minlength=len(codes)) for each in (truth[hit], truth, predicted)]
    datasets = [sample.reference.dataset for sample in samples]
    charged = charged_classes(np.array(counts, dtype=float), [dataset for dataset, _, _ in codes], datasets, invalid)
    named = np.where(invalid, charged, predicted)
    return Table(
        invalid=invalid,
        score=hit.astype(np.float64),
        columns={
            "references": indicator(truth, len(codes)),
            "predictions": indicator(named, len(codes)),
            "hits": indicator(np.where(hit, truth, WRONG), len(codes)),
        },
    )


def _predicted(sample: Sample, codes: dict[tuple[str, str, str], int]) -> int:
    value = sample.answer.value
    return codes.get(class_of(sample, value), WRONG) if isinstance(value, str) else WRONG


@metric(Task.CLASSIFICATION, name="balanced_accuracy", headline=True)
def balanced_accuracy(sums: Sums) -> Floats:
    """Mean over the references' classes of the share recognised."""
    return mean_of_classes(ratio(sums["hits"], sums["references"]))


@metric(Task.CLASSIFICATION, name="accuracy")
def accuracy(sums: Sums) -> Floats:
    """Share of right answers."""
    return ratio(sums["hits"].sum(axis=1), sums["references"].sum(axis=1))


@metric(Task.CLASSIFICATION, name="f1_macro")
def f1_macro(sums: Sums) -> Floats:
    """Mean F1 over the references' classes; an unreadable answer is a false positive of one of them."""
    f1 = ratio(2 * sums["hits"], sums["references"] + sums["predictions"])
    return mean_of_classes(np.where(sums["references"] > 0, f1, np.nan))
