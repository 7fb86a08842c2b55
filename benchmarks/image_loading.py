#!/usr/bin/env python
"""Whether a cache of resized images would pay: what images cost a data loader, from large files and from resized ones.

    python benchmarks/image_loading.py                 2048 x 2048, JPEG and PNG, both families; processor time
    python benchmarks/image_loading.py --side 1024 --images 20

Per image what LLaMA-Factory's collator does in every epoch: open, decode, resize to image_max_pixels (768 x 768 here),
and the checkpoint's image processor at its true sizes. "resized" reads a PNG of the pixels that LLaMA-Factory's own
resize gave, so that a model would see the same. Samples/s are of --workers busy cores. Images are drawn: smooth shades
with grain, which compress as badly as ultrasound does. Tokenising decodes each image once more, before the first epoch;
the number of opened files is counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import transformers
from llamafactory.data.mm_plugin import get_mm_plugin
from PIL import Image

from medvl.demo.checkpoints import build_checkpoint

WANTED = 20  # samples/s
PIXELS = 768 * 768
PLUGINS = {"qwen3vl": ("qwen3_vl", "<|image_pad|>"), "internvl3": ("intern_vl", "<image>")}
SIZES = {  # of the published checkpoints
    "qwen3vl": {"shortest_edge": 65536, "longest_edge": 16777216},
    "internvl3": {"height": 448, "width": 448},
}


def main() -> int:
    """Print one row per family and kind of file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    write("| family | file | as it is, ms | resized before, ms | ratio | samples/s as it is | files opened per image |")
    write("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {kind: draw(folder / kind, args.side, args.images, kind) for kind in ("jpg", "png")}
        for family in PLUGINS:
            plugin, processor = load(family, folder)
            for kind, paths in files.items():
                small = [resized(path, plugin, folder / f"{family}_{kind}") for path in paths]
                whole, cached = seconds(plugin, processor, paths), seconds(plugin, processor, small)
                rate = args.workers / whole
                opened = count_opened(plugin, processor, paths[0])
                write(
                    f"| {family} | {kind} {args.side}² | {whole * 1e3:.0f} | {cached * 1e3:.0f} | {whole / cached:.2f} "
                    f"| {rate:.0f}, {rate / WANTED:.1f} times {WANTED} | {opened} |"
                )
    return 0


def draw(folder: Path, side: int, number: int, kind: str) -> list[Path]:
    """Shades with grain, saved as one kind."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for index in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((side, side))
        grain = rng.normal(0, 8, (side, side, 1))
        pixels = np.clip(np.asarray(coarse, dtype=np.float32) + grain, 0, 255).astype(np.uint8)
        paths.append(folder / f"{index}.{kind}")
        Image.fromarray(pixels).save(paths[-1], **({"quality": 92} if kind == "jpg" else {}))
    return paths


def load(family: str, folder: Path) -> tuple[Any, Any]:
    """LLaMA-Factory's plug-in of the template, and a processor with the true sizes of images."""
    checkpoint = build_checkpoint(family, folder / "checkpoint" / family)  # type: ignore[arg-type]
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    processor.image_processor.size = type(processor.image_processor.size)(**SIZES[family])
    for key, value in {"image_max_pixels": PIXELS, "image_min_pixels": 32 * 32, "crop_to_patches": False}.items():
        setattr(processor, key, value)
    name, token = PLUGINS[family]
    return get_mm_plugin(name, image_token=token, video_token="<video>"), processor


def resized(path: Path, plugin: Any, folder: Path) -> Path:
    """A lossless copy of what LLaMA-Factory makes of an image."""
    folder.mkdir(exist_ok=True)
    copy = folder / f"{path.stem}.png"
    images = plugin._regularize_images([str(path)], image_max_pixels=PIXELS, image_min_pixels=32 * 32)["images"]
    images[0].save(copy, compress_level=1)
    return copy


def collate(plugin: Any, processor: Any, path: Path) -> None:
    """The images of one record, as LLaMA-Factory's collator reads them."""
    plugin.get_mm_inputs([str(path)], [], [], [1], [0], [0], [[0]], processor)


def seconds(plugin: Any, processor: Any, paths: list[Path]) -> float:
    """Median processor time of an image, after one that warms up."""
    collate(plugin, processor, paths[0])
    found = []
    for path in paths:
        started = time.process_time()
        collate(plugin, processor, path)
        found.append(time.process_time() - started)
    return statistics.median(found)


def count_opened(plugin: Any, processor: Any, path: Path) -> int:
    """How often the collator opens the file of an image."""
    calls, stock = [], Image.open
    Image.open = lambda *args, **kwargs: calls.append(args) or stock(*args, **kwargs)
    try:
        collate(plugin, processor, path)
    finally:
        Image.open = stock
    return len(calls)


def write(line: str) -> None:
    """On standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
