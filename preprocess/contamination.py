"""Images that are on both sides of a split: the same file under any name, or the same image saved anew.

Near-duplicates are found by a 64-bit difference hash and confirmed on thumbnails, since hashes of unlike images with
large even areas can be close. On 364 blood smears the nearest unlike pair differs in 13 bits and correlates at 0.74.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from medvl.sharegpt import Record
from medvl.sources import held_out_splits
from preprocess.fingerprints import Fingerprint, distances, similarity
from preprocess.results import Action, DatasetResult, Finding, leave_out
from preprocess.splits import REST

MAX_DISTANCE = 8  # bits of 64
MIN_SIMILARITY = 0.95  # correlation of 16 x 16 thumbnails
PUBLISHED = held_out_splits()
_BLOCK = 512  # rows of the distance matrix at a time
_CANDIDATES = 16  # images per image that are compared by thumbnail; even areas make more of them


class Contamination(msgspec.Struct, frozen=True, kw_only=True):
    """An image of one split that is in another one too; `other` is the likest of those there.

    Attributes:
        kind: exact: the same bytes. near: the same image in other bytes.
        split: The split it trains in.
        image: File of the image.
        records: Ids of the records that show it.
        other_split: The split that must not have been seen.
        other_image: File of the image there.
        other_records: Ids of the records that show that one.
        distance: Differing bits of the difference hashes; 0 for exact.
    """

    kind: Literal["exact", "near"]
    split: str
    image: str = msgspec.field(name="picture")
    records: list[str]
    other_split: str
    other_image: str = msgspec.field(name="other_picture")
    other_records: list[str]
    distance: int


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """The options of this module."""
    group = arguments.add_argument_group("images on both sides of a split")
    group.add_argument(
        "--contamination",
        choices=("near", "exact", "off"),
        default="near",
        help="look for near-duplicates (default), for identical files only, or not at all",
    )
    group.add_argument(
        "--exclude-contaminated",
        action="store_true",
        help="drop training records whose image is in validation or test, or `train` records that are in a split "
        "made of them",
    )


def find_contamination(
    splits: Mapping[str, Sequence[Record]], prints: Mapping[str, Fingerprint], *, near: bool = True
) -> list[Contamination]:
    """Every image of a split that is also in a later one, with the likest image there.

    Args:
        splits: Split -> its records, those to train on first.
        prints: Fingerprint of every image.
        near: Whether to look for near-duplicates.
    """
    images = {split: _ids_by_image(records) for split, records in splits.items()}
    names = list(splits)
    return [
        pair
        for position, split in enumerate(names)
        for other in names[position + 1 :]
        for pair in _between(split, images[split], other, images[other], prints, near=near)
    ]


def _ids_by_image(records: Iterable[Record]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = defaultdict(list)
    for record in records:
        for image in dict.fromkeys(record.images):
            ids[image].append(record.id)
    return dict(sorted(ids.items()))


def _between(
    split: str,
    here: Mapping[str, list[str]],
    other: str,
    there: Mapping[str, list[str]],
    prints: Mapping[str, Fingerprint],
    *,
    near: bool,
) -> Iterator[Contamination]:
    by_content: dict[bytes, str] = {}
    for path in there:
        by_content.setdefault(prints[path].sha256, path)
    exact = {path: by_content[prints[path].sha256] for path in here if prints[path].sha256 in by_content}
    rest = [path for path in here if path not in exact]
    alike = _nearest(rest, list(by_content.values()), prints) if near else {}
    for path in here:
        match, distance = (exact[path], 0) if path in exact else alike.get(path, ("", 0))
        if match:
            yield Contamination(
                kind="exact" if path in exact else "near",
                split=split,
                image=path,
                records=here[path],
                other_split=other,
                other_image=match,
                other_records=there[match],
                distance=distance,
            )


def _nearest(
    here: Sequence[str], there: Sequence[str], prints: Mapping[str, Fingerprint]
) -> dict[str, tuple[str, int]]:
    """The likest image of `there` for each of `here` that has one within the limits, and its distance."""
    found: dict[str, tuple[str, int]] = {}
    if not here or not there:
        return found
    hashes, thumbnails = _arrays(there, prints)
    for start in range(0, len(here), _BLOCK):
        block = here[start : start + _BLOCK]
        own_hashes, own_thumbnails = _arrays(block, prints)
        bits = distances(own_hashes, hashes)
        rows, columns = _candidates(bits)
        alike = similarity(own_thumbnails[rows], thumbnails[columns]) >= MIN_SIMILARITY
        for row, column in zip(rows[alike].tolist(), columns[alike].tolist(), strict=True):
            found.setdefault(block[row], (there[column], int(bits[row, column])))
    return found


def _candidates(bits: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns within the distance, nearest first in each row; of very many the nearest only."""
    rows, columns = np.nonzero(bits <= MAX_DISTANCE)
    order = np.lexsort((columns, bits[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)  # how many of the row stand before
    return rows[place < _CANDIDATES], columns[place < _CANDIDATES]


def _arrays(paths: Sequence[str], prints: Mapping[str, Fingerprint]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    hashes = np.array([prints[path].dhash or 0 for path in paths], dtype=np.uint64)
    thumbnails = np.frombuffer(b"".join(prints[path].thumbnail or b"" for path in paths), dtype=np.uint8)
    return hashes, thumbnails.reshape(len(paths), -1)


def to_exclude(contamination: Iterable[Contamination], rest: str) -> dict[str, Contamination]:
    """Records to take out of training, with the pair that is the reason.

    Against the published splits every split made of the training records is cleaned; against each other only `rest`,
    so that named halves which are used in both directions keep their sizes.
    """
    reasons: dict[str, Contamination] = {}
    for pair in contamination:
        if pair.split not in PUBLISHED and (pair.other_split in PUBLISHED or pair.split == rest):
            for record in pair.records:
                reasons.setdefault(record, pair)
    return reasons


def with_findings(
    parts: Sequence[DatasetResult], found: Iterable[Contamination], excluded: Mapping[str, Contamination]
) -> list[DatasetResult]:
    """The parts with a finding for every contaminated training record, without the records that are to be left out.

    Args:
        parts: The outcome per dataset and split.
        found: What `find_contamination` found.
        excluded: What `to_exclude` gave of it; nothing if all records stay.
    """
    reasons: dict[str, Contamination] = {}
    for pair in found:
        for record in pair.records:
            if pair.split not in PUBLISHED:
                reasons.setdefault(record, pair)
    reasons |= excluded
    prepared = []
    for part in parts:
        findings = [
            _finding(record, reasons[record.id], "dropped" if record.id in excluded else "kept")
            for record in part.records
            if record.id in reasons
        ]
        prepared.append(leave_out(part, findings))
    return prepared


def _finding(record: Record, pair: Contamination, action: Action) -> Finding:
    relation = "the same file as" if pair.kind == "exact" else f"nearly the same image ({pair.distance} of 64 bits) as"
    # An id names the split of the data, not the one that was drawn from its training records.
    drawn = "" if pair.split == REST else f", drawn for {pair.split},"
    said = f"{pair.image}{drawn} is {relation} {pair.other_image} of split {pair.other_split}"
    return Finding.about(record, f"LEAK_{pair.kind.upper()}", said, action)
