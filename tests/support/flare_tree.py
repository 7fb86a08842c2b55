"""FLARE trees of made-up rows, and their conversion in this process."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from medvl.boxes import Frame
from medvl.sharegpt import Record, read_records
from medvl.sources.base import SourceFile
from medvl.sources.flare import FLARE
from medvl.sources.flare_datasets import FLARE_DATASETS
from preprocess import rows
from preprocess.decoding import ImageInfo
from preprocess.flare import main
from preprocess.options import Options

FOLDERS = {"training": ("train", "imagesTr"), "validation-public": ("val", "imagesVal"),
           "validation-hidden": ("val", "imagesVal"), "testing": ("test", "imagesTs")}  # fmt: skip

# A row of each dataset, as its answers look in the release: (TaskType, ImageName, Question, Answer).
ROWS: dict[str, tuple[str, Any, str, Any]] = {
    "retino": ("classification", "retino_1.png", "Grade? A: No DR, B: Mild NPDR, C: Moderate NPDR", "C"),
    "fundus": ("Classification", "fundus_1.png", "Diagnosis? A: Normal, B: Glaucoma", "A"),
    "BUSI-det": ("Detection", "BUSI_1.png", "Box coordinates ([x_min, …]) of lesions", "[[10, 20, 50, 60]]"),
    "BUS-UCLM-det": ("Detection", "BUS_1.png", "Boxes of lesions", "[[1, 2, 30, 40], [50, 10, 90, 70]]"),
    "BUSI": ("classification", "BUSI_1.png", "Question: which? Options: A) Benign lesion B) No lesion", "A"),
    "BUS-UCLM": ("classification", "BUS_1.png", "Question: which? Options: A) Benign lesion B) No lesion", "B"),
    "iugc": ("Detection", "IUGC_1.png", "Specify the bounding box of pubic symphysis.", [[5, 6, 40, 30]]),
    "boneresorption": ("regression", "bone_1.png", "Determine the ABR% in this OPG", 34.7),
    "dental": ("Classification", "PXMT_1.png", "Class? A: I, B: II, C: III, D: IV, E: Edentulous, F: Normal", "F"),
    "periapical": ("multi-label classification", "PRML_1.png", "Select all from the following: Dental Caries;"
                   " Endodontic Treatment, Restorative Treatment, and Complications.",
                   "Dental Caries; Endodontic Treatment, Restorative Treatment, and Complications"),
    "IU_XRay": ("report generation", ["CXR_1-0.png", "CXR_1-1.png"], "Describe the heart.", "Heart size is normal."),
    "chestdr": ("Multi-label Classification", "ChestDR_1.png", "Which findings?", "Pleural Effusion, Pneumonia"),
    "neojaundice": ("classification", ["J-1.png", "J-2.png", "J-3.png"], "Treat? A. No Treatment, B. Treatment", "B"),
    "chromosome": ("instance_detection", "Chrm_1.png", "Return a JSON mapping chromosome identifiers to boxes.",
                   '{"1": [[10, 10, 20, 20], [30, 30, 40, 40]], "X": [[50, 50, 60, 60]]}'),
    "neurips22cell": ("Cell Counting", "cell_1.png", "How many cells?", 1664),
    "bone_marrow": ("classification", "bm_1.png", "Which? A: a B: b C: c D: d E: e F: f G: g H: h I: i J: j K: k", "K"),
    "endo": ("classification", ["Endo_1-1.png", "Endo_1-2.png"], "Finding? A: Ulcer, B: Polyp, D: Tumor", "T"),
    "bcn20000": ("classification", ["BCN_1-1.png"], "Which? A: Nevus, B: Melanoma", "B"),
    "CMMD": ("classification", ["D1-1.png", "D1-2.png"], "What is the molecular subtype?", "Luminal a"),
}  # fmt: skip


def write_tree(root: Path, rows: dict[str, list[dict[str, Any]]], folder: str = "training", suffix: str = "") -> None:
    """A tree with `rows` per dataset and a 100 x 80 image for every name in them."""
    stem, images = FOLDERS[folder]
    for dataset, questions in rows.items():
        place = root / folder / FLARE_DATASETS[dataset].category / dataset
        (place / images).mkdir(parents=True, exist_ok=True)
        (place / f"{dataset}_questions_{stem}{suffix}.json").write_text(json.dumps(questions))
        for row in questions:
            names = row["ImageName"] if isinstance(row["ImageName"], list) else [row["ImageName"]]
            for name in names:
                if name.startswith(images) and "gone" not in name:
                    Image.new("RGB", (100, 80), "white").save(place / name)


def row(dataset: str, *, folder: str = "training", **changes: Any) -> dict[str, Any]:
    task, image, question, answer = ROWS[dataset]
    images = FOLDERS[folder][1]
    names = [f"{images}/{name}" for name in image] if isinstance(image, list) else f"{images}/{image}"
    return {"TaskType": task, "Modality": "x", "ImageName": names, "Question": question, "Answer": answer,
            "Split": FOLDERS[folder][0]} | changes  # fmt: skip


def convert(root: Path, out: Path, *options: str, code: int | None = None) -> dict[str, Any]:
    """The report; the exit code must be `code`, or 3 if no record was kept, else 0."""
    arguments = ["--root", str(root), "--out", str(out), "--dataset-info", str(out / "dataset_info.json")]
    ended = main([*arguments, "--workers", "1", *options])
    path = out / "report.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    kept = bool(report) and report["counts"]["kept"] > 0
    assert ended == (code if code is not None else 0 if kept else 3)
    return report


def converted(out: Path, name: str) -> list[Record]:
    return read_records(out / f"flare_{name}.json")


def converted_row(dataset: str, folder: str = "train", style: Any = "json", **changes: Any) -> tuple[Any, list[str]]:
    """The record of a row, and the codes of its findings with details."""
    file = SourceFile(FLARE.splits[folder], FLARE_DATASETS[dataset].category, dataset, Path("/data/questions.json"))
    (sample,) = FLARE.samples(file, [row(dataset, **changes)])
    images = {name: ImageInfo(f"/data/{name}", (100, 80)) for name in sample.images}
    options = Options(FLARE, Frame.PIXEL if style == "flare" else Frame.NORM1000, style, "drop", "flare")
    record, findings = rows.convert(sample, images, options)
    return record, [f"{finding.code} {finding.action} {finding.detail}" for finding in findings]
