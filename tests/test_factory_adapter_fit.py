"""An adapter is loaded whole, onto its own model and once, or not at all: in prediction, `export` and `do_predict`."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from llamafactory.train.tuner import export_model, run_exp
from safetensors.torch import load_file, save_file

from medvl.cli import main
from medvl.factory.run_card import FILE_NAME, read_run_card, write_run_card
from tests.support.records import a_card

pytestmark = pytest.mark.training

Tensors = dict[str, torch.Tensor]
Marked = Callable[[str], Path]


def renamed(tensors: Tensors) -> Tensors:
    """As of a model that names its parts otherwise."""
    return {name.replace("model.lm_head", "model.language_model.lm_head"): value for name, value in tensors.items()}


def part(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if "lora_B" not in name}


def more(tensors: Tensors) -> Tensors:
    return tensors | {"base_model.model.model.gone.lora_A.weight": torch.zeros(2, 64)}


def not_a_number(tensors: Tensors) -> Tensors:
    return {name: value.clone().fill_(float("nan")) for name, value in tensors.items()}


def one_infinity(tensors: Tensors) -> Tensors:
    changed = {name: value.clone() for name, value in tensors.items()}
    next(iter(changed.values()))[0, 0] = float("inf")
    return changed


def wider(tensors: Tensors) -> Tensors:
    """As of a larger model with the same names."""
    return {name: torch.cat([value, value], int("lora_A" in name)) for name, value in tensors.items()}


def nothing(tensors: Tensors) -> Tensors:
    return {name: torch.zeros_like(value) for name, value in tensors.items()}


def too_large(tensors: Tensors) -> Tensors:
    """Numbers, but their products are none."""
    return {name: torch.full_like(value, 3e38) for name, value in tensors.items()}


WRONG = [
    pytest.param(renamed, "2 of its tensors have no place in the model", id="other names of modules"),
    pytest.param(part, "1 places got no tensor", id="a tensor is missing"),
    pytest.param(more, "1 of its tensors have no place in the model (base_model.model.model.gone", id="one too many"),
    pytest.param(
        wider, "the adapter does not fit: size mismatch for base_model.model.lm_head.lora_", id="other shapes"
    ),
    pytest.param(not_a_number, "2 tensors hold NaN or infinity", id="NaN"),
    pytest.param(one_infinity, "1 tensors hold NaN or infinity", id="one infinity"),
]


@pytest.fixture
def adapter(marked_adapters: Marked, tmp_path: Path) -> Path:
    """A copy of an adapter that may be changed."""
    return Path(shutil.copytree(marked_adapters("internvl3") / "adapters" / "counting", tmp_path / "adapter"))


@pytest.fixture
def base(marked_adapters: Marked) -> Path:
    return marked_adapters("internvl3") / "base"


def change(folder: Path, how: Callable[[Tensors], Tensors], file: str = "adapter_model.safetensors") -> None:
    save_file(how(load_file(folder / file)), folder / file, metadata={"format": "pt"})


def export(base: Path, adapter: Path, out: Path) -> None:
    export_model({"model_name_or_path": str(base), "adapter_name_or_path": str(adapter), "template": "intern_vl",
                  "export_dir": str(out), "export_device": "cpu"})  # fmt: skip


def trained_on(base: Path, sha256: str | None) -> Any:
    return a_card(model=msgspec.structs.replace(a_card().model, name_or_path=str(base), config_sha256=sha256))


# --- Prediction -------------------------------------------------------------------------------------------------------


def predict(tree: Path, base: Path, out: Path, *options: str) -> int:
    return main(["predict", "--data", str(tree), "--model", str(base), "--out", str(out), "--limit", "1", *options])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        *WRONG,
        pytest.param(nothing, "the adapter changes nothing", id="no effect"),
        pytest.param(too_large, "with it the model computes NaN or infinity", id="too large"),
    ],
)
def test_prediction_refuses_an_adapter_that_does_not_fit(
    how: Any, says: str, adapter: Path, base: Path, question_tree: Path, tmp_path: Path, capsys: Any
) -> None:
    change(adapter, how)
    assert predict(question_tree, base, tmp_path / "p.jsonl", "--adapter", str(adapter)) == 2
    error = capsys.readouterr().err
    assert says in error
    assert str(adapter) in error


def test_one_bad_adapter_of_several_is_refused_by_name(
    marked_adapters: Marked, question_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marked = shutil.copytree(marked_adapters("internvl3"), tmp_path / "marked")
    change(marked / "adapters" / "regression", renamed)
    options = ["--adapters", str(marked / "adapters"), "--limit", "8"]
    assert predict(question_tree, marked / "base", tmp_path / "p.jsonl", *options) == 2
    assert f"{marked / 'adapters' / 'regression'}: the adapter does not fit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "says"),
    [
        pytest.param(one_infinity, "1 tensors hold NaN or infinity", id="an infinity in the file"),
        pytest.param(
            lambda tensors: {name: value * 1e38 if "mlp" in name else value for name, value in tensors.items()},
            "the model computes NaN or infinity",
            id="too large",
        ),
    ],
)
def test_prediction_refuses_a_model_that_is_no_numbers(
    how: Any, says: str, base: Path, question_tree: Path, tmp_path: Path, capsys: Any
) -> None:
    broken = Path(shutil.copytree(base, tmp_path / "broken"))
    change(broken, how, "model.safetensors")
    assert predict(question_tree, broken, tmp_path / "p.jsonl") == 2
    assert says in capsys.readouterr().err


# --- Export and do_predict --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "says"), WRONG)
def test_export_refuses_an_adapter_that_does_not_fit(
    how: Any, says: str, adapter: Path, base: Path, tmp_path: Path
) -> None:
    change(adapter, how)
    with pytest.raises(ValueError, match="adapter") as refusal:
        export(base, adapter, tmp_path / "merged")
    assert says in str(refusal.value)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("trained", "refused"),
    [pytest.param("00", True, id="another base"), pytest.param(None, False, id="a card that does not know")],
)
def test_export_of_an_adapter_whose_card_names_another_base(
    trained: str | None, refused: bool, adapter: Path, base: Path, tmp_path: Path
) -> None:
    write_run_card(trained_on(Path("/models/qwen"), trained), adapter)
    if refused:
        with pytest.raises(ValueError, match=r"trained on /models/qwen, whose config.json differs"):
            export(base, adapter, tmp_path / "merged")
    else:
        export(base, adapter, tmp_path / "merged")
    assert (tmp_path / "merged").exists() is not refused


def test_export_refuses_a_model_that_is_no_numbers(adapter: Path, base: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(base, tmp_path / "broken"))
    change(broken, one_infinity, "model.safetensors")
    with pytest.raises(ValueError, match=rf"{broken}: 1 tensors hold NaN or infinity"):
        export(broken, adapter, tmp_path / "merged")


def test_a_merged_model_stays_without_its_adapter(adapter: Path, base: Path, tmp_path: Path) -> None:
    """Exported into the adapter's folder, it would wear the adapter twice."""
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    for folder in (adapter, f"{adapter}/../{adapter.name}", other):
        with pytest.raises(ValueError, match="holds an adapter, and a merged model beside it"):
            export(base, adapter, Path(folder))
    assert not (adapter / "config.json").exists()
    merged = tmp_path / "merged"
    export(base, adapter, merged)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / file, merged)
    with pytest.raises(ValueError, match="lie beside the model's"):
        export(merged, adapter, tmp_path / "again")


def test_do_predict_says_where_it_asks_otherwise_than_the_run_card(
    tiny_recipe: Callable[..., dict[str, Any]], trained_adapter: Callable[[str], tuple[Path, dict[str, Any]]],
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    trained, _ = trained_adapter("internvl3")
    recipe = tiny_recipe("internvl3", adapter_name_or_path=str(trained), eval_dataset="tiny_val", dataset=None,
                         do_train=False, do_predict=True, predict_with_generate=True, max_new_tokens=1,
                         output_dir=str(tmp_path / "predicted"), do_sample=False)  # fmt: skip
    notes = []
    for changes in ({}, {"image_max_pixels": 589824}, {"crop_to_patches": True, "image_min_pixels": 16}):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "medvl"):
            run_exp(recipe | changes)
        notes.append([record.message for record in caplog.records if "run card says" in record.message])
    assert notes == [
        [],
        [f"{trained} is asked with image_max_pixels 589824; its run card says image_max_pixels: 4096: "
         "write that into the recipe"],
        [f"{trained} is asked with image_min_pixels 16, crop_to_patches True; its run card says "
         "image_min_pixels: 1024, crop_to_patches: false: write that into the recipe"],
    ]  # fmt: skip
    assert read_run_card(trained / FILE_NAME).vision.image_max_pixels == 4096
    assert json.loads((trained / "adapter_config.json").read_text())["peft_type"] == "LORA"
