"""The rows of all files as records, converted by workers that look at the images which the rows show."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import msgspec

from medvl.sharegpt import Record
from medvl.sources.base import Sample, SourceFile
from preprocess import worker_pool
from preprocess.decoding import ImageInfo
from preprocess.images import ImageCache, Seen
from preprocess.results import DatasetResult, Finding

Convert = Callable[[Sample, Mapping[str, ImageInfo]], tuple[Record | None, list[Finding]]]
Look = Callable[[Sequence[Sample]], dict[str, Seen]]  # at the images of some rows of one file, by name
_CHUNK = 200  # rows that a worker takes at a time


class Chunk(msgspec.Struct, array_like=True):
    """What some rows of a file became, and the images that they show."""

    records: list[Record]
    findings: list[Finding]
    seen: list[Seen]


def convert_rows(
    rows: Mapping[SourceFile, Sequence[Sample]], convert: Convert, look: Look, cache: ImageCache, workers: int
) -> Iterator[DatasetResult]:
    """The rows of every file as records and findings, one file after the other.

    Workers look at images and convert the rows that show them.
    """
    chunks = {file: list(_chunks(samples)) for file, samples in rows.items()}
    jobs = [chunk for of_file in chunks.values() for chunk in of_file]
    done = worker_pool.work(partial(_convert_chunk, convert=convert, look=look), jobs, workers, "images")
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


def _convert_chunk(samples: Sequence[Sample], *, convert: Convert, look: Look) -> bytes:
    seen = look(samples)
    images = {name: found.image for name, found in seen.items()}
    outcomes = [convert(sample, images) for sample in samples]
    return msgspec.msgpack.encode(
        Chunk(
            records=[record for record, _ in outcomes if record],
            findings=[finding for _, findings in outcomes for finding in findings],
            seen=list(seen.values()),
        )
    )
