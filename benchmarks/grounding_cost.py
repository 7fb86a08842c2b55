#!/usr/bin/env python
"""What the grounding loss costs: time of a training step and peak memory, with and without it, side by side.

    python benchmarks/grounding_cost.py                                       a small Qwen3-VL with 151,936 columns, CPU
    python benchmarks/grounding_cost.py --size internvl3-8b --device cuda --dtype bfloat16 --boxes 8 100

Models are the real classes with random weights; LoRA on the MLPs of the language model, rank 16, frozen vision tower
and gradient checkpointing, as recipes/grounding_*.yaml have them. The batch is images, a question and answers with
boxes. Ways to make a step, in turn within one process, so that a busy machine slows all alike:

  stock            language-model loss alone
  grounding        and the grounding terms, from the hidden states, as the trainer computes them
  logits           the same from the whole logits, as under ZeRO-3 and FSDP
  generating       stock, and 256 greedy tokens per record, as the reference does for a number that trains nothing
  fused            stock with liger's fused cross entropy (--fused, needs a GPU and liger-kernel)
  fused grounding  and the grounding terms

Boxes are found in the data loader's processes; what that takes is printed beside. On a GPU the peak is the allocator's,
per way; on a CPU each way runs in a process of its own, whose largest resident size counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from grounding_models import SIZES, build, make_batch

from medvl.demo.tokenizer import default_corpus, internvl3_tokenizer, qwen3_tokenizer
from medvl.factory.column_logits import ColumnLogits
from medvl.factory.grounding_log import GroundingLog
from medvl.losses.coordinates import Targets, find_targets
from medvl.losses.grounding import GroundingSettings, combine, grounding_terms
from medvl.losses.vocabulary import Vocabulary

WAYS = ("stock", "grounding", "logits", "generating")
FUSED = ("fused", "fused grounding")
GENERATED = 256  # tokens per record in the reference


def main() -> int:
    """Measure and print one table per number of boxes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small-qwen3vl")
    parser.add_argument("--boxes", type=int, nargs="+", default=[8], help="per answer")
    parser.add_argument("--batch", type=int, default=1, help="records per step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--bits", type=int, default=16, choices=(4, 16), help="4: bitsandbytes NF4, frozen weights only"
    )
    parser.add_argument("--steps", type=int, default=10, help="of each way, after two to warm up")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--fused", action="store_true", help="measure liger's fused cross entropy too")
    parser.add_argument("--json", action="store_true", help="results as one JSON line")
    parser.add_argument("--out", type=Path, help="write them as JSON besides")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    results = [measure(args, boxes) for boxes in args.boxes]
    if args.out:
        args.out.write_text(json.dumps(results))
    sys.stdout.write(json.dumps(results) + "\n" if args.json else "\n".join(map(table, results)) + "\n")
    return 0


def measure(args: argparse.Namespace, boxes: int) -> dict[str, Any]:
    """Times and peaks of all ways with this many boxes per answer."""
    torch.manual_seed(0)
    size, device = SIZES[args.size], torch.device(args.device)
    tokenizer = (qwen3_tokenizer if size.family == "qwen3vl" else internvl3_tokenizer)(default_corpus(0), 768)
    model = build(size, tokenizer, getattr(torch, args.dtype), device, args.bits)
    batch = make_batch(size, tokenizer, boxes, args.batch)
    vocabulary = Vocabulary.of(tokenizer)
    clock = time.perf_counter()
    targets = find_targets(batch["labels"], vocabulary)
    finding = [time.perf_counter() - clock]
    for _ in range(5):
        clock = time.perf_counter()
        find_targets(batch["labels"], vocabulary)
        finding.append(time.perf_counter() - clock)
    batch = {name: value.to(device) for name, value in batch.items()}
    if "pixel_values" in batch:
        batch["pixel_values"] = batch["pixel_values"].to(getattr(torch, args.dtype))
    columns = ColumnLogits(model)
    steps = make_steps(model, columns, batch, targets)
    seconds, peaks = run(steps, args.ways, args.steps, device)
    if args.fused:
        from medvl.factory.fused import fuse

        fuse(model, columns)  # for good, so after all others
        more = run(steps, FUSED, args.steps, device)
        seconds, peaks = seconds | more[0], peaks | more[1]
    if device.type == "cpu" and len(args.ways) > 1:
        peaks = {way: resident(args, boxes, way) for way in args.ways}
    return {
        "size": args.size, "bits": args.bits, "dtype": args.dtype, "device": name_of(device), "batch": args.batch,
        "boxes": boxes, "length": batch["labels"].shape[1], "finding_first_s": finding[0],
        "finding_again_s": statistics.median(finding[1:]), "rows": len(targets.rows), "columns": len(targets.columns),
        "seconds": {way: statistics.median(taken) for way, taken in seconds.items()},
        "spread": {way: statistics.quantiles(taken, n=4)[2] - statistics.quantiles(taken, n=4)[0]
                   for way, taken in seconds.items() if len(taken) > 1},
        "peak_bytes": peaks,
    }  # fmt: skip


def run(
    steps: dict[str, Callable[[], None]], ways: Sequence[str], count: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each step and the largest peak, by way; the ways take turns, in an order drawn anew each time."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    peaks: dict[str, float] = dict.fromkeys(ways, 0.0)
    for repetition in range(count + 2):
        for way in random.Random(repetition).sample(list(ways), len(ways)):
            taken, peak = timed(steps[way], device)
            peaks[way] = max(peaks[way], peak)
            if repetition >= 2:
                seconds[way].append(taken)
    return seconds, peaks


def make_steps(
    model: Any, columns: ColumnLogits, batch: dict[str, torch.Tensor], targets: Targets
) -> dict[str, Callable[[], None]]:
    """One training step of every way, optimiser included."""
    settings, record = GroundingSettings(), GroundingLog()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    prompt = {name: value for name, value in batch.items() if name != "labels"}
    start = int((batch["labels"][0] != -100).nonzero()[0])
    prompt |= {
        name: prompt[name][:, :start] for name in ("input_ids", "attention_mask", "mm_token_type_ids") if name in prompt
    }

    def step(grounding: bool, sharded: bool = False) -> None:
        outputs = model(**batch)
        loss = outputs["loss"]
        columns.sharded = sharded
        if grounding:
            here = targets.to(loss.device)  # in training, the data loader does so
            terms = grounding_terms(columns(here.rows, here.columns, outputs), here, settings)
            record.add(loss, terms, here)
            loss = loss + combine(terms, settings)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def generate() -> None:
        step(grounding=False)
        model.eval()
        with torch.no_grad():
            model.generate(
                **prompt, max_new_tokens=GENERATED, min_new_tokens=GENERATED, do_sample=False, use_cache=True
            )
        model.train()

    return {
        "stock": lambda: step(grounding=False),
        "grounding": lambda: step(grounding=True),
        "logits": lambda: step(grounding=True, sharded=True),
        "generating": generate,
        "fused": lambda: step(grounding=False),
        "fused grounding": lambda: step(grounding=True),
    }


def timed(step: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Seconds and peak: of the clock and the allocator on a GPU, of processor time and the process on a CPU."""
    if device.type == "cpu":
        clock = time.process_time()
        step()
        return time.process_time() - clock, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    clock = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - clock, float(torch.cuda.max_memory_allocated())


def resident(args: argparse.Namespace, boxes: int, way: str) -> float:
    """Largest resident size of a process that does nothing but steps of this way."""
    command = [sys.executable, __file__, "--json", "--steps", "1", "--ways", way, "--boxes", str(boxes)]
    for name in ("size", "batch", "device", "dtype", "bits"):
        command += [f"--{name}", str(getattr(args, name))]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(printed.splitlines()[-1])[0]["peak_bytes"][way])


def name_of(device: torch.device) -> str:
    """The GPU's name, or the number of threads."""
    return torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"


def table(result: dict[str, Any]) -> str:
    """Lines for people."""
    seconds, peaks = result["seconds"], result["peak_bytes"]
    base = "stock" if "stock" in seconds else next(iter(seconds))
    lines = [
        "{size}, {bits} bits, {dtype}, {device}: {batch} x {length} tokens, {boxes} boxes per answer".format(**result),
        f"  {result['rows']} rows x {result['columns']} columns of logits, found in "
        f"{result['finding_first_s'] * 1e3:.1f} ms, or {result['finding_again_s'] * 1e3:.2f} ms when seen before",
        f"  {'way':<16}{'ms per step':>12}{'quartiles':>11}{'ratio':>8}{'peak MiB':>11}{'ratio':>8}",
    ]
    for way, taken in seconds.items():
        spread = f"+-{result['spread'].get(way, 0) / 2 * 1e3:.1f}"
        lines.append(
            f"  {way:<16}{taken * 1e3:>12.1f}{spread:>11}{taken / seconds[base]:>8.3f}"
            f"{peaks[way] / 2**20:>11.0f}{peaks[way] / peaks[base]:>8.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
