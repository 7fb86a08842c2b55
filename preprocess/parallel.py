"""The rows of all files as records, converted by workers that look at the images which the rows show."""

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
from PIL import Image

from medvl.sharegpt import Record
from medvl.sources.base import OutsideError, Sample, Source, SourceFile
from preprocess import worker_pool
from preprocess.images import ImageCache, Seen, look_at
from preprocess.options import Options
from preprocess.outputs import COPIES
from preprocess.report import DatasetResult, Finding
from preprocess.rows import convert

Look = Callable[[Sequence[Sample]], dict[str, Seen]]  # at the images of some rows of one file, by name
_LONGEST_NAME = 200  # bytes of the 255 that a file system takes
_CHUNK = 200  # rows that a worker takes at a time


class Chunk(msgspec.Struct, array_like=True):
    """What some rows of a file became, and the images that they show."""

    records: list[Record]
    findings: list[Finding]
    seen: list[Seen]


def convert_rows(
    rows: Mapping[SourceFile, Sequence[Sample]], options: Options, look: Look, cache: ImageCache, workers: int
) -> Iterator[DatasetResult]:
    """The rows of every file as records and findings, one file after the other.

    Workers look at images and convert the rows that show them.
    """
    chunks = {file: list(_chunks(samples)) for file, samples in rows.items()}
    jobs = [chunk for of_file in chunks.values() for chunk in of_file]
    done = worker_pool.work(partial(_convert_chunk, options=options, look=look), jobs, workers, "images")
    for file, of_file in chunks.items():
        part = DatasetResult(
            dataset=file.dataset,
            split=file.split.folder,
            category=file.category,
            file=str(file.path),
            rows=len(rows[file]),
            records=[],
            findings=[],
        )
        for _ in of_file:
            chunk = msgspec.msgpack.decode(next(done), type=Chunk)
            cache.add(chunk.seen)
            part.records += chunk.records
            part.findings += chunk.findings
        part.records.sort(key=lambda record: record.source.index)
        part.findings.sort(key=lambda finding: finding.index)
        yield part
    next(done, None)  # the progress bar ends
    cache.save()


def _chunks(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """The rows in portions; those that show the same images stay together, so that these are looked at once."""
    by_images: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
    for sample in samples:
        by_images[sample.images].append(sample)
    chunk: list[Sample] = []
    for together in by_images.values():
        chunk += together
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _convert_chunk(samples: Sequence[Sample], *, options: Options, look: Look) -> bytes:
    seen = look(samples)
    images = {name: found.image for name, found in seen.items()}
    outcomes = [convert(sample, images, options) for sample in samples]
    return msgspec.msgpack.encode(
        Chunk(
            records=[record for record, _ in outcomes if record],
            findings=[finding for _, findings in outcomes for finding in findings],
            seen=list(seen.values()),
        )
    )


def look_at_images(
    samples: Sequence[Sample], *, source: Source, root: Path, known: Mapping[str, Seen], out: Path, hashes: bool
) -> dict[str, Seen]:
    """The images of some rows of one file, by their names in the rows."""
    file, seen = samples[0].file, {}
    tree, copies = f"{root}/", f"{out}/{COPIES}"

    def copy_of(path: str) -> str:
        # Images may lie elsewhere than what names them; a doubled slash would be another name for the same copy.
        return f"{copies}/{_shortened(path.removeprefix(tree).lstrip('/'))}.png"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is the limit here
        for name in dict.fromkeys(name for sample in samples for name in sample.images):
            with suppress(OutsideError):  # `convert` meets the same error and reports it with the record
                seen[name] = look_at(source.places(file, name), copy_of, known, hashes=hashes, max_side=source.max_side)
    return seen


def _shortened(path: str) -> str:
    """A path whose name a file system still takes with what is added while it is written; others as they are."""
    folder, _, name = path.rpartition("/")
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return path
    start = os.fsencode(name)[: _LONGEST_NAME - 33].decode(errors="ignore")
    return f"{folder}/{start}-{hashlib.md5(os.fsencode(name), usedforsecurity=False).hexdigest()}"
