"""The file of predictions: appended as they come, each on disk before the next is asked, and taken up again later.

A line per question, keyed by its id and a fingerprint of how it was asked. A run that was killed leaves at most one
torn line at the end, which the next run drops. When everything is there, the file is put in the questions' order.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
from filelock import FileLock, Timeout

from medvl.errors import DataError, UsageError
from medvl.sharegpt import write_atomic

_START = b'{"id":"'  # of every line


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One prediction; the keys that scoring reads are `id`, `prediction` and `frame`.

    Attributes:
        id: The question's.
        prediction: The model's text, untouched; empty if there is an error.
        task: Profile that the question was asked with: its routed task, or "general".
        confidence: The router's.
        source: The router's stage that decided.
        adapter: Adapter, or model at an endpoint, that answered; None for the base model.
        frame: Frame of the boxes in the text.
        finish: stop, or length if the answer was cut off at `max_new_tokens`; None if there is an error.
        fingerprint: Of how it was asked.
        error: Why there is no answer; such a question is asked again by the next run.
    """

    id: str
    prediction: str
    task: str
    confidence: float
    source: str
    adapter: str | None
    frame: str
    finish: str | None
    fingerprint: str
    error: str | None = None


class Predictions:
    """An open file of predictions; `opened` makes it."""

    def __init__(self, path: Path, rows: dict[str, Row], stream: BinaryIO) -> None:
        """Rows that are there already, by id, and the file at its end."""
        self.path, self.rows, self._stream = path, rows, stream

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows and wait until they are on the disk."""
        self._stream.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.rows.update((row.id, row) for row in rows)

    def reframe(self, names: Iterable[str], frame: str) -> None:
        """State another frame for the boxes of these rows: it says how answers are read, not how they were asked."""
        self.rows.update({name: msgspec.structs.replace(self.rows[name], frame=frame) for name in names})

    def finish(self, order: Sequence[str]) -> None:
        """One line per id, these in this order, others (of other shards, say) behind them as they stood."""
        ordered = [self.rows[name] for name in order if name in self.rows]
        known = set(order)
        ordered += [row for row in self.rows.values() if row.id not in known]
        content = b"".join(msgspec.json.encode(row) + b"\n" for row in ordered)
        if self.path.read_bytes() != content:
            write_atomic(self.path, content)


@contextmanager
def opened(path: Path) -> Iterator[Predictions]:
    """The file for appending, with what is in it already; no other run may write to it meanwhile.

    Raises:
        UsageError: another run is writing to it, or nobody may.
        DataError: it holds something else than predictions.
    """
    path = path.resolve()  # one file, one lock, whatever link it is reached by
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()  # before the lock: one that cannot be made looks like one that is held
    except OSError as error:
        raise UsageError(f"{path}: cannot be written to ({error.strerror}); choose another --out") from error
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(f"{path}: another run is writing there; wait for it, or choose another --out") from error
    try:
        rows = _read(path)
        with path.open("ab") as stream:
            yield Predictions(path, rows, stream)
    finally:
        lock.release()


def _read(path: Path) -> dict[str, Row]:
    """The rows by id, of several the last; a torn line at the end is cut off the file, if it is one of ours."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    torn = data[whole:]
    if torn[: len(_START)] != _START[: len(torn)]:  # a question file without a line break must not be emptied
        raise DataError(f"{path}: its last line is no prediction; choose another --out")
    rows: dict[str, Row] = {}
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            row = msgspec.json.decode(line, type=Row)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path}, line {number}: no prediction ({error}); choose another --out") from error
        rows.pop(row.id, None)
        rows[row.id] = row
    if torn:
        os.truncate(path, whole)
    return rows


def stale(rows: Mapping[str, Row], fingerprints: Mapping[str, str]) -> list[str]:
    """Ids whose prediction was made with another prompt, model or budget than now asked for."""
    return [
        name
        for name, row in rows.items()
        if row.error is None and fingerprints.get(name, "") not in ("", row.fingerprint)
    ]


def done(rows: Mapping[str, Row], fingerprints: Mapping[str, str]) -> set[str]:
    """Ids that need not be asked again."""
    return {
        name
        for name, row in rows.items()
        if row.error is None and fingerprints.get(name) == row.fingerprint
    }  # fmt: skip
