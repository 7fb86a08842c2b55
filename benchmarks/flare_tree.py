#!/usr/bin/env python
r"""A made-up tree in the layout and at the size of FLARE-Task5-MLLM-2D: 58,112 rows, 51,000 small images, and issues.

examples:
  python benchmarks/flare_tree.py /tmp/flare              # full size: about 1 GB, some minutes
  python benchmarks/flare_tree.py /tmp/flare --scale 0.02

Row counts per dataset and split are the published ones; where only the total is known (training of eight datasets) the
rest is spread. Images are blurred noise, PNG or JPEG as in the release. What is wrong with which row: flare_issues.py.
"""

import argparse
import json
import math
import shutil
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.flare_issues import ISSUES, Row
from medvl.sources.flare import FLARE, FlareSplit
from medvl.sources.flare_datasets import FLARE_DATASETS, FlareDataset


@dataclass(frozen=True)
class Kind:
    """What the rows of a dataset look like.

    Attributes:
        task: Its TaskType, as spelled in the release.
        suffix: Of its images: png or jpg.
        questions: Rows per case.
        images: Images per case.
        rows: Rows in train, val, hidden, test.
    """

    task: str
    suffix: str
    questions: int
    images: int
    rows: tuple[int, int, int, int]


KINDS: dict[str, Kind] = {
    "retino": Kind("classification", "jpg", 1, 1, (1113, 279, 0, 0)),
    "fundus": Kind("Classification", "jpg", 2, 1, (1380, 0, 296, 298)),
    "BUSI-det": Kind("Detection", "png", 1, 1, (517, 130, 0, 0)),
    "BUS-UCLM-det": Kind("Detection", "png", 1, 1, (218, 45, 0, 0)),
    "BUSI": Kind("classification", "png", 1, 1, (624, 156, 0, 0)),
    "BUS-UCLM": Kind("classification", "png", 1, 1, (521, 161, 0, 0)),
    "iugc": Kind("Detection", "png", 2, 1, (4000, 0, 200, 1500)),
    "boneresorption": Kind("regression", "jpg", 1, 1, (702, 0, 100, 202)),
    "dental": Kind("Classification", "png", 6, 1, (4206, 0, 600, 1199)),
    "periapical": Kind("multi-label classification", "jpg", 2, 1, (5200, 0, 477, 923)),
    "IU_XRay": Kind("Report Generation", "png", 3, 2, (9000, 1945, 0, 0)),
    "chestdr": Kind("Multi-label Classification", "png", 1, 1, (4200, 970, 0, 0)),
    "neojaundice": Kind("classification", "jpg", 1, 3, (596, 149, 0, 0)),
    "chromosome": Kind("instance_detection", "png", 1, 1, (1200, 0, 176, 361)),
    "neurips22cell": Kind("Cell Counting", "png", 1, 1, (1000, 100, 0, 0)),
    "bone_marrow": Kind("classification", "jpg", 1, 1, (722, 0, 110, 213)),
    "endo": Kind("classification", "jpg", 1, 6, (181, 16, 0, 0)),
    "bcn20000": Kind("classification", "jpg", 1, 2, (6500, 716, 0, 0)),
    "CMMD": Kind("classification", "jpg", 2, 2, (4000, 910, 0, 0)),
}

OPTIONS = {
    "retino": "A: No DR, B: Mild NPDR, C: Moderate NPDR, D: Severe NPDR, E: PDR",
    "fundus": "A: Normal, B: Diabetic Retinopathy, C: Macular Degeneration, D: Glaucoma, E: Other",
    "BUSI": "Options: A) Benign lesion B) Malignant lesion C) No lesion",
    "BUS-UCLM": "Options: A) Benign lesion B) Malignant lesion C) No lesion",
    "dental": "A: Class I, B: Class II, C: Class III, D: Class IV, E: Edentulism, F: Normal",
    "neojaundice": "A. No Treatment, B. Treatment Required",
    "bone_marrow": "A: Normal B: Myelofibrosis C: Myeloma D: Anemia E: Purpura F: Leukemia",
    "endo": "A: Ulcer, B: Erosion, C: Polyp, D: Tumor, E: None",
    "bcn20000": "A: Keratosis, B: Carcinoma, C: Nevus, D: Melanoma",
}
LABELS = {
    "periapical": ("; ", ["Dental Caries", "Pulp Diseases", "Periodontal Diseases",
                          "Endodontic Treatment, Restorative Treatment, and Complications"]),
    "chestdr": (", ", ["Pleural Effusion", "Cardiomegaly", "Pneumonia", "Fibrosis", "Nodule"]),
}  # fmt: skip


def make_row(dataset: FlareDataset, split: FlareSplit, index: int, rng: np.random.Generator, answered: bool) -> Row:
    """A clean row."""
    kind = KINDS[dataset.name]
    case = index // kind.questions
    names = image_names(dataset.name, split, case)
    question, answer = _question(dataset.name, kind, index, rng)
    return {
        "TaskType": kind.task,
        "Modality": dataset.category,
        "ImageName": names if dataset.multi_image else names[0],
        "Question": question,
        "Answer": answer if answered else "",
        "Split": "validation" if dataset.name == "dental" and split.stem == "val" else split.stem,
    }


def image_names(dataset: str, split: FlareSplit, case: int) -> list[str]:
    """Names of a case's images, as in ImageName. Every seventh case of bcn20000 has one."""
    kind = KINDS[dataset]
    count = 1 if dataset == "bcn20000" and case % 7 == 0 else kind.images
    views = [f"-{view + 1}" for view in range(count)] if kind.images > 1 else [""]
    return [f"{split.images}/{dataset}_{case:05d}{view}.{kind.suffix}" for view in views]


def _question(dataset: str, kind: Kind, index: int, rng: np.random.Generator) -> tuple[str, Any]:
    place = index % kind.questions
    if dataset in OPTIONS:
        letters = [mark for mark in "ABCDEF" if f"{mark}:" in OPTIONS[dataset] or f"{mark})" in OPTIONS[dataset]
                   or f"{mark}." in OPTIONS[dataset]]  # fmt: skip
        return f"Question {place}: which of these is shown? {OPTIONS[dataset]}", str(rng.choice(letters))
    if dataset in LABELS:
        separator, labels = LABELS[dataset]
        offered = f" from the following: {'; '.join(labels)}." if dataset == "periapical" else "?"
        chosen = sorted(rng.choice(len(labels), int(rng.integers(1, 4)), replace=False))
        return f"Which findings of tooth {11 + place}{offered}", separator.join(labels[i] for i in chosen)
    if kind.task == "Detection":
        boxes = [_box(rng) for _ in range(1 if rng.random() < 0.95 else 2)]
        structure = ["pubic symphysis", "fetal head"][place] if dataset == "iugc" else "lesions"
        return f"Give the bounding box [x_min, y_min, x_max, y_max] of {structure}.", json.dumps(boxes)
    if dataset == "chromosome":
        answer = {str(number): [_box(rng), _box(rng)] for number in [*range(1, 23), "X"]}
        return "Return a JSON mapping chromosome identifiers to their boxes.", json.dumps(answer)
    if kind.task == "Cell Counting":
        return "How many cells are shown?", int(rng.integers(3, 1665))
    if kind.task == "regression":
        return "Determine the percentage of alveolar bone resorption (ABR%).", round(float(rng.gamma(4, 8)), 1)
    if kind.task == "Report Generation":
        part = ["heart", "lungs", "bones"][place]
        return f"Describe the {part}.", f"The {part} show no acute finding, grade {rng.integers(9)}."
    return ["Is it benign or malignant?", "What is the abnormality?"][place], str(
        rng.choice([["Benign", "Malignant"], ["Mass", "Calcification"]][place])
    )


def _box(rng: np.random.Generator) -> list[int]:
    x, y = (int(value) for value in rng.integers(0, 80, 2))
    width, height = (int(value) for value in rng.integers(8, 40, 2))
    return [x, y, x + width, y + height]


def draw(path: Path, seed: Sequence[int], side: int) -> None:
    """Blurred noise with grain: compresses and decodes like a medical image of up to `side` pixels."""
    rng = np.random.default_rng(seed)
    colours = 3 if path.suffix == ".jpg" else 1
    width, height = int(rng.integers(side * 5 // 8, side)), int(rng.integers(side // 2, side * 7 // 8))
    coarse = rng.integers(0, 256, (7, 9, colours), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = rng.integers(-4, 5, smooth.shape, dtype=np.int16)
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path)


def _draw_all(items: Sequence[tuple[Path, Sequence[int]]], side: int) -> None:
    for path, seed in items:
        draw(path, seed, side)


def row_count(dataset: str, split: FlareSplit, scale: float) -> int:
    """Rows of a dataset in a split; at least twelve where there are any, so that every issue has a place."""
    full = KINDS[dataset].rows[list(FLARE.splits).index(split.name)]
    return max(min(12, full), math.ceil(full * scale))


def build(root: Path, *, scale: float = 1.0, workers: int = 2, zipped: bool = True, side: int = 256) -> None:
    """Write the tree.

    Args:
        root: Where; must not exist.
        scale: Share of the full size.
        workers: Processes that draw.
        zipped: Whether the images of the endoscopy and ultrasound sets lie in `images*.zip`, as they are downloaded.
        side: Largest side of an image, pixels.
    """
    root.mkdir(parents=True)
    images: list[tuple[Path, Sequence[int]]] = []
    for split_number, split in enumerate(FLARE.splits.values()):
        for number, dataset in enumerate(FLARE_DATASETS.values()):
            if count := row_count(dataset.name, split, scale):
                home = root / split.folder / dataset.category / dataset.name
                (home / split.images).mkdir(parents=True)
                _write_questions(home, dataset, split, count, (split_number, number))
                cases = math.ceil(count / KINDS[dataset.name].questions)
                names = [name for case in range(cases) for name in image_names(dataset.name, split, case)]
                images += [(home / name, (split_number, number, place)) for place, name in enumerate(names)]
    chunks = [images[start : start + 500] for start in range(0, len(images), 500)]
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(partial(_draw_all, side=side), chunks))
    for issue in ISSUES:
        if issue.image:
            home = root / "training" / FLARE_DATASETS[issue.dataset].category / issue.dataset
            case = issue.index // KINDS[issue.dataset].questions
            issue.image(home / image_names(issue.dataset, FLARE.splits["train"], case)[0])
    if zipped:
        for folder in [*root.glob("*/Ultrasound/*/images*"), *root.glob("*/Endoscopy/*/images*")]:
            pack(folder)


def _write_questions(home: Path, dataset: FlareDataset, split: FlareSplit, count: int, seed: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    rows = [make_row(dataset, split, index, rng, answered=split.name != "test") for index in range(count)]
    if split.name == "train":
        for issue in ISSUES:
            if issue.dataset == dataset.name and issue.row:
                rows[issue.index] |= issue.row
        if dataset.name == "fundus":  # a row twice, and a pair that disagrees
            rows[5] = dict(rows[4])
            rows[7] = rows[6] | {"Answer": "A" if rows[6]["Answer"] != "A" else "B"}
    stem = f"{dataset.name}_questions_{split.stem}"
    if split.name == "hidden":
        _dump(home / f"{stem}_withGT.json", rows)
        rows = [row | {"Answer": ""} for row in rows]
    _dump(home / f"{stem}.json", rows)


def _dump(path: Path, rows: Sequence[Row]) -> None:
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")


def pack(folder: Path) -> None:
    """Replace an image folder by its archive."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{folder.name}/{path.name}")
    shutil.rmtree(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Write a tree."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("root", type=Path, help="folder to make")
    arguments.add_argument("--scale", type=float, default=1.0, help="share of the full size (default: 1)")
    arguments.add_argument("--workers", type=int, default=2, help="processes that draw (default: 2)")
    arguments.add_argument("--unzipped", action="store_true", help="leave every image folder as it is")
    arguments.add_argument("--side", type=int, default=256, help="largest side of an image, pixels (default: 256)")
    args = arguments.parse_args(argv)
    build(args.root, scale=args.scale, workers=args.workers, zipped=not args.unzipped, side=args.side)
    return 0


if __name__ == "__main__":
    sys.exit(main())
