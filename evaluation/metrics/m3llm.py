"""The rules `m3llm`: PMC-MI-Bench as M3LLM's second release scores it, so that numbers compare with published ones.

Source: `Evaluation/PMC-MI-Bench` of KerwinFuyihang/M3LLM-v2. Sentences are compared as the model wrote them: BLEU-1 to
4 of a sentence without smoothing, ROUGE-1, 2 and L of the package `rouge`, each the mean over samples. A choice is
right if the answer is the bare letter, in either case; everything else is wrong.

- deviation: which letters there are is read from the whole question. Their reader looks for them at the start of a
  line, where the published questions have no A; it counts one option less, and no answer D is ever right.
- deviation: of a longer text the first 2,048 words are compared. Theirs end with 2,048 tokens; `rouge` compares every
  word with every other, and fails on sentences of a thousand.
- deviation: recall, precision and F1 of the letters are theirs to report, not to compute; here what is no letter is
  wrong, as in the accuracy. `evaluation.metrics.m3llm_v1` has those of the first release.

BERTScore and STS need models: `--report-metrics bertscore_mnli sts` and the extra `m3llm`.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from sacrebleu.metrics import BLEU

from evaluation.metrics.registry import Column, Floats, Sums, Table, indicator, mean_of_classes, metric, ratio, table
from evaluation.metrics.report import columns_by_models
from evaluation.samples import Sample
from evaluation.sentence_models import MODELS
from medvl.choices import options
from medvl.tasks import Task

RULES = "m3llm"
_ORDERS = (1, 2, 3, 4)
LETTERS = "ABCDEF"
_MOST_WORDS = 2048
_FIRST_WORDS = re.compile(rf"(?:\s*\S+){{0,{_MOST_WORDS}}}")


def said(sample: Sample) -> str:
    """The model's text as it stands; empty if there is none."""
    return sample.text or ""


@lru_cache
def _bleu(order: int) -> BLEU:
    return BLEU(tokenize="none", smooth_method="none", max_ngram_order=order)


def _start(text: str) -> str:
    match = _FIRST_WORDS.match(text)
    return match[0] if match else ""


@contextmanager
def _deep() -> Iterator[None]:
    """Room for a recursion per word of both texts."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 4 * _MOST_WORDS))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def bleu(text: str, truth: str, order: int) -> float:
    """BLEU of one sentence with n-grams up to an order, 0 to 1; 0 where one order has no match, as without smoothing.

    >>> round(bleu("a cell is red.", "a cell was red.", 1), 2)
    0.8
    """
    sides = (" ".join(_start(side).lower().replace(".", " .").split()) for side in (text, truth))
    said_tokens, truth_tokens = sides
    if not said_tokens:
        return 0.0
    return float(_bleu(order).corpus_score([said_tokens], [[truth_tokens]]).score) / 100.0


def rouge(text: str, truth: str) -> tuple[float, float, float]:
    """F of ROUGE-1, ROUGE-2 and ROUGE-L by `rouge`: sets of n-grams, sentences at full stops, lower case."""
    from rouge import Rouge  # only these rules need it

    text, truth = _start(text), _start(truth)
    if not text.strip(" .\n\t") or not truth.strip(" .\n\t"):  # it fails on a text without words
        return 0.0, 0.0, 0.0
    with _deep():
        scores = Rouge().get_scores(text.lower(), truth.lower())[0]
    return scores["rouge-1"]["f"], scores["rouge-2"]["f"], scores["rouge-l"]["f"]


def sentences(samples: Sequence[Sample]) -> Table:
    """Columns: `bleu1` to `bleu4`, `rouge_1`, `rouge_2`, `rouge_l`, `n`, and what models said."""
    scores = np.array(
        [
            [
                *(bleu(said(sample), sample.reference.answer, order) for order in _ORDERS),
                *rouge(said(sample), sample.reference.answer),
            ]
            for sample in samples
        ]
    ).reshape(-1, 7)
    names = [*(f"bleu{order}" for order in _ORDERS), "rouge_1", "rouge_2", "rouge_l"]
    return Table(
        invalid=np.array([sample.invalid for sample in samples], dtype=bool),
        score=scores[:, 6],
        columns={name: scores[:, place] for place, name in enumerate(names)}
        | {"n": np.ones(len(samples))}
        | columns_by_models(samples, MODELS),
    )


table(Task.REPORT, rules=RULES)(sentences)


def declare_means(rules: str) -> None:
    """Declare the mean of every column of `sentences` under a set of rules."""
    for name in (*(f"bleu{order}" for order in _ORDERS), "rouge_1", "rouge_2", "rouge_l"):

        @metric(Task.REPORT, name=name, headline=name in ("bleu4", "rouge_l"), rules=rules)
        def mean(sums: Sums, *, column: str = name) -> Floats:
            return ratio(sums[column], sums["n"])

    for name in MODELS:

        @metric(Task.REPORT, name=name, rules=rules, undefined=f"not computed; --report-metrics {name} does")
        def mean_of_model(sums: Sums, *, column: str = name) -> Floats:
            return ratio(sums[column], sums[f"{column}_n"])


declare_means(RULES)


def letter(text: str, question: str) -> str | None:
    """The letter that a text is and nothing else, in either case; None if it is none that the question offers.

    >>> letter(" b ", "Which? A. x B. y"), letter("B.", "Which? A. x B. y"), letter("C", "Which? A. x B. y")
    ('B', None, None)
    """
    bare = text.strip().upper()
    return bare if bare in (options(question) or LETTERS) and len(bare) == 1 else None


@table(Task.CLASSIFICATION, rules=RULES)
def choices(samples: Sequence[Sample]) -> Table:
    """Columns: `right`, `n`, and per letter `references`, `predictions` and `hits`."""
    picked = [letter(said(sample), sample.reference.question) for sample in samples]
    truth = [sample.reference.answer.strip().upper() for sample in samples]
    right = np.array([one is not None and one == other for one, other in zip(picked, truth, strict=True)], dtype=float)
    columns = {"right": right, "n": np.ones(len(samples))} | letter_columns(picked, truth)
    return Table(np.array([one is None for one in picked], dtype=bool), right, columns)


def letter_columns(picked: Sequence[str | None], truth: Sequence[str]) -> dict[str, Column]:
    """Per letter, how often it is the truth, is answered, and is both; None is no answer at all."""
    codes = [np.array([LETTERS.find(one) if one else -1 for one in side], dtype=np.int64) for side in (truth, picked)]
    hits = np.where(codes[0] == codes[1], codes[0], -1)
    names = ("references", "predictions", "hits")
    return {name: indicator(code, len(LETTERS)) for name, code in zip(names, (*codes, hits), strict=True)}


@metric(Task.CLASSIFICATION, name="accuracy", headline=True, rules=RULES)
def accuracy(sums: Sums) -> Floats:
    """Share of answers that are the right letter and nothing else."""
    return ratio(sums["right"], sums["n"])


def macro(sums: Sums, part: Floats, whole: Floats) -> Floats:
    """Mean over the letters that occur, as an answer or the truth, of a quotient that is 0 where it has no value."""
    occurs = sums["references"] + sums["predictions"] > 0
    return mean_of_classes(np.where(occurs, ratio(part, whole, empty=0.0), np.nan))


@metric(Task.CLASSIFICATION, name="precision_macro", rules=RULES)
def precision_macro(sums: Sums) -> Floats:
    """Mean over letters of the share of its answers that are right."""
    return macro(sums, sums["hits"], sums["predictions"])


@metric(Task.CLASSIFICATION, name="recall_macro", rules=RULES)
def recall_macro(sums: Sums) -> Floats:
    """Mean over letters of the share of its questions that are answered so."""
    return macro(sums, sums["hits"], sums["references"])


@metric(Task.CLASSIFICATION, name="f1_macro", rules=RULES)
def f1_macro(sums: Sums) -> Floats:
    """Mean over letters of F1."""
    return macro(sums, 2 * sums["hits"], sums["references"] + sums["predictions"])
