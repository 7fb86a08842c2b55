"""M3LLM: compound figures of PubMed Central and their panels as questions; and its benchmark, PMC-MI-Bench.

DATA is the meta file PMC-data.json (`medvl.sources.pmc_meta`), a training file, a file of stage 4 or 5, or a folder of
files, as PMC-MI-Bench's. Made-up rows, as each of them looks:

    {"id": "1", "image": ["PMC1_f1.jpg", "PMC1_f1.jpg_0.jpg"], "conversations": [      (training; `image` may be a text)
      {"from": "human", "value": "Fig-0: <image>\\nFig-1: <image>\\nA study of … What does Fig-1 show?"},
      {"from": "gpt", "value": "A nodule in the left lung."}]}
    {"id": "2", "conversations": [{"from": "human", "value": "What is a stent?"}, …]}       (no image: text only)
    {"messages": [{"role": "user", "content": "<image>…"}, …], "images": ["PMC1_f1.jpg"]}       (the second release)
    {"image": "PMC1_f1.jpg", "subcaptions": [{"image": "PMC1_f1.jpg_0.jpg", "idx": 0, "bounding_box": [120, 80]}, …],
      "qa_pairs": [{"context": "A study of …", "improved context": "…", "question": "What does Fig-1 show?", "answer":
        "A nodule.", "selected_image_paths": ["PMC1_f1.jpg_0.jpg"], "image_index": ["Fig-0"]}]}       (stages 4 and 5)
    {…, "qa_pairs": [{"question": "Which one?", "option": "A. Smooth\\nB. Rough", "answer": "A", …}]}        (options)
    {…, "qa_pairs": [{"question": "Where is Fig-1?", "answer": "Fig-1 is to the left of Fig-2.", …}]}     (positions)
    {"question": "What does Fig-1 show?", "images": ["PMC1_f1.jpg", "PMC1_f1.jpg_0.jpg"], "gt": "A nodule.",
      "image_indices": ["Fig-0", "Fig-1"]}       (PMC-MI-Bench; under `images_puretext` stands what is not shown)

Options are a classification, everything else a report_generation: answers are sentences, and a `vqa` answer is a
phrase. Training files become the split train, PMC-MI-Bench the split test.

Known issues, all reported by conversion: a Fig-k that is not shown, tags that are not as many as the images, panels
counted from 0 in stored numbers and from 1 in questions, positions that are not where the boxes are.
"""

import argparse
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from medvl.boxes import Size
from medvl.errors import DataError, UsageError
from medvl.sources.base import Contents, Found, Row, Sample, SourceFile
from medvl.sources.folders import split_named
from medvl.sources.given import SPLITS, GivenSource
from medvl.sources.places import OutsideError, place_in
from medvl.sources.pmc_files import Note, is_meta, read_rows, read_value
from medvl.sources.pmc_meta import meta_sets
from medvl.sources.pmc_rows import benchmark_sample, training_sample
from medvl.sources.pmc_sets import PmcSet, file_set, folder_sets
from medvl.sources.pmc_stages import Reading, stage_samples
from medvl.tasks import unknown_name


@dataclass(frozen=True)
class Pmc(GivenSource):
    """M3LLM's data, as a command line names it.

    Attributes:
        sets: Home of a file -> its set.
        refused: A line for everything in DATA that cannot be read.
        images: `--images`.
        nested: Bare name -> path, of what lies in folders below `images`.
        from_boxes: `--positions boxes`.
        stated: The options, for the manifest.
    """

    name = "pmc"
    title = "M3LLM"
    layout = "PMC-data.json, a training file (.jsonl), a file of stage 4 or 5, or a folder of PMC-MI-Bench files"
    licence = (
        "Figures and captions are of PubMed Central's open-access articles, each with a licence of its own, and many "
        "of them exclude commercial use. M3LLM's questions are made by language models; its repository is MIT."
    )
    splits = SPLITS
    suffix = ""
    sets: Mapping[str, PmcSet] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    images: Path | None = None
    nested: Mapping[str, str] = field(default_factory=dict)
    from_boxes: bool = False
    stated: Mapping[str, Any] = field(default_factory=dict)

    def add_arguments(self, arguments: argparse.ArgumentParser) -> None:
        """See `GivenSource`."""
        add = arguments.add_argument_group("M3LLM").add_argument
        add("--images", type=Path, metavar="DIR", help="where images lie, in folders below it too (default: the root "
            "that the meta file names; else beside DATA, or in images/ there)")  # fmt: skip
        add("--positions", choices=("answer", "boxes"), default="answer", help="where an answer of a stage file puts "
            "a panel elsewhere than its box lies, train on the answer (default) or on a sentence made of the boxes; "
            "both are reported")  # fmt: skip

    def configured(self, args: argparse.Namespace) -> "Pmc":
        """See `GivenSource`. `repeat_time` of the meta file becomes `--sample`, where that does not name the set."""
        if args.images and not args.images.is_dir():
            raise UsageError(f"--images {args.images}: there is no such folder")
        sets, refused = _find_sets(args.root.resolve())
        asked = {name for name, _ in args.sample}
        sets = [each for each in sets if not args.datasets or each.file.dataset in args.datasets] or sets
        args.sample = [*args.sample, *((each.file.dataset, float(each.repeat)) for each in sets if each.repeat > 1
                                       and each.file.dataset not in asked)]  # fmt: skip
        images = args.images.resolve() if args.images else None
        return Pmc(
            sets={each.file.home: each for each in sets},
            refused=tuple(refused),
            images=images,
            nested=_nested(images) if images else {},
            from_boxes=args.positions == "boxes",
            stated={"images": str(images) if images else None, "positions": args.positions},
        )

    def find(self, root: Path, splits: Sequence[str] = (), datasets: Sequence[str] = ()) -> Found:
        """See `Source`."""
        names = {split_named(self, name).name for name in splits}
        known = sorted({each.file.dataset for each in self.sets.values()})
        for name in datasets:
            if name not in known:
                raise unknown_name("dataset", name, known)
        files = [each.file for each in self.sets.values()]
        chosen = [file for file in files if (not names or file.split.name in names)
                  and (not datasets or file.dataset in datasets)]  # fmt: skip
        nothing = () if chosen or self.refused else (f"{root}: nothing in it is of {', '.join((*splits, *datasets))}",)
        return Found(tuple(chosen), (*self.refused, *nothing))

    def read(self, file: SourceFile) -> Contents:
        """See `Source`; refused: no rows, bad JSON, or images in folders that are not there."""
        part = self.sets[file.home]
        rows, notes = read_rows(file.path)
        notes += _length_notes(part, len(rows)) + part.notes + _repeated_ids(rows)
        samples = self.samples(file, rows[: int(len(rows) * part.share)])
        named = any(sample.images for sample in samples)
        if named and self.images is None and not any(root.is_dir() for root in part.roots):
            raise DataError(f"{file.path}: the root of its images is not there: {part.roots[0]}; give it as --images")
        early = [sample for sample in samples if _context_of_stage_4(sample)]
        if early:
            said = f"{len(early)} contexts are of stage 4 and may hold the answer; stage 5 rewrites them"
            notes += (("CONTEXT_MAY_LEAK", said),)
        return Contents(samples, notes)

    def samples(self, file: SourceFile, rows: Sequence[Row]) -> list[Sample]:
        """See `Source`."""
        part = self.sets[file.home]
        if part.form == "stage":
            return stage_samples(part, rows, Reading(partial(self._size_of, file), self.from_boxes))
        one = training_sample if part.form == "training" else benchmark_sample
        return [one(part, index, row) for index, row in enumerate(rows)]

    def places(self, file: SourceFile, name: str) -> Sequence[str]:
        """Below `--images`, by its path or its bare name; else in the set's folders."""
        if self.images is None:
            return [place_in(str(root), name) for root in self.sets[file.home].roots]
        bare = re.split(r"[\\/]", name)[-1]
        try:
            written = [place_in(str(self.images), name)]
        except OutsideError:  # the name that it has on its authors' machine
            written = []
        found = [f"{self.images}/{self.nested[bare]}"] if bare in self.nested else []
        return list(dict.fromkeys([*written, place_in(str(self.images), bare), *found]))

    def _size_of(self, file: SourceFile, name: str) -> Size | None:
        from PIL import Image  # only stage files need it

        for place in self._places_inside(file, name):
            try:
                with Image.open(place) as image:
                    return int(image.width), int(image.height)
            except (OSError, ValueError, Image.DecompressionBombError):
                continue  # conversion looks at it again, and reports it
        return None

    def _places_inside(self, file: SourceFile, name: str) -> Sequence[str]:
        try:
            return self.places(file, name)
        except OutsideError:
            return ()


SOURCE = Pmc()


def _find_sets(data: Path) -> tuple[list[PmcSet], list[str]]:
    if data.is_dir():
        return folder_sets(data)
    if not data.is_file():
        return [], [f"{data}: there is no such file or folder"]
    value = read_value(data)
    if value is not msgspec.UNSET and is_meta(value):
        return meta_sets(data, value)
    try:
        return [file_set(data)], []
    except DataError as error:
        return [], [str(error)]


def _nested(images: Path) -> dict[str, str]:
    """Names that are once in the folders below one, as figures and panels lie in M3LLM's (group_1/, …)."""
    paths = [path for path in sorted(images.rglob("*")) if path.parent != images and path.is_file()]
    counts = Counter(path.name for path in paths)
    return {path.name: path.relative_to(images).as_posix() for path in paths if counts[path.name] == 1}


def _length_notes(part: PmcSet, rows: int) -> tuple[Note, ...]:
    notes = []
    if part.length not in (None, rows):
        notes.append(("LENGTH_DIFFERS", f"the meta file says {part.length} rows, and the file has {rows}"))
    if part.share < 1:
        taken = int(rows * part.share)
        said = f"repeat_time is {part.share:g}: the first {taken} of {rows} rows are read, as the reference does"
        notes.append(("REPEAT_TIME", f"{said}; they are no sample"))
    if part.repeat > 1:
        notes.append(("REPEAT_TIME", f"repeat_time is {part.repeat}: as --sample {part.file.dataset}={part.repeat}"))
    return tuple(notes)


def _repeated_ids(rows: Sequence[Row]) -> tuple[Note, ...]:
    """Ids that rows share; records are told apart by their place."""
    counts = Counter(str(row["id"]) for row in rows if row.get("id") is not None)
    repeated = [name for name, count in counts.items() if count > 1]
    if not repeated:
        return ()
    return (("ID_REPEATED", f"{len(repeated)} ids stand in several rows, first {repeated[0]!r}"),)


def _context_of_stage_4(sample: Sample) -> bool:
    pairs = sample.row.get("qa_pairs")
    return isinstance(pairs, list) and any(
        isinstance(pair, dict) and pair.get("context") and not pair.get("improved context") for pair in pairs
    )
