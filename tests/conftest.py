"""Fixtures that several test files share."""

import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support.once import Once, shared_folders
from tests.support.questions import QUESTIONS
from tests.support.tiny_dataset import lora_recipe, write_tiny_dataset

pytest_plugins = ["tests.support.tiers"]
pytest.register_assert_rewrite("tests.support.flare_tree", "tests.support.scored_tree")
# Time limits of examples say how busy the machine is, not what the code does.
settings.register_profile("medvl", deadline=None, max_examples=40)
settings.load_profile("medvl")
# Before anything imports torch: two OpenMP threads on a busy two-core machine are ten times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

REPOSITORY = Path(__file__).parents[1]


def pytest_collection_finish() -> None:
    """What is there before the first test is no garbage: looking through it costs more than half of a training run.

    And workers of a data loader end at once, where torch waits up to five seconds for each; and Ctrl-C is heard, which
    a shell lets its background jobs ignore.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    gc.freeze()
    if "torch" in sys.modules:
        sys.modules["torch"].utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.2


@pytest.fixture(scope="session", autouse=True)
def nothing_outlives_a_power_cut() -> Iterator[None]:
    """What tests write need not be on the disk before they go on: thousands of times they would wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


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
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Once]:
    """`once(name, build)`: the folder that `build(folder)` fills, once per run; treat it as read-only."""
    with shared_folders(tmp_path_factory.getbasetemp()) as build_once:
        yield build_once


@pytest.fixture(scope="session")
def tiny_checkpoint(once: Once) -> Callable[[str], Path]:
    """`tiny_checkpoint("qwen3vl" | "internvl3")`: a micro checkpoint, built once per run; treat it as read-only."""

    def build(family: str) -> Path:
        from medvl.demo.checkpoints import build_checkpoint

        # The last part of its path says what it is, as that of a published checkpoint does.
        return once(f"checkpoint_{family}", lambda folder: build_checkpoint(family, folder / family)) / family

    return build


@pytest.fixture(scope="session")
def marked_adapters(once: Once) -> Callable[[str], Path]:
    """`marked_adapters("qwen3vl" | "internvl3")`: a folder with `base`, a micro checkpoint, and `adapters`.

    One adapter per task and one for general; each answers everything with its letter: A to G in the order of `Task`,
    then I for vqa and H for general.
    Built once per run; treat it as read-only.
    """

    def build(family: str) -> Path:
        from medvl.demo.adapters import build_marked
        from medvl.tasks import Task

        letters = dict(zip((*map(str, Task), "general"), "ABCDEFGIH", strict=True))
        return once(f"marked_{family}", lambda folder: build_marked(family, folder, letters))

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
def tiny_dataset(once: Once) -> Path:
    """A folder with dataset_info.json and the entries tiny_train (8 records) and tiny_val (4)."""
    return once("tiny_dataset", write_tiny_dataset)


@pytest.fixture
def tiny_recipe(
    tiny_checkpoint: Callable[[str], Path], tiny_dataset: Path, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """`tiny_recipe(family, **overrides)`: a LoRA recipe of 2 CPU steps, as the dict that `run_exp` takes."""

    def recipe(family: str, **overrides: Any) -> dict[str, Any]:
        return lora_recipe(family, tiny_checkpoint(family), tiny_dataset, tmp_path / "out") | overrides

    return recipe


@pytest.fixture(scope="session")
def trained_adapter(
    once: Once, tiny_checkpoint: Callable[[str], Path], tiny_dataset: Path
) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """`trained_adapter(family)`: an adapter with its run card, and its recipe; built once per run, read-only.

    Four steps at a high rate, after which answers differ from the base model's.
    """

    def build(family: str) -> tuple[Path, dict[str, Any]]:
        from llamafactory.train.tuner import run_exp

        def recipe(out: Path) -> dict[str, Any]:
            changes = {"medvl_run_card": True, "learning_rate": 0.05, "max_steps": 4}
            return lora_recipe(family, tiny_checkpoint(family), tiny_dataset, out) | changes

        folder = once(f"adapter_{family}", lambda folder: run_exp(recipe(folder)))
        return folder, recipe(folder)

    return build


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
