"""The diffs in docs/add_a_loss.md, add_a_recipe.md and add_a_model_family.md, applied to a copied tree and run."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.clones import copy_code

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
MOST = 15  # lines of a diff that are added or removed


@pytest.fixture
def tree(repository: Path, tmp_path: Path) -> Path:
    """A copy of what the pages change."""
    return copy_code(repository, tmp_path / "tree", "plugins", "recipes")


def apply(page: Path, tree: Path) -> None:
    """Apply the diff that a page ends in."""
    text = page.read_text()
    *_, diff = re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert text.endswith(f"{diff}```\n"), "the page ends in its diff"
    changed = [line for line in diff.splitlines() if re.match(r"[+-](?!--|\+\+)", line)]
    assert 0 < len(changed) <= MOST
    subprocess.run(["git", "apply", "--unidiff-zero", "-"], input=diff, text=True, check=True, cwd=tree)


def run(code: str, tree: Path, *arguments: str) -> str:
    """What Python code of the copied tree prints."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tree / 'plugins')!r})\n{code}", *arguments]
    # LLaMA-Factory is extended by the copy too: torch's hook finds medvl where the path says.
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tree).stdout


@pytest.mark.subprocess
def test_the_loss_trains_and_is_logged_and_plotted(
    repository: Path, tree: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    apply(repository / "docs/add_a_loss.md", tree)
    recipe = tmp_path / "recipe.json"
    keys = {"entropy_weight": 0.5, "use_grounding_loss": True, "grounding_warmup_ratio": 0.0, "plot_loss": True}
    recipe.write_text(json.dumps(tiny_recipe("qwen3vl", **keys)))
    code = """
import json, medvl
from pathlib import Path
from llamafactory.train.tuner import run_exp
recipe = json.loads(Path(sys.argv[1]).read_text())
assert Path(medvl.__file__).is_relative_to(Path.cwd())
try:
    run_exp({**recipe, "entropy_weigth": 1.0})
except ValueError as refusal:
    print(refusal)
run_exp(recipe)
"""
    assert "entropy_weigth: there is no such key; did you mean `entropy_weight`?" in run(code, tree, str(recipe))
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in log if "loss" in entry]
    assert len(steps) == 2
    for step in steps:
        assert step["loss_entropy"] < 0, "minus the entropy"
        # Each term is logged over the records that have it, and added over all of them.
        most = 0.3 * step["loss_w1"] + 0.05 * sum(step.get(f"loss_{term}", 0.0) for term in ("iou", "fp", "fn"))
        assert 0 < step["loss"] - step["loss_lm"] - step["loss_entropy"] < most + 1e-3
    assert (tmp_path / "out" / "training_loss_components.png").is_file()


def test_the_recipe_is_parsed_and_listed(repository: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llamafactory")
    import yaml
    from llamafactory.hparams import get_train_args

    page = repository / "docs/add_a_recipe.md"
    (copy,) = re.findall(r"^cp .*$", page.read_text(), re.MULTILINE)
    subprocess.run(copy.split(), check=True, cwd=tree)
    apply(page, tree)
    file = tree / copy.split()[-1]
    monkeypatch.chdir(tree)
    *_, finetuning, _ = get_train_args(yaml.safe_load(file.read_text()) | {"use_cpu": True})
    assert finetuning.medvl_recipe.value("model_name_or_path") == "Qwen/Qwen3-VL-2B-Instruct"
    assert f"llamafactory-cli train recipes/{file.name}\n" in file.read_text()
    assert f"[{file.name}]({file.name})" in (tree / "recipes/README.md").read_text()
    assert "4b_lora" not in file.read_text().replace("recipes/flare_qwen3vl_4b_lora.yaml deepspeed", "")


def test_the_family_has_its_template_named_and_its_keys_checked(repository: Path, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "gemma3"}')
    code = """
from types import SimpleNamespace
from medvl.factory.checks.model import template_problems, unused_by_model
from medvl.factory.recipe import Recipe
keys = {"model_name_or_path": folder, "template": "qwen2_vl", "do_train": do_train, "crop_to_patches": True,
        "image_do_pan_and_scan": True, "model_revision": "main"}
recipe = Recipe(tuple(keys), (SimpleNamespace(**keys),))
found = [*template_problems(recipe), *unused_by_model(recipe)]
"""
    here: dict[str, Any] = {"folder": str(tmp_path / "model"), "do_train": False}
    exec(code, here)
    assert here["found"] == [], "unknown, and left alone"
    apply(repository / "docs/add_a_model_family.md", tree)
    told = run(f"folder, do_train = sys.argv[1], None\n{code}print(*found, sep='\\n')", tree, here["folder"])
    template, tiles = told.splitlines()
    assert "of `model_type: gemma3`; write `template: gemma3`" in template
    assert tiles.startswith("crop_to_patches: does nothing for `gemma3`")
