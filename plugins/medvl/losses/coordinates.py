"""Where in a batch of labels coordinates and decisions stand, as index tensors. No gradients here.

Everything is told from the label ids alone: each answer's bytes are read by `medvl.losses.structure`, offsets become
token positions, and for each decision the two texts (the answer, and the answer gone the other way) are tokenised: the
first token in which they differ is the decision. So no token id is written down anywhere, and a tokenizer that merges
`"},` or `]]` or a label's last character into one token needs nothing special.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medvl.boxes import Frame
from medvl.losses.structure import CONTEXT, Decision, Structure, read_structure

IGNORED = -100  # the label of tokens that are not trained
PLACE_BASE = 1.2  # weight of a digit against the one right of it in L_w1 (NTIL, arXiv 2505.13077)
REMEMBERED_ANSWERS = 8192
REMEMBERED_FORKS = 65536

_PROBE = 'Ergebnis: [{"bbox_2d":[12,345],"label":"läs 船"}]</box>\n'
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """Positions in one answer, counted from its first token; arrays over n boxes, 4 numbers, k digits, m decisions.

    Attributes:
        positions: (n, 4, k) of the digit tokens, -1 behind a number's last digit.
        digits: (n, 4, k) the digits that stand there.
        places: (n, 4, k) signed place values (-10 for the tens of a negative number), 0 behind the last digit.
        decisions: (m,) positions of the tokens that decide.
        others: (m, c) the ids that would have gone the other way, -1 where there are fewer.
        more: (m,) whether the other way holds more objects.
        skipped: Boxes left out because a digit is not a token of its own.
    """

    positions: Integers
    digits: Integers
    places: Floats
    decisions: Integers
    others: Integers
    more: NDArray[np.bool_]
    skipped: int


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
    _answers: OrderedDict[bytes, Answer] = field(default_factory=OrderedDict, repr=False)
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

    def answer(self, ids: Integers) -> Answer:
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


def _locate(ids: list[int], vocabulary: Vocabulary) -> Answer:
    """Positions in an answer that was not seen before."""
    pieces = [vocabulary.bytes_of(token) for token in ids]
    starts = np.cumsum([0, *map(len, pieces)])
    data = b"".join(pieces)
    structure = read_structure(data.decode("latin-1"), vocabulary.stop)
    token_at = np.repeat(np.arange(len(ids)), np.diff(starts))
    boxes = [_digits(box, data, ids, token_at, vocabulary) for box in structure.numbers]
    kept = [box for box in boxes if box is not None]
    width = max((len(number) for box in kept for number in box), default=0)
    table = np.array([[number + [(-1, 0, 0.0)] * (width - len(number)) for number in box] for box in kept])
    table = table.reshape(len(kept), 4, width, 3)
    decisions = _decide(structure, data, ids, starts, vocabulary)
    others = [sorted(other) for other in decisions.values()]
    choices = max(map(len, others), default=0)
    return Answer(
        positions=table[..., 0].astype(np.int64),
        digits=table[..., 1].astype(np.int64),
        places=table[..., 2],
        decisions=np.array([position for position, _ in decisions], dtype=np.int64),
        others=np.array([o + [-1] * (choices - len(o)) for o in others], dtype=np.int64).reshape(len(others), choices),
        more=np.array([more for _, more in decisions], dtype=bool),
        skipped=len(boxes) - len(kept),
    )


def _digits(
    box: tuple[tuple[int, int], ...], data: bytes, ids: list[int], token_at: Integers, vocabulary: Vocabulary
) -> list[list[tuple[int, int, float]]] | None:
    """(position, digit, place value) of each digit of each number; None if one is not a token of its own."""
    numbers = []
    for start, end in box:
        text = data[start:end].decode()
        whole = text.lstrip("+-").split(".")[0]
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
        before = data[anchor : decision.at]
        fork = vocabulary.fork(before + data[decision.at :][:CONTEXT], before + decision.other.encode("latin-1"))
        if fork is None:
            continue
        shared, other = fork
        position = first + len(shared) - 1
        if ids[first : position + 1] == shared:
            return position, other
    return None


@dataclass(frozen=True)
class Targets:
    """What one batch asks of the model, as index tensors into a matrix of r rows and c columns of logits.

    `share` tensors hold the weight of each entry: the mean within each row of the batch, then the mean over all rows,
    those without boxes included. So a batch of four rows and four batches of one add up to the same gradient.

    Attributes:
        rows: (r,) flat positions in (batch * length) whose output predicts a wanted token; already shifted by one,
            unique, rising.
        columns: (c,) vocabulary ids whose logits are wanted: the ten digits, then the candidates of the decisions.
        digit_rows: (n, 4, k) row of each digit of each number; numbers with fewer digits are padded.
        digits: (n, 4, k) the true digits.
        places: (n, 4, k) signed place values over the frame's unit; 0 in the padding.
        digit_shares: (n, 4, k) weights in L_w1; 0 in the padding.
        box_shares: (n,) weights in L_iou.
        decision_rows: (m,) row of each decision.
        choices: (m, d) columns to choose from, the true one first, -1 where there are fewer.
        fp_shares, fn_shares: (m,) weights in L_fp and L_fn.
        boxes, skipped: Boxes used, and boxes left out because a digit is not a token of its own.
    """

    rows: Tensor
    columns: Tensor
    digit_rows: Tensor
    digits: Tensor
    places: Tensor
    digit_shares: Tensor
    box_shares: Tensor
    decision_rows: Tensor
    choices: Tensor
    fp_shares: Tensor
    fn_shares: Tensor
    boxes: int
    skipped: int

    @property
    def empty(self) -> bool:
        """Whether the batch asks for nothing, so that there is nothing to compute."""
        return len(self.rows) == 0

    def to(self, device: Any) -> Targets:
        """The same on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in values.items() if isinstance(v, Tensor)})


def find_targets(labels: Tensor, vocabulary: Vocabulary, frame: Frame = "norm1000") -> Targets:
    """Targets of labels of shape (batch, length), on the CPU.

    Give labels that are on the CPU (in the collator, or before the forward pass is queued): a copy from a GPU waits
    for everything queued there. A row may hold several answers. In frame `pixel`, where the labels do not tell the
    picture's size, the unit is 1000 pixels, or the largest coordinate of the answer if that is larger.
    """
    table = labels.detach().cpu().numpy()
    length = table.shape[1]
    # The first token of a row has no output before it that could predict it, so an answer must not start there.
    answers = [
        (row, max(start, 1), vocabulary.answer(table[row, max(start, 1) : end]))
        for row in range(len(table))
        for start, end in _answers(table[row])
    ]
    n = sum(len(answer.positions) for *_, answer in answers)
    width = max((answer.positions.shape[2] for *_, answer in answers), default=0)
    choices = max((answer.others.shape[1] for *_, answer in answers), default=0)
    positions, digits, places = (
        -np.ones((n, 4, width), np.int64),
        np.zeros((n, 4, width), np.int64),
        np.zeros((n, 4, width)),
    )
    box_row, box_index = np.zeros(n, np.int64), 0
    m = sum(len(answer.decisions) for *_, answer in answers)
    decision_position, decision_row = np.zeros(m, np.int64), np.zeros(m, np.int64)
    more, ids, decision_index = np.zeros(m, bool), -np.ones((m, choices + 1), np.int64), 0
    for row, start, answer in answers:
        base = row * length + start - 1  # the output one before predicts the token
        count, k = len(answer.positions), answer.positions.shape[2]
        if count:
            here = slice(box_index, box_index + count)
            real = answer.positions >= 0
            positions[here, :, :k] = np.where(real, answer.positions + base, -1)
            digits[here, :, :k] = answer.digits
            places[here, :, :k] = answer.places / _unit(answer, frame)
            box_row[here] = row
            box_index += count
        count = len(answer.decisions)
        if count:
            here = slice(decision_index, decision_index + count)
            decision_position[here] = answer.decisions + base
            decision_row[here] = row
            more[here] = answer.more
            ids[here, 0] = table[row, start + answer.decisions]
            ids[here, 1 : 1 + answer.others.shape[1]] = answer.others
            decision_index += count
    rows = np.unique(np.concatenate([positions[positions >= 0], decision_position]))
    candidates = np.setdiff1d(ids[ids >= 0], vocabulary.digits)
    columns = np.concatenate([np.array(vocabulary.digits), candidates])
    order = np.argsort(columns)
    column_of = order[np.searchsorted(columns, ids, sorter=order).clip(max=len(columns) - 1)]
    weights = np.where(
        positions >= 0, PLACE_BASE ** np.log10(np.abs(places), where=places != 0, out=np.zeros_like(places)), 0.0
    )
    weights /= weights.sum(-1, keepdims=True).clip(min=1e-12)
    box_shares = _shares(box_row, len(table))
    return Targets(
        rows=torch.from_numpy(rows),
        columns=torch.from_numpy(columns),
        digit_rows=torch.from_numpy(np.searchsorted(rows, positions.clip(min=rows[0] if len(rows) else 0))),
        digits=torch.from_numpy(digits),
        places=torch.from_numpy(places),
        digit_shares=torch.from_numpy(weights * box_shares[:, None, None] / 4),
        box_shares=torch.from_numpy(box_shares),
        decision_rows=torch.from_numpy(np.searchsorted(rows, decision_position)),
        choices=torch.from_numpy(np.where(ids >= 0, column_of, -1)),
        fp_shares=torch.from_numpy(np.where(more, _shares(np.where(more, decision_row, -1), len(table)), 0.0)),
        fn_shares=torch.from_numpy(np.where(more, 0.0, _shares(np.where(more, -1, decision_row), len(table)))),
        boxes=n,
        skipped=sum(answer.skipped for *_, answer in answers),
    )


def _answers(row: Integers) -> list[tuple[int, int]]:
    """(start, end) of each run of trained tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row != IGNORED, [False]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _unit(answer: Answer, frame: Frame) -> float:
    """What a coordinate is divided by to lie between 0 and 1."""
    if frame == "norm1":
        return 1.0
    if frame == "norm1000":
        return 1000.0
    return max(1000.0, float(np.abs((answer.places * answer.digits).sum(-1)).max()))


def _shares(rows: Integers, batch: int) -> Floats:
    """The weight of each entry in a mean within each row, then over all `batch` rows; entries of row -1 count not."""
    counts = np.bincount(rows + 1, minlength=batch + 1)
    return 1.0 / (counts[rows + 1] * max(batch, 1))
