#!/usr/bin/env python
"""What a step costs with and without gradients in a frozen vision tower: FLOPs, operations, memory, at true size.

    python benchmarks/frozen_tower.py                         on the meta device: counts only, no memory, a minute
    python benchmarks/frozen_tower.py --time 6                and processor seconds of a model of 1/8 of the widths,
                                                              also with image features read from a file

The real classes at true size with the adapters of `lora_target: all`, LLaMA-Factory's gradient checkpointing, 16 bits;
one record of one image (InternVL: one tile; Qwen3-VL: --side) and 100 tokens of text. "stock" is as PEFT leaves the
model, "ours" as medvl.factory.frozen does. Operations are aten calls, the recomputation of checkpointing included;
kept is what autograd saves for the backward pass, without the attention matrices that a GPU never has. Where values
decide shapes, the meta device needs another way of the same size: image features are put in by `cat` there, not by a
mask.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers
from grounding_models import SIZES, Size, internvl3_config, make_batch, qwen3vl_config
from llamafactory.hparams import ModelArguments
from llamafactory.model.model_utils.checkpointing import prepare_model_for_training
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from medvl.demo.tokenizer import default_corpus, internvl3_tokenizer, qwen3_tokenizer
from medvl.factory.frozen import drop_hooks

LINEAR = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
# From the config.json of Qwen/Qwen3-VL-8B-Instruct.
QWEN3VL_8B = Size("qwen3vl", 151_936, 4096, 12288, 36, 32, 8, False, (1152, 4304, 27, 16), 640)
MEASURED = {"InternVL3-8B": SIZES["internvl3-8b"], "Qwen3-VL-8B": QWEN3VL_8B}
GIB = 2**30


@dataclass
class Cost:
    """Of one step: FLOPs, operations of the backward pass, and bytes that autograd keeps."""

    forward: int = 0
    backward: int = 0
    operations: int = 0
    kept: int = 0


class CountOperations(TorchDispatchMode):
    """Counts what autograd calls."""

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One more."""
        self.calls += 1
        return func(*args, **(kwargs or {}))


def main() -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--side", type=int, default=640, help="of Qwen3-VL's square image, a multiple of 32")
    parser.add_argument("--time", type=int, default=0, metavar="STEPS", help="also time so many steps of each")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    write("| model | way | forward, TFLOP | backward, TFLOP | backward operations | kept, GiB |")
    write("|---|---|---|---|---|---|")
    for name in args.models:
        size = MEASURED[name] if MEASURED[name].family == "internvl3" else replace(MEASURED[name], side=args.side)
        costs = {way: count(size, way) for way in ("stock", "ours")}
        for way, cost in costs.items():
            tera = f"{cost.forward / 1e12:.3f} | {cost.backward / 1e12:.3f}"
            write(f"| {name} | {way} | {tera} | {cost.operations:,} | {cost.kept / GIB:.2f} |")
        tower = count_tower(size)
        write(f"| {name} | of it the tower and projector, forward | {tower / 1e12:.3f} | | | |")
        for line in timed(size, args.time) if args.time else ():
            write(f"{name}, {line}")
    return 0


def write(line: str) -> None:
    """On standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def build(size: Size, dtype: torch.dtype, device: str, way: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model as LLaMA-Factory hands it to its trainer, and a batch of one record."""
    qwen = size.family == "qwen3vl"
    tokenizer = (qwen3_tokenizer if qwen else internvl3_tokenizer)(default_corpus(0), 2048)
    config = (qwen3vl_config if qwen else internvl3_config)(size, tokenizer)
    if qwen:
        layers = size.vision[2]
        config.vision_config.deepstack_visual_indexes = [layers * part // 27 for part in (8, 16, 24)]
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    torch.set_default_dtype(default)
    prepare_model_for_training(model, ModelArguments(model_name_or_path="none"))
    target = rf".*language_model.*\.({LINEAR})"
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules=target)).train()
    if way == "ours":
        drop_hooks(model)
    batch = make_batch(size, tokenizer, 3, 1)
    batch["pixel_values"] = batch["pixel_values"].to(dtype)
    if device == "meta":
        grid = batch.pop("image_grid_thw", None)
        del batch["attention_mask"]  # all ones, and looked at
        batch = {name: tensor.to("meta") for name, tensor in batch.items()}
        if grid is not None:  # its numbers decide shapes
            batch["image_grid_thw"] = grid
            batch["position_ids"] = torch.empty(3, *batch["input_ids"].shape, dtype=torch.long, device="meta")
    return model, batch


def count(size: Size, way: str) -> Cost:
    """Of one step at true size, on the meta device."""
    model, batch = build(size, torch.bfloat16, "meta", way)
    cost, seen = Cost(), set[int]()
    weights = {tensor.untyped_storage()._cdata for tensor in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        attention = tensor.dim() > 2 and tensor.shape[-1] == tensor.shape[-2]  # a GPU's kernels keep no such matrix
        if not attention and storage._cdata not in seen | weights:
            seen.add(storage._cdata)
            cost.kept += storage.nbytes()
            kept.append(tensor)  # or another one gets its address
        return tensor

    kept: list[torch.Tensor] = []
    with by_shape():
        with FlopCounterMode(display=False) as flops, torch.autograd.graph.saved_tensors_hooks(keep, lambda it: it):
            loss = model(**batch).loss
        cost.forward = flops.get_total_flops()
        with FlopCounterMode(display=False) as flops, CountOperations() as operations:
            loss.backward()
        cost.backward, cost.operations = flops.get_total_flops(), operations.calls
    return cost


def count_tower(size: Size) -> int:
    """FLOPs of the tower and the projector for the images of the batch, forward."""
    model, batch = build(size, torch.bfloat16, "meta", "ours")
    names = ("pixel_values", "image_grid_thw")
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        model.get_base_model().model.get_image_features(**{name: batch[name] for name in names if name in batch})
    return int(flops.get_total_flops())


@contextmanager
def by_shape() -> Iterator[None]:
    """Ways of the same size where a mask would have to be read."""
    from transformers.models.internvl.modeling_internvl import InternVLModel
    from transformers.models.qwen2 import modeling_qwen2
    from transformers.models.qwen3_vl import modeling_qwen3_vl
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel, Qwen3VLTextModel

    def mask(_self: Any, _ids: Any, inputs_embeds: torch.Tensor, **_: Any) -> Any:
        found = torch.empty_like(inputs_embeds, dtype=torch.bool)
        return found if isinstance(_self, InternVLModel) else (found, None)

    def scatter(self: torch.Tensor, _mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        features = source.reshape(self.shape[0], -1, self.shape[2])
        return torch.cat([features, self[:, features.shape[1] :]], dim=1)

    def deepstack(_self: Any, states: torch.Tensor, _mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        features = features.reshape(states.shape[0], -1, states.shape[2])
        images = features.shape[1]
        return torch.cat([states[:, :images] + features, states[:, images:]], dim=1)

    replaced = [
        (InternVLModel, "get_placeholder_mask", mask),
        (Qwen3VLModel, "get_placeholder_mask", mask),
        (Qwen3VLTextModel, "_deepstack_process", deepstack),
        # As for one record without padding.
        (modeling_qwen2, "create_causal_mask", lambda **_: None),
        (modeling_qwen3_vl, "create_causal_mask", lambda **_: None),
        (torch.Tensor, "masked_scatter", scatter),
    ]
    stock = [getattr(owner, name) for owner, name, _ in replaced]
    for owner, name, way in replaced:
        setattr(owner, name, way)
    try:
        yield
    finally:
        for (owner, name, _), old in zip(replaced, stock, strict=True):
            setattr(owner, name, old)


def timed(size: Size, steps: int) -> Iterator[str]:
    """Processor time of a step with all widths an eighth: stock, ours, and ours with image features from a file."""
    hidden, intermediate, layers, heads = size.vision
    narrow = replace(
        size,
        vocabulary=size.vocabulary // 8,
        hidden=size.hidden // 8,
        intermediate=size.intermediate // 8,
        heads=size.heads // 4,
        kv_heads=size.kv_heads // 4,
        vision=(hidden // 8, intermediate // 8, layers, heads // 8),
    )
    ways = {way: build(narrow, torch.float32, "cpu", way) for way in ("stock", "ours", "features")}
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        keep_features(*ways["features"], Path(file.name))
        yield f"image features of one record, bf16, widths / 8: {Path(file.name).stat().st_size / 1e6:.2f} MB"
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for step in range(steps + 1):
            for way, (model, batch) in ways.items():
                started = time.process_time()
                model(**batch).loss.backward()
                if step:  # the first warms up
                    seconds[way].append(time.process_time() - started)
    for way, values in seconds.items():
        ratio = statistics.median(values) / statistics.median(seconds["stock"])
        told = f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f}), {ratio:.3f} of stock"
        yield f"{way}, widths / 8, of {steps} steps: {told}"


def keep_features(model: Any, batch: dict[str, torch.Tensor], file: Path) -> None:
    """Compute the image features once, write them as bfloat16, and let the model read them in every step."""
    inner = model.get_base_model().model
    given = {name: batch[name] for name in ("pixel_values", "image_grid_thw") if name in batch}
    with torch.no_grad():
        found = inner.get_image_features(**given)
    deepstack = getattr(found, "deepstack_features", None) or []
    pooled = found.pooler_output
    whole = pooled if torch.is_tensor(pooled) else torch.cat(list(pooled))
    torch.save([tensor.bfloat16() for tensor in (whole, *deepstack)], file)

    def read(*_: Any, **__: Any) -> Any:
        first, *others = (tensor.float() for tensor in torch.load(file))
        return SimpleNamespace(pooler_output=first if torch.is_tensor(pooled) else (first,), deepstack_features=others)

    inner.get_image_features = read


if __name__ == "__main__":
    sys.exit(main())
