"""Fixtures that several test files share."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support.questions import QUESTIONS

pytest.register_assert_rewrite("tests.support")
# Time limits of examples say how busy the machine is, not what the code does.
settings.register_profile("medvl", deadline=None)
settings.load_profile("medvl")
# Before anything imports torch: two OpenMP threads on a busy two-core machine are ten times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

REPOSITORY = Path(__file__).parents[1]
TEMPLATES = {"qwen3vl": "qwen3_vl_nothink", "internvl3": "intern_vl"}


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the clone."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data kept beside the clone."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: real data does not travel with the repository")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_checkpoint("qwen3vl" | "internvl3")`: a micro checkpoint, built once per session; treat it as read-only."""
    built: dict[str, Path] = {}

    def build(family: str) -> Path:
        if family not in built:
            from medvl.demo.checkpoints import build_checkpoint

            built[family] = build_checkpoint(family, tmp_path_factory.mktemp("checkpoints") / family, scale="micro")
        return built[family]

    return build


@pytest.fixture(scope="session")
def marked_adapters(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`marked_adapters("qwen3vl" | "internvl3")`: a folder with `base`, a micro checkpoint, and `adapters`.

    One adapter per task and one for general; each answers everything with its letter: A to G in the order of `Task`,
    then I for vqa and H for general.
    Built once per session; treat it as read-only.
    """
    built: dict[str, Path] = {}

    def build(family: str) -> Path:
        if family not in built:
            from medvl.demo.adapters import build_marked
            from medvl.tasks import Task

            letters = dict(zip((*map(str, Task), "general"), "ABCDEFGIH", strict=True))
            built[family] = build_marked(family, tmp_path_factory.mktemp("marked") / family, letters)
        return built[family]

    return build


@pytest.fixture
def question_tree(tmp_path: Path) -> Path:
    """A FLARE tree with one question per task, two images in that on findings, and one that is of no task."""
    from PIL import Image

    folder = tmp_path / "tree" / "validation-public" / "Xray" / "mixed"
    (folder / "imagesVal").mkdir(parents=True)
    rows = []
    for index, (task, question) in enumerate(QUESTIONS.items()):
        names = [f"imagesVal/p{index}-{view}.png" for view in range(2 if index == 1 else 1)]
        for view, name in enumerate(names):
            Image.new("RGB", (120, 80) if index % 2 else (64, 64), (30 * index, 90, 60 * view)).save(folder / name)
        rows.append({"TaskType": task, "Modality": "X-Ray", "ImageName": names if len(names) > 1 else names[0],
                     "Question": question, "Answer": "A", "Split": "val"})  # fmt: skip
    (folder / "mixed_questions_val.json").write_text(json.dumps(rows))
    return tmp_path / "tree"


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dataset_info.json, the entries tiny_train (8 records) and tiny_val (4), and a manifest.

    Drawn images of two sizes; answers are a letter or boxes, and one record in four has two images.
    """
    from PIL import Image, ImageDraw

    folder = tmp_path_factory.mktemp("tiny_dataset")
    (folder / "images").mkdir()
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
    return folder


@pytest.fixture
def tiny_recipe(
    tiny_checkpoint: Callable[[str], Path], tiny_dataset: Path, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """`tiny_recipe(family, **overrides)`: a LoRA recipe of 2 CPU steps, as the dict that `run_exp` takes."""

    def recipe(family: str, **overrides: Any) -> dict[str, Any]:
        return {
            "model_name_or_path": str(tiny_checkpoint(family)),
            "image_max_pixels": 64 * 64,
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_rank": 4,
            "lora_target": "all",
            "dataset": "tiny_train",
            "dataset_dir": str(tiny_dataset),
            "template": TEMPLATES[family],
            "default_system": "You are a careful radiologist.",
            "cutoff_len": 512,
            "output_dir": str(tmp_path / "out"),
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "per_device_train_batch_size": 2,
            "learning_rate": 1.0e-3,
            "max_steps": 2,
            "use_cpu": True,
            "seed": 7,
        } | overrides

    return recipe


CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium without a window, driven by playwright; one for all tests."""
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    quiet = ("background-networking", "component-update", "sync")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", *(f"--disable-{it}" for it in quiet)]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()
