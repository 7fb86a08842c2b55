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
from collections.abc import Callable, Mapping, Sequence
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
    loaded: "InProcess",
    requests: Sequence[Request],
    size: int | None,
    classify: Callable[[list[str]], object],
    **generating: Any,
) -> list[str]:
    """Our loop, routing included; texts in the order of the questions.

    Args:
        loaded: The model.
        requests: What is asked.
        size: Questions at a time; None takes what the GPU's memory holds.
        classify: What routing costs.
        generating: Further settings of transformers' `GenerationConfig`.
    """
    from medvl.predict.batching import Batches

    classify(sorted({item.question.text for item in requests}))
    backend = Batches(_Generating(loaded, generating) if generating else loaded)
    planned = batches(requests, lambda longest: size or backend.at_once(longest))
    replies = {item.question.id: reply for batch in backend.answers(planned) for item, reply in batch}
    if lost := [reply.error for reply in replies.values() if reply.error]:
        raise SystemExit(f"{len(lost)} questions were not answered, first: {lost[0]}")
    return [replies[item.question.id].text for item in requests]


class _Generating:
    """A loaded model that generates with further settings."""

    def __init__(self, loaded: "InProcess", more: Mapping[str, Any]) -> None:
        self._loaded, self._more = loaded, more

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loaded, name)

    def generate(self, batch: Mapping[str, Any], adapter: str | None, generation: Any) -> list[list[int]]:
        generation.update(**self._more)
        return self._loaded.generate(batch, adapter, generation)


def compare(
    setup: Any,
    requests: list[Request],
    sizes: Sequence[int | None],
    repeats: int,
    *,
    alone: int | None = None,
    differing: float = 0.01,
    static: bool = False,
) -> dict[str, float]:
    """Questions per second of each way, medians of `repeats` runs that take turns.

    Args:
        setup: The model and its adapters.
        requests: What is asked.
        sizes: Batch sizes of our way, one after the other; None for what the GPU's memory holds.
        repeats: Runs of each way.
        alone: How many of the questions the ways that ask one at a time get; None for all.
        differing: Share of answers that may differ: in 16 bits the likeliest of nearly equal tokens depends on the
            batch, and a model with random weights has nothing but nearly equal tokens.
        static: Measure transformers' static cache too, whose decoding is compiled on a GPU.

    Raises:
        SystemExit: the ways do not answer the same, or not at all.
    """
    from medvl.predict.in_process import InProcess
    from medvl.router.gliclass import QuestionClassifier, from_scratch

    loaded = InProcess(setup)
    with tempfile.TemporaryDirectory() as folder:
        from_scratch([item.question.text for item in requests], LABELS).save(Path(folder))
        router = QuestionClassifier.load(Path(folder), LABELS)
        ways = _ways(loaded, router, sizes, static=static)
        few = requests[:: max(1, len(requests) // alone)][:alone] if alone else requests
        asked = [few if name.startswith("one") else requests for name in ways]
        rates, answers = _timed(ways, asked, repeats)
    first = {item.question.id: text for item, text in zip(few, answers[0], strict=True)}
    different = max(
        sum(first.get(item.question.id, text) != text for item, text in zip(questions, texts, strict=True))
        for questions, texts in zip(asked, answers, strict=True)
    )
    sys.stderr.write(f"{len(requests)} questions, {different} answers of {len(few)} differ between the ways\n")
    if different > differing * len(few):
        raise SystemExit("the ways do not answer the same; their times cannot be compared")
    return rates


def _ways(
    loaded: "InProcess", router: "QuestionClassifier", sizes: Sequence[int | None], *, static: bool
) -> dict[str, Callable[[Sequence[Request]], list[str]]]:
    from gliclass import ZeroShotClassificationPipeline

    labels = list(LABELS.values())

    def pipeline_anew(text: str) -> None:
        pipeline = ZeroShotClassificationPipeline(
            router.model, router.tokenizer, classification_type="single-label", device="cpu", progress_bar=False
        )
        pipeline(text, labels, threshold=0.1)

    ways: dict[str, Callable[[Sequence[Request]], list[str]]] = {
        "one at a time, pipeline rebuilt (ME-VLIP)": lambda asked: one_at_a_time(loaded, asked, pipeline_anew),
        "one at a time, no router": lambda asked: one_at_a_time(loaded, asked, None),
    }
    for size in sizes:
        name = f"medvl predict, batches of {size or 'what the memory holds'}"
        ways[name] = lambda asked, size=size: batched(loaded, asked, size, router.score)  # type: ignore[misc]
        if static:
            ways[f"{name}, static cache"] = lambda asked, size=size: batched(  # type: ignore[misc]
                loaded, asked, size, router.score, cache_implementation="static"
            )
    return ways


def _timed(
    ways: Mapping[str, Callable[[Sequence[Request]], list[str]]], asked: Sequence[list[Request]], repeats: int
) -> tuple[dict[str, float], list[list[str]]]:
    """Questions per second of each way, and what each answered to its questions."""
    for way, questions in zip(ways.values(), asked, strict=True):
        way(questions[:4])  # first calls load and compile
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: list[list[str]] = [[] for _ in ways]
    for _ in range(repeats):
        for place, (name, way) in enumerate(ways.items()):
            started = time.perf_counter()
            answers[place] = way(asked[place])
            seconds[name].append(time.perf_counter() - started)
    counts = dict(zip(ways, map(len, asked), strict=True))
    return {name: counts[name] / statistics.median(spent) for name, spent in seconds.items()}, answers


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
        show(compare(setup, plan(tree, setup, args.new_tokens, args.questions), [args.batch_size], args.repeats))


if __name__ == "__main__":
    main()
