"""The commands users type, each in a process of its own; every one costs an import of torch, so there are few."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("llamafactory")
from medvl.factory.run_card import FILE_NAME, read_run_card

Recipe = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.slow


def train(recipe: dict[str, Any], folder: Path, *overrides: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`llamafactory-cli train recipe.yaml …`, with the environment's own torchrun on PATH."""
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", **variables}
    command = [str(bin_folder / "llamafactory-cli"), "train", str(file), *overrides]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_plain_command_with_the_key_overridden_on_the_command_line(tiny_recipe: Recipe, tmp_path: Path) -> None:
    done = train(tiny_recipe("internvl3", medvl_run_card=False), tmp_path, "medvl_run_card=true", "max_steps=1")
    assert done.returncode == 0, done.stderr
    card = read_run_card(tmp_path / "out")
    assert (card.run.steps, card.recipe["medvl_run_card"]) == (1, True)
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_two_torchrun_processes_write_one_card(tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = tiny_recipe("qwen3vl", medvl_run_card=True)
    done = train(recipe, tmp_path, FORCE_TORCHRUN="1", NPROC_PER_NODE="2", MASTER_ADDR="127.0.0.1")
    assert done.returncode == 0, done.stderr
    card = read_run_card(tmp_path / "out")
    assert (card.run.world_size, card.training.batch_size, card.run.steps) == (2, 4, 2)


def test_switched_off_hook_leaves_the_key_unknown_to_llamafactory(tiny_recipe: Recipe, tmp_path: Path) -> None:
    done = train(tiny_recipe("qwen3vl", medvl_run_card=True), tmp_path, MEDVL_DISABLE="1")
    assert done.returncode != 0
    assert "Some keys are not used by the HfArgumentParser: ['medvl_run_card']" in done.stderr
    assert not (tmp_path / "out" / FILE_NAME).exists()
