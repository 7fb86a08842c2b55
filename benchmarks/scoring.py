#!/usr/bin/env python
"""Speed and memory of scoring as many predictions as FLARE has, against a loop that a first version would be.

    python benchmarks/scoring.py [--samples 58112] [--naive-draws 5]

The naive side loops over samples and calls scikit-learn once per draw, metric and dataset. It is run for a few draws
and scaled to as many as ours made; the draws it makes are the same, so that its values are compared one by one.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, mean_absolute_error
from sklearn.preprocessing import MultiLabelBinarizer

from evaluation import Settings, evaluate
from evaluation.matching import both_sides
from evaluation.metrics.choice import truth_of
from evaluation.metrics.registry import metrics_of
from evaluation.samples import Sample
from evaluation.scores import Resampling, TaskScores
from evaluation.scoring import score
from evaluation.statistics import cluster_codes, computed, dataset_rows, draw_totals
from medvl.tasks import Task

LABELS = ["Dental Caries", "Periradicular Lesions", "Pulp Diseases", "Periodontal Diseases",
          "Endodontic Treatment, Restorative Treatment, and Complications"]  # fmt: skip
SELECT = f"What is seen? Select all that apply from the following, separated by a semicolon: {'; '.join(LABELS)}."
SENTENCES = ["Heart size is normal.", "No focal consolidation, pneumothorax or large pleural effusion.",
             "No acute bony abnormality.", "The cardiomediastinal silhouette is within normal limits."]  # fmt: skip
GRADES = "What is the grade? A: None, B: Mild, C: Moderate, D: Severe, E: Proliferative"
# Dataset, task as FLARE spells it, image prefix, questions per image, share of all.
MIX = [("dental", "Classification", "PXMT", 6, 0.2), ("retino", "Classification", "Retino", 1, 0.2),
       ("fundus", "Classification", "FUNDUS", 2, 0.2), ("periapical", "multi-label classification", "PRML", 2, 0.15),
       ("iugc", "Detection", "IUGC", 1, 0.06), ("chromosome", "instance_detection", "Chrm", 1, 0.01),
       ("neurips22cell", "counting", "cell", 1, 0.03), ("boneresorption", "regression", "boneresorption", 1, 0.03),
       ("IU_XRay", "report_generation", "IU-XRay", 4, 0.12)]  # fmt: skip
Draw = Callable[[NDArray[np.intp]], float]


def main() -> None:
    """Make the files, score them both ways, print times, memory and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=58_112)
    parser.add_argument("--naive-draws", type=int, default=5)
    args = parser.parse_args()
    resampling = Resampling(1000)
    with tempfile.TemporaryDirectory() as folder:
        references, predictions = write_files(Path(folder), args.samples)
        start, work = time.perf_counter(), time.process_time()
        evaluation = evaluate(predictions, references, Settings(resampling=resampling, force=True)).evaluation
        whole, work = time.perf_counter() - start, time.process_time() - work
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say = sys.stdout.write
    say(f"{args.samples} predictions read, joined, parsed, scored with {resampling.draws} draws: {whole:.2f} s "
        f"({work:.2f} s of processor time), peak memory {memory:.0f} MiB\n")  # fmt: skip
    warnings.simplefilter("ignore")  # scikit-learn warns about answers that are no class of the references
    start = time.perf_counter()
    scores = score(evaluation.samples, "strict", resampling)
    ours = time.perf_counter() - start
    fixed, per_draw, difference = run_naive(scores, resampling, args.naive_draws)
    naive = fixed + per_draw * resampling.draws
    say(f"scoring alone, all metrics: {ours:.2f} s; naive loop, eight metrics: {naive:.0f} s "
        f"({args.naive_draws} draws measured): {naive / ours:.0f} times as long\n")  # fmt: skip
    say(f"largest difference of any value or draw: {difference:.1e}\n")


def write_files(folder: Path, total: int) -> tuple[Path, Path]:
    """References and predictions in the challenge's format; a tenth of the predictions is prose or nothing."""
    dice = random.Random(0)
    references: list[dict[str, Any]] = []
    for dataset, task, prefix, per_image, share in MIX:
        for index in range(round(total * share)):
            image = f"imagesVal/{prefix}_{index // per_image:06d}.png"
            question, answer = _question(dataset, index, dice)
            references.append({"TaskType": task, "Modality": "X-ray", "ImageName": image, "Question": question,
                           "Answer": answer, "Split": "val"})  # fmt: skip
    said = [row | {"Answer": _said(row, dice)} for row in references]
    dice.shuffle(said)
    paths = folder / "references.json", folder / "predictions.json"
    for path, rows in zip(paths, (references, said), strict=True):
        path.write_text(json.dumps(rows), encoding="utf-8")
    return paths


def _question(dataset: str, index: int, dice: random.Random) -> tuple[str, str]:
    if dataset == "periapical":
        return f"Tooth {index}: {SELECT}", "; ".join(dice.sample(LABELS, dice.choice([1, 1, 2])))
    if dataset == "iugc":
        return "Find the box of the fetal head.", json.dumps([_box(dice) for _ in range(dice.choice([1, 1, 2]))])
    if dataset == "chromosome":
        return "Map all chromosomes.", json.dumps({str(name): [_box(dice), _box(dice)] for name in range(1, 24)})
    if dataset in ("neurips22cell", "boneresorption"):
        return "How much?", str(dice.randint(3, 1664) if dataset == "neurips22cell" else round(dice.uniform(0, 90), 1))
    if dataset == "IU_XRay":
        return f"What do you see in part {index % 4}?", dice.choice(SENTENCES)
    return f"Question {index % 6}. {GRADES}", dice.choice("AABBCDE")


def _box(dice: random.Random) -> list[int]:
    x, y = dice.randint(0, 400), dice.randint(0, 400)
    return [x, y, x + dice.randint(20, 200), y + dice.randint(20, 200)]


def _said(row: dict[str, Any], dice: random.Random) -> str:
    answer, luck = row["Answer"], dice.random()
    if luck < 0.05:
        return "I cannot tell from this image, please consult a specialist. " * 5
    if luck < 0.1:
        return ""
    if row["TaskType"] == "Detection":
        boxes = [[side + dice.randint(-25, 25) for side in box] for box in json.loads(answer)]
        return json.dumps([{"bbox_2d": box, "label": "head"} for box in boxes])
    if row["TaskType"] == "Classification":
        return answer if luck < 0.7 else f"The answer is {dice.choice('ABCDE')}."
    if row["TaskType"] in ("counting", "regression"):
        return f"about {float(answer) * dice.uniform(0.8, 1.2):.1f}"
    return answer if luck < 0.7 else str(_question(_dataset(row), 0, dice)[1])


def _dataset(row: dict[str, Any]) -> str:
    return next(dataset for dataset, _, prefix, *_ in MIX if row["ImageName"].startswith(f"imagesVal/{prefix}_"))


def run_naive(scores: dict[Task, TaskScores], resampling: Resampling, draws: int) -> tuple[float, float, float]:
    """Time of the naive loop without draws, per draw, and its largest difference from ours."""
    fixed = per_draw = difference = 0.0
    for task, part in scores.items():
        for name, rows in dataset_rows(part.samples).items():
            samples = [part.samples[row] for row in rows]
            start = time.perf_counter()
            metrics = naive_metrics(task, samples, part, rows)
            members = clusters_of(samples)
            fixed += time.perf_counter() - start
            rng = resampling.generator(task.value, name)
            start = time.perf_counter()
            drawn = [np.concatenate([members[which] for which in rng.integers(len(members), size=len(members),
                     dtype=np.int32)]) for _ in range(draws)]  # fmt: skip
            values = {metric: [compute(index) for index in drawn] for metric, compute in metrics.items()}
            per_draw += (time.perf_counter() - start) / max(draws, 1)
            own = part.parts[name]
            sums = own.split(draw_totals([own.matrix], draws, resampling.generator(task.value, name))[0])
            by_name = {metric.name: metric for metric in metrics_of("strict", task)}
            for metric, compute in metrics.items():
                at_once = compute(np.arange(len(samples)))
                difference = max(difference, abs(at_once - part.datasets[name][metric]["value"]))
                gaps = np.abs(computed(by_name[metric], sums) - np.array(values[metric]))
                difference = max(difference, float(gaps.max(initial=0.0)))
    return fixed, per_draw, difference


def clusters_of(samples: Sequence[Sample]) -> list[NDArray[np.intp]]:
    """Rows of every cluster."""
    rows: dict[int, list[int]] = defaultdict(list)
    for row, code in enumerate(cluster_codes(samples).tolist()):
        rows[code].append(row)
    return [np.array(rows[code], dtype=np.intp) for code in sorted(rows)]


def naive_metrics(task: Task, samples: Sequence[Sample], part: TaskScores, at: NDArray[np.intp]) -> dict[str, Draw]:
    """The task's main metrics as functions of the rows drawn, by scikit-learn or a loop over samples.

    Which class an unreadable answer is charged to is read from our table: it is a rule, tests judge it.

    Args:
        task: The task.
        samples: Of one dataset.
        part: Ours, with the table of all samples of the task.
        at: Rows of `samples` in that table.
    """
    if task is Task.CLASSIFICATION:
        truth = np.array([f"{sample.reference.question[:9]} {truth_of(sample)}"[-1] for sample in samples])
        said = np.array([str(sample.answer.value) if sample.answer.parsed else "INVALID" for sample in samples])
        charged = _charged(truth, part, at)
        return {
            "balanced_accuracy": lambda rows: float(balanced_accuracy_score(truth[rows], said[rows])),
            "accuracy": lambda rows: float(accuracy_score(truth[rows], said[rows])),
            "f1_macro": lambda rows: _f1_macro(truth[rows], np.where(charged[rows] == "", said[rows], charged[rows])),
        }
    if task is Task.MULTI_LABEL:
        sides = [[_labels(sample, side) for sample in samples] for side in (0, 1)]
        binarizer = MultiLabelBinarizer().fit(sides[0] + sides[1])
        references, predictions = (binarizer.transform(side) for side in sides)
        return {
            "f1_micro": lambda rows: float(f1_score(references[rows], predictions[rows], average="micro")),
            "f1_samples": lambda rows: float(
                f1_score(references[rows], predictions[rows], average="samples", zero_division=0)
            ),
        }
    if task.is_number:
        pairs = [(sample.truth.value, sample.answer.value) for sample in samples]
        valid = np.array([said is not None for _, said in pairs])
        numbers = np.array([(truth, said or 0.0) for truth, said in pairs], dtype=float)
        return {"mae": lambda rows: float(mean_absolute_error(*numbers[rows][valid[rows]].T))}
    if task is Task.DETECTION:
        counts = np.array([_box_counts(sample) for sample in samples])
        return {"precision_iou50": lambda rows: _loop_ratio(counts, rows)}
    return {}


def _charged(truth: NDArray[np.str_], part: TaskScores, at: NDArray[np.intp]) -> NDArray[np.str_]:
    """The class that each unreadable answer is charged to, marked as one; empty for an answer that can be read."""
    columns = csr_matrix(part.table.columns["references"])[at], csr_matrix(part.table.columns["predictions"])[at]
    names = {int(place): str(name) for place, name in zip(columns[0].indices, truth, strict=True)}
    predicted = columns[1].tocoo()
    named = {int(row): f"charged {names[int(place)]}" for row, place in zip(predicted.row, predicted.col, strict=True)}
    invalid = part.table.invalid[at]
    return np.array([named.get(row, "") if invalid[row] else "" for row in range(len(at))], dtype="<U20")


def _f1_macro(truth: NDArray[np.str_], said: NDArray[np.str_]) -> float:
    """Charged classes are predictions beside the references, so that they miss nothing more."""
    marked = np.char.startswith(said, "charged ")
    predictions = np.char.replace(said[marked], "charged ", "")
    sides = (
        np.concatenate([truth, np.full(len(predictions), "-")]),
        np.concatenate([np.where(marked, "-", said), predictions]),
    )
    return float(f1_score(*sides, labels=np.unique(truth), average="macro", zero_division=0))


def _labels(sample: Sample, side: int) -> list[str]:
    if side == 1 and sample.invalid:
        return ["no answer"]
    value = (sample.truth, sample.answer)[side].value
    return [label.lower() for label in value] if isinstance(value, tuple) else []


def _box_counts(sample: Sample) -> tuple[int, int]:
    truth, predictions = (side.boxes.tolist() for side in both_sides(sample))
    overlaps = np.array([[_iou(box, other) >= 0.5 for other in predictions] for box in truth], dtype=float)
    if not overlaps.size:
        return 0, max(len(predictions), int(sample.invalid))
    return int(overlaps[linear_sum_assignment(overlaps, maximize=True)].sum()), len(predictions)


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _loop_ratio(counts: NDArray[np.int64], rows: NDArray[np.intp]) -> float:
    hits = predictions = 0
    for row in rows:
        hits, predictions = hits + counts[row, 0], predictions + counts[row, 1]
    return float(hits / predictions)


if __name__ == "__main__":
    main()
