"""Multi-label classification: micro, macro and sample-averaged F1."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from evaluation.metrics.registry import Floats, Sums, Table, indicator, mean_of_classes, metric, ratio, table
from evaluation.metrics.unreadable import charged_classes
from evaluation.samples import Sample
from medvl.choices import normal
from medvl.tasks import Task

Label = tuple[str, str]  # a label together with its dataset
# In the place of a label: what an invalid answer says. See `label_sets`.
_NO_ANSWER = "\0no answer"


@table(Task.MULTI_LABEL)
def label_sets(samples: Sequence[Sample]) -> Table:
    """Columns: labels found (`hits`), asked for (`references`) and named (`predictions`), in all and per label; `f1`,
    `n`.

    An invalid answer counts as one wrong label besides those it misses, so that failing to answer is never better than
    a wrong one. Per label, where a wrong label is one of the others, it is the one that costs most (`unreadable`).
    """
    invalid = np.array([sample.invalid for sample in samples], dtype=bool)
    references, predictions = [], []
    for sample in samples:
        truth = frozenset(_labels(sample.truth.value, [sample.reference.answer]))
        predicted = truth if sample.exact else frozenset(_labels(sample.answer.value, [_NO_ANSWER]))
        references.append({(sample.reference.dataset, label) for label in truth})
        predictions.append({(sample.reference.dataset, label) for label in predicted})
    hits = [truth & predicted for truth, predicted in zip(references, predictions, strict=True)]
    labels = {label: code for code, label in enumerate(sorted(set().union(*references)))}
    sizes = np.array(
        [[len(part) for part in parts] for parts in zip(hits, references, predictions, strict=True)], dtype=float
    )
    score = ratio(2 * sizes[:, 0], sizes[:, 1] + sizes[:, 2], empty=1.0)
    per_label = [_indicator(rows, labels) for rows in (hits, references, predictions)]
    charged = charged_classes(
        np.asarray(np.vstack([part.sum(axis=0) for part in per_label])),  # sparse sums are np.matrix
        [dataset for dataset, _ in labels],
        [sample.reference.dataset for sample in samples],
        invalid,
    )
    return Table(
        invalid=invalid,
        score=score,
        columns={
            "hits": sizes[:, 0],
            "references": sizes[:, 1],
            "predictions": sizes[:, 2],
            "label_hits": per_label[0],
            "label_references": per_label[1],
            "label_predictions": per_label[2] + indicator(charged, len(labels)),
            "f1": score,
            "n": np.ones(len(samples)),
        },
        found=found_of(*sizes.T),
    )


def found_of(hits: Floats, references: Floats, predictions: Floats) -> NDArray[np.int64]:
    """`Table.found` of the three sizes."""
    return np.stack([hits, predictions - hits, references - hits], axis=1).astype(np.int64)


def _labels(value: object, otherwise: Iterable[str]) -> Iterable[str]:
    return [normal(str(label)) for label in (value if isinstance(value, tuple) else otherwise)]


def _indicator(rows: Sequence[set[Label]], codes: dict[Label, int]) -> csr_matrix:
    """Ones in the columns of the references' labels; a label that is never the truth has no column."""
    places = [sorted(codes[label] for label in labels if label in codes) for labels in rows]
    starts = np.cumsum([0, *map(len, places)])
    indices = [code for codes_of_row in places for code in codes_of_row]
    return csr_matrix((np.ones(len(indices)), indices, starts), shape=(len(rows), len(codes)))


@metric(Task.MULTI_LABEL, name="f1_micro", headline=True)
def f1_micro(sums: Sums) -> Floats:
    """F1 over all labels of all samples; 1 if there are no labels on either side."""
    return ratio(2 * sums["hits"], sums["references"] + sums["predictions"], empty=1.0)


@metric(Task.MULTI_LABEL, name="f1_macro", undefined="no reference has a label")
def f1_macro(sums: Sums) -> Floats:
    """Mean F1 over the references' labels; a label that is never the truth is a false positive, not a class, and an
    unreadable answer a false positive of one of them."""
    f1 = ratio(2 * sums["label_hits"], sums["label_references"] + sums["label_predictions"])
    return mean_of_classes(np.where(sums["label_references"] > 0, f1, np.nan))


@metric(Task.MULTI_LABEL, name="f1_samples")
def f1_samples(sums: Sums) -> Floats:
    """Mean F1 over samples; a sample without labels on both sides is 1."""
    return ratio(sums["f1"], sums["n"])
