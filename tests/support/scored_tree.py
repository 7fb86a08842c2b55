"""A made-up FLARE tree with every task in it, and evaluation/run.py on predictions for it."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.run import main

Row = dict[str, Any]
PERIAPICAL = (
    "Select all that apply from the following, separate multiple selections with a semicolon: Dental Caries; "
    "Pulp Diseases; Endodontic Treatment, Restorative Treatment, and Complications."
)
# (category, dataset, task, image or images, question, answer): every task, and the dirt of the real data.
ROWS: list[tuple[str, str, str, str | list[str], str, Any]] = [
    ("Retinography", "fundus", "Classification", "FUNDUS_1.png", "Diagnosis? A: Normal, B: Glaucoma", "B"),
    ("Retinography", "fundus", "Classification", "FUNDUS_1.png", "Age? A: Child, B: Adult, C: Elderly", "A"),
    ("Retinography", "fundus", "Classification", "FUNDUS_2.png", "Diagnosis? A: Normal, B: Glaucoma", "A"),
    ("Endoscopy", "endo", "classification", ["Endo_1-1.png", "Endo_1-2.png"], "Finding? A. Ulcer B. Polyp", "T"),
    ("Endoscopy", "endo", "classification", ["Endo_2-1.png", "Endo_2-2.png"], "Finding? A. Ulcer B. Polyp", "A B"),
    ("Mammography", "CMMD", "classification", ["CMMD_1.png", "CMMD_2.png"], "Which subtype is this?", "Luminal a"),
    ("Mammography", "CMMD", "classification", ["CMMD_3.png", "CMMD_4.png"], "Which subtype is this?", "Her2-enriched"),
    ("Xray", "periapical", "multi-label classification", "PRML_1.png", PERIAPICAL, "Dental Caries; Pulp Diseases"),
    ("Xray", "periapical", "multi-label classification", "PRML_2.png", PERIAPICAL,
     "Endodontic Treatment, Restorative Treatment, and Complications"),
    ("Xray", "chestdr", "multi-label classification", "ChestDR_1.png", "Findings?", "Pneumonia, Cardiomegaly"),
    ("Xray", "chestdr", "multi-label classification", "ChestDR_2.png", "Findings?", "none"),
    ("Ultrasound", "BUSI-det", "Detection", "BUSI_1.png", "Box lesions.", "[[94, 105, 165, 172], [98, 10, 98, 10]]"),
    ("Ultrasound", "BUSI-det", "Detection", "BUSI_2.png", "Box the lesions.", "[]"),
    ("Ultrasound", "iugc", "Detection", "IUGC_1.png", "Box the fetal head.", [[10, 20, 110, 120]]),
    ("Microscopy", "chromosome", "instance_detection", "Chrm_1.png", "Map the chromosomes.",
     '{"1": [[10, 10, 20, 30], [50, 50, 70, 80]], "X": [[5, 5, 9, 9]]}'),
    ("Microscopy", "neurips22cell", "counting", "cell_1.png", "How many cells?", 11),
    ("Microscopy", "neurips22cell", "counting", "cell_2.png", "How many cells?", "1664"),
    ("Xray", "boneresorption", "regression", "boneresorption_1.png", "ABR%?", 20.1631313163075),
    ("Xray", "boneresorption", "regression", "boneresorption_2.png", "ABR%?", 0.0),
    ("Xray", "IU_XRay", "report_generation", ["IU-XRay_1.png", "IU-XRay_2.png"], "Heart?", "Heart size is normal."),
    ("Xray", "IU_XRay", "report_generation", ["IU-XRay_3.png", "IU-XRay_4.png"], "Heart?", "Normal."),
]  # fmt: skip


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def build_tree(root: Path, split: str = "validation-public", *, with_images: bool = False) -> list[Row]:
    """The made-up tree; returns its rows in the order of the challenge's predictions.json."""
    files: dict[Path, list[Row]] = {}
    for category, dataset, task, images, question, answer in ROWS:
        names = [f"imagesVal/{name}" for name in ([images] if isinstance(images, str) else images)]
        row = {"TaskType": task, "Modality": category, "ImageName": names if isinstance(images, list) else names[0],
               "Question": question, "Answer": answer, "Split": "val"}  # fmt: skip
        folder = root / split / category / dataset
        files.setdefault(folder / f"{dataset}_questions_val.json", []).append(row)
        for name in names if with_images else ():
            (folder / "imagesVal").mkdir(parents=True, exist_ok=True)
            Image.new("L", (200, 180)).save(folder / name)
    for path, rows in files.items():
        write_json(path, rows)
    return [row for rows in files.values() for row in rows]


def score(predictions: Path, references: Path, out: Path, *more: str) -> dict[str, Any]:
    """Score without a page, which has tests of its own."""
    assert main([str(predictions), "--references", str(references), "--out", str(out), "--no-page", *more]) == 0
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def entries(metrics: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(where, metric, entry) of every number in metrics.json."""
    found = [(task, name, entry) for part in ("tasks", "macro") for task, named in metrics[part].items()
             for name, entry in named.items()]  # fmt: skip
    return found + [
        (f"{dataset}/{task}", name, entry)
        for dataset, tasks in metrics["datasets"].items()
        for task, named in tasks.items()
        for name, entry in named.items()
    ]
