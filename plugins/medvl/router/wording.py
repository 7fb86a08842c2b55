"""An opinion on a question by its words alone: n-grams and the rules it matches, under a linear classifier and another
with a hidden layer, whose shares are averaged.

It knows no order beyond five words and no meaning, so it errs elsewhere than GLiClass. Most of its training is the
hidden layer's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save
from scipy.special import softmax

from medvl.router.augmentation import topic_lists
from medvl.router.hidden import NEVER, HiddenLayer, fit_hidden
from medvl.router.request import asked, brief
from medvl.router.rules import all_rules
from medvl.router.scope import asks_for_knowledge, asks_for_writing, is_medical_image
from medvl.sharegpt import write_atomic

FILE = "words.safetensors"
BUCKETS = 2**16  # of hashed features, per kind
_FOLDED = 2**14  # the same before the hidden layer
_KINDS = 5
_RULES_WEIGH = 0.3  # beside the other kinds, which weigh 1 each
_COMMON = 6.9  # rarity of the words that show the shape of a question, about 400
_STRENGTH = 10.0  # inverse of the regularisation
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
    return _runs(_WORD.findall(text), (1, 2, 3))


def _runs(found: Sequence[str], sizes: Sequence[int]) -> list[str]:
    edged = ["^", *found, "$"]
    return [" ".join(edged[at : at + size]) for size in sizes for at in range(len(edged) - size + 1)]


def topics(text: str) -> list[str]:
    """Runs of one to four words, where words that topics.yaml swaps for each other are one.

    >>> topics("the tumour")[4:7]
    ['^ the', 'the <singular>', '<singular> $']
    """
    lists = topic_lists()
    return _runs([_topic(word, lists) for word in _WORD.findall(text)], (1, 2, 3, 4))


def _topic(word: str, lists: Mapping[str, str]) -> str:
    refused, kept = ("no_", word[3:]) if word.startswith("no_") else ("", word)
    return f"{refused}<{lists[kept]}>" if kept in lists else word


def shapes(text: str, is_common: Callable[[str], bool]) -> list[str]:
    """Runs of two to five words, where rare words beside each other are one star.

    >>> shapes("where is the small tumour", {"where", "is", "the"}.__contains__)[:5]
    ['^ where', 'where is', 'is the', 'the *', '* $']
    """
    found: list[str] = []
    for word in _WORD.findall(text):
        kept = word if is_common(word) else "*"
        if kept != "*" or found[-1:] != ["*"]:
            found.append(kept)
    return _runs(found, (2, 3, 4, 5))


def letters(text: str) -> list[str]:
    """Runs of three to five letters within the words of a marked text."""
    return [run for word in text.split() for run in _letters(word)]


def _letters(word: str) -> list[str]:
    edged = f" {word} "
    return [edged[at : at + size] for size in (3, 4, 5) for at in range(max(1, len(edged) - size + 1))]


def evidence(text: str) -> list[str]:
    """The names of all rules that a normalised question matches, and of the one that would decide."""
    shown, decides = all_rules(text)
    tests = (is_medical_image, asks_for_writing, asks_for_knowledge)
    said = (test.__name__ for test in tests if test(asked(text)))
    return [*shown, f"decides: {decides.task if decides else None}", *said]


def _bucket(token: str) -> int:
    return crc32(token.encode("utf-8", "surrogatepass")) % BUCKETS


def _buckets(tokens: Iterable[str]) -> Indices:
    """The buckets that tokens fall into, each once."""
    return _array(set(map(_bucket, tokens)))


def _array(buckets: set[int]) -> Indices:
    return np.fromiter(buckets, np.intp, len(buckets))


@lru_cache(maxsize=2**14)  # most words come again and again
def _letter_buckets(word: str) -> frozenset[int]:
    return frozenset(map(_bucket, _letters(word)))


def _hashed(text: str, rarity_of_words: Floats) -> list[Indices]:
    """The buckets of words, letters, topics, shapes and rules."""
    read = marked(text)
    shaped = shapes(read, lambda word: bool(rarity_of_words[_bucket(word)] <= _COMMON))
    spelt = _array(set().union(*map(_letter_buckets, read.split())))
    return [_buckets(words(read)), spelt, *map(_buckets, (topics(read), shaped, evidence(text)))]


def _features(hashed: Sequence[Indices], rarity: Floats) -> tuple[Indices, Floats]:
    """Columns and values: words, letters, topics and shapes by rarity, each kind of length 1, and rules."""
    columns = [buckets + kind * BUCKETS for kind, buckets in enumerate(hashed)]
    parts = [rarity[own] for own in columns[:-1]]
    parts = [part / max(math.sqrt(float(part @ part)), 1e-12) for part in parts]
    return np.concatenate(columns), np.concatenate([*parts, np.full(len(columns[-1]), _RULES_WEIGH, np.float32)])


def _folded(columns: Indices) -> Indices:
    """The columns of the hidden layer."""
    return columns // BUCKETS * _FOLDED + columns % _FOLDED


@dataclass(frozen=True)
class WordingClassifier:
    """Scores questions against the labels.

    Attributes:
        weights: (5 x BUCKETS, labels): of words, letters, topics, shapes, rules.
        bias: (labels,).
        rarity: (4 x BUCKETS,), what a feature but a rule counts: the more, the rarer it is in training.
        hidden: Reads the same features, more of them in one column.
    """

    weights: Floats
    bias: Floats
    rarity: Floats
    hidden: HiddenLayer

    def score(self, texts: Sequence[str]) -> Floats:
        """Log odds (questions, labels) of normalised questions."""
        logits = np.zeros((2, len(texts), len(self.bias)))
        for row, text in enumerate(texts):
            columns, values = _features(_hashed(text, self.rarity), self.rarity)
            logits[0, row] = values @ self.weights[columns] + self.bias
            logits[1, row] = self.hidden.score(_folded(columns), values)
        shares = np.clip(softmax(logits, axis=-1).mean(0), _LEAST, 1 - _LEAST)
        scored: Floats = np.log(shares / (1 - shares)).astype(np.float32)
        return scored

    def save(self, folder: Path) -> None:
        """Write it; half precision, which changes scores by less than a hundredth."""
        parts = {"weights": self.weights.T.astype(np.float16), "bias": self.bias, "rarity": self.rarity}
        parts |= self.hidden.parts()
        write_atomic(folder / FILE, save({name: np.ascontiguousarray(part) for name, part in parts.items()}))

    @classmethod
    def load(cls, folder: Path) -> WordingClassifier:
        """Read what `save` wrote."""
        parts = load_file(folder / FILE)
        weights = np.ascontiguousarray(parts["weights"].T, np.float32)
        return cls(weights, parts["bias"], parts["rarity"], HiddenLayer.of(parts))


def fit_wording(
    texts: Sequence[str], tasks: Sequence[str], labels: Sequence[str], *, seed: int = 0
) -> WordingClassifier:
    """Train one on normalised questions; a label that no question has scores low for all.

    Args:
        texts: At least one.
        tasks: The label of each.
        labels: In the order of the scores.
        seed: Of the hidden layer.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    rarity_of_words = _rarity([_buckets(words(marked(text))) for text in texts])
    hashed = [_hashed(text, rarity_of_words) for text in texts]
    rarity = np.concatenate([_rarity([it[kind] for it in hashed]) for kind in range(_KINDS - 1)])
    rows = [_features(it, rarity) for it in hashed]
    ends = np.cumsum([0, *(len(columns) for columns, _ in rows)])
    columns, values = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    features = csr_matrix((values, columns, ends), shape=(len(texts), _KINDS * BUCKETS), dtype=np.float32)
    weights = np.zeros((_KINDS * BUCKETS, len(labels)), np.float32)
    bias = np.full(len(labels), NEVER, np.float32)
    present = [label for label in labels if label in set(tasks)]
    if len(present) > 1:
        fitted = LogisticRegression(C=_STRENGTH, max_iter=100, class_weight="balanced")
        again = np.flatnonzero(np.bincount(columns) > 1)  # what shows once teaches nothing and takes half of the time
        fitted.fit(features[:, again], [present.index(task) for task in tasks])
        places = [list(labels).index(label) for label in present]
        # Of two classes scikit-learn keeps one row, the second's.
        both = len(present) == 2
        weights[again[:, None], places] = (np.vstack([-fitted.coef_, fitted.coef_]) / 2 if both else fitted.coef_).T
        bias[places] = np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2 if both else fitted.intercept_
    folded = [(_folded(own), counts) for own, counts in rows]
    hidden = fit_hidden(folded, [list(labels).index(task) for task in tasks], _KINDS * _FOLDED, len(labels), seed=seed)
    return WordingClassifier(weights, bias, rarity, hidden)


def _rarity(hashed: Sequence[Indices]) -> Floats:
    seen = np.bincount(np.concatenate(hashed), minlength=BUCKETS)
    rarity: Floats = (np.log((1 + len(hashed)) / (1 + seen)) + 1).astype(np.float32)
    return rarity
