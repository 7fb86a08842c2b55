"""The files a preprocess script leaves: records and their entries, the reports, and last the manifest."""

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from medvl.errors import DataError, UsageError
from medvl.registry import register
from medvl.sharegpt import MANIFEST, TEMPORARY, ManifestOptions, join_records, to_json, write_atomic
from preprocess.card import CARD, render_card
from preprocess.images import COPIES
from preprocess.page import PAGE, render_page
from preprocess.report import REPORT, sha256, summary
from preprocess.results import Prepared, counts_of

SCHEMA = 1
IMAGES = "images.sha256"  # the hash of every image that records show, as `sha256sum --check` reads it
_RETIRED = ".manifest.before.json"
_WRITERS = 8  # files that are written at a time


@dataclass(frozen=True)
class Provenance:
    """Where the data comes from.

    Attributes:
        source: Name of the data source.
        root: Where the raw data lies.
        options: The options that decide what was written, frame and box style among them.
        licence: Under which terms it may be used, in a sentence.
    """

    source: str
    root: Path
    options: dict[str, Any]
    licence: str


class _Written(msgspec.Struct, frozen=True):
    """What a manifest, or one set aside, says of the run that wrote it."""

    options: ManifestOptions
    source: str | None = None


def check_name(out: Path, name: str, source: str) -> None:
    """Keep the output of one `--name` or script from being replaced by another's, whose files would take its place.

    Raises:
        UsageError: the folder holds the output of another name, or of another data source.
    """
    for path in (out / MANIFEST, out / _RETIRED):
        with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):  # the first run, or a file never whole
            written = msgspec.json.decode(path.read_bytes(), type=_Written)
            there, by = written.options.name, written.source
            if there not in (None, name):
                raise UsageError(
                    f"{out} holds the output of --name {there}, which --name {name} would take away; "
                    "choose another --out, or delete the folder"
                )
            if by not in (None, source):
                raise UsageError(
                    f"{out} holds what preprocess/{by}.py wrote, which preprocess/{source}.py would take away; "
                    "choose another --name or --out, or delete the folder"
                )


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs out of the output folder.

    Raises:
        DataError: another run is there.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"{out}: another run is writing there; wait for it, or choose another --out") from error
    try:
        for half_written in out.rglob(f".*{TEMPORARY}"):  # by a run that was killed
            half_written.unlink()
        yield
    finally:
        lock.release()


def write_outputs(
    out: Path,
    prepared: Prepared,
    provenance: Provenance,
    *,
    images: Mapping[str, Sequence[Path]],
    digests: Mapping[str, bytes],
    dataset_info: Path,
) -> list[str]:
    """Write one file per entry and the reports, register the entries, and last the manifest that marks all as complete.

    Files, entries and normalised images of an earlier run into the same folder that this one does not need are
    removed: a split that is left over would overlap with the new ones.

    Args:
        out: Output folder.
        prepared: What is written.
        provenance: Where it comes from.
        images: Id of a record that was left out -> its image files, for the report page.
        digests: Image file -> its SHA-256.
        dataset_info: The registry to merge the entries into.

    Returns:
        What the user should know about other files.

    Raises:
        ValueError: counts do not add up, which would be a bug of the script.
    """
    for part in prepared.converted:
        rows, *outcomes = counts_of([part]).values()
        if rows != sum(outcomes):
            raise ValueError(f"{part.file}: {rows} rows in, but {' + '.join(map(str, outcomes))} out")
    options = provenance.options | prepared.options
    before = _retire_manifest(out, prepared, options.get("name"), provenance.source)
    head = {"schema": SCHEMA, "source": provenance.source, "root": str(provenance.root), "options": options}
    with ThreadPoolExecutor(_WRITERS) as writers:  # the disk is slower than all that is done beside
        under_way = _begin_to_write(out, prepared, writers)
        counts = summary(prepared.converted)
        files = {f"{name}.json": _listed(name, prepared, hashing.result()) for name, (hashing, _) in under_way.items()}
        report = to_json(head | counts | prepared.sections | {"outputs": files})
        contents = msgspec.json.decode(report)
        page = render_page(contents, prepared, images).encode()
        card = render_card(contents, provenance.licence, sha256(report)).encode()
        used = {image for part in prepared.converted for record in part.records for image in record.images}
        hashes = encode_hashes({image: digests[image] for image in used})
        reports = [writers.submit(write_atomic, out / name, data)
                   for name, data in ((REPORT, report), (PAGE, page), (CARD, card), (IMAGES, hashes))]  # fmt: skip
        for writing in (*(writing for _, writing in under_way.values()), *reports):
            writing.result()
    entries_before = {entry["entry"]: (out / name, _numbers(entry)) for name, entry in before.items()}
    paths = {name: out / f"{name}.json" for name in prepared.groups}
    moved = register(dataset_info, paths, samples=prepared.samples, before=entries_before)
    gone = sorted(set(before) - set(files))
    for file_name in gone:
        (out / file_name).unlink(missing_ok=True)
    manifest = {
        "files": files,
        "report_sha256": sha256(report),
        "images_sha256": sha256(hashes),
        "dataset_info": os.path.relpath(dataset_info, out),
    }
    write_atomic(out / MANIFEST, to_json(head | manifest))
    (out / _RETIRED).unlink(missing_ok=True)
    _prune_copies(out, used)
    return [f"{name} pointed at another file before" for name in moved] + [
        f"{file_name} of an earlier run was removed, with its entry" for file_name in gone
    ]


def _prune_copies(out: Path, used: Set[str]) -> None:
    """Remove normalised copies of images that no record shows any more, and folders that this empties."""
    for path in sorted((out / COPIES).rglob("*"), reverse=True):
        if path.is_file() and str(path) not in used:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _begin_to_write(
    out: Path, prepared: Prepared, writers: ThreadPoolExecutor
) -> dict[str, tuple[Future[str], Future[None]]]:
    """Write the records of every entry. Returns the hash of every file, and what says that it is written."""
    lines: dict[int, bytes] = {}  # by identity: a record is in several entries
    under_way: dict[str, tuple[Future[str], Future[None]]] = {}
    for place, (name, records) in enumerate(prepared.groups.items()):
        lines |= {id(record): msgspec.json.encode(record) for record in records if id(record) not in lines}
        data = join_records(map(lines.__getitem__, map(id, records)))
        path = out / f"{name}.json"
        under_way[name] = writers.submit(sha256, data), writers.submit(write_atomic, path, data)
        if place >= _WRITERS:  # not all data waits in memory
            list(under_way.values())[place - _WRITERS][1].result()
    return under_way


def _listed(name: str, prepared: Prepared, digest: str) -> dict[str, Any]:
    """What the manifest says of the file of an entry."""
    listed = {"entry": name, "records": len(prepared.groups[name]), "sha256": digest}
    return listed | ({"num_samples": prepared.samples[name]} if name in prepared.samples else {})


def _retire_manifest(out: Path, prepared: Prepared, name: str | None, source: str) -> dict[str, dict[str, Any]]:
    """Set the manifest of an earlier run aside, since the output is not complete until a new one is written.

    Returns:
        The files that it lists. The next run knows of them, and of those that this one is about to write, if this one
        does not finish.
    """
    if (out / MANIFEST).is_file():
        (out / MANIFEST).replace(out / _RETIRED)
    try:
        files = msgspec.json.decode((out / _RETIRED).read_bytes(), type=dict[str, Any]).get("files", {})
    except (FileNotFoundError, msgspec.DecodeError):  # the first run, or a file that was never whole
        files = {}
    # Only plain names are followed: nothing outside of the folder is ever removed.
    before = {name: entry for name, entry in files.items() if Path(name).name == name and "entry" in entry}
    known = {name: {"entry": entry["entry"], "num_samples": _numbers(entry)} for name, entry in before.items()}
    for entry in prepared.groups:
        listed = known.setdefault(f"{entry}.json", {"entry": entry, "num_samples": []})
        listed["num_samples"] += [prepared.samples[entry]] if entry in prepared.samples else []
    write_atomic(out / _RETIRED, to_json({"files": known, "options": {"name": name}, "source": source}))
    return before


def _numbers(listed: Mapping[str, Any]) -> list[int]:
    """Every `num_samples` that may have been registered for a file: one in a manifest, several after killed runs."""
    number = listed.get("num_samples", [])
    return [number] if isinstance(number, int) else list(number)


def encode_hashes(digests: Mapping[str, bytes]) -> bytes:
    """A line per image, sorted by path; a path with line breaks or backslashes is escaped as sha256sum does.

    An image that is replaced by another of the same size would else be trained on with the answers of the first.
    """
    return "".join(_hash_line(path, digests[path].hex()) for path in sorted(digests)).encode()


def decode_hashes(data: bytes) -> dict[str, bytes]:
    """Image -> hash, of what `encode_hashes` wrote.

    Raises:
        ValueError: it is something else.
    """
    hashes = {}
    for line in data.decode().removesuffix("\n").split("\n") if data else ():
        escaped = line.startswith("\\")
        digest, _, path = line[escaped:].partition("  ")
        hashes[_unescaped(path) if escaped else path] = bytes.fromhex(digest)
    return hashes


def _hash_line(path: str, digest: str) -> str:
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{digest}  {escaped}\n"


def _unescaped(path: str) -> str:
    return "\\".join(part.replace("\\n", "\n").replace("\\r", "\r") for part in path.split("\\\\"))
