"""What benchmarks/gpu/run.py measures: a list of settings per part. What a row needs is in its setting alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GPU = Path(__file__).resolve().parent
ROOT = GPU.parents[1]
TASKS = ["classification", "multi_label_classification", "detection", "instance_detection", "counting", "regression",
         "report_generation", "vqa", "general"]  # fmt: skip


@dataclass(frozen=True)
class Where:
    """What the settings are measured on.

    Attributes:
        work: Folder of the checkpoints and the data.
        tiny: Whether to go through everything with tiny models on a CPU, in 32 bits and without kernels of a GPU.
        dataset_info: Folder of the registry with the records' entries.
        name: First part of the entries' names.
        tokenizer: A published `tokenizer.json`, for true numbers of tokens.
    """

    work: Path
    tiny: bool
    dataset_info: Path
    name: str
    tokenizer: Path | None

    def checkpoint(self, size: str) -> Path:
        """Folder of a checkpoint; a tiny one of the same family in its place."""
        return self.work / (f"tiny-{size.split('-')[0]}" if self.tiny else size)


@dataclass(frozen=True)
class Setting:
    """One row.

    Attributes:
        part: Part of the table.
        name: What is measured; the row's key.
        command: What measures it and writes its row to `{out}`.
        size: The checkpoint it needs.
        environment: Variables of the process.
        waits: Whether the process says `ready` and waits for a line.
    """

    part: str
    name: str
    command: tuple[str, ...]
    size: str
    environment: dict[str, str] = field(default_factory=dict)
    waits: bool = False


INTERN, QWEN = ("internvl3-8b", "flare_internvl3_8b_qlora"), ("qwen3vl-4b", "flare_qwen3vl_4b_lora")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1")
# What a CPU takes in the place of what is stated.
TINY = {"bf16": False, "use_cpu": True, "max_steps": 3, "max_samples": 24, "dataloader_num_workers": 0,
        "enable_liger_kernel": None, "quantization_bit": None, "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1, "medvl_loss_group": None}  # fmt: skip


def _train(
    where: Where,
    model: tuple[str, str],
    name: str,
    *,
    part: str = "ladder",
    stock: bool = False,
    launch: bool = False,
    **changes: Any,
) -> Setting:
    """A recipe for some steps; `stock` without medvl, `launch` by torchrun, as DeepSpeed wants it."""
    size, recipe = model
    stated = {
        "model_name_or_path": str(where.checkpoint(size) / "base"), "dataset_dir": str(where.dataset_info),
        "dataset": f"{where.name}_all_train",
        "max_samples": 240, "max_steps": 8, "dataloader_num_workers": 4,
    } | changes | (TINY if where.tiny else {})  # fmt: skip
    described = {"recipe": f"recipes/{recipe}.yaml", "set": stated, "out": "{out}", "wait": not launch}
    command = (sys.executable, *(TORCHRUN if launch else ()), str(GPU / "train.py"), json.dumps(described))
    return Setting(part, name, command, size, {"MEDVL_DISABLE": "1"} if stock else {}, waits=not launch)


# Eight at once with the loss of two at a time; stock LLaMA-Factory averages over all eight.
AT_ONCE: dict[str, Any] = {
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "medvl_loss_group": 2,
}  # fmt: skip
BF16 = AT_ONCE | {"quantization_bit": None}


def ladder(where: Where) -> list[Setting]:
    """From stock LLaMA-Factory with the recipe as published to what `medvl fit` may choose; the same records a step."""
    published = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "medvl_loss_group": None}
    rows: list[tuple[str, bool, dict[str, Any]]] = [
        ("stock LLaMA-Factory, 4 bits, 2 x 4", True, published),
        ("medvl, 4 bits, 2 x 4", False, published),
        ("4 bits, 8 x 1", False, AT_ONCE),
        ("bf16, 8 x 1, no checkpointing", False, BF16 | {"disable_gradient_checkpointing": True}),
    ]
    found = [_train(where, INTERN, f"InternVL3-8B: {name}", stock=stock, **changes) for name, stock, changes in rows]
    for name, batch in (("1 x 16", 1), ("16 x 1", 16)):
        division = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 16 // batch, "max_steps": 5}
        found.append(_train(where, QWEN, f"Qwen3-VL-4B: bf16, {name}", **division))
    return found


def levers(where: Where) -> list[Setting]:
    """One lever at a time, at one micro-batch in 16 bits with checkpointing."""
    rows: list[tuple[str, bool, dict[str, Any]]] = [
        ("stock LLaMA-Factory", True, {}),
        ("frozen tower without gradients", False, {}),
        ("and liger", False, {"enable_liger_kernel": True}),
        ("and records of like length", False, {"train_sampling_strategy": "group_by_length"}),
    ]
    return [
        _train(where, INTERN, f"InternVL3-8B, bf16, 8 x 1: {name}", part="levers", stock=stock, **(BF16 | changes))
        for name, stock, changes in rows
    ]


def grounding(where: Where) -> list[Setting]:
    """What the grounding loss costs at 8B, micro-batch 4; 100 boxes with liger's fused loss."""
    size, device = ("tiny-internvl3", "cpu") if where.tiny else ("internvl3-8b", "cuda")
    command = [sys.executable, str(ROOT / "benchmarks" / "grounding_cost.py"), "--size", size, "--device", device]
    command += ["--dtype", "float32" if where.tiny else "bfloat16", "--steps", "2" if where.tiny else "10"]
    command += ["--batch", "1"] if where.tiny else ["--batch", "4", "--fused"]
    command += ["--ways", "stock", "grounding", "--out", "{out}"]
    return [
        Setting("grounding", f"InternVL3-8B, {boxes} boxes", (*command, "--boxes", boxes), "internvl3-8b")
        for boxes in ("8", "100")
    ]


def predict(where: Where) -> list[Setting]:
    """`medvl predict` in 16 and in 4 bits."""
    folder = where.checkpoint("internvl3-8b")
    command = [sys.executable, str(GPU / "predict.py"), "--folder", str(folder), "--out", "{out}"]
    if where.tiny:
        small = ("--questions", "9", "--alone", "2", "--new-tokens", "2", "--dtype", "float32")
        return [Setting("predict", "InternVL3-8B, 32 bits", (*command, *small), "internvl3-8b")]
    return [
        Setting("predict", f"InternVL3-8B, {bits or 16} bits", (*command, "--bits", str(bits)), "internvl3-8b")
        for bits in (0, 4)
    ]


def deepspeed(where: Where) -> list[Setting]:
    """ZeRO on one GPU: that it runs, and what it costs there."""
    division = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_steps": 5}
    return [
        _train(
            where, QWEN, f"Qwen3-VL-4B, 8 x 2: {name}", part="deepspeed", launch=launch, **division, **more
        )
        for name, launch, more in (
            ("alone", False, {}),
            ("ZeRO-2", True, {"deepspeed": "recipes/deepspeed/ds_z2.json"}),
            ("ZeRO-3", True, {"deepspeed": "recipes/deepspeed/ds_z3.json"}),
        )
        if not (where.tiny and launch)  # DeepSpeed here needs a GPU
    ]  # fmt: skip


def serve(where: Where) -> list[Setting]:
    """`medvl serve` under 16 clients."""
    folder = where.checkpoint("internvl3-8b")
    command = [sys.executable, str(GPU / "serve.py"), "--base", str(folder / "base"), "--out", "{out}"]
    command += ["--adapter", str(folder / "adapters" / "general")]
    if where.tiny:
        command += ["--dtype", "float32", "--clients", "2", "--requests", "4", "--new-tokens", "2"]
    return [Setting("serve", "InternVL3-8B, 16 clients", tuple(command), "internvl3-8b")]


PARTS: dict[str, Callable[[Where], list[Setting]]] = {
    "ladder": ladder, "levers": levers, "grounding": grounding, "predict": predict, "deepspeed": deepspeed,
    "serve": serve,
}  # fmt: skip
