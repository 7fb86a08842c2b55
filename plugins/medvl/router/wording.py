"""A second opinion on a question, by its words alone: n-grams and the rules it matches, under one linear classifier.

It knows no order beyond three words and no meaning, so it errs elsewhere than GLiClass, and its training takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
Indices = NDArray[np.intp]


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


def _buckets(tokens: Sequence[str]) -> Indices:
    """The buckets that tokens fall into, each once."""
    from sklearn.utils import murmurhash3_32

    return np.unique(np.array([abs(murmurhash3_32(token, 0)) % BUCKETS for token in tokens], np.intp))


def _hashed(text: str) -> tuple[Indices, Indices, Indices]:
    """The buckets of words, letters and rules."""
    read = marked(text)
    return _buckets(words(read)), _buckets(letters(read)), _buckets(evidence(text))


def _features(hashed: tuple[Indices, Indices, Indices], rarity: Floats) -> tuple[Indices, Floats]:
    """Columns and values: words and letters by rarity, either of length 1, and rules."""
    of_words, of_letters, of_rules = hashed
    columns = np.concatenate([of_words, of_letters + BUCKETS, of_rules + 2 * BUCKETS])
    parts = [rarity[of_words], rarity[of_letters + BUCKETS]]
    parts = [part / max(float(np.linalg.norm(part)), 1e-12) for part in parts]
    return columns, np.concatenate([*parts, np.full(len(of_rules), _RULES_WEIGH, np.float32)])


@dataclass(frozen=True)
class WordingClassifier:
    """Scores questions against the labels.

    Attributes:
        weights: (3 x BUCKETS, labels): of words, letters, rules.
        bias: (labels,).
        rarity: (2 x BUCKETS,), what a word or a run of letters counts: the more, the rarer it is in training.
    """

    weights: Floats
    bias: Floats
    rarity: Floats

    def score(self, texts: Sequence[str]) -> Floats:
        """Log odds (questions, labels) of normalised questions."""
        summed = np.zeros((len(texts), len(self.bias)))
        for row, text in enumerate(texts):
            columns, values = _features(_hashed(text), self.rarity)
            summed[row] = values @ self.weights[columns] + self.bias
        shares = np.exp(summed - summed.max(1, keepdims=True))
        shares = np.clip(shares / shares.sum(1, keepdims=True), _LEAST, 1 - _LEAST)
        scored: Floats = np.log(shares / (1 - shares)).astype(np.float32)
        return scored

    def save(self, folder: Path) -> None:
        """Write it; half precision, which changes scores by less than a hundredth."""
        parts = {"weights": self.weights.T.astype(np.float16), "bias": self.bias, "rarity": self.rarity}
        write_atomic(folder / FILE, save({name: np.ascontiguousarray(part) for name, part in parts.items()}))

    @classmethod
    def load(cls, folder: Path) -> WordingClassifier:
        """Read what `save` wrote."""
        parts = load_file(folder / FILE)
        return cls(np.ascontiguousarray(parts["weights"].T, np.float32), parts["bias"], parts["rarity"])


def fit_wording(texts: Sequence[str], tasks: Sequence[str], labels: Sequence[str]) -> WordingClassifier:
    """Train one on normalised questions; a label that no question has scores low for all.

    Args:
        texts: At least one.
        tasks: The label of each.
        labels: In the order of the scores.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    hashed = [_hashed(text) for text in texts]
    rarity = np.concatenate([_rarity([it[kind] for it in hashed]) for kind in (0, 1)])
    rows = [_features(it, rarity) for it in hashed]
    ends = np.cumsum([0, *(len(columns) for columns, _ in rows)])
    columns, values = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    features = csr_matrix((values, columns, ends), shape=(len(texts), 3 * BUCKETS), dtype=np.float32)
    weights = np.zeros((3 * BUCKETS, len(labels)), np.float32)
    bias = np.full(len(labels), _NEVER, np.float32)
    present = [label for label in labels if label in set(tasks)]
    if len(present) > 1:
        fitted = LogisticRegression(C=_STRENGTH, max_iter=100, class_weight="balanced")
        fitted.fit(features, [present.index(task) for task in tasks])
        places = [list(labels).index(label) for label in present]
        # Of two classes scikit-learn keeps one row, the second's.
        both = len(present) == 2
        weights[:, places] = (np.vstack([-fitted.coef_, fitted.coef_]) / 2 if both else fitted.coef_).T
        bias[places] = np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2 if both else fitted.intercept_
    return WordingClassifier(weights, bias, rarity)


def _rarity(hashed: Sequence[Indices]) -> Floats:
    seen = np.bincount(np.concatenate(hashed), minlength=BUCKETS)
    rarity: Floats = (np.log((1 + len(hashed)) / (1 + seen)) + 1).astype(np.float32)
    return rarity
