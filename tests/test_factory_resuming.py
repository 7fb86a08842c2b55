"""Resuming a run: only what it began, said when nothing is left, and no card rewritten for nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("llamafactory")
from llamafactory.train.tuner import run_exp

from medvl.factory import run_card
from medvl.factory.checks.resuming import differences, require_same
from medvl.factory.run_card import FILE_NAME, RunCard, read_run_card

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
EVERY_STEP = {"medvl_run_card": True, "save_strategy": "steps", "save_steps": 1}


@pytest.fixture(scope="module")
def finished(
    tiny_checkpoint: Callable[[str], Path], tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A run of two steps with a checkpoint of each, and its recipe; copy it before it is changed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    recipe: dict[str, Any] = {
        "model_name_or_path": str(tiny_checkpoint("internvl3")),
        "image_max_pixels": 4096, "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 4,
        "lora_target": "all", "dataset": "tiny_train", "dataset_dir": str(tiny_dataset), "template": "intern_vl",
        "default_system": "You are a careful radiologist.", "cutoff_len": 512, "output_dir": str(out),
        "logging_steps": 1, "report_to": "none", "per_device_train_batch_size": 2, "learning_rate": 1.0e-3,
        "max_steps": 2, "use_cpu": True, "seed": 7, **EVERY_STEP,
    }  # fmt: skip
    run_exp(dict(recipe))
    return out, recipe


@pytest.fixture
def copied(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The finished run in a folder of its own, and its recipe for that folder."""
    out, recipe = finished
    shutil.copytree(out, tmp_path / "out")
    return tmp_path / "out", recipe | {"output_dir": str(tmp_path / "out")}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that a run's figures and weights are in."""
    names = (FILE_NAME, "adapter_model.safetensors", "trainer_state.json", "train_results.json", "all_results.json")
    return {name: (folder / name).read_bytes() for name in names}


def test_finished_recipe_again_says_so_and_changes_nothing(
    copied: tuple[Path, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    out, recipe = copied
    before = contents(out)
    run_exp(dict(recipe))
    assert contents(out) == before
    assert not (out / "checkpoint-3").exists()
    assert f"Nothing to train: {out / 'checkpoint-2'} has done 2 steps and 2 are planned" in caplog.text


def test_fewer_steps_than_done_change_nothing(copied: tuple[Path, dict[str, Any]]) -> None:
    out, recipe = copied
    before = contents(out)
    run_exp(recipe | {"max_steps": 1})
    assert contents(out) == before


def test_run_killed_before_its_model_was_saved_gets_model_and_card_of_its_last_checkpoint(
    copied: tuple[Path, dict[str, Any]],
) -> None:
    out, recipe = copied
    for name in (FILE_NAME, "adapter_model.safetensors"):
        (out / name).unlink()
    run_exp(dict(recipe))
    assert read_run_card(out) == read_run_card(out / "checkpoint-2")
    weights = "adapter_model.safetensors"
    assert (out / weights).read_bytes() == (out / "checkpoint-2" / weights).read_bytes()


OTHER = {
    "data": ({"dataset": "tiny_val"}, "training data: "),
    "prompt": ({"default_system": "Another"}, "prompt: "),
    "vision budget": ({"image_max_pixels": 2048}, "vision, image_max_pixels: 2048 instead of 4096"),
    "cutoff": ({"cutoff_len": 400}, "cutoff_len: 400 instead of 512"),
    "learning rate": ({"learning_rate": 1e-2}, "learning_rate: 0.01 instead of 0.001"),
    "loss": ({"use_grounding_loss": True}, "use_grounding_loss: True instead of False"),
    "micro-batch": (
        {"per_device_train_batch_size": 4},
        "records whose loss is averaged together (medvl_loss_group): 4 instead of 2",
    ),
}


@pytest.mark.parametrize("steps", [2, 4], ids=["nothing left", "longer"])
def test_other_data_is_refused_whether_or_not_steps_are_left(steps: int, copied: tuple[Path, dict[str, Any]]) -> None:
    out, recipe = copied
    before = contents(out)
    with pytest.raises(ValueError, match=r"(?s)checkpoint-2 was trained with other settings.*training data: ") as told:
        run_exp(recipe | {"dataset": "tiny_val", "max_steps": steps})
    assert "tiny_val" in str(told.value) and "tiny_train" in str(told.value)
    assert "`medvl_resume_anyway: true`" in str(told.value) and "`overwrite_output_dir: true`" in str(told.value)
    assert contents(out) == before


def test_all_that_differs_is_told_at_once(copied: tuple[Path, dict[str, Any]]) -> None:
    _, recipe = copied
    changes: dict[str, Any] = {}
    for change, _ in OTHER.values():
        changes |= change
    with pytest.raises(ValueError, match="other settings") as told:
        run_exp(recipe | changes)
    for _, sentence in OTHER.values():
        assert sentence in str(told.value)


def test_the_key_goes_on_all_the_same_and_the_card_says_so(copied: tuple[Path, dict[str, Any]]) -> None:
    out, recipe = copied
    anyway = {"medvl_resume_anyway": True, "dataset": "tiny_val"}
    run_exp(recipe | anyway | {"max_steps": 3})
    run = read_run_card(out).run
    assert (run.steps, run.planned_steps) == (3, 3)
    (change,) = run.resumed_with_changes
    assert change.startswith("from step 2, training data: ['tiny_val ") and "tiny_train" in change
    run_exp(recipe | {"dataset": "tiny_val", "max_steps": 4})
    assert read_run_card(out).run.resumed_with_changes == [change]


def test_longer_run_of_the_same_is_resumed(copied: tuple[Path, dict[str, Any]]) -> None:
    out, recipe = copied
    run_exp(recipe | {"max_steps": 3, "resume_from_checkpoint": True})
    run = read_run_card(out).run
    assert (run.steps, run.resumed_from, run.resumed_with_changes) == (3, str(out / "checkpoint-2"), [])


def test_checkpoint_that_a_kill_left_in_parts_is_passed_over(
    copied: tuple[Path, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    out, recipe = copied
    (out / "checkpoint-3").mkdir()
    run_exp(recipe | {"max_steps": 3})
    assert f"checkpoint-3 was not written to its end: training goes on from {out / 'checkpoint-2'}" in caplog.text
    assert (read_run_card(out).run.steps, read_run_card(out).run.resumed_from) == (3, str(out / "checkpoint-2"))
    assert read_run_card(out / "checkpoint-3").run.steps == 3


def test_checkpoint_without_a_card_is_resumed_with_a_warning(
    copied: tuple[Path, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    out, recipe = copied
    (out / "checkpoint-2" / FILE_NAME).unlink()
    run_exp(recipe | {"max_steps": 3})
    assert "checkpoint-2 has no run card" in caplog.text
    assert read_run_card(out).run.steps == 3


def changed(card: RunCard, part: str, **values: Any) -> RunCard:
    return msgspec.structs.replace(card, **{part: msgspec.structs.replace(getattr(card, part), **values)})


class Defaults:
    """A recipe without any of the keys that shape the data or the loss."""

    def owner(self, key: str) -> Any:
        from llamafactory.hparams.parser import _TRAIN_ARGS

        return next(it for it in _TRAIN_ARGS if hasattr(it, key) or key in it.__dataclass_fields__)


CHANGES: dict[str, tuple[Callable[[RunCard], RunCard], str | None]] = {
    "nothing": (lambda card: card, None),
    "model moved": (lambda card: changed(card, "model", name_or_path="/elsewhere/internvl3/"), None),
    "another model": (lambda card: changed(card, "model", name_or_path="/elsewhere/qwen3vl"), "model: qwen3vl"),
    "model of another config": (lambda card: changed(card, "model", config_sha256="0"), "config.json of the model: 0"),
    "another revision": (lambda card: changed(card, "model", revision="v2"), "model revision: v2"),
    "on another adapter": (lambda card: changed(card, "model", adapters=["x/first"]), "adapters trained on: ['first']"),
    "quantised": (lambda card: changed(card, "quantization", bit=4), "quantisation: "),
    "quantisation that is off": (lambda card: changed(card, "quantization", double_quantization=False), None),
    "thinking": (lambda card: changed(card, "prompt", rendered="<think>"), "prompt: '<think>'"),
    "tiles": (lambda card: changed(card, "vision", max_tiles=12), "vision, max_tiles: 12"),
    "rank": (lambda card: changed(card, "finetuning", lora_rank=8), "lora_rank: 8 instead of 4"),
    "other weights": (lambda card: changed(card, "finetuning", trained=[]), "trained weights: {}"),
    "seed": (lambda card: changed(card, "training", seed=1), "seed: 1 instead of 7"),
    "batch": (lambda card: changed(card, "training", batch_size=4), "records per step: 4 instead of 2"),
    "more devices, same batch": (lambda card: changed(card, "training", gradient_accumulation_steps=2), None),
    "longer": (lambda card: changed(card, "training", max_steps=50, num_train_epochs=9.0), None),
    "other eval data": (
        lambda card: msgspec.structs.replace(card, data=[*card.data, run_card.DataFile("v", "eval", *[None] * 7)]),
        None,
    ),
    "fewer records": (
        lambda card: msgspec.structs.replace(card, recipe=card.recipe | {"max_samples": 4}),
        "max_samples: 4 instead of None",
    ),
    "default written out": (
        lambda card: msgspec.structs.replace(card, recipe=card.recipe | {"val_size": 0.0, "streaming": False}),
        None,
    ),
    "changed file of the same name": (
        lambda card: msgspec.structs.replace(card, data=[msgspec.structs.replace(card.data[0], sha256="f" * 64)]),
        "training data: ['tiny_train (sha256 ffffffffffff)'] instead of",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_what_counts_as_the_same_run(
    change: Callable[[RunCard], RunCard], expected: str | None, finished: tuple[Path, dict[str, Any]]
) -> None:
    card = read_run_card(finished[0])
    found = differences(card, change(card), Defaults())
    assert found == [] if expected is None else (len(found) == 1 and found[0].startswith(expected))


def test_card_of_an_earlier_version_is_compared_by_the_number_of_weights(finished: tuple[Path, dict[str, Any]]) -> None:
    content = json.loads((finished[0] / FILE_NAME).read_text())
    del content["finetuning"]["trained"], content["run"]["planned_steps"]
    old = msgspec.convert(content, RunCard)
    new = read_run_card(finished[0])
    assert differences(old, new, Defaults()) == []
    other = changed(new, "finetuning", trainable_parameters=3)
    assert differences(old, other, Defaults())[0].startswith("trained weights: 3 instead of ")


def test_no_difference_is_no_error() -> None:
    require_same(Path("checkpoint-1"), [])
