"""The smallest data set that training runs on, and the smallest recipe."""

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

TEMPLATES = {"qwen3vl": "qwen3_vl_nothink", "internvl3": "intern_vl"}


def write_tiny_dataset(folder: Path) -> None:
    """dataset_info.json with the entries tiny_train (8 records) and tiny_val (4).

    Drawn images of two sizes; answers are a letter or boxes, and one record in four has two images.
    """
    (folder / "images").mkdir(parents=True)
    tags = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
    info = {}
    for split, count in (("train", 8), ("val", 4)):
        records = []
        for index in range(count):
            images = []
            for view in range(2 if index % 4 == 3 else 1):
                image = Image.new("RGB", (96, 64) if index % 2 else (64, 64), (20 * index, 90, 30 + 60 * view))
                ImageDraw.Draw(image).rectangle((10, 12, 40, 44), fill=(240, 230, 200))
                images.append(folder / "images" / f"{split}_{index}_{view}.png")
                image.save(images[-1])
            box = '[{"bbox_2d":[104,187,417,688],"label":"lesion"}]'
            question = "Where is the lesion?" if index % 2 else "Which one is it? A: round B: square"
            turns = [
                {"from": "human", "value": "<image>\n" * len(images) + question},
                {"from": "gpt", "value": box if index % 2 else "AB"[index // 2 % 2]},
            ]
            records.append({"id": f"tiny/{split}/{index}", "conversations": turns, "images": list(map(str, images))})
        (folder / f"tiny_{split}.json").write_text(json.dumps(records))
        columns = {"messages": "conversations", "images": "images"}
        info[f"tiny_{split}"] = {
            "file_name": f"tiny_{split}.json",
            "formatting": "sharegpt",
            "columns": columns,
            "tags": tags,
        }
    (folder / "dataset_info.json").write_text(json.dumps(info))


def lora_recipe(family: str, checkpoint: Path, dataset: Path, out: Path) -> dict[str, Any]:
    """Two steps of LoRA on a CPU, as the dict that `run_exp` takes."""
    return {
        "model_name_or_path": str(checkpoint),
        "image_max_pixels": 64 * 64,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": 4,
        "lora_target": "all",
        "dataset": "tiny_train",
        "dataset_dir": str(dataset),
        "template": TEMPLATES[family],
        "default_system": "You are a careful radiologist.",
        "cutoff_len": 512,
        "output_dir": str(out),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "per_device_train_batch_size": 2,
        "learning_rate": 1.0e-3,
        "max_steps": 2,
        "use_cpu": True,
        "seed": 7,
    }
