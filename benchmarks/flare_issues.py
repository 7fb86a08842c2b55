"""What is wrong with which row of the tree that flare_tree.py makes up."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Row = dict[str, Any]


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong with one row of the training split.

    Attributes:
        dataset: Whose.
        index: The row.
        code: The finding it must cause.
        action: What must become of the row: kept, dropped or quarantined; all rows of its case for images.
        row: Changes to the row.
        image: What is done to its first image.
    """

    dataset: str
    index: int
    code: str
    action: str = "kept"
    row: Row | None = None
    image: Callable[[Path], None] | None = None


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def _turn(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)


def _deepen(path: Path) -> None:
    Image.fromarray(np.asarray(Image.open(path).convert("L"), np.uint16) * 200).save(path)


def _clear(path: Path) -> None:
    image = Image.open(path).convert("RGBA")
    image.putpixel((0, 0), (255, 255, 255, 0))
    image.save(path)


def _to_cmyk(path: Path) -> None:
    Image.open(path).convert("CMYK").save(path)


def _bomb(path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(path)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


ISSUES: tuple[Issue, ...] = (
    Issue("retino", 3, "IMAGE_UNREADABLE", "quarantined", image=_cut),
    Issue("retino", 4, "EXIF_ROTATED", image=_turn),
    Issue("retino", 5, "IMAGE_CMYK", image=_to_cmyk),
    Issue("retino", 6, "IMAGE_UNREADABLE", "quarantined", image=_empty),
    Issue("retino", 7, "LETTER_NOT_OPTION", row={"Answer": "Q"}),
    Issue("retino", 8, "OPTION_TEXT", row={"Answer": "Mild NPDR"}),
    Issue("BUSI", 3, "IMAGE_UNREADABLE", "quarantined", image=_corrupt),
    Issue("BUSI", 4, "DEPTH_WINDOWED", image=_deepen),
    Issue("BUSI", 5, "ALPHA_FLATTENED", image=_clear),
    Issue("BUSI", 6, "IMAGE_TOO_LARGE", "quarantined", image=_bomb),
    Issue("BUSI", 7, "IMAGE_MISSING", "dropped", image=Path.unlink),
    Issue("BUSI", 8, "IMAGE_OUTSIDE", "quarantined", row={"ImageName": "../../../../etc/passwd"}),
    Issue("BUSI", 9, "IMAGE_OUTSIDE", "quarantined", row={"ImageName": "/etc/passwd"}),
    Issue("BUSI", 10, "IMAGE_NAME", "quarantined", row={"ImageName": None}),
    Issue("BUSI", 11, "TASK_UNKNOWN", "quarantined", row={"TaskType": "segmentation"}),
    Issue("BUSI-det", 3, "ZERO_AREA_BOX", row={"Answer": "[[94, 15, 105, 72], [68, 10, 68, 10]]"}),
    Issue("BUSI-det", 4, "INVERTED_BOX", row={"Answer": "[[80, 60, 20, 10]]"}),
    Issue("BUSI-det", 5, "ANSWER_UNUSABLE", "quarantined", row={"Answer": "[[80, 60, 20]]"}),
    Issue("BUSI-det", 6, "COORDINATE_RANGE", row={"Answer": "[[0.1, 0.2, 0.4, 0.6]]"}),
    Issue("BUSI-det", 7, "BOX_OUTSIDE", row={"Answer": "[[10, 10, 5000, 60]]"}),
    Issue("BUSI-det", 8, "ANSWER_EMPTY", "dropped", row={"Answer": None}),
    Issue("BUS-UCLM-det", 3, "ANSWER_UNUSUAL", row={"Answer": "[1, 2, 30, 40, 5, 6, 70, 80]"}),
    Issue("boneresorption", 3, "NUMBER_OUTLIER", row={"Answer": 2085.5}),
    Issue("boneresorption", 4, "NEGATIVE_NUMBER", row={"Answer": -3}),
    Issue("boneresorption", 5, "ANSWER_UNUSABLE", "quarantined", row={"Answer": "n/a"}),
    Issue("neurips22cell", 3, "COUNT_NOT_WHOLE", row={"Answer": 10.5}),
    Issue("chromosome", 3, "MAP_MALFORMED", row={"Answer": "{'1': [[1, 2, 30, 40]]}"}),
    Issue("chestdr", 3, "NORMAL_WITH_FINDINGS", row={"Answer": "Normal, Fibrosis"}),
    Issue("chestdr", 4, "LABEL_REPEATED", row={"Answer": "Fibrosis, Fibrosis"}),
    Issue("IU_XRay", 3, "REPORT_SHORT", row={"Answer": "Normal."}),
    Issue("IU_XRay", 4, "BOXES_UNEXPECTED", row={"Answer": "A mass at [[1, 2, 3, 4]]"}),
    Issue("endo", 3, "LETTER_NOT_OPTION", row={"Answer": "T"}),
    Issue("endo", 4, "SEVERAL_LETTERS", row={"Answer": "A B"}),
    Issue("CMMD", 3, "LETTER_WITHOUT_OPTIONS", row={"Answer": "A"}),
    Issue("CMMD", 4, "LITERAL_TAG", "quarantined", row={"Question": "<image> is it benign?"}),
    Issue("CMMD", 6, "QUESTION_EMPTY", "dropped", row={"Question": " "}),
    Issue("bcn20000", 8, "IMAGE_MISSING", "dropped", image=Path.unlink),
)
