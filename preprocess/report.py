"""What happened to every record: coded findings, counts that add up, and the files a preprocess script leaves."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medvl.sharegpt import file_sha256
from preprocess.results import Action, DatasetResult, Finding, counts_of

REPORT = "report.json"

# Every reason a record can be given, and what it means. Dropped: there is nothing to train on. Quarantined: there is
# something a person should look at and mend in the source. Kept: trained on as it is, and reported.
CODES: dict[str, str] = {
    "SPLIT_MISSING": "the split file does not name the image of a row",
    "SPLIT_SEVERAL": "the split file puts the image of a row into several splits",
    "SPLIT_UNUSED": "the split file names images that no row is about",
    "SPLIT_CONFOUNDED": "records are split by what goes together with their classes, or with who described them",
    "FILE_WRAPPED": "a question file is an object around the list of rows, not the list",
    "FILE_UNREAD": "files beside those that are read, such as captions of the same images",
    "ROWS_BLANK": "rows at the end of a table in which nothing stands; they are no rows",
    "SHEETS_UNREAD": "a workbook has more sheets than the one that is read; --sheet names another",
    "CELL_FORMAT": "cells of a workbook have a number format that is not known; their numbers are read without it",
    "IMAGE_MISSING": "an image is not there",
    "IMAGE_NAME": "ImageName is not a file name or a list of file names",
    "IMAGE_AMBIGUOUS": "several images could be meant by a name",
    "IMAGE_RENAMED": "an image is there with another suffix than its name has",
    "IMAGE_OUTSIDE": "ImageName points outside the dataset folder, or is an absolute path outside the tree",
    "IMAGE_TOO_LARGE": "an image has more pixels than is safe to decode",
    "IMAGE_UNREADABLE": "an image cannot be decoded to its end",
    "SCAN_RENDERED": "an image is DICOM or NIfTI; a copy of what is shown of it is used",
    "EXIF_ROTATED": "an image was rotated by EXIF; its upright copy is used",
    "DEPTH_WINDOWED": "an image has more than 8 bits; a copy is used whose 0.5 to 99.5 percentiles are black to white",
    "ALPHA_FLATTENED": "an image has transparent pixels; a copy laid on black is used",
    "IMAGE_FRAMES": "an image has several frames; the first is shown",
    "IMAGE_CMYK": "an image is CMYK; it is shown without its colour profile",
    "IMAGE_REPEATED": "several rows are about one image; all are kept",
    "IMAGES_THINNED": "a record has more images than --max-images-per-sample; evenly spaced ones are used",
    "IMAGE_DROPPED": "a record goes on without one of its images",
    "TASK_UNKNOWN": "TaskType is no known task",
    "TAG_COUNT": "a prompt has not as many <image> as there are images",
    "TAGS_MOVED": "a prompt has <image> inside its text, or none; images are shown before it",
    "TURNS": "a conversation is not one question and one answer",
    "FIGURE_NUMBER": "question or answer name a figure that is not shown, or two images have one name",
    "FIGURE_RENUMBERED": "panels are called as question and answer count them, not by the stored numbers",
    "POSITION_DIFFERS": "the answer puts a panel elsewhere than its box lies",
    "POSITION_UNCHECKED": "where a panel lies cannot be checked: no box, no image, or the answer names neither",
    "CONTEXT_MAY_LEAK": "contexts were made before answers were taken out of them",
    "LENGTH_DIFFERS": "a file has not as many rows as its meta file says",
    "REPEAT_TIME": "the meta file takes a share of the rows, or repeats them",
    "META_KEY": "the meta file sets what a recipe decides here",
    "ID_REPEATED": "rows share an id; records have their own",
    "QUESTION_EMPTY": "there is no question",
    "ANSWER_EMPTY": "there is no answer in a split that has answers",
    "ANSWER_PLACEHOLDER": "None, null, nan or the like stands in an answer's place, and the question names none such",
    "ANSWER_STRUCTURED": "the answer is data (JSON) that has no form as an answer of its task",
    "ANSWER_REWRITTEN": "the answer is trained on in the plain form of its task, without the data or spaces around it",
    "ANSWER_NORMALISED": "the answer is trained on in the canonical words for what it says; `normalisation` has all",
    "ANSWER_BLANK": "one of the answers that a combined report is made of is blank; its section says so",
    "NORMALITY_UNCLEAR": "an answer about normality says neither normal nor abnormal, and has the label `unclear`",
    "ANSWER_UNUSABLE": "the answer is not what its task needs: no boxes, a box that is not four numbers, no number",
    "ANSWER_UNUSUAL": "the answer is none of the options in words either, or has its boxes in another form",
    "LETTER_NOT_OPTION": "the answer is a letter that is not among the options",
    "SEVERAL_LETTERS": "the answer has several letters where one is asked for",
    "OPTION_TEXT": "the answer is an option's text instead of its letter",
    "LETTER_WITHOUT_OPTIONS": "the answer is a letter, but the question offers none",
    "BOXES_UNEXPECTED": "boxes answer a question that asks for none",
    "COORDINATE_RANGE": "boxes fit another frame much better than the stated one; --source-frame names theirs",
    "BOXES_ON_FIRST": "a record with several images has boxes, which are taken to lie on the first",
    "BOXES_PER_IMAGE": "an answer has boxes on several images and tells them apart; there is no form for that",
    "SYSTEM_PROMPT": "a conversation has a system prompt; it is no part of the question (`default_system` of a recipe)",
    "TAG_ABSENT": "a conversation has images, and no <image> says where; they stand before its first question",
    "TAG_WITHIN": "an <image> stands within a sentence, where the number of the image is written",
    "TURNS_EARLIER": "a question in a conversation; what was said before stands before it",
    "TURNS_UNUSABLE": "a conversation whose turns are no questions and answers in text and images",
    "QUESTION_BOX": "a question gives boxes, which are asked in the frame of the answers",
    "QUESTION_BOX_UNCLEAR": "a question gives numbers that may be a box and stay as they are",
    "BOX_CROWD": "a box encloses a crowd of objects (COCO's iscrowd), not one; it is kept",
    "BOX_MARKED": "an object is marked as difficult or truncated (Pascal VOC); its box is kept",
    "BOX_OUTLINE": "a box is drawn around an outline, mask or rotated box; or keypoints beside it are not used",
    "BOXES_FROM_ZERO": "boxes in Pascal VOC that count pixels from 0, where the format counts from 1",
    "SIZE_DIFFERS": "an image has another size than its annotations say, so that boxes in pixels would lie elsewhere",
    "BOX_REPEATED": "rows give the same box of an image twice, with the same label; it is one object",
    "MAP_MALFORMED": "an instance answer is not a JSON map of identifiers to boxes",
    "NEGATIVE_NUMBER": "a number is negative",
    "COUNT_NOT_WHOLE": "a count is not a whole number",
    "NUMBER_OUTLIER": "a regression value lies above Q3 + 3 IQR and above ten times the median",
    "REPORT_SHORT": "a report has one word",
    "OPTIONS_OFFERED": "an open question (vqa) offers lettered options; classification reads and scores those",
    "LABEL_REPEATED": "an answer names a label twice",
    "NORMAL_WITH_FINDINGS": "an answer says normal beside findings",
    "CLASS_SINGLETON": "an answer that only one row gives",
    "ROW_REPEATED": "a row asks the same of the same images as an earlier one, with the same answer",
    "ROWS_CONTRADICT": "rows ask the same of the same images, with different answers",
    "EXCLUDED": "left out after review (--exclude-audit)",
    "CLEANED": "mended or left out by --clean; `changes` has the answer before and after",
    "CONTROL_TOKEN": "question, answer or label hold a control token of a tokenizer, such as <|im_end|>",
    "LITERAL_TAG": "question or answer hold a literal <image>",
    "ZERO_AREA_BOX": "a box has no area; no prediction can match it",
    "INVERTED_BOX": "a box has its corners swapped",
    "BOX_OUTSIDE": "a box reaches beyond its image",
    "OVER_BUDGET": "the record has more tokens than cutoff_len and would be cut",
    "LEAK_EXACT": "a training image is, byte for byte, also in another split",
    "LEAK_NEAR": "a training image is nearly the same as one in another split",
}


def sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def summary(converted: Sequence[DatasetResult]) -> dict[str, Any]:
    """What report.json says of the records: counts, reasons, datasets, findings."""
    findings = [finding for part in converted for finding in part.findings]
    return {
        "counts": counts_of(converted),
        "codes": {code: CODES[code] for code in sorted({finding.code for finding in findings})},
        "datasets": [_dataset_summary(part) for part in converted],
        "findings": findings,
    }


def _digest(path: Path) -> str:
    """SHA-256 of a file; of a folder that is a dataset by itself, of the names and lengths of all files in it."""
    if path.is_file():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return sha256("\0".join(f"{file.relative_to(path)}\0{file.stat().st_size}" for file in files).encode())


def _dataset_summary(part: DatasetResult) -> dict[str, Any]:
    targets: dict[str, Counter[str]] = defaultdict(Counter)
    for record in part.records:
        targets[record.task][record.source.truth] += 1
    sizes = Counter(size for record in part.records for size in record.source.sizes)
    return {
        "dataset": part.dataset,
        "split": part.split,
        "category": part.category,
        "file": part.file,
        "sha256": _digest(Path(part.file)),
        **counts_of([part]),
        "findings": dict(Counter(finding.code for finding in part.findings)),
        "tasks": {task: sum(counts.values()) for task, counts in targets.items()},
        # Only answers that repeat make a histogram; boxes, counts and sentences are nearly all different.
        "answers": {task: dict(counts.most_common(40)) for task, counts in targets.items() if len(counts) <= 40},
        "pictures": len({image for record in part.records for image in record.images}),
        "picture_sizes": {f"{width}x{height}": count for (width, height), count in sizes.most_common(20)},
    }


def print_report(converted: Iterable[DatasetResult], console: Console) -> None:
    """The outcome as a table, one row per dataset and split, and the findings by code with the first few of each."""
    parts = list(converted)
    actions: tuple[Action, ...] = get_args(Action)
    table = Table("dataset", "split", title="Records")
    for heading in ("in", *actions):
        table.add_column(heading, justify="right")
    for part in parts:
        table.add_row(escape(part.dataset), part.split, *map(str, counts_of([part]).values()))
    table.add_section()
    table.add_row("all", "", *map(str, counts_of(parts).values()), style="bold")
    console.print(table)
    by_code: dict[str, list[tuple[str, Finding]]] = defaultdict(list)
    for part in parts:
        for finding in part.findings:
            by_code[finding.code].append((part.dataset, finding))
    for code, found in sorted(by_code.items()):
        datasets = Counter(dataset for dataset, _ in found)
        where = ", ".join(f"{dataset} {count}" for dataset, count in datasets.items())
        console.print(f"[bold]{code}[/]: {CODES[code]} ({escape(where)})", highlight=False, soft_wrap=True)
        for _, finding in found[:3]:
            console.print(f"  {finding.action} {finding.detail}", markup=False, highlight=False, soft_wrap=True)
        if len(found) > 3:
            console.print(f"  and {len(found) - 3} more in {REPORT}", markup=False, highlight=False, soft_wrap=True)
