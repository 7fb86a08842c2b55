"""Re-check a converted folder against its manifest: is it complete, unchanged, and will LLaMA-Factory train on it?

    python preprocess/flare.py --validate data/flare

Everything is looked at before anything is said. Exit code 3 if there is an error; notes alone give 0.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from medvl.boxes import Frame
from medvl.control_tokens import KNOWN
from medvl.files import not_utf8
from medvl.registry import dataset_entry
from medvl.sharegpt import (
    MANIFEST,
    Manifest,
    Record,
    RecordError,
    file_sha256,
    read_each_record,
    read_manifest,
)
from preprocess.contamination import PUBLISHED
from preprocess.defects import Defect
from preprocess.outputs import IMAGES, decode_hashes
from preprocess.report import REPORT
from preprocess.unchanged import DATASET_INFO
from preprocess.validate_records import ImageFiles, check_record

# Keys of an entry by which LLaMA-Factory reads something else, or the file as something else.
_REDIRECTS = {"hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", "ranking", "subset", "split",
              "folder"}  # fmt: skip


def validate(folder: Path, dataset_info: Path | None = None) -> list[Defect]:
    """Everything that is wrong with a converted folder.

    Args:
        folder: Output folder of a preprocess script.
        dataset_info: The registry that its entries should be in; None for the one that the manifest names.
    """
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            raise RecordError(f"{folder / MANIFEST} is not there")
        if manifest.options.frame is None:
            raise RecordError("it states no frame")
        frame = Frame(manifest.options.frame)
    except (OSError, ValueError) as error:
        return [
            Defect(code="MANIFEST", where=str(folder / MANIFEST), detail=f"{error}; run the preprocess script again")
        ]
    registry = dataset_info or _registry_of(folder, manifest)
    defects = list(_check_files(folder, manifest, registry))
    defects += _check_registry(folder, manifest, registry)
    images, seen = ImageFiles(_hashes(folder, manifest)), dict[str, Record]()
    splits: dict[str, set[bytes]] = {}
    cleaned = _cleaned(folder)
    more_tokens = manifest.options.control_tokens
    known_tokens = KNOWN | set(more_tokens) if more_tokens else KNOWN
    for name in manifest.files:
        try:
            records, unlike = read_each_record(folder / name)
        except (RecordError, OSError) as error:
            defects.append(Defect(code="FILE_UNREADABLE", where=name, detail=str(error)))
            continue
        defects += [Defect(code="RECORD_SCHEMA", where=f"{name}, {where}", detail=detail) for where, detail in unlike]
        if len(records) + len(unlike) != manifest.files[name].records:
            defects.append(Defect(code="COUNT", where=name, detail=f"{len(records) + len(unlike)} records"))
        defects += _check_ids(name, records, seen, images)
        for record in records:
            if seen.setdefault(record.id, record) is record:
                compare = record.id.split("#")[0] not in cleaned
                found = check_record(record, frame, images, known_tokens, compare=compare)
                defects += [Defect(code=code, where=record.id, detail=detail) for code, detail in found]
        split = _made_split(name, manifest)
        if split:
            splits[split] = {images.content(image) for record in records for image in record.images}
    defects += _check_overlap(splits)
    return defects


def _check_files(folder: Path, manifest: Manifest, registry: Path) -> Iterator[Defect]:
    expected = {name: listed.sha256 for name, listed in manifest.files.items()}
    images = {IMAGES: manifest.images_sha256} if manifest.images_sha256 else {}  # older ones have none
    for name, digest in {**expected, REPORT: manifest.report_sha256, **images}.items():
        if not (folder / name).is_file():
            yield Defect(code="FILE_MISSING", where=name, detail=f"{folder / name} is not there")
        elif file_sha256(folder / name) != digest:
            yield Defect(code="FILE_CHANGED", where=name, detail="its SHA-256 is not the manifest's")
    for path in sorted(folder.glob("*.json")):
        known = path.name in (*expected, REPORT, MANIFEST, "dataset_info.json") or path.resolve() == registry
        if not known and not path.name.startswith("."):
            yield Defect(code="FILE_UNLISTED", where=path.name, detail="delete it, or keep it elsewhere")


def _registry_of(folder: Path, manifest: Manifest) -> Path:
    """The registry that a run wrote its entries to; older manifests name none, which was mostly the clone's own."""
    return (folder / manifest.dataset_info).resolve() if manifest.dataset_info else DATASET_INFO


def _hashes(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Image -> hash when it was converted; empty where that is not known."""
    try:
        return decode_hashes((folder / IMAGES).read_bytes()) if manifest.images_sha256 else {}
    except (OSError, ValueError):
        return {}  # reported by its hash


def _check_registry(folder: Path, manifest: Manifest, dataset_info: Path) -> Iterator[Defect]:
    try:
        data = dataset_info.read_bytes()
        entries = msgspec.json.decode(data, type=dict[str, dict[str, Any]])
    except OSError as error:
        detail = f"{error.strerror}; name the registry with --dataset-info, or convert again"
        yield Defect(code="REGISTRY", where=str(dataset_info), detail=detail)
        return
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        yield Defect(code="REGISTRY", where=str(dataset_info), detail=not_utf8(data) or str(error))
        return
    yield from _check_other_entries(folder, manifest, entries, dataset_info.parent)
    for name, listed in manifest.files.items():
        entry = entries.get(str(listed.entry))
        if entry is None:
            yield Defect(code="REGISTRY", where=name, detail=f"{listed.entry} is not in {dataset_info}")
            continue
        points_at = (dataset_info.parent / str(entry.get("file_name"))).resolve()
        if points_at != (folder / name).resolve():
            yield Defect(code="REGISTRY", where=name, detail=f"{listed.entry} points at {points_at}")
        elif {key: entry.get(key) for key in dataset_entry("")} != dataset_entry(str(entry["file_name"])):
            yield Defect(code="REGISTRY", where=name, detail=f"{listed.entry} has other columns or tags")
        elif redirects := sorted(_REDIRECTS & entry.keys()):
            yield Defect(code="REGISTRY", where=name, detail=f"{listed.entry} is redirected by {', '.join(redirects)}")
        elif listed.num_samples not in (None, entry.get("num_samples")):
            detail = f"num_samples is {entry.get('num_samples')}, not {listed.num_samples}"
            yield Defect(code="REGISTRY", where=name, detail=detail)


def _check_other_entries(
    folder: Path, manifest: Manifest, entries: Mapping[str, Mapping[str, Any]], base: Path
) -> Iterator[Defect]:
    """Entries that lead into the folder without the manifest's knowledge: left over, or a user's own."""
    for name in sorted(entries.keys() - {listed.entry for listed in manifest.files.values()}):
        path = (base / str(entries[name].get("file_name"))).resolve()
        if path.parent == folder.resolve() and not path.is_file():
            yield Defect(code="REGISTRY", where=name, detail=f"{path} is not there; remove the entry")
        elif path.parent == folder.resolve():
            yield Defect(code="REGISTRY_UNLISTED", where=name, detail=f"it reads {path.name}")


def _check_ids(name: str, records: list[Record], seen: Mapping[str, Record], images: ImageFiles) -> Iterator[Defect]:
    for twice, count in Counter(record.id for record in records).items():
        if count > 1:
            yield Defect(code="ID_TWICE", where=twice, detail=f"{count} times in {name}")
    contents: dict[tuple[object, ...], str] = {}
    for record in records:
        if record.id in seen and seen[record.id] != record:
            yield Defect(
                code="ID_DIFFERS", where=record.id, detail=f"another record in {name} than in the files before"
            )
        if "#" in record.id:  # a copy that sampling made
            continue
        content = (record.conversations, record.images)
        key = (*(turn.value for turn in content[0]), *map(images.content, content[1]))
        if contents.setdefault(key, record.id) != record.id and record.id not in seen:
            yield Defect(code="RECORD_TWICE", where=record.id, detail=f"the same as {contents[key]} in {name}")


def _cleaned(folder: Path) -> set[str]:
    """Ids of records whose answers were mended on purpose."""
    try:
        report = msgspec.json.decode((folder / REPORT).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return set()  # reported by its hash
    return {change["id"] for change in report.get("changes", [])}


def _made_split(name: str, manifest: Manifest) -> str | None:
    """The split that a file of all datasets holds, if it was made of the training records."""
    made = manifest.options.split_train or {}
    stem = f"{manifest.options.name}_all_"
    split = name.removesuffix(".json").removeprefix(stem)
    return split if name.startswith(stem) and split in made and split not in PUBLISHED else None


def _check_overlap(splits: Mapping[str, set[bytes]]) -> Iterator[Defect]:
    names = sorted(splits)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            shared = splits[first] & splits[second]
            if shared:
                yield Defect(
                    code="SPLIT_OVERLAP", where=f"{first} and {second}", detail=f"{len(shared)} images in both"
                )
