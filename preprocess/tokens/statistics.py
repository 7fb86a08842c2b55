"""Sums, percentiles and a histogram of the tokens of some records, as report.json has them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.sharegpt import Record

Counts = NDArray[np.int64]  # tokens of some records, shape (n, 2): text, images
EDGES = (64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384)  # upper ends of the bars


def summary(records: Sequence[Record], counts: Counts) -> dict[str, Any]:
    """What there is to say of some records and their tokens. A bar holds what is above the bar before it."""
    totals = counts.sum(axis=1)
    median, p90, p99 = np.percentile(totals, (50, 90, 99), method="higher").tolist()
    bars = np.bincount(np.searchsorted(EDGES, totals), minlength=len(EDGES) + 1).tolist()
    ends: list[int | None] = [*EDGES, None]
    return {
        "records": len(records),
        "tokens": int(totals.sum()),
        "image_tokens": int(counts[:, 1].sum()),
        "median": median,
        "p90": p90,
        "p99": p99,
        "max": int(totals.max()),
        "longest": records[int(totals.argmax())].id,
        "histogram": [{"up_to": end, "records": count} for end, count in zip(ends, bars, strict=True) if count],
    }
