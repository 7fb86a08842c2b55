"""What a recipe asks for is what trains: keys without effect, misspelt ones, other trainers, templates, folders."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

pytest.importorskip("llamafactory")
from llamafactory.hparams import parser
from llamafactory.train.tuner import export_model, run_exp

from medvl.factory.arguments import extend_arguments
from medvl.factory.checks.needs import FIRST_WINS, NEEDS
from medvl.factory.checks.spelling import known_keys
from medvl.factory.checks.unused_keys import Unused, unused_keys
from medvl.factory.families import FAMILIES
from medvl.factory.parsing import RecipeParser, extend_parser

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
Settings = dict[str, Any]


def unused(recipe: Settings) -> Unused:
    """Of a recipe that is accepted."""
    *_, finetuning, _ = parser.get_train_args(recipe)
    return unused_keys(finetuning.medvl_recipe)


UNUSED: dict[str, tuple[Settings, str]] = {
    # Quantisation
    "QLoRA without bits": (
        {"double_quantization": True, "quantization_type": "nf4"},
        "double_quantization: does nothing without `quantization_bit: 4`",
    ),
    "quantisation method without bits": ({"quantization_method": "bnb"}, "quantization_method: does nothing without"),
    "4-bit type of 8 bits": ({"quantization_bit": 8, "quantization_type": "nf4"}, "quantization_type: does nothing"),
    # The method
    "freeze keys of LoRA": ({"freeze_trainable_layers": 2}, "freeze_trainable_layers: does nothing without"),
    "OFT keys of LoRA": ({"oft_rank": 4}, "oft_rank: does nothing without `finetuning_type: oft`"),
    "PiSSA not switched on": ({"pissa_iter": 4}, "pissa_iter: does nothing without `pissa_init: true`"),
    "LoRA+ without its ratio": ({"loraplus_lr_embedding": 1.0e-5}, "does nothing without `loraplus_lr_ratio`"),
    "a new adapter upon none": ({"create_new_adapter": True}, "does nothing without `adapter_name_or_path`"),
    "preference keys": ({"pref_loss": "sigmoid", "ppo_epochs": 2}, "ppo_epochs: does nothing without `stage: ppo`"),
    "a reference model": ({"ref_model": "x"}, "ref_model: does nothing without `stage: dpo` or `use_asft_loss: true`"),
    "GaLore not switched on": ({"galore_rank": 8}, "galore_rank: does nothing without `use_galore: true`"),
    "SwanLab not switched on": ({"swanlab_project": "p"}, "does nothing without `use_swanlab: true`"),
    "alpha of a loss that is off": ({"eaft_alpha": 2.0}, "eaft_alpha: does nothing without `use_eaft_loss: true`"),
    "two losses": ({"use_dft_loss": True, "use_eaft_loss": True}, "use_eaft_loss: does nothing beside `use_dft_loss`"),
    "two optimisers": ({"use_adam_mini": True, "use_muon": True}, "use_muon: does nothing beside `use_adam_mini`"),
    "an optimiser beside Muon": ({"use_muon": True, "optim": "sgd"}, "optim: does nothing without removing `use_muon`"),
    # The run
    "warm-up of a constant rate": (
        {"lr_scheduler_type": "constant", "warmup_steps": 10},
        "warmup_steps: does nothing without a schedule that warms up",
    ),
    "evaluation that never comes": ({"eval_steps": 5}, "eval_steps: does nothing without `eval_strategy: steps`"),
    "accuracy of no evaluation": ({"compute_accuracy": True}, "compute_accuracy: does nothing without `do_eval: true`"),
    "the best of no models": ({"metric_for_best_model": "eval_loss"}, "metric_for_best_model: does nothing without"),
    "steps of saving by epoch": ({"save_strategy": "epoch", "save_steps": 5}, "save_steps: does nothing without"),
    "steps of logging by epoch": ({"logging_strategy": "epoch"}, "logging_steps: does nothing without"),
    "buffer of no stream": ({"buffer_size": 10}, "buffer_size: does nothing without `streaming: true`"),
    "a mix of one": ({"mix_strategy": "interleave_under"}, "mix_strategy: does nothing without several names"),
    "columns": ({"remove_unused_columns": True}, "remove_unused_columns: does nothing without a text model"),
    "checkpointing that is off": (
        {"disable_gradient_checkpointing": True, "use_reentrant_gc": True},
        "use_reentrant_gc: does nothing without gradient checkpointing",
    ),
    "precision of inference": ({"infer_dtype": "float16"}, "infer_dtype: does nothing without `llamafactory-cli chat`"),
    "another engine's": ({"vllm_maxlen": 99}, "vllm_maxlen: does nothing without `infer_backend: vllm`"),
    "export": ({"export_size": 2}, "export_size: does nothing without `llamafactory-cli export`"),
    "generation": ({"max_new_tokens": 99}, "max_new_tokens: does nothing without `do_predict: true`"),
    "fp8": ({"fp8_backend": "te"}, "fp8_backend: does nothing without `fp8: true`"),
    "profiler": ({"profiler_wait_steps": 2}, "profiler_wait_steps: does nothing without `enable_torch_profiler"),
    "hub": ({"hub_model_id": "me/it"}, "hub_model_id: does nothing without `push_to_hub: true`"),
    # The model
    "tiles for Qwen": ({"crop_to_patches": True}, "crop_to_patches: does nothing for `qwen3_vl`"),
    "pan and scan": ({"image_do_pan_and_scan": True}, "image_do_pan_and_scan: does nothing for `qwen3_vl`"),
    "S2-attention": ({"shift_attn": True}, "shift_attn: does nothing for `qwen3_vl`"),
    "experts": ({"moe_aux_loss_coef": 0.01}, "moe_aux_loss_coef: does nothing for `qwen3_vl`"),
    "thinking": ({"enable_thinking": True}, "enable_thinking: does nothing with `template: qwen3_vl_nothink`"),
    "flash attention on a CPU": ({"flash_attn": "fa2"}, "flash_attn: fa2 needs the package flash-attn and a GPU"),
}


@pytest.mark.parametrize(("settings", "message"), UNUSED.values(), ids=UNUSED)
def test_a_key_without_effect_is_refused_under_a_medvl_key(
    settings: Settings, message: str, tiny_recipe: Recipe
) -> None:
    with pytest.raises(ValueError) as caught:
        parser.get_train_args(tiny_recipe("qwen3vl", medvl_run_card=True, **settings))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["QLoRA without bits", "two losses", "evaluation that never comes"])
def test_it_is_said_and_trains_as_before_without_one(
    name: str, tiny_recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    settings, message = UNUSED[name]
    with caplog.at_level(logging.WARNING):
        assert any(message in sentence for sentence in unused(tiny_recipe("qwen3vl", **settings)).refused)
    assert message in caplog.text


ON_PURPOSE: dict[str, Settings] = {
    "a LoRA recipe with all weights": {"finetuning_type": "full"},
    "QLoRA recipe in 16 bits": {"quantization_bit": None, "double_quantization": True, "quantization_method": "bnb"},
    "no checkpoints": {"save_strategy": "no", "save_steps": 5, "save_total_limit": 2},
    "no evaluation": {"eval_strategy": "no", "eval_steps": 5, "do_eval": False, "compute_accuracy": True},
    "no tracker": {"report_to": "none", "run_name": "r"},
    "not the best": {"load_best_model_at_end": False, "metric_for_best_model": "eval_loss"},
    "a smoke test": {"max_steps": 2, "num_train_epochs": 3.0},
    "for do_predict": {"eval_dataset": "tiny_val", "per_device_eval_batch_size": 4},
}


@pytest.mark.parametrize("settings", ON_PURPOSE.values(), ids=ON_PURPOSE)
def test_a_switch_that_the_recipe_turns_off_leaves_its_keys_in_peace(settings: Settings, tiny_recipe: Recipe) -> None:
    found = unused(tiny_recipe("qwen3vl", medvl_run_card=True, **settings))
    assert found.refused == []
    assert found.said != []


SILENT: dict[str, Settings] = {
    "values that ask for nothing": {"crop_to_patches": False, "lora_dropout": 0.0, "flash_attn": "auto"},
    "4 bits": {"quantization_bit": 4, "quantization_type": "nf4", "double_quantization": True},
    "evaluation": {"eval_dataset": "tiny_val", "eval_strategy": "steps", "eval_steps": 1, "compute_accuracy": True},
    "checkpoints": {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1},
    "warm-up": {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 1},
    "greedy prediction": {
        "do_train": False,
        "do_predict": True,
        "predict_with_generate": True,
        "do_sample": False,
        "max_new_tokens": 8,
        "eval_dataset": "tiny_val",
    },
}


@pytest.mark.parametrize("settings", SILENT.values(), ids=SILENT)
def test_keys_that_act_are_no_news(settings: Settings, tiny_recipe: Recipe) -> None:
    assert unused(tiny_recipe("qwen3vl", medvl_run_card=True, **settings)) == Unused([], [])


def test_the_table_names_keys_of_the_pinned_llamafactory() -> None:
    known = known_keys(parser._TRAIN_ARGS)
    names = {name for need in NEEDS for name in need.keys} | {name for row in FIRST_WINS for name in row}
    assert {name for name in names if not any(key == name or key.startswith(name) for key in known)} == set()
    assert {need.switch for need in NEEDS if need.switch} <= known


def test_rank_of_an_adapter_that_is_trained_on(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """LLaMA-Factory goes on with the adapter's own."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}))
    recipe = tiny_recipe("qwen3vl", medvl_run_card=True, adapter_name_or_path=str(adapter))
    parser.get_train_args(recipe)
    parser.get_train_args(recipe | {"lora_rank": 16, "create_new_adapter": True})
    with pytest.raises(ValueError, match=r"lora_rank: 16 does nothing, the adapter .* has 4"):
        parser.get_train_args(recipe | {"lora_rank": 16})


def test_bits_of_a_checkpoint_that_is_quantised_already(tiny_recipe: Recipe, tmp_path: Path) -> None:
    config = {"model_type": "qwen3_vl", "quantization_config": {"quant_method": "awq"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    keys = {"model_name_or_path": str(tmp_path), "quantization_bit": 4, "medvl_run_card": True}
    with pytest.raises(ValueError, match="quantization_bit: does nothing, the checkpoint is quantised already"):
        parser.get_train_args(tiny_recipe("qwen3vl", **keys))


def test_rows_that_were_tokenised_before_are_said(tiny_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "dataset_dict.json").write_text("{}")
    recipe = tiny_recipe("qwen3vl", medvl_run_card=True, tokenized_path=str(tmp_path / "rows"))
    (said,) = unused(recipe).said
    assert said.startswith("dataset, cutoff_len, default_system: not read, the rows come from `tokenized_path`")


# medvl's own switches

OFF: dict[str, tuple[Settings, Settings]] = {
    "grounding": ({"grounding_alpha": 2.0, "grounding_eval_steps": 5}, {"use_grounding_loss": False}),
    "balance": ({"loss_balance_gamma": 1.0, "loss_balance_weights": "none"}, {"loss_balance": "none"}),
    "augmentation": ({"augment_probability": 0.3, "augment_mirror": "both"}, {"augment": "none"}),
}


@pytest.mark.parametrize(("keys", "switch"), OFF.values(), ids=OFF)
def test_an_explicit_off_trains_plainly(keys: Settings, switch: Settings, tiny_recipe: Recipe) -> None:
    *_, finetuning, _ = parser.get_train_args(tiny_recipe("qwen3vl", **keys, **switch))
    assert {key: getattr(finetuning, key) for key in keys} == keys
    with pytest.raises(ValueError, match="without"):
        parser.get_train_args(tiny_recipe("qwen3vl", **keys))


def test_the_best_by_boxes_needs_boxes_to_be_asked(tiny_recipe: Recipe) -> None:
    """transformers would find out at the first evaluation, hours later."""
    keys = {"eval_dataset": "tiny_val", "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}
    keys |= {"save_steps": 1, "load_best_model_at_end": True, "metric_for_best_model": "eval_boxes_f1"}
    recipe = tiny_recipe("qwen3vl", **keys, use_grounding_loss=True, grounding_eval_steps=1)
    parser.get_train_args(recipe)
    for change in ({"use_grounding_loss": False}, {"grounding_eval_steps": 0, "medvl_run_card": True}):
        with pytest.raises(ValueError, match="metric_for_best_model: `eval_boxes_f1` is there only with"):
            parser.get_train_args(recipe | change)


# Spelling

MISSPELT = {
    "loss_balnce": "loss_balance",
    "augmnt": "augment",
    "use_groundng_loss": "use_grounding_loss",
    "grouding_beta": "grounding_beta",
    "balance_loss": "loss_balance",
    "LOSS_BALANCE": "loss_balance",
    "loss-balnce": "loss_balance",
    "run_card": "medvl_run_card",
    "mdvl_image_positions": "medvl_image_positions",
    "medvl_run_crad": "medvl_run_card",
}


@pytest.mark.parametrize("as_flags", [False, True], ids=["recipe", "flags"])
@pytest.mark.parametrize(("key", "meant"), MISSPELT.items(), ids=MISSPELT)
def test_misspelt_medvl_keys_are_never_dropped(
    key: str, meant: str, as_flags: bool, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLOW_EXTRA_ARGS", "1")
    flags = ["--model_name_or_path", "m", "--output_dir", "o", "--use_cpu", f"--{key}", "1"]
    with pytest.raises(ValueError, match=f"there is no such key; did you mean `{meant}"):
        parser.get_train_args(flags if as_flags else tiny_recipe("qwen3vl", **{key: "1"}))


def test_other_unknown_keys_are_dropped_only_without_a_medvl_key(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLOW_EXTRA_ARGS", "1")
    extra = {"lora_rnak": 8, "loss_scale": 3, "ray_num_workers": 2}
    parser.get_train_args(tiny_recipe("qwen3vl", **extra))
    with pytest.raises(ValueError, match=r"lora_rnak: there is no such key.*did you mean `lora_rank`") as caught:
        parser.get_train_args(tiny_recipe("qwen3vl", medvl_run_card=True, **extra))
    assert "loss_scale" in str(caught.value) and "ray_num_workers" not in str(caught.value)


@pytest.mark.parametrize("variable", ["USE_MCA", "USE_MEGATRON_BRIDGE"])
def test_other_trainers_that_the_environment_chooses_are_refused(
    variable: str, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ValueError, match=f"loss_balance: {variable}=1 hands the run to another trainer"):
        parser._parse_train_args(tiny_recipe("qwen3vl", loss_balance="focal"))
    parser._parse_train_args(tiny_recipe("qwen3vl"))


def test_the_parser_of_another_trainer_knows_the_keys_too() -> None:
    """USE_MCA=1 parses with a list of its own, which would drop the keys under ALLOW_EXTRA_ARGS=1."""
    stock = type("FinetuningArguments", (), {"__annotations__": {}})
    module = ModuleType("llamafactory.hparams.parser")
    lists = {name: [int, stock] for name in ("_TRAIN_ARGS", "_INFER_ARGS", "_EVAL_ARGS", "_TRAIN_MCA_ARGS")}
    module.__dict__.update(lists, FinetuningArguments=stock, HfArgumentParser=object, read_args=None)
    extend_parser(module)
    assert all(classes[1].__name__ == extend_arguments(stock).__name__ for classes in lists.values())
    assert issubclass(module.HfArgumentParser, RecipeParser)


# The model's family


@pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])
@pytest.mark.parametrize("template", ["qwen2_vl", "intern_vl", "qwen3_vl_nothink", "qwen3", "default", None])
def test_a_template_of_another_family_is_named_with_the_cure(
    family: str, template: str | None, tiny_recipe: Recipe
) -> None:
    kind = {"qwen3vl": "qwen3_vl", "internvl3": "internvl"}[family]
    recipe = tiny_recipe(family, medvl_run_card=True, template=template)
    if template in FAMILIES[kind].templates:
        parser.get_train_args(recipe)
        return
    cure = f"`{template}` does not fit .* of `model_type: {kind}`; write `template: {FAMILIES[kind].templates[0]}`"
    with pytest.raises(ValueError, match=cure):
        parser.get_train_args(recipe)


@pytest.mark.parametrize(("family", "template"), [("qwen3vl", "intern_vl"), ("internvl3", "qwen2_vl")])
def test_it_is_named_too_once_a_model_of_a_hub_was_loaded(
    family: str, template: str, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before that there is no config.json to look at; LLaMA-Factory would go on to an AttributeError."""
    monkeypatch.setattr("medvl.factory.checks.model.model_config", lambda *_: None)
    with pytest.raises(ValueError, match=f"template: `{template}` does not fit .*; write `template: "):
        run_exp(tiny_recipe(family, medvl_run_card=True, template=template))


# Folders


@pytest.fixture
def adapter_folder(tmp_path: Path) -> Path:
    """A folder with an adapter, as far as names tell."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def export(recipe: Settings, **settings: Any) -> None:
    keep = {"model_name_or_path", "template", "finetuning_type"}
    export_model({key: value for key, value in recipe.items() if key in keep} | settings)


@pytest.mark.parametrize("medvl", [{}, {"medvl_run_card": True}], ids=["plain", "medvl key"])
@pytest.mark.parametrize("spelling", ["same", "link", "dots", "of two", "another adapter's"])
def test_a_merged_model_beside_an_adapter_is_not_written(
    spelling: str, medvl: Settings, adapter_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(adapter_folder)
    target = {"link": tmp_path / "link", "dots": tmp_path / "x" / ".." / "adapter"}.get(spelling, adapter_folder)
    named = {"of two": f"elsewhere, {adapter_folder}", "another adapter's": "elsewhere"}
    adapters = named.get(spelling, str(adapter_folder))
    with pytest.raises(ValueError, match="holds an adapter, and a merged model beside it would be loaded with"):
        export(tiny_recipe("qwen3vl"), adapter_name_or_path=adapters, export_dir=str(target), **medvl)


def test_a_merged_model_is_not_written_over_its_base(tiny_recipe: Recipe, adapter_folder: Path) -> None:
    recipe = tiny_recipe("qwen3vl")
    with pytest.raises(ValueError, match="is the base model, which would be lost"):
        export(recipe, adapter_name_or_path=str(adapter_folder), export_dir=recipe["model_name_or_path"])


def test_a_folder_with_model_and_adapter_is_not_loaded(tiny_recipe: Recipe, adapter_folder: Path) -> None:
    (adapter_folder / "model.safetensors").write_bytes(b"")
    recipe = tiny_recipe("qwen3vl", model_name_or_path=str(adapter_folder), output_dir=str(adapter_folder / "out"))
    parser.get_train_args(recipe)
    with pytest.raises(ValueError, match="the files of an adapter lie beside the model's"):
        parser.get_train_args(recipe | {"medvl_run_card": True})
    with pytest.raises(ValueError, match="the files of an adapter lie beside the model's"):
        export(recipe, export_dir=str(adapter_folder / "merged"), medvl_image_positions=True)


@pytest.mark.parametrize(("kind", "there"), [("full", "adapter_config.json"), ("lora", "model.safetensors")])
def test_training_does_not_write_one_either(kind: str, there: str, tiny_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / there).write_text("{}")
    recipe = tiny_recipe("qwen3vl", finetuning_type=kind, overwrite_output_dir=True, medvl_run_card=True)
    recipe = {key: value for key, value in recipe.items() if kind == "lora" or not key.startswith("lora_")}
    with pytest.raises(ValueError, match=r"output_dir: .* beside it; name another one"):
        parser.get_train_args(recipe)


# A recipe as JSON


def test_a_json_recipe_is_read_with_what_the_command_line_changes(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(tiny_recipe("qwen3vl", medvl_run_card=True)))
    monkeypatch.setattr(sys, "argv", ["llamafactory-cli", str(file), "max_steps=1", "output_dir=other"])
    *_, training, finetuning, _ = parser.get_train_args()
    assert (training.max_steps, training.output_dir, finetuning.medvl_run_card) == (1, "other", True)


@pytest.mark.parametrize(("text", "message"), [("[1]", "a recipe is an object"), ("{", "cannot be read as a JSON")])
def test_a_json_recipe_that_is_none_is_named(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(text)
    monkeypatch.setattr(sys, "argv", ["llamafactory-cli", str(file)])
    with pytest.raises(ValueError, match=f"recipe.json: {message}"):
        run_exp()


def test_a_yaml_recipe_is_read_as_before(tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tiny_recipe("qwen3vl")))
    monkeypatch.setattr(sys, "argv", ["llamafactory-cli", str(file), "max_steps=1"])
    assert parser.read_args()["max_steps"] == 1
