"""The metrics, one file per kind of answer. Importing this package declares them all.

`official` holds the public scorer's rules, `m3llm` and `m3llm_v1` those of PMC-MI-Bench, all others the strict ones,
which they state where they apply:
- an answer that is missing, blank or unreadable is wrong, never absent; `n_invalid` counts them. In every F1, micro and
  macro, it is one wrong box or label besides those it misses, so that it is never better than a wrong answer;
- an answer equal to the reference's own text, apart from case and spaces, is right, so that dirty references scored
  against themselves are perfect;
- what counts as the same class or label never crosses datasets.
"""

from evaluation.metrics import (
    average_precision,
    choice,
    detection,
    grounding,
    label_sets,
    m3llm,
    m3llm_v1,
    number,
    official,
    report,
    ultrasound,
    vqa,
)

__all__ = [
    "average_precision", "choice", "detection", "grounding", "label_sets", "m3llm", "m3llm_v1", "number", "official",
    "report", "ultrasound", "vqa",
]  # fmt: skip
