#!/usr/bin/env python
"""Milliseconds per question of `medvl router`, against GLiClass's pipeline built anew per question (ME-VLIP's way).

    python benchmarks/router.py --router saves/router [--questions tests/data/router_paraphrases.jsonl] [--rounds 5]

One process, one thread, CPU: the same classifier in all rows. "rules" is a router without classifiers, "GLiClass" that
classifier alone, "chain" the whole router, "cached" what it takes when asked a second time. Medians and 95 % quantiles
over rounds.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from rich.console import Console
from rich.table import Table

from medvl.router import request, scope, spelling
from medvl.router.chain import Router, load_router
from medvl.router.lines import read_labelled
from medvl.router.route import normalise

CLONE = Path(__file__).resolve().parents[1]


def asked_of(router: Router) -> Callable[[str], object]:
    """One question to a router."""
    return lambda question: router.route([question])


def milliseconds(ask: Callable[[str], object], questions: Iterable[str]) -> list[tuple[float, float]]:
    """Time of each call, by the clock and of the processor."""
    times = []
    for question in questions:
        start, start_cpu = time.perf_counter(), time.process_time()
        ask(question)
        times.append((1000 * (time.perf_counter() - start), 1000 * (time.process_time() - start_cpu)))
    return times


def forget() -> None:
    """Empty the caches of what is read of a question."""
    for cached in (request.focus, request.asked, spelling.corrected, request.brief, scope.is_medical_image):
        cached.cache_clear()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--questions", type=Path, default=CLONE / "tests/data/router_paraphrases.jsonl", metavar="JSONL"
    )
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    import torch
    from gliclass import ZeroShotClassificationPipeline

    torch.set_num_threads(1)
    questions = [text for text, _ in read_labelled(args.questions)]
    start = time.perf_counter()
    router = load_router(args.router)
    loading = time.perf_counter() - start
    stage = router.stage
    assert stage is not None
    stage.decide(questions[:2])  # label embeddings, first allocations
    classifier = stage.classifier

    def pipeline(question: str) -> object:
        made = ZeroShotClassificationPipeline(
            classifier.model, classifier.tokenizer, max_length=classifier.max_length, progress_bar=False,
            classification_type="single-label", device="cpu",
        )  # fmt: skip
        return made(normalise(question), list(classifier.labels.values()), threshold=0.1, batch_size=1)

    names = ("rules", "GLiClass", "chain", "cached", "its pipeline")
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        fresh = Router(stage)
        for name, asked in (("rules", Router()), ("GLiClass", Router(replace(stage, wording=None))), ("chain", fresh)):
            forget()
            rows[name] += milliseconds(asked_of(asked), questions)
        rows["cached"] += milliseconds(asked_of(fresh), questions)
        rows["its pipeline"] += milliseconds(pipeline, questions)
    columns = ("decided by", "median ms", "95 % ms", "processor, median ms", "pipeline takes")
    table = Table(*columns, title=f"{len(questions)} questions, one at a time")
    medians = {name: statistics.median(used for _, used in times) for name, times in rows.items()}
    for name, times in rows.items():
        clock = [passed for passed, _ in times]
        median, high = statistics.median(clock), statistics.quantiles(clock, n=20)[-1]
        ratio = medians["its pipeline"] / medians[name]
        table.add_row(name, f"{median:.3f}", f"{high:.3f}", f"{medians[name]:.3f}", f"{ratio:.1f} times as long")
    Console().print(table)
    texts = [normalise(text) for text in questions]
    start = time.perf_counter()
    stage.decide(texts)
    together = 1000 * (time.perf_counter() - start) / len(texts)
    Console().print(f"all at once: {together:.2f} ms per question; loading the folder: {loading:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
