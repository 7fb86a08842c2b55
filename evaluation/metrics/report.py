"""Report generation: ROUGE-L and BLEU-4. Overlap of words, not clinical truth."""

from collections.abc import Iterable, Sequence

import numpy as np
from sacrebleu.metrics import BLEU

from evaluation.metrics.registry import Column, Floats, Sums, Table, metric, ratio, table
from evaluation.model_based_metrics import METRICS, reference_text, report_text
from evaluation.samples import Sample
from medvl.tasks import Task


@table(Task.REPORT)
def reports(samples: Sequence[Sample]) -> Table:
    """Columns: `rouge`, `n`, and what BLEU adds up: n-grams found (`correct`) and written (`total`), both lengths.

    rouge-score reads the letters a-z and digits only, so a report in another script scores 0 unless it is the
    reference's own text.
    """
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds to import, for a task that few files hold

    rouge, bleu = RougeScorer(["rougeL"], use_stemmer=False), BLEU(lowercase=True, effective_order=True)
    scores, parts = [], []
    for sample in samples:
        text, truth = report_text(sample), reference_text(sample)
        scores.append(1.0 if sample.exact else rouge.score(truth, text)["rougeL"].fmeasure)
        counted = bleu.sentence_score(text, [truth])
        parts.append([*counted.counts, *counted.totals, counted.sys_len, counted.ref_len])
    score, columns = np.array(scores), np.array(parts, dtype=np.float64).reshape(-1, 10)
    return Table(
        invalid=np.array([sample.invalid for sample in samples], dtype=bool),
        score=score,
        columns={
            "rouge": score,
            "n": np.ones(len(samples)),
            "correct": columns[:, :4],
            "total": columns[:, 4:8],
            "lengths": columns[:, 8:],
            **columns_by_models(samples),
        },
    )


def columns_by_models(samples: Sequence[Sample], names: Iterable[str] = METRICS) -> dict[str, Column]:
    """Sum and number of the models' scores per metric. What a judge said and nobody can parse is the judge's failure,
    so it is in neither; invalid answers are in both, with 0."""
    columns: dict[str, Column] = {}
    for name in names:
        scores = np.array([sample.model_scores.get(name, np.nan) for sample in samples])
        known = ~np.isnan(scores)
        columns |= {name: np.where(known, scores, 0.0), f"{name}_n": known.astype(np.float64)}
    return columns


@metric(Task.REPORT, name="rouge_l", headline=True)
def rouge_l(sums: Sums) -> Floats:
    """Mean F-measure of the longest common subsequence of words (rouge-score, lower case, no stemming)."""
    return ratio(sums["rouge"], sums["n"])


@metric(Task.REPORT, name="bleu4")
def bleu4(sums: Sums) -> Floats:
    """Corpus BLEU-4, 0 to 1 (sacrebleu: 13a tokens, lower case, exponential smoothing).

    Over the corpus, not the mean of sentences: FLARE's answers are often shorter than four words, where a sentence's
    BLEU says more about its smoothing. The effective order keeps a corpus of such answers from scoring 0.
    """
    whole = (np.rint(sums[name]).astype(int).tolist() for name in ("correct", "total", "lengths"))
    scores = [
        BLEU.compute_bleu(correct, total, *lengths, smooth_method="exp", effective_order=True).score
        for correct, total, lengths in zip(*whole, strict=True)
    ]
    return np.array(scores) / 100.0


def _by_models(name: str) -> None:
    """Declare the mean of a model's scores. GREEN is the 7B model's alone, never a score by rules."""

    @metric(Task.REPORT, name=name, detail=True, undefined=f"not computed; --report-metrics {name} does")
    def mean_of_model(sums: Sums) -> Floats:
        return ratio(sums[name], sums[f"{name}_n"])


for _name in METRICS:
    _by_models(_name)
