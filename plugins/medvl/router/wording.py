"""A second opinion on a question, by its words alone: n-grams and the rules it matches, under one linear classifier.

It knows no order beyond three words and no meaning, so it errs elsewhere than GLiClass, and its training takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from medvl.router.forms import FORMS
from medvl.router.request import asked, brief, requests
from medvl.router.rules import REQUESTS, match_rules
from medvl.router.scope import asks_for_knowledge, asks_for_writing, is_medical_image
from medvl.sharegpt import write_atomic

FILE = "wording.safetensors"
BUCKETS = 2**16  # of hashed features, per kind
_RULES_WEIGH = 0.3  # beside words and letters, which weigh 1 each
_STRENGTH = 10.0  # inverse of the regularisation
_NEVER = -20.0  # of a label that no question of training has
_LEAST = 1e-4  # share of a label, so that one classifier never overrules the other for good
_WORD = re.compile(r"\w+|[?:]")
# What is refused, up to the end of the clause: its words are other words than those asked for.
_REFUSED = re.compile(
    r"\b(?:not|no|without|never|don'?t|instead of|rather than|skip|neither|nor|ignore|forget|other than)\b[^.,;:!?()-]*"
)

Floats = NDArray[np.float32]


def marked(text: str) -> str:
    """What the n-grams are of: a question without the texts of its options, refused words marked.

    >>> marked("Is it cystic, not solid?")
    'is it cystic, no_not no_solid?'
    """
    return _REFUSED.sub(lambda clause: re.sub(r"\w+", r"no_\g<0>", clause[0]), brief(text).casefold())


def words(text: str) -> list[str]:
    """Runs of one to three words of a marked text."""
    found = ["^", *_WORD.findall(text), "$"]
    return [" ".join(found[at : at + size]) for size in (1, 2, 3) for at in range(len(found) - size + 1)]


def letters(text: str) -> list[str]:
    """Runs of three to five letters within the words of a marked text."""
    edged = [f" {word} " for word in text.split()]
    return [word[at : at + size] for word in edged for size in (3, 4, 5) for at in range(max(1, len(word) - size + 1))]


def evidence(text: str) -> list[str]:
    """The names of all rules that a normalised question matches, and of the one that would decide."""
    return list(_evidence(text))


def _evidence(text: str) -> Iterator[str]:
    read = asked(text)
    yield from (rule.name for rule in FORMS if rule.matches(read))
    singles = requests(read)
    yield from (rule.name for rule in REQUESTS if any(rule.matches(single) for single in singles))
    decides = match_rules(text)
    yield f"decides: {decides.task if decides else None}"
    yield from (test.__name__ for test in (is_medical_image, asks_for_writing, asks_for_knowledge) if test(read))


def _hashed(texts: Sequence[str]) -> tuple[Any, Any, Any]:
    """Counts of words, letters and rules, each (texts, BUCKETS), sparse."""
    from sklearn.feature_extraction.text import HashingVectorizer

    def counts(analyzer: Any, of: Sequence[str]) -> Any:
        hashing = HashingVectorizer(
            analyzer=analyzer, n_features=BUCKETS, norm=None, alternate_sign=False, binary=True, dtype=np.float32
        )
        return hashing.transform(of)

    read = [marked(text) for text in texts]
    return counts(words, read), counts(letters, read), counts(evidence, texts)


@dataclass(frozen=True)
class WordingClassifier:
    """Scores questions against the labels.

    Attributes:
        weights: (labels, 3 x BUCKETS): of words, letters, rules.
        bias: (labels,).
        rarity: (2 x BUCKETS,), what a word or a run of letters counts: the more, the rarer it is in training.
    """

    weights: Floats
    bias: Floats
    rarity: Floats

    def score(self, texts: Sequence[str]) -> Floats:
        """Log odds (questions, labels) of normalised questions."""
        from scipy.special import logit, softmax

        shares = softmax((_features(texts, self.rarity) @ self.weights.T + self.bias).astype(np.float64), axis=1)
        scored: Floats = logit(np.clip(shares, _LEAST, 1 - _LEAST)).astype(np.float32)
        return scored

    def save(self, folder: Path) -> None:
        """Write it; half precision, which changes scores by less than a hundredth."""
        parts = {"weights": self.weights.astype(np.float16), "bias": self.bias, "rarity": self.rarity}
        write_atomic(folder / FILE, save({name: np.ascontiguousarray(part) for name, part in parts.items()}))

    @classmethod
    def load(cls, folder: Path) -> WordingClassifier:
        """Read what `save` wrote."""
        parts = load_file(folder / FILE)
        return cls(parts["weights"].astype(np.float32), parts["bias"], parts["rarity"])


def _features(texts: Sequence[str], rarity: Floats) -> Any:
    from scipy.sparse import hstack
    from sklearn.preprocessing import normalize

    of_words, of_letters, of_rules = _hashed(texts)
    return hstack(
        [
            normalize(of_words.multiply(rarity[:BUCKETS]).tocsr()),
            normalize(of_letters.multiply(rarity[BUCKETS:]).tocsr()),
            of_rules * _RULES_WEIGH,
        ]
    ).tocsr()


def fit_wording(texts: Sequence[str], tasks: Sequence[str], labels: Sequence[str]) -> WordingClassifier:
    """Train one on normalised questions; a label that no question has scores low for all.

    Args:
        texts: At least one.
        tasks: The label of each.
        labels: In the order of the scores.
    """
    from sklearn.linear_model import LogisticRegression

    of_words, of_letters, _ = _hashed(texts)
    rarity = np.concatenate([_rarity(counts) for counts in (of_words, of_letters)])
    features = _features(texts, rarity)
    weights = np.zeros((len(labels), features.shape[1]), np.float32)
    bias = np.full(len(labels), _NEVER, np.float32)
    present = [label for label in labels if label in set(tasks)]
    if len(present) > 1:
        fitted = LogisticRegression(C=_STRENGTH, max_iter=100, class_weight="balanced")
        fitted.fit(features, [present.index(task) for task in tasks])
        places = [list(labels).index(label) for label in present]
        # Of two classes scikit-learn keeps one row, the second's.
        both = len(present) == 2
        weights[places] = np.vstack([-fitted.coef_, fitted.coef_]) / 2 if both else fitted.coef_
        bias[places] = np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2 if both else fitted.intercept_
    return WordingClassifier(weights, bias, rarity)


def _rarity(counts: Any) -> Floats:
    seen = np.asarray((counts > 0).sum(0)).ravel()
    rarity: Floats = (np.log((1 + counts.shape[0]) / (1 + seen)) + 1).astype(np.float32)
    return rarity
