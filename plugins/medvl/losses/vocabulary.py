"""What the grounding loss knows of a tokenizer: which tokens of an answer are coordinates, and which decide.

The bytes of the answer's tokens are read by `medvl.losses.structure`; offsets become token positions. For each decision
two texts are tokenised, the answer and the answer gone the other way: the first token in which they differ decides. So
no token id is written down anywhere, and a tokenizer that merges `"},` or `]]` or a label's last character into one
token needs nothing special.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.losses.structure import CONTEXT, Decision, Structure, read_structure

REMEMBERED_ANSWERS = 2048  # some 40 kB each at 100 boxes
REMEMBERED_FORKS = 16384
MOST_DIGITS = 9  # before the point; a longer number is damage, no coordinate

_PROBE = 'Ergebnis: [{"bbox_2d":[12,345],"label":"läs 船"}]</box>\n'
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AnswerPositions:
    """Positions in one answer, counted from its first token; arrays over n boxes, 4 numbers, k digits, m decisions.

    Attributes:
        positions: (n, 4, k) of the digit tokens, -1 behind a number's last digit.
        digits: (n, 4, k) the digits that stand there.
        places: (n, 4, k) signed place values (-10 for the tens of a negative number), 0 behind the last digit.
        decisions: (m,) positions of the tokens that decide.
        others: (m, c) the ids that would have gone the other way, -1 where there are fewer.
        more: (m,) whether the other way holds more objects.
        skipped: Boxes left out because a digit is not a token of its own, or a number has too many; noise is none.
        cut: Whether it is a list of boxes that was cut off.
    """

    positions: Integers
    digits: Integers
    places: Floats
    decisions: Integers
    others: Integers
    more: NDArray[np.bool_]
    skipped: int
    cut: bool = False


NOTHING = AnswerPositions(
    positions=np.zeros((0, 4, 0), np.int64),
    digits=np.zeros((0, 4, 0), np.int64),
    places=np.zeros((0, 4, 0)),
    decisions=np.zeros(0, np.int64),
    others=np.zeros((0, 0), np.int64),
    more=np.zeros(0, bool),
    skipped=0,
)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What the loss must know of one tokenizer, and what it has learned of the answers seen so far.

    Attributes:
        digits: Ids of the tokens 0 to 9.
        stop: Text of the end token.
    """

    tokenizer: Any
    digits: tuple[int, ...]
    stop: str
    _bytes: dict[int, bytes] = field(default_factory=dict, repr=False)
    _answers: OrderedDict[bytes, AnswerPositions] = field(default_factory=OrderedDict, repr=False)
    _forks: OrderedDict[tuple[bytes, bytes], tuple[list[int], int] | None] = field(
        default_factory=OrderedDict, repr=False
    )

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """The vocabulary of a byte-level tokenizer of transformers.

        Raises:
            ValueError: the digits are no tokens, or the tokens are not bytes.
        """
        digits = [tokenizer.encode(str(digit), add_special_tokens=False) for digit in range(10)]
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if any(len(ids) != 1 for ids in digits):
            raise ValueError(f"{name}: the grounding loss needs a tokenizer that knows each digit as one token")
        vocabulary = cls(tokenizer, tuple(ids[0] for ids in digits), str(tokenizer.eos_token or ""))
        probe = tokenizer.encode(_PROBE, add_special_tokens=False)
        if b"".join(vocabulary.bytes_of(token) for token in probe) != _PROBE.encode():
            raise ValueError(f"{name}: the grounding loss needs a byte-level BPE tokenizer, as Qwen's and InternVL3's")
        return vocabulary

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; one byte outside of UTF-8 for an id that stands for nothing."""
        if token not in self._bytes:
            added = self.tokenizer.added_tokens_decoder.get(token)
            text = str(added) if added is not None else self.tokenizer.convert_ids_to_tokens(token)
            if text is None:
                value = b"\xff"
            elif added is not None or any(character not in _BYTE_OF for character in text):
                value = text.encode()
            else:
                value = bytes(_BYTE_OF[character] for character in text)
            self._bytes[token] = value
        return self._bytes[token]

    def answer(self, ids: Integers) -> AnswerPositions:
        """Positions in one answer, from memory where the same ids were seen before."""
        key = hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
        if key in self._answers:
            self._answers.move_to_end(key)
            return self._answers[key]
        answer = _locate(ids.tolist(), self)
        self._answers[key] = answer
        if len(self._answers) > REMEMBERED_ANSWERS:
            self._answers.popitem(last=False)
        return answer

    def fork(self, truth: bytes, other: bytes) -> tuple[list[int], int] | None:
        """Tokens of `truth` up to the first that `other` does not share, and the one `other` has there."""
        key = (truth, other)
        if key not in self._forks:
            ours, theirs = (self.tokenizer.encode(t.decode(errors="ignore"), add_special_tokens=False) for t in key)
            index = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
            self._forks[key] = None if index is None else (ours[: index + 1], theirs[index])
            if len(self._forks) > REMEMBERED_FORKS:
                self._forks.popitem(last=False)
        return self._forks[key]


def _byte_of() -> dict[str, int]:
    """The characters that byte-level BPE writes for bytes: printable ones for themselves, the others from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_of()


def _locate(ids: list[int], vocabulary: Vocabulary) -> AnswerPositions:
    """Positions in an answer that was not seen before."""
    pieces = [vocabulary.bytes_of(token) for token in ids]
    starts = np.cumsum([0, *map(len, pieces)])
    data = b"".join(pieces)
    structure = read_structure(data.decode("latin-1"), vocabulary.stop.encode().decode("latin-1"))
    token_at = np.repeat(np.arange(len(ids)), np.diff(starts))
    boxes = [
        _digits(box, data, ids, token_at, vocabulary)
        for index, box in enumerate(structure.numbers)
        if index not in structure.noise
    ]
    kept = [box for box in boxes if box is not None]
    width = max((len(number) for box in kept for number in box), default=0)
    table = np.array([[number + [(-1, 0, 0.0)] * (width - len(number)) for number in box] for box in kept])
    table = table.reshape(len(kept), 4, width, 3)
    decisions = _decide(structure, data, ids, starts, vocabulary)
    others = [sorted(other) for other in decisions.values()]
    choices = max(map(len, others), default=0)
    return AnswerPositions(
        positions=table[..., 0].astype(np.int64),
        digits=table[..., 1].astype(np.int64),
        places=table[..., 2],
        decisions=np.array([position for position, _ in decisions], dtype=np.int64),
        others=np.array([o + [-1] * (choices - len(o)) for o in others], dtype=np.int64).reshape(len(others), choices),
        more=np.array([more for _, more in decisions], dtype=bool),
        skipped=len(boxes) - len(kept),
        cut=structure.cut,
    )


def _digits(
    box: tuple[tuple[int, int], ...], data: bytes, ids: list[int], token_at: Integers, vocabulary: Vocabulary
) -> list[list[tuple[int, int, float]]] | None:
    """(position, digit, place value) of each digit of each number; None if one is no token, or there are too many."""
    numbers = []
    for start, end in box:
        text = data[start:end].decode()
        whole = text.lstrip("+-").split(".")[0]
        if len(whole) > MOST_DIGITS:
            return None
        sign, exponent, number = (-1 if text[0] == "-" else 1), len(whole), []
        for offset, character in enumerate(text):
            if character in "+-.":
                continue
            position = int(token_at[start + offset])
            if ids[position] != vocabulary.digits[int(character)]:
                return None
            exponent -= 1
            number.append((position, int(character), sign * 10.0**exponent))
        numbers.append(number)
    return numbers


def _decide(
    structure: Structure, data: bytes, ids: list[int], starts: Integers, vocabulary: Vocabulary
) -> dict[tuple[int, bool], set[int]]:
    """The other ways' token ids by (position of the deciding token, whether they hold more objects)."""
    found: dict[tuple[int, bool], set[int]] = {}
    for decision in structure.decisions:
        fork = _fork(decision, data, ids, starts, vocabulary)
        if fork is not None:
            position, other = fork
            found.setdefault((position, decision.more), set()).add(other)
    return found


def _fork(
    decision: Decision, data: bytes, ids: list[int], starts: Integers, vocabulary: Vocabulary
) -> tuple[int, int] | None:
    """Position of the deciding token and the id of the other way; None where the labels are tokenised otherwise.

    Tokens depend on what stands before them only within a word, so it is enough to look from the last number on. Where
    that shows not to be true of these labels, the answer is looked at from its start.
    """
    for anchor in dict.fromkeys((decision.anchor, 0)):
        first = int(np.searchsorted(starts, anchor))
        if starts[first] != anchor:
            continue
        before, ahead = data[anchor : decision.at], data[decision.at :][:CONTEXT]
        # Up to the first digit, so that the same few texts come back whatever the coordinates.
        ahead = ahead[: digit.end()] if (digit := re.search(rb"[0-9]", ahead)) else ahead
        fork = vocabulary.fork(before + ahead, before + decision.other.encode("latin-1"))
        if fork is None:
            continue
        shared, other = fork
        position = first + len(shared) - 1
        if ids[first : position + 1] == shared:
            return position, other
    return None
