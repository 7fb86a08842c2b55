"""Report generation: ROUGE-L and BLEU-4. Overlap of words, not clinical truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from evaluation.metrics.registry import Table, metric, table
from evaluation.samples import Sample
from medvl.tasks import Task


@dataclass(frozen=True)
class Reports(Table):
    """Texts; `score` is each sample's ROUGE-L.

    Attributes:
        truth: The references' texts.
        predicted: The models' texts, empty for an invalid answer.
    """

    truth: NDArray[np.object_]
    predicted: NDArray[np.object_]


@table(Task.REPORT)
def reports(samples: Sequence[Sample]) -> Reports:
    """Texts of truths and predictions.

    rouge-score reads the letters a-z and digits only, so a report in another script scores 0 unless it is the
    reference's own text.
    """
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    truth = [sample.reference.answer for sample in samples]
    # The reference's own text also where only case and spaces differ, which BLEU and ROUGE would not all forgive.
    predicted = [
        sample.reference.answer if sample.exact else sample.text if sample.text and not sample.invalid else ""
        for sample in samples
    ]
    score = [
        1.0 if sample.exact else scorer.score(target, text)["rougeL"].fmeasure
        for sample, target, text in zip(samples, truth, predicted, strict=True)
    ]
    invalid = np.array([sample.invalid for sample in samples], dtype=bool)
    return Reports(invalid, np.array(score), np.array(truth, dtype=object), np.array(predicted, dtype=object))


@metric(Task.REPORT, name="rouge_l", headline=True)
def rouge_l(table: Reports) -> float:
    """Mean F-measure of the longest common subsequence of words (rouge-score, lower case, no stemming)."""
    return float(table.score.mean())


@metric(Task.REPORT, name="bleu4")
def bleu4(table: Reports) -> float:
    """Corpus BLEU-4, 0 to 1 (sacrebleu: 13a tokens, lower case, exponential smoothing).

    Over the corpus, not the mean of sentences: FLARE's answers are often shorter than four words, where a sentence's
    BLEU says more about its smoothing. The effective order keeps a corpus of such answers from scoring 0.
    """
    scorer = BLEU(lowercase=True, effective_order=True)
    return float(scorer.corpus_score(list(table.predicted), [list(table.truth)]).score) / 100.0
