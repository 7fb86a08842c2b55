"""What a run really trains, and settings of a recipe that have no effect on it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llamafactory")
from llamafactory.train.tuner import run_exp

from medvl.factory.run_card import TrainedPart, read_run_card

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
LANGUAGE = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
PROJECTOR = {"qwen3vl": ["linear_fc1", "linear_fc2"], "internvl3": ["linear_1", "linear_2"]}
families = pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])


def trained(folder: Path) -> dict[str, TrainedPart]:
    return {part.part: part for part in read_run_card(folder).finetuning.trained}


def recipe_of(make: Recipe, family: str, **settings: Any) -> dict[str, Any]:
    return make(family, medvl_run_card=True, max_steps=1, **settings)


@families
def test_card_lists_the_parts_that_are_trained(family: str, tiny_recipe: Recipe, tmp_path: Path) -> None:
    run_exp(recipe_of(tiny_recipe, family))
    parts = trained(tmp_path / "out")
    assert list(parts) == ["language model"]
    assert parts["language model"].modules == LANGUAGE
    # Two layers of seven modules, each with the matrices A and B.
    assert (parts["language model"].tensors, parts["language model"].parameters) == (28, 8192)
    assert read_run_card(tmp_path / "out").finetuning.trainable_parameters == 8192


@families
def test_card_of_full_finetuning_lists_every_part(family: str, tiny_recipe: Recipe, tmp_path: Path) -> None:
    freeze = {"freeze_vision_tower": False, "freeze_multi_modal_projector": False, "freeze_language_model": False}
    recipe = recipe_of(tiny_recipe, family, finetuning_type="full", **freeze)
    run_exp({key: value for key, value in recipe.items() if not key.startswith("lora_")})
    parts = trained(tmp_path / "out")
    assert set(parts) == {"language model", "projector", "vision tower"}
    assert set(PROJECTOR[family]) <= set(parts["projector"].modules)
    total = read_run_card(tmp_path / "out").finetuning.trainable_parameters
    assert sum(part.parameters for part in parts.values()) == total


@families
@pytest.mark.parametrize("target", ["all", "q_proj,v_proj"])
def test_projector_that_is_not_trained_is_refused_and_the_cure_works(
    target: str, family: str, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    settings = {"freeze_vision_tower": True, "freeze_multi_modal_projector": False}
    with pytest.raises(ValueError, match="freeze_multi_modal_projector: false has no effect") as told:
        run_exp(recipe_of(tiny_recipe, family, lora_target=target, **settings))
    (cure,) = re.findall(r"`lora_target: (\S+)`", str(told.value))
    run_exp(recipe_of(tiny_recipe, family, lora_target=cure, **settings))
    parts = trained(tmp_path / "out")
    assert set(parts) == {"language model", "projector"}
    assert parts["projector"].modules == PROJECTOR[family]
    assert parts["language model"].modules == (LANGUAGE if target == "all" else ["q_proj", "v_proj"])


def test_vision_tower_that_is_not_trained_is_refused_and_the_cure_works(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """Qwen3-VL's vision tower has no q_proj."""
    settings = {"freeze_vision_tower": False}
    with pytest.raises(ValueError, match=r"freeze_vision_tower: false has no effect.*`lora_target: all`"):
        run_exp(recipe_of(tiny_recipe, "qwen3vl", lora_target="q_proj,v_proj", **settings))
    run_exp(recipe_of(tiny_recipe, "qwen3vl", lora_target="all", **settings))
    assert set(trained(tmp_path / "out")) == {"language model", "vision tower"}


def test_flag_that_contradicts_additional_target_is_refused(tiny_recipe: Recipe) -> None:
    settings = {"freeze_vision_tower": True, "additional_target": "patch_embed"}
    with pytest.raises(ValueError, match="freeze_vision_tower: true has no effect: weights of the vision tower are"):
        run_exp(recipe_of(tiny_recipe, "qwen3vl", lora_target="q_proj", **settings))


def test_flag_that_an_adapter_overrides_is_refused(
    tiny_recipe: Recipe, trained_adapter: Callable[[str], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    settings = {"adapter_name_or_path": str(trained_adapter("internvl3")[0]), "freeze_vision_tower": False}
    with pytest.raises(ValueError, match=r"freeze_vision_tower: false has no effect.*create_new_adapter"):
        run_exp(recipe_of(tiny_recipe, "internvl3", **settings))
    run_exp(recipe_of(tiny_recipe, "internvl3", create_new_adapter=True, **settings))
    assert set(trained(tmp_path / "out")) == {"language model", "vision tower"}


NAMES = {"lora_target": "q_proj,nonsense", "additional_target": "nonsense"}


@pytest.mark.parametrize(("key", "value"), NAMES.items(), ids=NAMES)
def test_name_that_no_trained_module_has_is_refused(key: str, value: str, tiny_recipe: Recipe) -> None:
    settings = {"lora_target": "q_proj", key: value}
    with pytest.raises(ValueError, match=f"{key}: no trained module is called nonsense; trained are q_proj"):
        run_exp(recipe_of(tiny_recipe, "qwen3vl", **settings))


def test_without_medvl_keys_nothing_is_refused(tiny_recipe: Recipe, tmp_path: Path) -> None:
    run_exp(tiny_recipe("qwen3vl", max_steps=1, lora_target="q_proj,nonsense", freeze_multi_modal_projector=False))
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
