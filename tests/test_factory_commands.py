"""The command users type, in a process of its own. Two processes of torchrun: test_factory_grounding.py."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("llamafactory")
from medvl.factory.run_card import read_run_card

Recipe = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.subprocess


def test_plain_command_with_the_key_overridden_on_the_command_line(tiny_recipe: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tiny_recipe("internvl3", medvl_run_card=False)))
    command = [str(Path(sys.executable).parent / "llamafactory-cli"), "train", str(file)]
    done = subprocess.run([*command, "medvl_run_card=true", "max_steps=1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    card = read_run_card(tmp_path / "out")
    assert (card.run.steps, card.recipe["medvl_run_card"]) == (1, True)
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
