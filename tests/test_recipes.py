"""Every recipe is what it says: parsed by LLaMA-Factory as written, complete, and able to train."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("llamafactory")
from llamafactory.data.template import TEMPLATES
from llamafactory.hparams import get_train_args
from llamafactory.model.model_utils.visual import patch_target_modules
from llamafactory.train.tuner import export_model, run_exp
from omegaconf import OmegaConf
from transformers import AutoModelForImageTextToText

from medvl.augment.rules import permission
from medvl.factory.arguments import defaults
from medvl.factory.recording import written
from medvl.factory.run_card import read_run_card
from medvl.instructions import GENERAL
from medvl.profiles import read_profiles
from medvl.router.options import read_options
from medvl.sources.ultrasound_labels import facts
from medvl.sources.ultrasound_samples import asked_for
from medvl.sweep.plan import read_sweep
from medvl.tasks import Task
from tests.support.templates import pristine_templates  # noqa: F401  (used by every test)

pytestmark = pytest.mark.training

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
MERGES = sorted(FOLDER.glob("export/*.yaml"))
FLARE = sorted(FOLDER.glob("flare_*.yaml"))
GROUNDING = sorted(FOLDER.glob("grounding_*.yaml"))
PMC = sorted(FOLDER.glob("pmc_*.yaml"))
ULTRASOUND = sorted(FOLDER.glob("ultrasound_*.yaml"))
SWEEPS = sorted(FOLDER.glob("sweeps/*.yaml"))
# What a machine without a GPU cannot do as written; nothing else is overridden for parsing.
ON_CPU = {"use_cpu": True, "deepspeed": None, "enable_liger_kernel": False}

all_recipes = pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
flare_recipes = pytest.mark.parametrize("file", FLARE, ids=lambda file: file.stem)
grounding_recipes = pytest.mark.parametrize("file", GROUNDING, ids=lambda file: file.stem)
real_recipes = pytest.mark.parametrize("file", FLARE + GROUNDING + PMC + ULTRASOUND, ids=lambda file: file.stem)


def load(file: Path) -> dict[str, Any]:
    recipe = yaml.safe_load(file.read_text())
    assert isinstance(recipe, dict)
    return recipe


def header(file: Path) -> str:
    """The comment lines before the first key."""
    lines = file.read_text().splitlines()
    return "\n".join(line for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])


def test_the_faithful_recipes_are_there() -> None:
    names = {file.stem for file in FLARE}
    assert {"flare_internvl3_8b_qlora", "flare_qwen3vl_4b_full", "flare_qwen3vl_4b_lora"} <= names


@all_recipes
def test_llamafactory_parses_every_value_as_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER.parent)
    recipe = load(file)
    overrides = {key: value for key, value in ON_CPU.items() if key == "use_cpu" or key in recipe}
    *_, finetuning, _ = get_train_args(recipe | overrides)
    parsed = written(finetuning.medvl_recipe)
    expected = recipe | overrides
    assert parsed.keys() == expected.keys()
    differing = {key: (value, parsed[key]) for key, value in expected.items() if parsed[key] != as_parsed(key, value)}
    assert differing == {}


def as_parsed(key: str, value: Any) -> Any:
    """LLaMA-Factory splits names at commas, and `none` means no tracker."""
    if key in ("dataset", "eval_dataset", "lora_target"):
        return [name.strip() for name in value.split(",")]
    return [] if (key, value) == ("report_to", "none") else value


@all_recipes
def test_everything_in_the_folder_itself_is_trained(file: Path) -> None:
    """Profiles, router options and merges lie in folders below it."""
    recipe = load(file)
    assert recipe["do_train"] is True and recipe["stage"] == "sft"


def test_the_folders_below_hold_what_their_commands_read() -> None:
    below = {file.relative_to(FOLDER).as_posix() for file in FOLDER.glob("*/**/*.yaml")}
    assert {name.split("/")[0] for name in below} == {"profiles", "router", "export", "sweeps"}
    assert all(name.count("/") == 1 for name in below)
    for file in FOLDER.glob("profiles/*.yaml"):
        assert read_profiles(file).by_name
    for file in FOLDER.glob("router/*.yaml"):
        assert read_options(file).epochs > 0


@all_recipes
def test_both_yaml_readers_agree(file: Path) -> None:
    """LLaMA-Factory reads with OmegaConf, most tools with PyYAML: 1e-4 and unquoted no differ between them."""
    ours, theirs = load(file), OmegaConf.to_container(OmegaConf.load(file))
    assert ours == theirs
    assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}


@all_recipes
def test_no_key_twice(file: Path) -> None:
    node = yaml.compose(file.read_text())
    keys = [key.value for key, _ in node.value]
    assert len(keys) == len(set(keys))


@all_recipes
def test_settings_that_bite_are_explicit(file: Path) -> None:
    recipe = load(file)
    assert recipe["trust_remote_code"] is False
    assert recipe["packing"] is False
    assert recipe["medvl_run_card"] is True
    assert recipe.get("medvl_image_positions", False) is recipe["template"].startswith("qwen"), "boxes depend on it"
    assert isinstance(recipe["default_system"], str)
    assert recipe["template"] in TEMPLATES
    assert recipe["template"] != "qwen3_vl", "trains an empty thinking block"
    assert isinstance(recipe["crop_to_patches"], bool)
    assert "double_quantization" in recipe or "quantization_bit" not in recipe
    assert recipe["dataset_dir"] == "dataset_info"


@all_recipes
def test_model_and_template_belong_together(file: Path) -> None:
    recipe = load(file)
    name = recipe["model_name_or_path"]
    if name.startswith("OpenGVLab/"):
        assert name.endswith("-hf")
    family = "intern_vl" if "intern" in name.lower() else "qwen3_vl_nothink"
    assert recipe["template"] == family


@real_recipes
def test_datasets_are_names_the_preprocessor_writes(file: Path) -> None:
    from medvl.sources.flare import FLARE

    names = {f"flare_{group}_{split}" for group in ("all", "detection") for split in FLARE.splits}
    names |= {f"{name}_{task}_train" for name in ("flare", "routes") for task in Task}
    names |= {"pmc_all_train"}  # tests/test_sources_pmc.py
    ultrasound = ("ultrasound_q7", "ultrasound_report", "fada_all")  # tests/test_sources_ultrasound.py
    names |= {f"{name}_{split}" for name in ultrasound for split in ("train", "val")}
    recipe = load(file)
    for key in ("dataset", "eval_dataset"):
        assert set(recipe.get(key, "flare_all_train").split(",")) <= names


@real_recipes
def test_cutoff_holds_a_image_and_the_longest_answer(file: Path) -> None:
    """1,200 tokens: 46 chromosome boxes as JSON with one token per digit; 150: question, system prompt and frame."""
    recipe = load(file)
    if recipe["template"] == "intern_vl":
        image = 256 * (13 if recipe["crop_to_patches"] else 1)
    else:
        image = max(recipe["image_max_pixels"], 65536) // 1024
    assert recipe["cutoff_len"] >= image + 2 + 150 + 1200


@all_recipes
def test_header_tells_how_to_run_and_what_to_expect(file: Path) -> None:
    text = header(file)
    assert f"llamafactory-cli train recipes/{file.name}" in text
    for word in ("Model", "Memory", "Time", "Expected"):
        assert re.search(rf"^# {word}\b", text, re.MULTILINE), word


@all_recipes
def test_deepspeed_file_exists_and_fits(file: Path) -> None:
    """Paths in the recipe and in the commands of its header; ZeRO-3 cannot hold quantised weights."""
    recipe = load(file)
    mentioned = set(re.findall(r"recipes/deepspeed/\w+\.json", file.read_text()))
    for path in mentioned:
        stage = json.loads((FOLDER.parent / path).read_text())["zero_optimization"]["stage"]
        assert stage == int(path[-6])
    if "deepspeed" in recipe:
        assert recipe["deepspeed"] in mentioned
        assert "quantization_bit" not in recipe or recipe["deepspeed"].endswith("z2.json")
        assert "FORCE_TORCHRUN=1" in header(file)


@pytest.mark.parametrize("file", sorted((FOLDER / "deepspeed").glob("*.json")), ids=lambda file: file.stem)
def test_deepspeed_takes_batch_and_precision_from_the_recipe(file: Path) -> None:
    settings = json.loads(file.read_text())
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        assert settings[key] == "auto"
    assert settings["bf16"]["enabled"] == settings["gradient_clipping"] == "auto"


def test_index_lists_every_recipe() -> None:
    text = (FOLDER / "README.md").read_text()
    rows = set(re.findall(r"^\| \[([\w./]+\.yaml)\]", text, re.MULTILINE))
    assert rows == {file.relative_to(FOLDER).as_posix() for file in RECIPES + MERGES}


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_every_run_of_a_sweep_is_parsed_as_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER.parent)
    assert f"medvl sweep recipes/sweeps/{file.name}" in header(file)
    sweep = read_sweep(file)
    for run in sweep.runs:
        settings = sweep.settings(run) | {"use_cpu": True}
        *_, finetuning, _ = get_train_args(settings | {"output_dir": "saves/sweep"})
        parsed = written(finetuning.medvl_recipe)
        wrong = {key: parsed[key] for key, value in run.overrides.items() if parsed[key] != as_parsed(key, value)}
        assert wrong == {}, run.name


def test_the_layer_ablation_trains_the_layers_of_its_table(tiny_checkpoint: Callable[[str], Path]) -> None:
    """Vision or language tower, attention or MLP: which of them have adapters, as the table in the header says."""
    sweep = read_sweep(FOLDER / "sweeps" / "ultrasound_layers.yaml")
    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint("qwen3vl"))
    table = dict(re.findall(r"^#   ([A-E])  (.*)$", header(sweep.path), re.MULTILINE))
    chosen = {}
    for run in sweep.runs:
        *_, finetuning, _ = get_train_args(sweep.settings(run) | {"use_cpu": True, "output_dir": "saves/sweep"})
        modules = patch_target_modules(model, finetuning, finetuning.lora_target)
        kinds = [
            any(".visual." in name for name in modules),
            any(".language_model." in name for name in modules),
            any("attn" in name for name in modules),
            any(".mlp." in name for name in modules),
        ]
        assert kinds == [word == "yes" for word in table[run.name].split()[:4]], run.name
        assert all(".mlp." in name or "attn." in name for name in modules)  # no merger
        chosen[run.name] = set(modules)
    assert chosen["A"] | chosen["B"] == chosen["C"] | chosen["D"] == chosen["E"]
    assert not chosen["A"] & chosen["B"] and not chosen["C"] & chosen["D"]


def test_augmentation_mirrors_no_orientation() -> None:
    """Of Q2 and reports nothing is mirrored, of Q7 everything may be (recipes/sweeps/ultrasound_augmentation.yaml)."""
    system = load(FOLDER / "ultrasound_qwen3vl_8b_qlora_all.yaml")["default_system"]
    (second,), (report,) = (list(asked_for(ask, [], label=True)) for ask in ("q2", "report"))
    for answer in ("Fetal head to left", "Breech presentation", "Axial mid abdomen", "Fetus not seen"):
        assert not permission(second.question, answer, images=1, prompt=system).mirror
        assert not permission(report.question, f"## Fetal Orientation\n{answer}", images=1, prompt=system).mirror
    for prompt in facts()["prompts"].values():
        allowed = permission(prompt, "abnormal", images=1, prompt=system)
        assert allowed.mirror and allowed.geometric and allowed.photometric and allowed.ultrasound


@pytest.mark.parametrize(
    ("recipe", "routes"),
    [("flare_internvl3_8b_qlora_task", "internvl3_routes"), ("flare_qwen3vl_8b_qlora_task", "routes")],
)
def test_the_loop_in_the_readme_trains_an_adapter_for_every_profile(
    recipe: str, routes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop runs with a command of the same name that notes its arguments; LLaMA-Factory must parse them all."""
    blocks = re.findall(r"^```\n(.*?)^```", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (loop,) = [block for block in blocks if f"{recipe}.yaml" in block and f"saves/{routes}/" in block]
    command = tmp_path / "llamafactory-cli"
    command.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/commands\n')
    command.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    subprocess.run(["bash", "-euc", loop], check=True, cwd=tmp_path, env={"PATH": path})
    monkeypatch.chdir(FOLDER.parent)
    trained = {}
    for line in (tmp_path / "commands").read_text().splitlines():
        _, file, *overrides = line.split()
        changes = dict(override.split("=") for override in overrides)
        merged = OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_dotlist(overrides))
        *_, finetuning, _ = get_train_args(OmegaConf.to_container(merged) | {"use_cpu": True})
        trained[Path(changes["output_dir"]).name] = changes["dataset"], finetuning.lora_rank
        assert changes["output_dir"].startswith(f"saves/{routes}/")
        assert finetuning.lora_alpha == 2 * finetuning.lora_rank
    # FLARE has no open questions; `general` answers where an adapter is not there.
    assert set(trained) == {profile.adapter for profile in read_profiles(None).by_name.values()} - {Task.VQA}
    assert trained.pop(GENERAL)[0] == "flare_all_train"
    assert all(dataset.endswith(f"_{task}_train") for task, (dataset, _) in trained.items())


@grounding_recipes
def test_grounding_keys_are_the_defaults_and_the_adapters_are_the_references(file: Path) -> None:
    """A recipe shows every key, with its default."""
    recipe = load(file)
    known = {key: value for key, value in defaults().items() if key.startswith("grounding_")}
    shown = {key: value for key, value in recipe.items() if key.startswith("grounding_")}
    assert recipe["use_grounding_loss"] is True
    assert known.keys() - shown.keys() == {"grounding_eval_samples"}
    assert {key: value for key, value in shown.items() if key != "grounding_eval_steps"} == {
        key: known[key] for key in shown if key != "grounding_eval_steps"
    }
    if recipe["finetuning_type"] == "lora":
        adapters = {key: value for key, value in recipe.items() if key.startswith("lora_")}
        target = "gate_proj,up_proj,down_proj"
        assert adapters == {"lora_rank": 16, "lora_alpha": 16, "lora_dropout": 0.0, "lora_target": target}
        assert recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"] == 16


@pytest.mark.parametrize("file", MERGES, ids=lambda file: file.stem)
def test_merge_recipe_is_for_export_and_merges_what_was_trained(
    file: Path, tiny_recipe: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = load(file)
    assert f"llamafactory-cli export recipes/export/{file.name}" in header(file)
    assert recipe["trust_remote_code"] is False
    assert recipe["export_device"] == "cpu" and "quantization_bit" not in recipe
    training = tiny_recipe("qwen3vl", output_dir=str(tmp_path / "adapter"), default_system="")
    run_exp(training)
    paths = {"adapter_name_or_path": str(tmp_path / "adapter"), "export_dir": str(tmp_path / "merged")}
    export_model(recipe | paths | {"model_name_or_path": training["model_name_or_path"]})
    merged, base = (AutoModelForImageTextToText.from_pretrained(name).state_dict()
                    for name in (tmp_path / "merged", training["model_name_or_path"]))  # fmt: skip
    assert merged.keys() == base.keys()
    changed = {key.split(".")[-2] for key in base if not merged[key].equal(base[key])}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@real_recipes
def test_it_trains_two_steps_on_a_tiny_checkpoint_of_its_family(
    file: Path, tiny_checkpoint: Callable[[str], Path], tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = load(file)
    family = "internvl3" if recipe["template"] == "intern_vl" else "qwen3vl"
    overrides = {
        "model_name_or_path": str(tiny_checkpoint(family)),
        "dataset_dir": str(tiny_dataset),
        "dataset": "tiny_train",
        "output_dir": str(tmp_path / "out"),
        "max_steps": 2,
        "logging_steps": 1,
        "preprocessing_num_workers": 1,
        "dataloader_num_workers": 0,
        **ON_CPU,
    }
    if "eval_dataset" in recipe:
        overrides["eval_dataset"] = "tiny_val"
    if "quantization_bit" in recipe and "eval_dataset" in recipe:
        # On a CPU, bitsandbytes packs the weights anew for evaluation, which fails for layers as small as these.
        overrides |= {"do_eval": False, "eval_strategy": "no"}
        overrides |= {"grounding_eval_steps": 0} if "grounding_eval_steps" in recipe else {}
    run_exp(recipe | overrides)
    card = read_run_card(tmp_path / "out")
    assert card.run.steps == 2
    assert card.run.final_loss is not None and 0 < card.run.final_loss < 20
    assert card.quantization.bit == recipe.get("quantization_bit")
    assert card.prompt.system == recipe["default_system"]
    assert ("<|im_start|>system" in card.prompt.rendered) is bool(recipe["default_system"])


PUBLISHED = {
    "pmc_internvl3_8b_lora": {"lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.05, "learning_rate": 5e-6,
                              "cutoff_len": 8192, "gradient_accumulation_steps": 16, "weight_decay": 0.05},
    "pmc_internvl3_8b_full": {"learning_rate": 5e-6, "cutoff_len": 16384, "gradient_accumulation_steps": 1,
                              "weight_decay": 0.05, "freeze_vision_tower": True, "freeze_multi_modal_projector": False},
    "pmc_qwen3vl_8b_full": {"learning_rate": 2e-6, "cutoff_len": 2048, "gradient_accumulation_steps": 8,
                            "weight_decay": 0.0, "image_max_pixels": 262144, "image_min_pixels": 1024,
                            "freeze_vision_tower": False, "freeze_multi_modal_projector": False},
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_m3llms_values_are_the_published_ones(name: str) -> None:
    recipe = load(FOLDER / f"{name}.yaml")
    common = {"per_device_train_batch_size": 1, "num_train_epochs": 1.0, "lr_scheduler_type": "cosine",
              "warmup_steps": 0.03, "bf16": True, "crop_to_patches": False}  # fmt: skip
    assert {key: recipe[key] for key in PUBLISHED[name] | common} == PUBLISHED[name] | common


def test_the_variants_rate_is_all_that_is_another() -> None:
    recipes = [load(FOLDER / f"pmc_internvl3_8b_lora{name}.yaml") for name in ("", "_1e4")]
    assert {key for key in recipes[0] if recipes[0][key] != recipes[1][key]} == {"learning_rate", "output_dir"}
    assert recipes[1]["learning_rate"] == 1e-4
    own = TEMPLATES["intern_vl"].default_system  # LLaMA-Factory's, before a run sets another
    assert recipes[0]["default_system"] == own == load(FOLDER / "pmc_internvl3_8b_full.yaml")["default_system"]
