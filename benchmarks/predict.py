#!/usr/bin/env python
"""Questions per second of `medvl predict` against ME-VLIP's way, with the same loaded model and adapters, in one run.

    python benchmarks/predict.py [--family internvl3] [--questions 280] [--new-tokens 16] [--batch-size 32]

ME-VLIP's way (spec of its inference script): one question after the other in the order of the files, the zero-shot
classification pipeline built anew for each, the adapter switched for each, batch 1. Ours: all questions routed at once,
sorted by adapter and length, answered by the batch while the images of the next ones are prepared. Both classify
with the same tiny GLiClass model, show images within the same budget and generate the same number of tokens: the
adapters say their letter as long as they may. The answers of both sides are compared one by one.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "WARNING")

from medvl.instructions import GENERAL
from medvl.predict.plan import Request, ask, batches, route
from medvl.predict.questions import read_questions
from medvl.predict.setup import ModelOptions, find_adapters, read_setup
from medvl.profiles import read_profiles
from medvl.router.chain import load_router
from medvl.tasks import Task

if TYPE_CHECKING:
    from medvl.predict.in_process import InProcess
    from medvl.router.gliclass import QuestionClassifier

LABELS = {str(task): str(task).replace("_", " ") for task in Task}


def plan(tree: Path, setup: Any, new_tokens: int, questions: int) -> list[Request]:
    """The questions of a tree's validation split, routed; answers of every task have the same length."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profiles.yaml"
        path.write_text(json.dumps({name: {"max_new_tokens": new_tokens} for name in (*LABELS, GENERAL)}))
        profiles = read_profiles(path)
    asking = read_questions(tree, splits=["val"])[:questions]
    routes = route(asking, load_router(None))
    return [
        ask(question, item, profiles, lambda profile: setup[profile.adapter], setup.identity)
        for question, item in zip(asking, routes, strict=True)
    ]


def one_at_a_time(
    loaded: "InProcess", requests: Sequence[Request], classify: Callable[[str], None] | None
) -> list[str]:
    """ME-VLIP's loop; `classify` is what routing costs there, the route itself is the plan's on both sides."""
    from medvl.predict.batching import Batches

    backend_spec, texts = Batches(loaded), []
    for item in requests:
        if classify is not None:
            classify(item.question.text)
        replies = backend_spec._generate_all([(item, backend_spec.encode(item))], {})
        texts += [reply.text for _, reply in replies]
    return texts


def batched(
    loaded: "InProcess", requests: Sequence[Request], size: int, classify: Callable[[list[str]], None]
) -> list[str]:
    """Our loop, routing included; texts in the order of the questions."""
    from medvl.predict.batching import Batches

    classify(sorted({item.question.text for item in requests}))
    replies = {
        item.question.id: reply.text
        for batch in Batches(loaded).answers(batches(requests, lambda _: size))
        for item, reply in batch
    }
    return [replies[item.question.id] for item in requests]


def compare(
    setup: Any, requests: list[Request], batch_size: int, repeats: int, *, differing: float = 0.01
) -> dict[str, float]:
    """Questions per second of each way, medians of `repeats` runs that take turns.

    `differing` is the share of answers that may differ: in 16 bits the likeliest of nearly equal tokens depends on the
    batch, and a model with random weights has nothing but nearly equal tokens.
    """
    from medvl.predict.in_process import InProcess
    from medvl.router.gliclass import QuestionClassifier, from_scratch

    loaded = InProcess(setup)
    with tempfile.TemporaryDirectory() as folder:
        from_scratch([item.question.text for item in requests], LABELS).save(Path(folder))
        router = QuestionClassifier.load(Path(folder), LABELS)
        rates, different = _timed(loaded, router, requests, batch_size, repeats)
    sys.stderr.write(f"{len(requests)} questions, {different} answers differ between the ways\n")
    if different > differing * len(requests):
        raise SystemExit("the ways do not answer the same; their times cannot be compared")
    return rates


def _timed(
    loaded: "InProcess", router: "QuestionClassifier", requests: list[Request], batch_size: int, repeats: int
) -> tuple[dict[str, float], int]:
    """Questions per second of each way, and how many answers differ between them."""
    from gliclass import ZeroShotClassificationPipeline

    labels = list(LABELS.values())

    def pipeline_anew(text: str) -> None:
        pipeline = ZeroShotClassificationPipeline(
            router.model, router.tokenizer, classification_type="single-label", device="cpu", progress_bar=False
        )
        pipeline(text, labels, threshold=0.1)

    ways: dict[str, Callable[[], list[str]]] = {
        "one at a time, pipeline rebuilt (ME-VLIP)": lambda: one_at_a_time(loaded, requests, pipeline_anew),
        "one at a time, no router": lambda: one_at_a_time(loaded, requests, None),
        f"medvl predict, batches of {batch_size}": lambda: batched(
            loaded, requests, batch_size, lambda texts: router.score(texts) and None
        ),
    }
    one_at_a_time(loaded, requests[:4], pipeline_anew)  # first calls load and compile
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[str]] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            answers[name] = way()
            seconds[name].append(time.perf_counter() - started)
    first, *others = answers.values()
    different = max(sum(a != b for a, b in zip(first, other, strict=True)) for other in others)
    return {name: len(requests) / statistics.median(spent) for name, spent in seconds.items()}, different


def show(rates: dict[str, float]) -> None:
    """Rates, and how many times the first one."""
    slowest = next(iter(rates.values()))
    for name, rate in rates.items():
        sys.stdout.write(f"{name:44} {rate:8.2f} questions/s {rate / slowest:6.2f}x\n")


def main() -> None:
    """Build tiny checkpoints, or take a model and its adapters, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=["internvl3", "qwen3vl"], default="internvl3")
    parser.add_argument("--questions", type=int, default=280)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tree", type=Path, help="a FLARE tree (default: drawn images)")
    parser.add_argument("--models", type=Path, help="a folder with base and adapters (default: tiny ones, made now)")
    parser.add_argument("--quantization", type=int, choices=[4, 8])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models, tree = args.models, args.tree
        if models is None:
            from medvl.demo.adapters import build_marked

            letters = dict(zip((*LABELS, GENERAL), "ABCDEFGHI", strict=True))
            models = build_marked(args.family, Path(folder) / "models", letters, endless=True)
        if tree is None:
            from medvl.demo.images import build_tree

            tree = Path(folder) / "tree"
            build_tree(tree, train=0, val=-(-args.questions // 9))
        setup = read_setup(
            find_adapters((*LABELS, GENERAL), models / "adapters"),
            ModelOptions(str(models / "base"), bits=args.quantization),
        )
        show(compare(setup, plan(tree, setup, args.new_tokens, args.questions), args.batch_size, args.repeats))


if __name__ == "__main__":
    main()
