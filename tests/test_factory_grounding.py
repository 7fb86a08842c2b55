"""The grounding loss in real training runs, through LLaMA-Factory's own `run_exp`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("llamafactory")
import torch
from llamafactory.hparams import parser
from llamafactory.train.tuner import run_exp
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from transformers import TrainerCallback

from medvl.box_text import format_boxes
from medvl.boxes import as_boxes
from medvl.factory import loss_plot
from medvl.factory.column_logits import ColumnLogits
from medvl.factory.grounding_eval import BoxEvaluation
from medvl.factory.loss_plot import draw
from medvl.factory.run_card import read_run_card
from medvl.losses.grounding import GroundingSettings

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
FAMILIES = ["qwen3vl", "internvl3"]
GROUNDING = {"use_grounding_loss": True, "grounding_warmup_ratio": 0}
PARTS = {"loss_lm", "loss_w1", "loss_iou", "loss_fp", "loss_fn", "iou_teacher_forced"}
COUNTS = {"boxes_per_batch": 14, "boxes_skipped": 0}

# Pixels of 64 x 64 images, two to a row of the list: 14 boxes in 8 records, one of them empty.
BOXES = [
    [[4, 6, 30, 22]],
    [[10, 8, 20, 40], [30, 30, 60, 52]],
    [],
    [[2, 2, 14, 14], [20, 4, 40, 16], [8, 40, 50, 62]],
    [[33, 12, 61, 45]],
    [[5, 30, 25, 60], [36, 5, 58, 20]],
    [[16, 16, 48, 48], [1, 50, 12, 63]],
    [[40, 2, 62, 30], [2, 36, 30, 50], [36, 40, 60, 60]],
]


@pytest.fixture(scope="module")
def box_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dataset_info.json with `boxes` and `more` (the 8 records above), `few` (3 of them) and `letters` (8, no box)."""
    folder = tmp_path_factory.mktemp("box_data")
    tags = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
    shape = {"formatting": "sharegpt", "columns": {"messages": "conversations", "images": "images"}, "tags": tags}
    answers: dict[str, list[str]] = {"letters": ["A", "B"] * 4, "boxes": []}
    for index, boxes in enumerate(BOXES):
        image = Image.new("RGB", (64, 64), (20, 30, 40))
        for number, box in enumerate(boxes):
            ImageDraw.Draw(image).rectangle(tuple(box), fill=(250 - 60 * number, 90 + 25 * index, 60 * number))
        image.save(folder / f"{index}.png")
        scaled = as_boxes(boxes) / 64 * 1000
        answers["boxes"].append(format_boxes(scaled, ["lesion"] * len(boxes), "json", "norm1000"))
    answers["few"] = answers["boxes"][:3]
    for name, texts in answers.items():
        records = [
            {
                "conversations": [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": text}],
                "images": [str(folder / f"{index}.png")],
            }
            for index, text in enumerate(texts)
        ]
        (folder / f"{name}.json").write_text(json.dumps(records))
    info = {name: shape | {"file_name": f"{name}.json"} for name in answers}
    info["more"] = info["boxes"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture
def recipe(tiny_recipe: Recipe, box_data: Path) -> Recipe:
    """A recipe on `boxes`."""

    def make(family: str, **overrides: Any) -> dict[str, Any]:
        return tiny_recipe(
            family, **{"dataset_dir": str(box_data), "dataset": "boxes", "default_system": ""} | overrides
        )

    return make


def history(folder: Path) -> list[dict[str, Any]]:
    """What the trainer logged, in trainer_state.json."""
    return list(json.loads((folder / "trainer_state.json").read_text())["log_history"])


def adapter(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


class Gradients(TrainerCallback):  # type: ignore[misc]
    """The gradients of the first optimiser step, as one vector."""

    def on_pre_optimizer_step(self, _args: Any, _state: Any, _control: Any, **kwargs: Any) -> None:
        parameters = [p for p in kwargs["model"].parameters() if p.requires_grad]
        self.vector = torch.cat([p.grad.flatten() for p in parameters]).clone()


def gradients(settings: dict[str, Any]) -> torch.Tensor:
    """Of one optimiser step, unclipped."""
    callback = Gradients()
    run_exp(settings | {"max_steps": 1, "max_grad_norm": 0.0, "overwrite_output_dir": True}, callbacks=[callback])
    return callback.vector


# Training


@pytest.mark.parametrize(("family", "sharded"), [("qwen3vl", False), ("internvl3", False), ("qwen3vl", True)])
def test_records_without_boxes_train_bit_for_bit_as_with_the_stock_trainer(
    family: str, sharded: bool, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every rank has to go through the logits in the backward pass."""
    monkeypatch.setattr(ColumnLogits, "usable", lambda self: not sharded)
    for name, keys in (("stock", {}), ("grounding", GROUNDING)):
        run_exp(recipe(family, dataset="letters", output_dir=str(tmp_path / name), **keys))
    assert adapter(tmp_path / "grounding") == adapter(tmp_path / "stock")
    ours, theirs = history(tmp_path / "grounding"), history(tmp_path / "stock")
    assert [entry.get("loss") for entry in ours] == [entry.get("loss") for entry in theirs]
    assert [entry.get("loss_lm") for entry in ours[:2]] == [
        pytest.approx(entry["loss"], abs=1e-5) for entry in ours[:2]
    ]
    assert not PARTS & ours[0].keys() - {"loss_lm"}, "what no record had is not logged as 0"


def test_weights_of_nothing_train_as_the_stock_trainer(recipe: Recipe, tmp_path: Path) -> None:
    run_exp(recipe("qwen3vl", output_dir=str(tmp_path / "stock")))
    off = GROUNDING | {"grounding_w1": 0, "grounding_scale": 0}
    run_exp(recipe("qwen3vl", output_dir=str(tmp_path / "off"), **off))
    assert adapter(tmp_path / "off") == adapter(tmp_path / "stock")
    run_exp(recipe("qwen3vl", output_dir=str(tmp_path / "on"), **GROUNDING))
    assert adapter(tmp_path / "on") != adapter(tmp_path / "stock")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_is_logged_and_plotted(family: str, recipe: Recipe, tmp_path: Path) -> None:
    """4 bits, bf16 and gradient checkpointing, as on a GPU; all records in one optimiser step."""
    gpu = {"quantization_bit": 4, "double_quantization": False, "bf16": True, "gradient_accumulation_steps": 2}
    batch = {"per_device_train_batch_size": 4, "plot_loss": True}
    run_exp(recipe(family, **GROUNDING, **gpu, **batch))
    first, second = history(tmp_path / "out")[:2]
    assert first.keys() >= PARTS and COUNTS.items() <= first.items() and COUNTS.items() <= second.items()
    # Seven of eight records have boxes; every record but the empty one decides to go on, all decide to stop.
    digits, boxes, misses = 0.3 * first["loss_w1"], 0.05 * first["loss_iou"], 0.05 * first["loss_fn"]
    expected = first["loss_lm"] + 7 / 8 * (digits + boxes + misses) + 0.1 * first["loss_fp"]
    assert first["loss"] == pytest.approx(expected, abs=2e-3)
    with Image.open(tmp_path / "out" / "training_loss_components.png") as plot:
        assert plot.width > 1000 and plot.height > 500


def test_terms_grow_over_the_warm_up(recipe: Recipe, tmp_path: Path) -> None:
    one_batch = {"per_device_train_batch_size": 8, "max_steps": 4, "learning_rate": 1.0e-9, "grounding_w1": 0}
    run_exp(recipe("qwen3vl", **GROUNDING | one_batch | {"grounding_warmup_ratio": 0.5}))
    added = [entry["loss"] - entry["loss_lm"] for entry in history(tmp_path / "out")[:4]]
    assert added[0] == pytest.approx(0, abs=1e-5)
    assert added[1] == pytest.approx(added[2] / 2, rel=1e-3)
    assert added[2] == pytest.approx(added[3], rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_accumulation_divides_the_terms_as_one_batch(family: str, recipe: Recipe) -> None:
    """Unequal numbers of boxes and tokens. Stock, the language-model loss does depend on the division."""
    at_once, one_by_one = (
        {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size, "disable_shuffling": True}
        for size in (4, 1)
    )
    stock = [gradients(recipe(family, **division)) for division in (at_once, one_by_one)]
    whole = [gradients(recipe(family, **division, **GROUNDING)) for division in (at_once, one_by_one)]
    added = [ours - theirs for ours, theirs in zip(whole, stock, strict=True)]
    assert added[0].norm() > 0.1 * stock[0].norm()
    torch.testing.assert_close(added[1], added[0], rtol=1e-3, atol=1e-5 * added[0].abs().max().item())
    assert (stock[1] - stock[0]).norm() > 1e-3 * stock[0].norm(), "upstream has changed: the note can go"


@pytest.mark.subprocess
def test_two_processes_train_as_one_with_twice_the_micro_batches(recipe: Recipe, tmp_path: Path) -> None:
    """Through `llamafactory-cli train` and torchrun, as users type it; once, since three processes import torch.

    Each process has other boxes, one of them none at times. The order of the data is the same, of like length too.
    """
    more = {"plot_loss": True, "medvl_run_card": False}  # which the command line overrides
    more |= {"train_sampling_strategy": "group_by_length"}
    settings = recipe("qwen3vl", **GROUNDING, **more, per_device_train_batch_size=1, max_steps=4)
    (tmp_path / "two.yaml").write_text(json.dumps(settings | {"output_dir": str(tmp_path / "two")}))
    environment = os.environ | {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"  # torchrun is looked up there
    command = ["llamafactory-cli", "train", str(tmp_path / "two.yaml"), "medvl_run_card=true"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    run_exp(settings | {"output_dir": str(tmp_path / "one"), "gradient_accumulation_steps": 2})
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-7)
    names = PARTS | {"padding"}
    logged = [[{key: entry[key] for key in names & entry.keys()} for entry in history(tmp_path / name)[:4]]
              for name in ("one", "two")]  # fmt: skip
    assert logged[1] == [pytest.approx(entry, abs=1e-4) for entry in logged[0]]
    card = read_run_card(tmp_path / "two")
    assert (card.run.world_size, card.training.batch_size, card.run.steps) == (2, 2, 4), "one card, of both"
    assert card.recipe["medvl_run_card"] is True
    assert "'loss_fp': " in done.stdout and (tmp_path / "two" / "training_loss_components.png").is_file()


def test_balanced_loss_and_augmentation_beside_it(recipe: Recipe, tmp_path: Path) -> None:
    settings = recipe("qwen3vl", dataset="boxes,letters", per_device_train_batch_size=8, **GROUNDING)
    run_exp(settings | {"output_dir": str(tmp_path / "alone")})
    others = {"loss_balance": "weighted", "loss_balance_weights": {"a": 3.0}, "augment": "basic"}
    others |= {"augment_frame": "norm1000"}
    run_exp(settings | others | {"output_dir": str(tmp_path / "together")})
    alone, together = (history(tmp_path / name)[0] for name in ("alone", "together"))
    assert together.keys() >= PARTS
    assert together["boxes_per_batch"] == alone["boxes_per_batch"] > 0
    assert together["loss_lm"] != pytest.approx(alone["loss_lm"], rel=1e-3)


def test_head_that_is_trained_gets_the_gradient_of_the_whole_logits(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe("qwen3vl", finetuning_type="full", per_device_train_batch_size=8, **GROUNDING)
    settings = {key: value for key, value in settings.items() if not key.startswith("lora_")}
    from_states = gradients(settings)
    monkeypatch.setattr(ColumnLogits, "usable", lambda self: False)
    torch.testing.assert_close(from_states, gradients(settings), rtol=1e-4, atol=1e-7)


def test_tiny_model_reaches_exact_boxes(recipe: Recipe, tmp_path: Path) -> None:
    """And so do the generated answers that `grounding_eval_steps` asks for, in batches of unequal prompts."""
    learn = {"per_device_train_batch_size": 3, "learning_rate": 5.0e-3, "max_steps": 100, "adam_beta2": 0.98}
    whole = {"finetuning_type": "full", "freeze_vision_tower": False, "disable_gradient_checkpointing": True}
    ask = {"eval_dataset": "few", "grounding_eval_steps": 100, "per_device_eval_batch_size": 3}
    keys = {"dataset": "few", "logging_steps": 50, "lr_scheduler_type": "cosine"} | learn | whole | ask | GROUNDING
    run_exp({key: value for key, value in recipe("qwen3vl", **keys).items() if not key.startswith("lora_")})
    asked = next(entry for entry in history(tmp_path / "out") if "eval_boxes_f1" in entry)
    assert (asked["eval_boxes_f1"], asked["eval_boxes_iou_all"], asked["eval_boxes_iou"]) == (1, 1, 1)
    assert (asked["eval_boxes_fp"], asked["eval_boxes_fn"], asked["eval_boxes_unreadable"]) == (0, 0, 0)


# Generated answers


def test_asking_changes_no_training_and_no_log(recipe: Recipe, tmp_path: Path) -> None:
    """With dropout, which draws random numbers."""
    settings = GROUNDING | {"lora_dropout": 0.1, "eval_dataset": "boxes", "max_steps": 3}
    run_exp(recipe("qwen3vl", output_dir=str(tmp_path / "quiet"), **settings))
    asking = {"grounding_eval_steps": 2, "grounding_eval_samples": 3, "per_device_eval_batch_size": 2}
    run_exp(recipe("qwen3vl", output_dir=str(tmp_path / "asked"), **settings, **asking))
    assert adapter(tmp_path / "asked") == adapter(tmp_path / "quiet")
    quiet, asked = history(tmp_path / "quiet"), history(tmp_path / "asked")
    assert [entry for entry in asked if "loss" in entry] == [entry for entry in quiet if "loss" in entry]
    filtered = [entry for entry in asked if "eval_boxes_f1" in entry]
    assert [entry["step"] for entry in filtered] == [2, 3], "every second step, and the last"
    assert all(entry["eval_boxes_answers"] == 3 for entry in filtered)


def test_every_named_eval_set_has_its_curve(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Any, Any]] = []
    monkeypatch.setattr(loss_plot, "draw", lambda *given: drawn.append(given) or draw(*given))
    asking = {"eval_dataset": "boxes,more", "eval_on_each_dataset": True, "grounding_eval_steps": 1}
    run_exp(recipe("qwen3vl", **GROUNDING, **asking, grounding_eval_samples=2, plot_loss=True))
    ((curves, titles),) = drawn
    names = [f"eval_{name}_boxes_{metric}" for metric in ("iou", "f1") for name in ("boxes", "more")]
    assert [name for name in curves if name.startswith("eval_")] == names
    assert [[step for step, _ in curves[name]] for name in names] == [[1, 2]] * 4
    assert [titles[name] for name in names] == ["eval IoU"] * 2 + ["eval F1"] * 2, "one panel for each metric"


def test_generated_boxes_can_choose_the_best_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "do_eval": True}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_boxes_f1", "greater_is_better": True}
    asking = {"eval_dataset": "boxes", "grounding_eval_steps": 1, "grounding_eval_samples": 2}
    run_exp(recipe("internvl3", **GROUNDING, **steps, **best, **asking))
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert state["best_metric"] == 0.0 and state["best_model_checkpoint"].endswith("checkpoint-1")
    assert "eval_boxes_f1" in json.loads((tmp_path / "out" / "all_results.json").read_text())


def test_evaluation_loss_is_the_language_models(recipe: Recipe, tmp_path: Path) -> None:
    still = {"eval_dataset": "boxes", "do_eval": True, "eval_strategy": "steps", "eval_steps": 1}
    still |= {"learning_rate": 1.0e-9, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
    run_exp(recipe("internvl3", max_steps=1, **GROUNDING, **still))
    train, evaluated = history(tmp_path / "out")[:2]
    assert evaluated["eval_loss"] == pytest.approx(train["loss_lm"], abs=1e-4)
    assert evaluated["eval_loss"] < train["loss"] - 0.1


# Recipes


REFUSED = {
    "unread": ({"grounding_beta": 0.5}, "grounding_beta: nothing reads them without `use_grounding_loss: true`"),
    "negative": (GROUNDING | {"grounding_alpha": -1.0}, "grounding_alpha: -1.0 is not a number of at least 0"),
    "text": (GROUNDING | {"grounding_scale": "1e-4"}, "grounding_scale: '1e-4' is not a number"),
    "not finite": (GROUNDING | {"grounding_w1": float("inf")}, "grounding_w1: inf is not a number"),
    "warm-up": (GROUNDING | {"grounding_warmup_ratio": 3}, "grounding_warmup_ratio: 3 .* at most 1"),
    "kind": (GROUNDING | {"grounding_iou": "eiou"}, "grounding_iou: 'eiou' is none of giou, diou, ciou, iou"),
    "frame": (GROUNDING | {"grounding_frame": "norm100"}, "grounding_frame: 'norm100' is none of norm1000"),
    "eval steps": (GROUNDING | {"grounding_eval_steps": -5}, "grounding_eval_steps: -5 is not a whole number"),
    "packing": (GROUNDING | {"packing": True}, "cannot be combined with `packing`"),
    "prompt": (GROUNDING | {"train_on_prompt": True}, "cannot be combined with `train_on_prompt`"),
    "another loss": (GROUNDING | {"use_dft_loss": True}, "cannot be combined with `use_dft_loss`"),
    "misspelt": (GROUNDING | {"grounding_gama": 1.0}, "did you mean `grounding_gamma`"),
    "quoted no": ({"use_grounding_loss": "no"}, "use_grounding_loss: 'no' is neither true nor false"),
    "text for steps": (GROUNDING | {"grounding_eval_steps": "50"}, "grounding_eval_steps: '50' is not a whole number"),
    "no eval set": (GROUNDING | {"grounding_eval_steps": 5}, "grounding_eval_steps: there is no eval_dataset"),
    "misspelt switch": ({"use_grounding": True}, "did you mean `use_grounding_loss`"),
}


@pytest.mark.parametrize(("keys", "message"), REFUSED.values(), ids=REFUSED)
def test_recipe_is_refused_before_anything_is_loaded(keys: dict[str, Any], message: str, recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=message):
        parser.get_train_args(recipe("qwen3vl", **keys))


def test_everything_wrong_is_told_at_once(recipe: Recipe) -> None:
    numbers = ("grounding_alpha", "grounding_beta", "grounding_gamma", "grounding_w1", "grounding_scale")
    wrong = dict.fromkeys((*numbers, "grounding_warmup_ratio", "grounding_eval_steps", "grounding_eval_samples"), -1)
    wrong |= {"grounding_iou": None, "grounding_frame": 1000, "medvl_run_card": "false", "grounding_gama": 1}
    wrong |= {"loss_balance": "focal", "loss_balance_gamma": "2", "loss_balance_weights": 3, "augment": "much"}
    clashing = {"packing": True, "train_on_prompt": True, "use_dft_loss": True}
    with pytest.raises(ValueError) as told:
        parser.get_train_args(recipe("qwen3vl", **GROUNDING | wrong | clashing))
    sentences = str(told.value).splitlines()
    assert {sentence.split(":")[0] for sentence in sentences} == {*wrong, "use_grounding_loss"}
    assert sum(sentence.startswith("use_grounding_loss: cannot be combined") for sentence in sentences) == 3


def test_no_eval_set_is_refused(recipe: Recipe) -> None:
    without = SimpleNamespace(eval_dataset=None)  # as where `tokenized_path` holds none
    with pytest.raises(ValueError, match="grounding_eval_steps: there is no eval_dataset"):
        BoxEvaluation(without, None, 1, 1, GroundingSettings())
    with pytest.raises(ValueError, match="no record of the eval set has a box answer"):
        run_exp(recipe("qwen3vl", **GROUNDING, grounding_eval_steps=1, eval_dataset="letters"))


def test_predicting_with_the_recipe_that_trained_needs_no_boxes(recipe: Recipe, tmp_path: Path) -> None:
    predict = {"do_train": False, "do_predict": True, "predict_with_generate": True, "dataset": None}
    predict |= {"eval_dataset": "letters", "max_new_tokens": 2, "do_sample": False, "grounding_eval_steps": 5}
    run_exp(recipe("qwen3vl", **GROUNDING, **predict))
    assert (tmp_path / "out" / "generated_predictions.jsonl").is_file()
