"""Open questions: exact match and token F1 over all, closed accuracy, and recall, ROUGE-L and BLEU-4 over open ones.

A question is closed where its reference is yes or no, as LLaVA-Med and its successors count them on VQA-RAD, SLAKE and
PathVQA: there the yes or no that an answer says is right or wrong, and the words around it count for nothing.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from sacrebleu.metrics import BLEU

from evaluation.metrics import report
from evaluation.metrics.registry import Floats, Sums, Table, metric, ratio, table
from evaluation.model_based_metrics import reference_text, report_text
from evaluation.samples import Sample
from medvl.normalisation import UNSPACED, normalise
from medvl.tasks import Task
from medvl.tasks.vqa import yes_or_no

# A number with its decimals, a character of a script without spaces, or a word.
_TOKEN = re.compile(rf"[0-9]+(?:[.,][0-9]+)+|[{UNSPACED}]|[^\W_{UNSPACED}]+")
_ARTICLES = frozenset({"a", "an", "the"})
_NO_OPEN, _NO_CLOSED = "no open question", "no question whose reference is yes or no"


@lru_cache(maxsize=4096)
def tokens(text: str) -> tuple[str, ...]:
    """Words in one width and in lower case, without punctuation and articles (unless the text has nothing else).

    >>> tokens("The T2-weighted image.")
    ('t2', 'weighted', 'image')
    """
    words = tuple(_TOKEN.findall(normalise(text).casefold()))
    return tuple(word for word in words if word not in _ARTICLES) or words


class _Tokens:
    """Our tokens for rouge-score, whose own are the letters a-z and digits."""

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        return list(tokens(text))


@table(Task.VQA)
def open_answers(samples: Sequence[Sample]) -> Table:
    """Columns: `right`, `f1`, `n` over all samples; `closed`, `closed_right`; over open ones `open`, `recall`, `rouge`
    and what BLEU adds up, as in `evaluation.metrics.report`.

    An answer that is missing or cannot be read has no words: it is wrong in every one of them.
    """
    rows = np.array([_row(sample) for sample in samples], dtype=np.float64).reshape(-1, 5)
    closed, right, f1, recall, rouge = rows.T
    counted = np.array([_bleu(sample, is_closed) for sample, is_closed in zip(samples, closed, strict=True)])
    counted = counted.reshape(-1, 10)
    return Table(
        invalid=np.array([sample.invalid for sample in samples], dtype=bool),
        score=f1,
        columns={
            "right": right,
            "f1": f1,
            "n": np.ones(len(samples)),
            "closed": closed,
            "closed_right": closed * right,
            "open": 1.0 - closed,
            "recall": recall,
            "rouge": rouge,
            "correct": counted[:, :4],
            "total": counted[:, 4:8],
            "lengths": counted[:, 8:],
        },
    )


def _row(sample: Sample) -> tuple[float, float, float, float, float]:
    """Whether the question is closed, whether its answer is right, token F1, recall and ROUGE-L of an open one."""
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds to import, for a task that few files hold

    truth, text = tokens(reference_text(sample)), report_text(sample)
    if truth in (("yes",), ("no",)):
        right = float(sample.exact or (yes_or_no(text) if text else None) == truth[0])
        return 1.0, right, right, 0.0, 0.0
    if sample.exact:
        return 0.0, 1.0, 1.0, 1.0, 1.0
    scores = RougeScorer(["rouge1", "rougeL"], tokenizer=_Tokens()).score(reference_text(sample), text)
    same = bool(truth) and tokens(text) == truth
    return 0.0, float(same), scores["rouge1"].fmeasure, scores["rouge1"].recall, scores["rougeL"].fmeasure


def _bleu(sample: Sample, closed: float) -> list[int]:
    """n-grams found and written, and both lengths; nothing for a closed question."""
    if closed:
        return [0] * 10
    sides = (" ".join(tokens(text)) for text in (report_text(sample), reference_text(sample)))
    text, truth = sides
    counted = BLEU(tokenize="none", effective_order=True).sentence_score(text, [truth])
    return [*counted.counts, *counted.totals, counted.sys_len, counted.ref_len]


@metric(Task.VQA, name="exact_match", headline=True)
def exact_match(sums: Sums) -> Floats:
    """Share of answers that have the reference's tokens in its order; of closed questions, that say its yes or no."""
    return ratio(sums["right"], sums["n"])


@metric(Task.VQA, name="token_f1", headline=True)
def token_f1(sums: Sums) -> Floats:
    """Mean F1 of the tokens that an answer shares with its reference; 1 or 0 for a closed question."""
    return ratio(sums["f1"], sums["n"])


@metric(Task.VQA, name="closed_accuracy", undefined=_NO_CLOSED)
def closed_accuracy(sums: Sums) -> Floats:
    """Share of closed questions whose yes or no is right."""
    return ratio(sums["closed_right"], sums["closed"])


@metric(Task.VQA, name="open_recall", undefined=_NO_OPEN)
def open_recall(sums: Sums) -> Floats:
    """Mean share of an open reference's tokens that its answer holds. Long answers are not punished: see token_f1."""
    return ratio(sums["recall"], sums["open"])


@metric(Task.VQA, name="rouge_l", undefined=_NO_OPEN)
def rouge_l(sums: Sums) -> Floats:
    """Mean F-measure of the longest common subsequence of tokens, over open questions."""
    return ratio(sums["rouge"], sums["open"])


@metric(Task.VQA, name="bleu4", undefined=_NO_OPEN)
def bleu4(sums: Sums) -> Floats:
    """Corpus BLEU-4 of the tokens, 0 to 1, over open questions; references are short, so read it beside the others."""
    return np.where(sums["open"] > 0, report.bleu4(sums), np.nan)
