"""Fetal ultrasound with eight questions per image, the annotations of FADA (ElyasAmri/fada-pub): an xlsx or csv table.

A row is an image with eight answers; images lie in `<images>/<folder>/<name>`. Made up, as the rows look:

    Folder Name,Image Name,Q1: Anatomical Structures,…,Q5: Gestational Age,Q6: Image Quality,Q7: Normality Assessment,…
    Abdomen,Abdomen_004.png,"aorta, liver",…,20-25 weeks,Good image quality,Normal for gestational age,…
    Standard_NT,Standard NT_07.png,"neck, nuchal translucency",…,8-13 weeks,goof,mildly thickened NT with high risk,…
    Cervix,Cervix_9.png,,…,13+1d,low,Notmal,…

Known issues, all reported: 98.4 % of the rows are normal; annotators describe different folders; a row stands twice;
answers in the wrong column, with typos, or that say neither normal nor abnormal; names with `_` for a space.
"""

import argparse
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import Path
from typing import Any, get_args

from medvl.errors import DataError, UsageError
from medvl.sources.base import Contents, Found, Problem, Row, Sample, SourceFile
from medvl.sources.folders import split_named
from medvl.sources.given import SPLITS, GivenSource
from medvl.sources.places import place_in
from medvl.sources.ultrasound_labels import LABELS, QUESTIONS, facts, normalise_answer, normality
from medvl.sources.ultrasound_rows import Annotation, read_annotations
from medvl.sources.ultrasound_samples import REPORT, Asked, Labelling, asked_for, make_sample
from medvl.sources.ultrasound_splits import Kept, SplitFile, confounded, image_key
from medvl.tasks import unknown_name


@dataclass(frozen=True)
class Ultrasound(GivenSource):
    """The table, as a command line asks for it.

    Attributes:
        images: Folder of the folders with images.
        asked: What is asked, in order.
        labelling: How Q7 is read.
        split_file: Which image is in which split.
        kept: What stays together when training records are split.
    """

    name = "ultrasound"
    title = "fetal ultrasound"
    layout = "the annotation table, .xlsx or .csv"
    licence = (
        "The annotations and images of FADA (ElyasAmri/fada-pub, Fetal Ultrasound) have terms of their own, which hold "
        "for these records too."
    )
    images: Path = Path()
    asked: tuple[Asked, ...] = ()
    labelling: Labelling = field(default_factory=Labelling)
    split_file: SplitFile | None = None
    kept: Kept | None = None
    max_side: int | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)

    def add_arguments(self, arguments: argparse.ArgumentParser) -> None:
        """See `GivenSource`."""
        add = arguments.add_argument_group("fetal ultrasound").add_argument
        add("--images", type=Path, metavar="DIR", help="folder with a folder of images per class")
        add(
            "--ask",
            choices=(*QUESTIONS, "all", REPORT),
            default="q7",
            help="one question, all eight with a record each, or one report of eight sections (default: q7)",
        )
        add(
            "--prompt",
            nargs="+",
            choices=tuple(facts()["prompts"]),
            default=[],
            help="how q7 is asked (default: detailed); several make a record and a dataset each, q7_simple, …",
        )
        add(
            "--answers",
            choices=("label", "phrase"),
            help="what answers q7: normal, abnormal or unclear, or the annotators' phrase (default: label; in reports "
            "the phrase)",
        )
        add(
            "--guarded-prognosis",
            choices=LABELS,
            default="normal",
            help="label of `Normal for gestational age, guarded prognosis` (default: normal)",
        )
        add(
            "--split-file",
            type=Path,
            metavar="FILE",
            help="JSON of splits, classes and images; without it all rows are for training, and --dev-fraction or "
            "--split-train split them by image",
        )
        add(
            "--keep-together",
            choices=get_args(Kept),
            help="--dev-fraction and --split-train keep each folder, or each annotator's rows, in one split",
        )
        add("--max-side", type=int, metavar="PIXELS", help="show larger images as copies no longer than this, e.g. 512")

    def configured(self, args: argparse.Namespace) -> "Ultrasound":
        """See `GivenSource`."""
        if args.images is None:
            raise UsageError("--images is missing: the folder with a folder of images per class")
        if args.prompt and args.ask != "q7":
            raise UsageError(f"--prompt says how q7 is asked, and --ask is {args.ask}")
        if args.max_side is not None and args.max_side < 32:
            raise UsageError(f"--max-side {args.max_side}: at least 32 pixels")
        if args.keep_together and not (args.dev_fraction or args.split_train):
            raise UsageError("--keep-together is about splits that are made: add --dev-fraction or --split-train")
        if args.keep_together and args.by == "image":
            raise UsageError("--by image splits what --keep-together keeps; leave one of them out")
        if not args.images.is_dir():
            raise DataError(f"{args.images}: no such folder; --images is the one with a folder per class")
        answers = args.answers or ("phrase" if args.ask == REPORT else "label")
        if answers == "phrase" and args.guarded_prognosis != "normal":
            raise UsageError("--guarded-prognosis is about labels, and phrases are asked for: add --answers label")
        names = ("ask", "prompt", "guarded_prognosis", "keep_together", "max_side")
        stated = {name: getattr(args, name) for name in names} | {"answers": answers}
        return Ultrasound(
            images=args.images.resolve(),
            asked=tuple(asked_for(args.ask, list(dict.fromkeys(args.prompt)), label=answers == "label")),
            labelling=Labelling(args.guarded_prognosis),
            split_file=SplitFile(args.split_file) if args.split_file else None,
            kept=args.keep_together,
            max_side=args.max_side,
            stated=stated | {"split_file": str(args.split_file) if args.split_file else None},
        )

    def find(self, root: Path, splits: Sequence[str] = (), datasets: Sequence[str] = ()) -> Found:
        """See `Source`: the table, once for every split and dataset."""
        known = [asked.dataset for asked in self.asked]
        for name in datasets:
            if name not in known:
                raise unknown_name("dataset", name, known)
        named = [split_named(self, name) for name in splits]
        there = [split for name, split in SPLITS.items() if self.split_file or name == "train"]
        chosen = [split for split in there if not splits or split in named]
        if not chosen:
            return Found((), (f"{root}: all rows are for training; --split-file makes other splits",))
        asked = [name for name in known if not datasets or name in datasets]
        return Found(tuple(SourceFile(split, name, name, root) for split in chosen for name in asked))

    def read(self, file: SourceFile) -> Contents:
        """See `Source`."""
        table = read_annotations(file.path)
        for question in self._asked(file).of:
            if question not in table.rows[0].answers:
                raise DataError(f"{file.path}: no column for {question.upper()}; ask for the questions that are there")
        notes = list(table.notes)
        if self.kept:
            notes.append(("SPLIT_CONFOUNDED", confounded(table.rows, self.kept)))
        if self.split_file and file.split.name == "train" and (unused := self.split_file.unused(table.rows)):
            more = f" and {len(unused) - 5} more" if len(unused) > 5 else ""
            notes.append(("SPLIT_UNUSED", f"{', '.join(unused[:5])}{more}"))
        return Contents(list(self._samples(file, table.rows)), tuple(notes))

    def samples(self, file: SourceFile, rows: Sequence[Row]) -> list[Sample]:
        """See `Source`."""
        return list(self._samples(file, [Annotation.of_row(line, row) for line, row in enumerate(rows)]))

    def places(self, file: SourceFile, name: str) -> Sequence[str]:
        """As written, with spaces for `_` or the other way round, and with the suffix in another case."""
        written = place_in(str(self.images), name)
        if os.path.isfile(written):  # noqa: PTH113  (asked of every image)
            return (written,)
        return [written, *(place_in(str(self.images), variant) for variant in _variants(name))]

    def sections(self, rows: Mapping[SourceFile, Sequence[Sample]]) -> Mapping[str, Any]:
        """Every change of an answer, and how often Q7 has which label."""
        changes: Counter[tuple[str, str, str, str]] = Counter()
        labels: dict[str, Counter[str]] = defaultdict(Counter)
        for file, samples in rows.items():
            for sample, question in ((sample, question) for sample in samples for question in self._asked(file).of):
                before = sample.row[question]
                after, rules = normalise_answer(question, before)
                if rules:
                    changes[question, before, after, "+".join(rules)] += 1
                if question == "q7" and after:
                    labels[f"{file.split.name}/{file.dataset}"][normality(after, self.labelling.guarded)] += 1
        listed = [
            {"question": question, "before": before, "after": after, "count": count, "rule": rule}
            for (question, before, after, rule), count in sorted(changes.items(), key=lambda item: (-item[1], item[0]))
        ]
        return {"normalisation": listed, "normality": {name: dict(counts) for name, counts in labels.items()}}

    def _asked(self, file: SourceFile) -> Asked:
        return next(asked for asked in self.asked if asked.dataset == file.dataset)

    def _samples(self, file: SourceFile, rows: Sequence[Annotation]) -> Iterator[Sample]:
        """The samples of a split. A row that no split names, or several do, is refused among those to train on."""
        asked = self._asked(file)
        place = self.asked.index(asked)
        seen = Counter(image_key(row.folder, row.image) for row in rows)
        groups: dict[str, str] = {}  # an image that two annotators described would tie all of their rows together
        for row in rows:
            split, problems = self._split(row)
            if split != file.split.name:
                continue
            if not row.image:
                problems.append(Problem("images", "IMAGE_NAME", f"row {row.line} names no image"))
            key = image_key(row.folder, row.image)
            times, group = seen[key], groups.setdefault(key, row.folder if self.kept == "folder" else row.annotator)
            repeated = [("IMAGE_REPEATED", f"{times} rows are about {row.folder}/{row.image}")] if times > 1 else []
            yield make_sample(
                file,
                row,
                asked,
                self.labelling,
                index=row.line * len(self.asked) + place,
                group=group if self.kept else None,
                notes=repeated,
                problems=problems,
            )

    def _split(self, row: Annotation) -> tuple[str, list[Problem]]:
        splits = sorted(self.split_file.split_of(row)) if self.split_file else ["train"]
        if len(splits) == 1:
            return splits[0], []
        code, where = ("SPLIT_SEVERAL", " and ".join(splits)) if splits else ("SPLIT_MISSING", "no split")
        return "train", [Problem("images", code, f"{row.folder}/{row.image} is in {where} of the split file")]


def _variants(name: str) -> Iterator[str]:
    """The ways in which an image's path may be written."""
    folder, _, image = name.replace("\\", "/").rpartition("/")
    stem, dot, suffix = image.rpartition(".")
    for end in dict.fromkeys((suffix, suffix.lower(), suffix.upper())):
        for home, base in product(_spaced(folder), _spaced(stem)):
            yield f"{home}/{base}{dot}{end}" if home else f"{base}{dot}{end}"


def _spaced(name: str) -> list[str]:
    """A name with `_` or a space at each place where one of them stands; of many places, all alike."""
    parts = re.split("[_ ]", name)
    if len(parts) > 5:
        return list(dict.fromkeys((name, " ".join(parts), "_".join(parts))))
    made = ("".join(chain(*zip(parts, (*marks, ""), strict=True))) for marks in product("_ ", repeat=len(parts) - 1))
    return list(dict.fromkeys((name, *made)))


SOURCE = Ultrasound()
