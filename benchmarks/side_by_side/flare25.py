"""The scorer of FLARE25-PaliGemma, whose rules `official` are: every number must be equal."""

import contextlib
import io
import math
from argparse import Namespace
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from evaluation.scores import Evaluation
from medvl.tasks import Task

_NAMES = {
    "classification": (Task.CLASSIFICATION, "balanced_accuracy"),
    "multi-label classification": (Task.MULTI_LABEL, "f1_score"),
    "detection": (Task.DETECTION, "detection_f1"),
    "instance_detection": (Task.INSTANCE_DETECTION, "instance_f1"),
    "counting": (Task.COUNTING, "mean_absolute_error"),
    "regression": (Task.REGRESSION, "mean_absolute_error"),
    "report_generation": (Task.REPORT, "green_score"),
}
_ENDED = object()


class _Sorted(set[Any]):
    """A set whose order is fixed: it loops over one of names, and a value that ends the loop makes the order matter."""

    def __iter__(self) -> Any:
        return iter(sorted(super().__iter__(), key=str))

    def __or__(self, other: Any) -> "_Sorted":
        return _Sorted(super().__or__(other))


def prepare(module: ModuleType) -> None:
    """Let the scorer finish where it would end without any number, and loop in a fixed order."""
    module.__dict__["set"] = _Sorted
    metrics = module.calculate_regression_metrics

    def regression(*sides: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = metrics(*sides)
        except ValueError:  # scikit-learn refuses inf and NaN
            return {"mean_absolute_error": _ENDED}
        return found

    module.__dict__["calculate_regression_metrics"] = regression


def compare(module: ModuleType, root: Path, predictions: Path, ours: Evaluation, explained: Counter[str]) -> list[str]:
    """Every difference of a number or a count, a line each; deviations that are documented are only counted."""
    arguments = Namespace(base_dataset_path=str(root), prediction_file=str(predictions), output_dir=str(root),
                          output_filename="theirs.json")  # fmt: skip
    module.json.dump = lambda *_, **__: None  # a value that stands for a crash is no JSON
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = module.run_evaluation(arguments)
    differences = []
    for spelled, (task, name) in _NAMES.items():
        said, made = theirs.get(spelled), ours.scores["official"].get(task)
        entry = made.pooled[name] if made else {"value": None, "n": 0, "reason": ""}
        value = said and said[name]
        if said is None:
            same = entry["n"] == 0 and entry["value"] is None
            explained["no entry there, null with that reason here"] += made is not None
        elif value is _ENDED:
            same = entry["value"] is None and "infinite" in entry["reason"]
            explained["the scorer ends at inf or nan, infinite here"] += 1
        elif value is None or not math.isfinite(value):
            same = entry["value"] is None and ("infinite" in entry["reason"]) == (value is not None)
        else:
            same = entry["value"] is not None and math.isclose(entry["value"], value, rel_tol=1e-9, abs_tol=1e-12)
        if not same or (said and said["num_examples"] != entry["n"]):
            differences.append(f"{spelled}: theirs {said}, ours {entry}")
        explained["compared"] += 2 * (said is not None or made is not None)
    return differences
