"""Runs that cannot train what was asked: they stop, and say where, at which records and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llamafactory")
import torch
from llamafactory.train.tuner import run_exp
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from medvl.factory import safeguards
from medvl.factory.data import loading, texts
from medvl.factory.remedies import cause
from medvl.factory.run_card import read_run_card

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
Edit = Callable[[list[dict[str, Any]]], None]
KEYS = {
    "run card": {"medvl_run_card": True},
    "positions": {"medvl_image_positions": True},
    "grounding loss": {"use_grounding_loss": True},
    "loss balance": {"loss_balance": "weighted", "loss_balance_weights": {"round": 2.0}},
    "augmentation": {"augment": "basic", "augment_frame": "norm1000"},
}


@pytest.fixture
def edited(tiny_dataset: Path, tmp_path: Path) -> Callable[..., str]:
    """`edited(edit)`: the tiny data set with changed training records; its dataset_dir."""

    def write(edit: Edit) -> str:
        folder = tmp_path / "edited"
        shutil.copytree(tiny_dataset, folder, ignore=shutil.ignore_patterns("images"))
        records = json.loads((folder / "tiny_train.json").read_text())
        edit(records)
        (folder / "tiny_train.json").write_text(json.dumps(records))
        return str(folder)

    return write


def adding(text: str, record: int = 5, turn: int = 0) -> Edit:
    def edit(records: list[dict[str, Any]]) -> None:
        records[record]["conversations"][turn]["value"] += text

    return edit


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_control_token_is_refused_before_training_under_any_key(
    keys: dict[str, Any], tiny_recipe: Recipe, edited: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"(?s)hold control tokens.*tiny/train/5 of tiny_train .*<\|image_pad\|>"):
        run_exp(tiny_recipe("qwen3vl", dataset_dir=edited(adding("<|image_pad|>")), **keys))
    assert not (tmp_path / "out").exists()


def test_control_token_in_eval_data_is_refused(tiny_recipe: Recipe, edited: Callable[..., str]) -> None:
    recipe = tiny_recipe("qwen3vl", dataset_dir=edited(adding("<|im_end|>", turn=1)), dataset="tiny_val")
    with pytest.raises(ValueError, match="tiny/train/5 of tiny_train"):
        run_exp(recipe | {"eval_dataset": "tiny_train", "medvl_run_card": True})


def test_recipe_without_medvl_keys_is_left_to_llamafactory(
    tiny_recipe: Recipe, edited: Callable[..., str], tmp_path: Path
) -> None:
    """What upstream does: three steps of four, no error."""
    run_exp(tiny_recipe("qwen3vl", dataset_dir=edited(adding("<|image_pad|>")), max_steps=4))
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert state["global_step"] < state["max_steps"]


@pytest.mark.parametrize(
    ("keys", "workers"),
    [(KEYS["run card"], 1), (KEYS["grounding loss"], 0), (KEYS["augmentation"], 0), (KEYS["loss balance"], 0)],
    ids=["in a worker", "grounding loss", "augmentation", "loss balance"],
)
def test_record_that_the_collator_cannot_take_is_named(
    keys: dict[str, Any],
    workers: int,
    tiny_recipe: Recipe,
    edited: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """StopIteration, from a text that is not read before; out of a worker process too."""
    monkeypatch.setattr(texts, "problems", lambda *_: [])
    settings = {"dataset_dir": edited(adding("<|image_pad|>")), "dataloader_num_workers": workers, "max_steps": 4}
    with pytest.raises(RuntimeError, match=r"No batch could be made of tiny/train/5 of tiny_train") as caught:
        run_exp(tiny_recipe("qwen3vl", **settings, **keys))
    assert "StopIteration" in str(caught.value)
    assert "tiny/train/4" not in str(caught.value)
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_image_that_breaks_while_training_is_named(
    tiny_recipe: Recipe, edited: Callable[..., str], tmp_path: Path
) -> None:
    image = tmp_path / "breaks.png"

    def move(records: list[dict[str, Any]]) -> None:
        shutil.copy(records[2]["images"][0], image)
        records[2]["images"] = [str(image)]

    class Break(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            image.write_bytes(image.read_bytes()[:60])

    recipe = tiny_recipe("qwen3vl", dataset_dir=edited(move), medvl_run_card=True, max_steps=4)
    with pytest.raises(RuntimeError, match=r"tiny/train/2 of tiny_train .*OSError.*Put the image back or mend it"):
        run_exp(recipe, callbacks=[Break()])


@pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])
def test_step_that_fails_names_step_records_and_cutoff(
    family: str, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the look at the rows before training does not reach, as in a stream."""
    monkeypatch.setattr(loading, "say_what_is_cut", lambda *_: None)
    with pytest.raises(RuntimeError) as caught:
        run_exp(tiny_recipe(family, cutoff_len=24, medvl_run_card=True))
    told = str(caught.value)
    assert "Step 1 of 2: " in told or "No batch could be made of" in told
    assert "of tiny_train" in told and "as long as cutoff_len 24, so it was cut: raise that" in told


@pytest.fixture(scope="module")
def broken_checkpoint(tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with one infinite weight."""
    folder = tmp_path_factory.mktemp("broken") / "qwen3vl"
    shutil.copytree(tiny_checkpoint("qwen3vl"), folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.0.self_attn.q_proj.weight"))
    weights[name][0, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("keys", [KEYS[name] for name in ("run card", "grounding loss", "loss balance")])
def test_first_loss_that_is_no_number_stops_with_step_records_and_cause(
    keys: dict[str, Any], tiny_recipe: Recipe, broken_checkpoint: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe("qwen3vl", model_name_or_path=str(broken_checkpoint), **keys)
    with pytest.raises(RuntimeError, match=r"Step 1 of 2: the loss is (nan|inf)") as caught:
        run_exp(recipe)
    told = str(caught.value)
    assert told.count(" of tiny_train (") == 2
    assert "Cause: the checkpoint itself is broken" in told and "q_proj" in told
    assert "What to try" in told and "learning_rate (it is 0.001)" in told and "float32" in told
    assert not list((tmp_path / "out").glob("*.safetensors")) and not list((tmp_path / "out").glob("medvl*"))


def test_learning_rate_that_breaks_the_weights_stops(tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Step 2 of 3: the loss is nan") as caught:
        run_exp(tiny_recipe("internvl3", learning_rate=1e38, max_steps=3, medvl_run_card=True))
    assert "Cause: training has driven weights out of range" in str(caught.value)
    assert not (tmp_path / "out" / "medvl_run_card.json").exists()


def test_weights_broken_by_the_last_step_are_not_saved_and_have_no_card(tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"After step 1, \d+ tensors hold NaN or infinity .*the model is not saved"):
        run_exp(tiny_recipe("qwen3vl", learning_rate=1e38, max_steps=1, medvl_run_card=True))
    assert not list((tmp_path / "out").glob("*.safetensors")) and not list((tmp_path / "out").glob("medvl*"))


def test_broken_checkpoint_folder_is_named_when_it_is_saved(tiny_recipe: Recipe, tmp_path: Path) -> None:
    settings = {"learning_rate": 1e38, "max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    with pytest.raises(
        RuntimeError, match=r"checkpoint-1: of the saved weights, \d+ tensors hold NaN or infinity \(adapter_model"
    ):
        run_exp(tiny_recipe("qwen3vl", medvl_run_card=True, **settings))
    assert not (tmp_path / "out" / "checkpoint-1" / "medvl_run_card.json").exists()


def test_gradient_of_zero_beside_a_loss_stops(tiny_recipe: Recipe) -> None:
    with pytest.raises(RuntimeError, match=r"Step 3 of 4: the gradient is exactly 0, 2 steps in a row"):
        run_exp(tiny_recipe("qwen3vl", learning_rate=1e6, max_steps=4, medvl_run_card=True))


def test_gradient_of_zero_in_the_last_step_is_no_success(tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="The gradient of the last step, 2, is exactly 0"):
        run_exp(tiny_recipe("qwen3vl", learning_rate=1e6, max_steps=2, medvl_run_card=True))
    assert not list((tmp_path / "out").glob("*.safetensors")) and not list((tmp_path / "out").glob("medvl*"))


@pytest.mark.parametrize(
    ("config", "refused"), [({}, True), ({"accelerator_config": {"dispatch_batches": False}}, False)], ids=["", "cured"]
)
def test_stream_whose_batches_would_be_cut_is_refused_with_the_cure(
    config: dict[str, Any], refused: bool, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    """As it is, LLaMA-Factory gives the model as many rows of pixels as the batch has records."""
    recipe = tiny_recipe("qwen3vl", streaming=True, dataloader_num_workers=1, medvl_run_card=True, **config)
    if refused:
        with pytest.raises(ValueError, match=r"streaming: .*add `accelerator_config: \{dispatch_batches: false\}`"):
            run_exp(recipe)
    else:
        run_exp(recipe)
        assert read_run_card(tmp_path / "out").run.steps == 2


def test_answers_of_a_model_that_is_no_numbers_are_refused(tiny_recipe: Recipe, broken_checkpoint: Path) -> None:
    asking = {"do_train": False, "do_predict": True, "predict_with_generate": True, "eval_dataset": "tiny_val"}
    with pytest.raises(ValueError, match=r"1 tensors hold NaN or infinity .*q_proj"):
        run_exp(tiny_recipe("qwen3vl", model_name_or_path=str(broken_checkpoint), max_new_tokens=1, **asking))


def test_eval_loss_that_is_no_number_stops(
    tiny_recipe: Recipe, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Weights that are numbers, and whose products are none."""
    broken_checkpoint = Path(shutil.copytree(tiny_checkpoint("qwen3vl"), tmp_path / "too large"))
    weights = load_file(broken_checkpoint / "model.safetensors")
    weights = {name: value * 1e38 if "mlp" in name else value for name, value in weights.items()}
    save_file(weights, broken_checkpoint / "model.safetensors", metadata={"format": "pt"})
    settings = {"do_train": False, "do_eval": True, "eval_dataset": "tiny_val"}
    recipe = tiny_recipe("qwen3vl", model_name_or_path=str(broken_checkpoint), medvl_run_card=True, **settings)
    with pytest.raises(RuntimeError, match=r"(?s)the eval loss is nan.* of tiny_val "):
        run_exp(recipe)


def test_batch_without_an_answer_names_cutoff_len(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.full((2, 4), -100)
    told = cause(torch.nn.Linear(1, 1), labels, 3, 64)
    assert "no answer is left in the batch" in told and "cutoff_len 64" in told


def test_gradient_that_is_no_number_stops_before_the_weights_change(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss with a gradient that overflows, as attention kernels give it."""
    before: dict[str, torch.Tensor] = {}

    class Poison(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
            weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
            before.update({name: weight.detach().clone() for name, weight in weights.items()})
            next(iter(weights.values())).register_hook(lambda gradient: gradient * float("inf"))
            self.weights = weights

    poison = Poison()
    with pytest.raises(RuntimeError, match=r"Step 1 of 2: the gradient norm is (nan|inf) \(loss 6") as caught:
        run_exp(tiny_recipe("qwen3vl", medvl_run_card=True, gradient_accumulation_steps=2), callbacks=[poison])
    assert str(caught.value).count(" of tiny_train (") == 4
    assert all(before[name].equal(weight) for name, weight in poison.weights.items())


class Norms:
    """Stands in for the stock trainer: gives one gradient norm after another."""

    def __init__(self, norms: list[float]) -> None:
        self.norms = norms

    def _get_grad_norm(self, _model: Any, grad_norm: Any = None) -> float:
        return self.norms.pop(0)


class Guarded(safeguards.SafeguardMixin, Norms):
    """The safeguard alone."""

    def __init__(self, norms: list[float], fp16: bool) -> None:
        Norms.__init__(self, norms)
        self.args = type("Arguments", (), {"fp16": fp16})()
        self.step_records, self.step_loss, self.skipped, self.zero = [], 1.0, 0, 0
        self.is_deepspeed_enabled = False

    def stop(self, what: str, *_: Any) -> None:
        raise RuntimeError(what)


INF = float("inf")
SEQUENCES = {
    "fp16 looks for its scale": ([INF, INF, 1.0, INF, 2.0], True, 5),
    "fp16 never finds one": ([INF] * 30, True, 25),
    "not fp16": ([1.0, INF], False, 1),
    "fp16 and never a number": ([float("nan")] * 30, True, 25),
    "one zero is chance": ([0.0, 1.0, 0.0, 1.0], False, 4),
    "zero again": ([0.0, 0.0], False, 1),
}


@pytest.mark.parametrize(("norms", "fp16", "passed"), SEQUENCES.values(), ids=SEQUENCES)
def test_how_many_steps_pass(norms: list[float], fp16: bool, passed: int) -> None:
    trainer, steps, count = Guarded(list(norms), fp16), 0, len(norms)
    try:
        for _ in range(count):
            trainer.step_loss = 1.0
            trainer._get_grad_norm(None)
            steps += 1
    except RuntimeError as error:
        assert "gradient" in str(error)
    assert steps == passed


def test_card_says_planned_and_done(tiny_recipe: Recipe, tmp_path: Path) -> None:
    run_exp(tiny_recipe("internvl3", medvl_run_card=True, max_steps=3))
    run = read_run_card(tmp_path / "out").run
    assert (run.steps, run.planned_steps, run.ended_early) == (3, 3, None)


class StopAfter(TrainerCallback):  # type: ignore[misc]
    """Asks for an end, as LLaMA Board does."""

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step == 2


def test_end_that_was_asked_for_is_no_error_and_is_in_the_card(tiny_recipe: Recipe, tmp_path: Path) -> None:
    run_exp(tiny_recipe("qwen3vl", medvl_run_card=True, max_steps=4), callbacks=[StopAfter()])
    run = read_run_card(tmp_path / "out").run
    assert (run.steps, run.planned_steps, run.ended_early) == (2, 4, "a callback, or by hand")


def test_early_stopping_is_no_error_and_is_named(tiny_recipe: Recipe, tmp_path: Path) -> None:
    stopping = {"early_stopping_steps": 1, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    every = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    settings = {"do_eval": True, "eval_dataset": "tiny_val", "learning_rate": 1e-12, "max_steps": 6}
    run_exp(tiny_recipe("internvl3", medvl_run_card=True, **settings, **every, **stopping))
    run = read_run_card(tmp_path / "out").run
    assert run.steps < 6 and (run.planned_steps, run.ended_early) == (6, "early stopping")


@pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])
def test_data_that_ends_before_the_planned_steps_is_an_error(
    family: str, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    whole = Trainer.get_batch_samples

    def shorter(self: Any, *args: Any) -> Any:
        return whole(self, *args) if self.state.global_step < 1 else ([], None)

    monkeypatch.setattr(Trainer, "get_batch_samples", shorter)
    with pytest.raises(RuntimeError, match=r"Training ended early: 1 of 3 planned steps are done, since"):
        run_exp(tiny_recipe(family, medvl_run_card=True, max_steps=3))
    assert not list((tmp_path / "out").glob("*.safetensors")) and not list((tmp_path / "out").glob("medvl*"))
