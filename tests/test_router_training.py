"""Options of training: recipes, what is refused, and how questions are balanced and augmented."""

import random
from collections import Counter
from pathlib import Path

import pytest
import yaml

from medvl.router.augmentation import balanced
from medvl.router.data import LabelledQuestion
from medvl.router.options import TrainingOptions, read_options, stated

RECIPES = Path(__file__).parents[1] / "recipes" / "router"


def test_the_default_recipe_is_the_default() -> None:
    assert read_options(RECIPES / "gliclass.yaml") == TrainingOptions()


def test_the_recipe_of_mevlip_is_their_setting() -> None:
    options = read_options(RECIPES / "gliclass_mevlip.yaml")
    assert (options.focal_alpha, options.focal_gamma, options.preset) == (1.0, 1.0, "mevlip")
    assert (options.encoder, options.label_encoder) == ("microsoft/deberta-v3-small", "BAAI/bge-small-en-v1.5")
    assert (options.epochs, options.encoder_learning_rate, options.full) == (3, 1e-5, True)


@pytest.mark.parametrize("name", ["gliclass", "gliclass_mevlip"])
def test_headers_say_how_to_run_and_what_to_expect(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text()
    assert f"medvl router train --recipe recipes/router/{name}.yaml" in text
    for word in ("Model", "Memory", "Time", "Expected"):
        assert f"# {word} " in text
    assert "Warning" in text or yaml.safe_load(text)["focal_alpha"] < 1


REFUSED = [
    ("focal_alpha: 1.0", "multiplies the loss of every negative by 0"),
    ("focal_alpha: 1.5", "multiplies the loss of every negative by -0.5"),
    ("focl_alpha: 1.0", "unknown key 'focl_alpha'; did you mean focal_alpha?"),
    ("epochs: many", "epochs: 'many'; expected int"),
    ("augment: 1", "augment: 1; expected bool"),
    ("epochs: 0", "epochs: 0; expected more than 0"),
    ("holdout: 1.0", "holdout: 1.0; expected a share"),
    ("templates: some", "templates: 'some'"),
    ("preset: fast", "preset: 'fast'"),
    ("label_encoder: x", "label_encoder without encoder"),
    ("epochs: 1\nepochs: 2", "stands twice"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_refused_recipes(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r".*") as refused:
        read_options(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"epochs[\s\S]*batch_size"):
        read_options(None, epochs=-1, batch_size=-1)


def test_overrides_win_and_none_is_no_override(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("epochs: 4\nseed: 7\nlearning_rate: 1\n")
    options = read_options(path, epochs=9, seed=None)
    assert (options.epochs, options.seed, options.learning_rate) == (9, 7, 1.0)


def test_what_is_kept_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "bge").mkdir()
    options = TrainingOptions(encoder=str(tmp_path / "bge"), label_encoder="hub/name")
    assert stated(options)["encoder"] == "bge"
    assert stated(options)["label_encoder"] == "hub/name"


def test_rare_tasks_are_repeated_at_most_eight_times() -> None:
    numbers = {"counting": 100, "detection": 60, "regression": 2}
    rows = [LabelledQuestion(f"{task} {i}", task, "d", "g") for task, number in numbers.items() for i in range(number)]
    counts = Counter(row.task for row in balanced(rows, random.Random(0)))
    assert counts == {"counting": 100, "detection": 100, "regression": 16}
    assert set(balanced(rows, random.Random(0))) == set(rows)
