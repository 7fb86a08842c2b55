#!/usr/bin/env python
"""An adapter trained on a 4-bit base, asked on that base, on the base in 16 bits, and merged: how answers differ.

    python benchmarks/serving_numerics.py /tmp/numerics [--family internvl3] [--start-steps 800] [--steps 200]

A tiny model learns the drawn images (all weights, as the demo does), then a QLoRA adapter is trained on its 4-bit form.
`llamafactory-cli export` merges it into 16 bits. All three answer the same validation questions, and `evaluation/run.py
--baseline` compares them with the first. Every step is a command that a user would type; what is there stays. On a CPU
with AVX512-BF16 bitsandbytes asks for widths that 32 divides, which the tiny Qwen3-VL's vision tower has not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = {"qwen3vl": "qwen3_vl_nothink", "internvl3": "intern_vl"}
SCRIPTS = Path(sys.executable).parent
CARD = "medvl_run_card.json"  # by which a model is asked as it was trained


def main() -> None:
    """Do what is missing, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--family", choices=TEMPLATES, default="internvl3")
    parser.add_argument("--start-steps", type=int, default=800, help="of all weights")
    parser.add_argument("--steps", type=int, default=200, help="of the adapter")
    parser.add_argument("--val", type=int, default=24, help="questions per dataset")
    args = parser.parse_args()
    for out, command in commands(args):
        if not out.exists() or not out.stat().st_size:
            sys.stderr.write(f"-> {out}\n")
            subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    predicted = [str(args.work / args.family / f"{way}.jsonl") for way in ("quantised", "bf16", "merged")]
    compare = [
        sys.executable,
        "evaluation/run.py",
        *predicted,
        "--references",
        str(args.work / "data/drawn_all_val.json"),
    ]
    compare += ["--baseline", predicted[0]]
    compare += ["--out", str(args.work / args.family / "scores"), "--markdown"]
    subprocess.run(compare, check=True, cwd=ROOT)


def commands(args: argparse.Namespace) -> list[tuple[Path, list[str]]]:
    """What each command writes, and the command."""
    work, python = args.work.resolve(), sys.executable
    model, records = work / args.family, work / "data/drawn_all_train.json"
    recipe, registry = ROOT / f"recipes/demo_{args.family}_tiny.yaml", work / "dataset_info.json"
    train = [str(SCRIPTS / "llamafactory-cli"), "train", str(recipe), f"dataset_dir={work}", "dataset=drawn_all_train"]
    train += ["eval_dataset=drawn_all_val", "overwrite_output_dir=true"]
    lora = ["finetuning_type=lora", "lora_rank=8", "lora_target=all", "quantization_bit=4", "quantization_method=bnb"]
    lora += ["double_quantization=false", "freeze_vision_tower=true", "freeze_multi_modal_projector=true", "bf16=true"]
    lora += [f"max_steps={args.steps}", f"model_name_or_path={model / 'start'}", f"output_dir={model / 'adapter'}"]
    lora += ["seed=1", "learning_rate=2e-4"]
    merge = [str(SCRIPTS / "llamafactory-cli"), "export", str(ROOT / "recipes/export/grounding_merge.yaml")]
    merge += [f"model_name_or_path={model / 'start'}", f"adapter_name_or_path={model / 'adapter'}"]
    merge += [f"template={TEMPLATES[args.family]}", f"export_dir={model / 'merged'}", "infer_dtype=bfloat16"]
    ask = [str(SCRIPTS / "medvl"), "predict", "--data", str(work / "data/drawn_all_val.json"), "--no-router"]
    adapter, bf16 = ["--adapter", str(model / "adapter")], ["--quantization", "none", "--dtype", "bfloat16"]
    merged = ["--model", str(model / "merged"), *bf16]  # its card says 4 bits, as the adapter was trained
    draw = [python, "-m", "medvl.demo.images", str(work / "tree"), "--train", "320", "--val", str(args.val)]
    return [
        (work / "tree", draw),
        (records, [python, "preprocess/flare.py", "--root", str(work / "tree"), "--out", str(work / "data"),
                   "--name", "drawn", "--dataset-info", str(registry)]),
        (model / "checkpoint", [python, "-m", "medvl.demo.checkpoints", args.family, str(model / "checkpoint"),
                                "--scale", "demo", "--corpus", str(records)]),
        (model / "start/model.safetensors", [*train, f"model_name_or_path={model / 'checkpoint'}",
                                             f"output_dir={model / 'start'}", f"max_steps={args.start_steps}"]),
        (model / "adapter/adapter_model.safetensors", [*train, *lora]),
        (model / "merged", merge),
        (model / "merged" / CARD, ["cp", str(model / "adapter" / CARD), str(model / "merged")]),
        (model / "quantised.jsonl", [*ask, *adapter, "--out", str(model / "quantised.jsonl")]),
        (model / "bf16.jsonl", [*ask, *adapter, *bf16, "--out", str(model / "bf16.jsonl")]),
        (model / "merged.jsonl", [*ask, *merged, "--out", str(model / "merged.jsonl")]),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
