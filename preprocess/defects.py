"""What `--validate` may find wrong with a converted folder, how grave that is, and how it is shown."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

from medvl.sharegpt import to_json

Level = Literal["error", "note"]

# Every finding and how grave it is. Notes are true of the source too: the converter keeps such rows, and reports them.
CHECKS: dict[str, tuple[Level, str]] = {
    "MANIFEST": ("error", "the manifest is missing or damaged: the folder is not a complete output"),
    "FILE_MISSING": ("error", "a file of the manifest is not there"),
    "FILE_CHANGED": ("error", "a file is not the one that was written"),
    "FILE_UNLISTED": ("note", "a JSON file that the manifest does not know"),
    "FILE_UNREADABLE": ("error", "a file is no list of records"),
    "RECORD_SCHEMA": ("error", "a record lacks a field, or has one of another type"),
    "COUNT": ("error", "a file holds another number of records than the manifest says"),
    "REGISTRY": ("error", "the registry has no such entry, or one that points elsewhere or reads it another way"),
    "REGISTRY_UNLISTED": ("note", "the registry has an entry for a file of the folder that the manifest does not know"),
    "ID_TWICE": ("error", "two records of a file have one id"),
    "ID_DIFFERS": ("error", "one id stands for different records in two files"),
    "RECORD_TWICE": ("note", "two records of a file have the same prompt, answer and images"),
    "TURNS": ("error", "a record is not one question and one answer"),
    "TAG_COUNT": ("error", "a prompt has another number of <image> tags than the record has images"),
    "LITERAL_TAG": ("error", "an answer holds a media tag, or a prompt one of another medium"),
    "CONTROL_TOKEN": ("error", "question, answer or label hold a control token of a tokenizer, such as <|im_end|>"),
    "SIZE_COUNT": ("error", "a record states another number of sizes than it has images"),
    "IMAGE_MISSING": ("error", "an image is not there"),
    "IMAGE_UNREADABLE": ("error", "an image cannot be opened"),
    "IMAGE_SIZE": ("error", "an image has another size than the record states, so boxes would lie elsewhere"),
    "IMAGE_CHANGED": ("error", "an image is not the one that was converted"),
    "IMAGE_ROTATED": ("error", "an image is rotated by EXIF, which LLaMA-Factory ignores"),
    "TASK_UNKNOWN": ("error", "a record's task is no known one"),
    "ANSWER_EMPTY": ("error", "a record to train on has no answer"),
    "ANSWER_UNUSABLE": ("error", "an answer that must hold boxes or a number does not"),
    "ANSWER_UNUSUAL": ("note", "an answer is none of the options"),
    "BOX_FRAME": ("error", "boxes are not those of the source's answer in the stated frame"),
    "BOX_OUTSIDE": ("note", "a box reaches beyond its image"),
    "SPLIT_OVERLAP": ("error", "an image is in two splits that were made of the training records"),
}


class Defect(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a converted folder: `where` names a file of it or a record."""

    code: str
    where: str
    detail: str

    @property
    def level(self) -> Level:
        """error or note."""
        return CHECKS[self.code][0]


def print_defects(defects: Sequence[Defect], folder: Path, console: Console) -> None:
    """What was found as a table, then every finding."""
    errors = sum(defect.level == "error" for defect in defects)
    for defect in defects:
        console.print(f"{defect.level} {defect.code} {defect.where}: {defect.detail}", markup=False, highlight=False)
    if defects:
        table = Table("level", "code", "times", "meaning", title=str(folder))
        for code, count in sorted(Counter(defect.code for defect in defects).items()):
            table.add_row(CHECKS[code][0], code, str(count), CHECKS[code][1])
        console.print(table)
    console.print(f"{folder}: {errors} errors, {len(defects) - errors} notes", markup=False, highlight=False)


def defects_json(defects: Sequence[Defect]) -> str:
    """What was found, for a machine."""
    return to_json([{"level": defect.level} | msgspec.structs.asdict(defect) for defect in defects]).decode()
