#!/usr/bin/env python
"""benchmarks/predict.py with a model of InternVL3-8B's true size in 4 bits, random weights. Not run here: no GPU.

    python benchmarks/gpu/predict.py --folder /tmp/internvl3_8b [--questions 280] [--new-tokens 16] [--batch-size 32]

Needs about 16 GB of disk for the weights (kept in --folder for the next time), 12 GB of GPU memory, and no network. The
adapters have ME-VLIP's shape: rank 8 on all linear layers of the language model. Random weights generate as long as
they may, at the speed of trained ones.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "WARNING")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import predict
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoProcessor, AutoTokenizer, InternVLConfig, InternVLForConditionalGeneration

from medvl.demo.checkpoints import build_checkpoint
from medvl.demo.images import build_tree
from medvl.instructions import GENERAL
from medvl.predict.setup import ModelOptions, find_adapters, read_setup

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def build(folder: Path, names: list[str]) -> None:
    """Write `folder`/base with the sizes of InternVL3-8B and an adapter per name, unless they are there."""
    base = folder / "base"
    if (base / "model.safetensors.index.json").exists():
        return
    build_checkpoint("internvl3", base)  # for its tokenizer and processor
    tokenizer, processor = AutoTokenizer.from_pretrained(base), AutoProcessor.from_pretrained(base)
    processor.image_processor.size = {"height": 448, "width": 448}
    processor.image_seq_length = 256
    config = InternVLConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": 151674,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": False,
        },
        vision_config={
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": [448, 448],
            "patch_size": [14, 14],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=256,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = InternVLForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="4GB")
    processor.save_pretrained(base)
    adapted = None
    for name in names:
        config = LoraConfig(r=8, lora_alpha=16, target_modules=LINEAR, task_type="CAUSAL_LM", init_lora_weights=False)
        if adapted is None:
            adapted = get_peft_model(model, config, adapter_name=name)
        else:
            adapted.add_adapter(name, config)
        adapted.save_pretrained(folder / "adapters", selected_adapters=[name])


def main() -> None:
    """Build, or find what an earlier run built, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=280)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    names = [*predict.LABELS, GENERAL]
    build(args.folder, names)
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        build_tree(Path(folder), train=0, val=-(-args.questions // 9))
        setup = read_setup(
            find_adapters(names, args.folder / "adapters"),
            ModelOptions(str(args.folder / "base"), bits=4, dtype="bfloat16"),
        )
        asked = predict.plan(Path(folder), setup, args.new_tokens, args.questions)
        predict.show(predict.compare(setup, asked, args.batch_size, args.repeats, differing=1.0))
    sys.stderr.write(f"{torch.cuda.get_device_name()}, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most\n")


if __name__ == "__main__":
    main()
