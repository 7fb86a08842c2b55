"""`medvl fit` and the recipes that people write: what it tries, and what it writes, is the recipe's own training."""

import shlex
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

pytest.importorskip("llamafactory")
from llamafactory.hparams import get_train_args
from omegaconf import OmegaConf

from medvl.errors import UsageError
from medvl.factory.loss_groups import GroupingMixin
from medvl.fit import commands, preparing, trial
from medvl.fit.identity import identity
from medvl.fit.recipe import fixed_batch, read_recipe, tokenised
from medvl.fit.report import Row, write_recipe
from medvl.fit.settings import Setting, applied, changes, own_setting, words
from medvl.fit.trying import How, alone, prepared

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
EVALUATED = {"eval_dataset": "tiny_val", "do_eval": True, "eval_strategy": "steps", "eval_steps": 1}
BEST = EVALUATED | {"save_strategy": "steps", "save_steps": 1, "metric_for_best_model": "eval_loss"}
# Keys that only evaluation, prediction, saving, logging or going on reads; and those that stand in each other's way.
KEYS: dict[str, dict[str, Any]] = {
    "evaluation": EVALUATED | {"per_device_eval_batch_size": 3, "eval_on_start": True},
    "each set": EVALUATED | {"eval_dataset": "tiny_val,tiny_train", "eval_on_each_dataset": True},
    "a part held out": {"val_size": 0.25, "eval_strategy": "steps", "eval_steps": 1},
    "the best": BEST | {"load_best_model_at_end": True, "early_stopping_steps": 2, "save_total_limit": 2},
    "plateau": BEST | {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"factor": 0.5}},
    "prediction": EVALUATED | {"do_predict": True, "predict_with_generate": True, "max_new_tokens": 4},
    "boxes": EVALUATED | {"use_grounding_loss": True, "grounding_eval_steps": 1, "grounding_eval_samples": 2},
    "resumed": {"resume_from_checkpoint": "nowhere/checkpoint-1"},
    "pushed": {"push_to_hub": True, "hub_model_id": "x/y", "report_to": "tensorboard", "run_name": "1e5"},
    "checkpointing": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "not reentrant": {"use_reentrant_gc": False},
    "no checkpointing": {"disable_gradient_checkpointing": True},
    "4 bits": {"quantization_bit": 4, "double_quantization": True, "quantization_type": "nf4"},
    "groups": {"medvl_loss_group": 1},
    "like length": {"train_sampling_strategy": "group_by_length"},
    "null": {"max_grad_norm": None, "eval_dataset": None},
    "half an epoch": {"max_steps": -1, "num_train_epochs": 0.5},
}


@pytest.mark.parametrize("name", KEYS)
def test_what_is_prepared_tried_and_pasted_is_a_recipe(name: str, tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = tiny_recipe("qwen3vl", gradient_accumulation_steps=4, medvl_run_card=True, **KEYS[name])
    own = own_setting(recipe)
    spec = preparing.Spec(recipe, str(tmp_path / "rows"), 8, 1, 1, True)
    get_train_args(preparing._keys(spec))
    others = [(1, own.checkpointing, own.bits), (8, not own.checkpointing, own.bits), (8, own.checkpointing, None)]
    for setting in (own, *(Setting(batch, 8 // batch, gc, False, bits) for batch, gc, bits in others)):
        changed = changes(setting, own, recipe)
        assert own_setting(applied(recipe, changed)) == setting
        tried = trial.trial_keys(applied(recipe, changed), rows=spec.rows, out=str(tmp_path / "out"), steps=3)
        training = get_train_args(tried)[2]
        assert (training.do_eval, training.do_predict, training.push_to_hub) == (False, False, False)
        pasted = OmegaConf.merge(OmegaConf.create(recipe), OmegaConf.from_cli(shlex.split(words(changed))))
        get_train_args(OmegaConf.to_container(pasted))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, ""),
        ({"use_dft_loss": True}, "use_dft_loss"),
        ({"dataloader_drop_last": True}, "which records are dropped depends"),
        ({"neftune_noise_alpha": 5}, "the noise depends"),
        ({"moe_aux_loss_coef": 0.01}, "the router's loss depends"),
        ({"neat_packing": True, "packing": True}, "neat_packing"),
        ({"train_sampling_strategy": "group_by_length"}, "without a medvl key"),
        ({"train_sampling_strategy": "group_by_length", "medvl_loss_group": 2}, "without a medvl key"),
        ({"train_sampling_strategy": "group_by_length", "medvl_run_card": True}, ""),  # an order of its own
        ({"dataloader_drop_last": False, "neftune_noise_alpha": None}, ""),
    ],
)
def test_the_micro_batch_stays_where_the_training_depends_on_it(keys: dict[str, Any], told: str) -> None:
    assert told in fixed_batch(keys) and bool(told) is bool(fixed_batch(keys))


BASE = 'model_name_or_path: m\noutput_dir: o\ndo_train: true\ndataset: &d tiny\nrun_name: "1e5"\n'
READ = {"model_name_or_path": "m", "output_dir": "o", "do_train": True, "dataset": "tiny", "run_name": "1e5"}
JSON = '{\n\t"model_name_or_path": "m", "output_dir": "o",\n\t"do_train": true, "dataset": "tiny", "run_name": "1e5"}'


@pytest.mark.parametrize(
    ("name", "text", "overrides", "more"),
    [
        ("windows.yaml", BASE.replace("\n", "\r\n"), [], {}),
        ("byte order mark.yaml", "\ufeff" + BASE, [], {}),
        ("anchor.yaml", BASE + "eval_dataset: *d\n", [], {"eval_dataset": "tiny"}),
        ("merged.yaml", BASE + "<<: {seed: 1, output_dir: p}\n", [], {"seed": 1}),
        ("tabs.json", JSON, [], {}),
        ("null.yaml", BASE + "max_grad_norm: null\n", [], {"max_grad_norm": None}),
        ("dots.yaml", BASE, ["gradient_checkpointing_kwargs.use_reentrant=false"],
         {"gradient_checkpointing_kwargs": {"use_reentrant": False}}),
        ("later.yaml", BASE, ["run_name=${output_dir}"], {"run_name": "${output_dir}"}),
    ],
)  # fmt: skip
def test_recipes_are_read_and_written_as_llamafactory_reads_them(
    name: str, text: str, overrides: list[str], more: dict[str, Any], tmp_path: Path
) -> None:
    path, out = tmp_path / "my recipes" / name, tmp_path / "out.yaml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    recipe = read_recipe(path, overrides)
    assert recipe == READ | more
    own = own_setting(recipe)
    row, facts = Row(own, "ok", samples_s=1.0), preparing.Facts(None, None, {}, 1, 1, 1, [], [], False, None)
    out.write_bytes(write_recipe(out, path, recipe, [row], row, own, facts, How(1, None, 1, "rows")))
    assert read_recipe(out, []) == recipe


@pytest.mark.parametrize(
    ("name", "text", "overrides"),
    [
        ("twice.yaml", BASE + "dataset: other\n", []),
        ("broken.json", "{", []),
        ("list.json", "[1]", []),
        ("open.yaml", BASE, ["dataset={a"]),
        ("two.yaml", BASE + "---\na: 1\n", []),
    ],
)
def test_what_is_no_recipe(name: str, text: str, overrides: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=name):
        read_recipe(tmp_path / name, overrides)


def test_data_that_training_would_tokenise_into_a_folder_are_not_written_there(
    tiny_recipe: Recipe, tmp_path: Path
) -> None:
    """They would be written without the evaluation data."""
    folder, path, rows = tmp_path / "tokenised", tmp_path / "recipe.yaml", []
    recipe = tiny_recipe("qwen3vl", tokenized_path=str(folder), **EVALUATED)
    path.write_text(yaml.safe_dump(recipe))

    def runner(_title: str, command: Sequence[str], _log: Path) -> None:
        rows.append(yaml.safe_load(Path(command[-2]).read_text())["rows"])
        raise KeyboardInterrupt

    parser = ArgumentParser()
    commands.add_arguments(parser)
    arguments = parser.parse_args([str(path)])
    with pytest.raises(KeyboardInterrupt):
        commands.run(arguments, runner)
    assert rows == [str(tmp_path / "recipe_fitted.fit" / "rows")]
    how = How(1, None, 1, "rows")
    before = identity(recipe, how, False)["data"]
    folder.mkdir()
    assert tokenised(recipe) is None
    (folder / "rows.arrow").write_bytes(b"1")
    assert tokenised(recipe) == str(folder)
    first = identity(recipe, how, False)["data"]
    (folder / "rows.arrow").write_bytes(b"12")
    assert len({before, first, identity(recipe, how, False)["data"]}) == 3


def test_one_fit_at_a_time_in_a_folder(tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe("qwen3vl")))
    parser = ArgumentParser()
    commands.add_arguments(parser)
    with alone(tmp_path / "recipe_fitted.fit"):
        assert commands.run(parser.parse_args([str(path)])) == commands.USAGE
    assert "another `medvl fit` runs there" in " ".join(capsys.readouterr().err.split())
    with alone(tmp_path / "recipe_fitted.fit"):  # free again
        pass


def test_rows_whose_writing_was_interrupted_are_written_again(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    assert not prepared(tmp_path, str(rows))
    (tmp_path / "facts.json").write_text("{}")
    assert prepared(tmp_path, str(rows))


@pytest.mark.parametrize(
    ("rows", "batch", "drop", "epochs", "steps"),
    [(9, 2, False, 1, 3), (9, 2, True, 1, 2), (9, 4, True, 1, 2), (3, 4, True, 1, 1), (9, 2, False, 0.5, 2)],
)
def test_steps_of_a_recipe(rows: int, batch: int, drop: bool, epochs: float, steps: int) -> None:
    """4 records a step, as transformers counts them."""
    training = SimpleNamespace(
        max_steps=-1, num_train_epochs=epochs, dataloader_drop_last=drop, per_device_train_batch_size=batch,
        gradient_accumulation_steps=4 // batch,
    )  # fmt: skip
    assert preparing._steps(rows, preparing.Spec({}, "", 4, 1, 1, True), training) == steps


def test_groups_are_refused_where_the_loss_is_that_of_a_step() -> None:
    class TextTrainer:
        model_accepts_loss_kwargs = True

    class Grouping(GroupingMixin, TextTrainer):
        pass

    with pytest.raises(ValueError, match="medvl_loss_group: this model has no processor"):
        Grouping()
