"""A small validation set over all tasks, for predicting on real data within minutes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain, zip_longest
from pathlib import Path

import msgspec

from medvl.demo.steps import Pipeline
from medvl.registry import register
from medvl.sharegpt import MANIFEST, Record, encode_records, file_sha256, read_records, to_json, write_atomic

_SIZE = 48


def write_sample(root: Path, pipeline: Pipeline) -> None:
    """Write and register `demo_sample_val`: from the public validation split, or from training where there is none."""
    validation = root / pipeline.records / "demo_all_val.json"
    source = validation if validation.exists() else root / pipeline.records / "demo_all_train.json"
    target = root / pipeline.references
    sample = spread(read_records(source), _SIZE)
    write_atomic(target, encode_records(sample))
    manifest = msgspec.json.decode((target.parent / MANIFEST).read_bytes())
    listed = {"entry": pipeline.evaluation_set, "records": len(sample), "sha256": file_sha256(target)}
    manifest["files"][target.name] = listed  # so that scoring knows the frame of its boxes
    write_atomic(target.parent / MANIFEST, to_json(manifest))
    register(root / "dataset_info" / "dataset_info.json", {pipeline.evaluation_set: target})


def spread(records: Iterable[Record], size: int) -> list[Record]:
    """The first records of every dataset and task in turn, until there are `size`."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.dataset, record.task].append(record)
    in_turn = chain.from_iterable(zip_longest(*groups.values()))
    return [record for record in in_turn if record is not None][:size]
