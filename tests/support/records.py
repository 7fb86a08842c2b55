"""Records and run cards of no particular content."""

from typing import Any

import msgspec

from medvl.factory import run_card
from medvl.sharegpt import Record, Source, make_record


def record(number: int, *images: str, dataset: str = "dental", task: str = "classification") -> Record:
    source = Source(split="training", file="q.json", index=number, sizes=[(8, 8)] * len(images), answer="A")
    return make_record(question="Which?", answer="A", images=images, id=f"r{number}", task=task, dataset=dataset,
                       source=source)  # fmt: skip


def a_card(**changes: Any) -> run_card.RunCard:
    card = run_card.RunCard(
        schema=run_card.SCHEMA,
        model=run_card.Model("some/model", [], "main", None, None),
        vision=run_card.Vision(50176, 784, False, 65536, 16777216, None),
        prompt=run_card.Prompt("qwen3_vl_nothink", "", None, "{question}", 4096),
        quantization=run_card.Quantization(None, "bnb", "nf4", True),
        finetuning=run_card.Finetuning("full", None, None, None, None, False, False, False, 10),
        training=run_card.Training(16, 1, 16, 1e-5, "cosine", 1.0, -1, 42, "bfloat16", None),
        recipe={"stage": "sft", "lora_target": ["all"]},
        data=[run_card.DataFile("e", "train", "e.json", "00", 3, None, "norm1000", "json", True)],
        versions={"python": "3.11", "deepspeed": None},
        git_revision=None,
        run=run_card.Run("s", "e", 1.0, 2, None, float("nan"), None, None, None, 1, None),
    )
    return msgspec.structs.replace(card, **changes)
