"""How numbers, their intervals and the names of metrics are written, wherever scores are shown."""

import math
from collections.abc import Mapping
from typing import Any

FEW = "†"  # behind an interval that is too narrow


def number(value: float | None, decimals: int = 3) -> str:
    """A value as it is read: `decimals` below ten, fewer above, none for a whole number; "-" if there is none.

    >>> number(0.87349), number(271.4712), number(293.0), number(3e18), number(float("nan")), number(float("-inf"))
    ('0.873', '271.5', '293', '3e+18', '-', '-inf')
    """
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):  # an error that overflowed
        return f"{value}"
    return _written(value, abs(value), decimals, whole=value == round(value))


def signed(value: float | None) -> str:
    """A difference: as `number`, with its sign."""
    return f"{'+' if value and value > 0 else ''}{number(value)}"


def _written(value: float, size: float, decimals: int, *, whole: bool) -> str:
    """Shares keep their decimals where they happen to be 0 or 1; larger whole numbers are counts."""
    if whole and 2 <= size < 1e15:
        return f"{value:,.0f}"
    if size < 10:
        return f"{value:.{decimals}f}"
    return f"{value:,.{decimals - 2}f}" if size < 1e6 else f"{value:.4g}"


def interval(entry: Mapping[str, Any] | None, decimals: int = 3, between: str = " to ") -> str:
    """The 95 % interval of an entry of metrics.json, both ends with as many decimals; empty if it has none.

    >>> interval({"ci95": [0.5, 0.75]}), interval({"ci95": [0.5, 12.25], "few_images": True}), interval({"ci95": None})
    ('0.500 to 0.750', '0.5 to 12.2†', '')
    """
    ci95 = entry["ci95"] if entry else None
    if not ci95:
        return ""
    largest, whole = max(abs(end) for end in ci95), all(end == round(end) for end in ci95)
    mark = FEW if entry and entry.get("few_images") else ""
    return between.join(_written(end, largest, decimals, whole=whole) for end in ci95) + mark


_TITLES = {"mae": "MAE", "rmse": "RMSE", "f1": "F1", "rouge_l": "ROUGE-L", "bleu4": "BLEU-4", "iou": "IoU",
           "iou30": "IoU 0.3", "iou50": "IoU 0.5", "iou75": "IoU 0.75", "green": "GREEN", "95": "to 0.95"}  # fmt: skip


def title(metric: str) -> str:
    """A metric's name as it is printed in papers.

    >>> title("f1_iou50"), title("balanced_accuracy"), title("mae_penalised")
    ('F1 IoU 0.5', 'balanced accuracy', 'MAE penalised')
    """
    return _TITLES.get(metric) or " ".join(_TITLES.get(part, part) for part in metric.split("_"))


def words(name: str) -> str:
    """A task, metric or code as words.

    >>> words("multi_label_classification")
    'multi label classification'
    """
    return name.replace("_", " ")
