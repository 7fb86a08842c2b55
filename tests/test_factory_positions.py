"""Prediction asks the model with the image positions that training used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from llamafactory.chat import ChatModel
from llamafactory.train.tuner import run_exp
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from medvl.factory import hook

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
Trained = Callable[[str], tuple[Path, dict[str, Any]]]


@pytest.fixture
def positions(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor | None]:
    """Position ids (3 or 4, batch, length) of every pass over a whole prompt, None where the model got none."""
    seen: list[torch.Tensor | None] = []
    forward = Qwen3VLTextModel.forward

    def spy(self: Any, *args: Any, position_ids: torch.Tensor | None = None, **kwargs: Any) -> Any:
        embeddings = kwargs.get("inputs_embeds")
        if embeddings is not None and embeddings.shape[1] > 1:
            seen.append(None if position_ids is None else position_ids.clone())
        return forward(self, *args, position_ids=position_ids, **kwargs)

    monkeypatch.setattr(Qwen3VLTextModel, "forward", spy)
    return seen


def predict(recipe: Recipe, out: Path, family: str = "qwen3vl", **overrides: Any) -> list[str]:
    """The lines of generated_predictions.jsonl."""
    settings = {"do_train": False, "do_predict": True, "predict_with_generate": True, "dataset": None}
    settings |= {"eval_dataset": "tiny_val", "max_new_tokens": 4, "do_sample": False, "output_dir": str(out)}
    run_exp(recipe(family, per_device_eval_batch_size=1, **settings, **overrides))
    return (out / "generated_predictions.jsonl").read_text().splitlines()


def by_rows(position_ids: torch.Tensor) -> bool:
    """Whether height and width count differently somewhere, as they do inside an image."""
    return not torch.equal(position_ids[-2], position_ids[-1])


def test_positions_are_those_of_training(tiny_recipe: Recipe, tmp_path: Path, positions: list[Any]) -> None:
    run_exp(
        tiny_recipe("qwen3vl", dataset="tiny_val", per_device_train_batch_size=1, max_steps=4, disable_shuffling=True)
    )
    trained = positions.copy()
    positions.clear()
    predict(tiny_recipe, tmp_path / "predicted", medvl_image_positions=True)
    assert len(trained) == len(positions) == 4
    for training, prediction in zip(trained, positions, strict=True):
        prompt = prediction.shape[-1]  # training goes on with the answer, and pads to a multiple of eight
        assert by_rows(prediction)
        assert torch.equal(prediction[-3:], training[-3:, :, :prompt])


def test_stock_prediction_counts_image_tokens_one_by_one(
    tiny_recipe: Recipe, tmp_path: Path, positions: list[Any]
) -> None:
    """What the key is for. If this fails, LLaMA-Factory does it by itself and the key can go."""
    predict(tiny_recipe, tmp_path)
    assert not any(ids is not None and by_rows(ids) for ids in positions)


def test_families_without_such_positions_predict_the_same(tiny_recipe: Recipe, tmp_path: Path) -> None:
    stock = predict(tiny_recipe, tmp_path / "stock", "internvl3")
    assert predict(tiny_recipe, tmp_path / "asked", "internvl3", medvl_image_positions=True) == stock


def test_an_adapter_is_asked_in_the_same_way(
    tiny_recipe: Recipe, trained_adapter: Trained, tmp_path: Path, positions: list[Any]
) -> None:
    adapter = str(trained_adapter("qwen3vl")[0])
    positions.clear()
    predict(tiny_recipe, tmp_path / "predicted", medvl_image_positions=True, adapter_name_or_path=adapter)
    assert len(positions) == 4
    assert all(ids is not None and by_rows(ids) for ids in positions)


def test_training_with_generation_switched_on_keeps_them(
    tiny_recipe: Recipe, tmp_path: Path, positions: list[Any]
) -> None:
    settings = {"predict_with_generate": True, "eval_dataset": "tiny_val", "max_steps": 1}
    run_exp(tiny_recipe("qwen3vl", medvl_image_positions=True, **settings))
    assert positions
    assert all(ids is not None and by_rows(ids) for ids in positions)


def ask(recipe: Recipe, **overrides: Any) -> ChatModel:
    """The engine behind `llamafactory-cli chat` and `api`, with the keys of a recipe that concern it."""
    keys = ("model_name_or_path", "template", "default_system", "image_max_pixels", "finetuning_type")
    settings = recipe("qwen3vl")
    return ChatModel({key: settings[key] for key in keys} | {"do_sample": False, "max_new_tokens": 4} | overrides)


def test_chat_and_api_ask_as_do_predict_does(
    tiny_recipe: Recipe, tiny_dataset: Path, tmp_path: Path, positions: list[Any]
) -> None:
    predicted = [json.loads(line)["predict"] for line in predict(tiny_recipe, tmp_path, medvl_image_positions=True)]
    expected, answers = positions.copy(), []
    positions.clear()
    chat = ask(tiny_recipe, medvl_image_positions=True)
    for record in json.loads((tiny_dataset / "tiny_val.json").read_text()):
        messages = [{"role": "user", "content": record["conversations"][0]["value"]}]
        answers.append(chat.chat(messages, images=record["images"])[0].response_text)
        assert "".join(chat.stream_chat([dict(messages[0])], images=record["images"])) == answers[-1]
    assert answers == predicted
    once, again = positions[::2], positions[1::2]
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(expected, once, again, strict=True))


def test_stock_chat_counts_image_tokens_one_by_one(
    tiny_recipe: Recipe, tiny_dataset: Path, positions: list[Any]
) -> None:
    record = json.loads((tiny_dataset / "tiny_val.json").read_text())[0]
    messages = [{"role": "user", "content": record["conversations"][0]["value"]}]
    ask(tiny_recipe).chat(messages, images=record["images"])
    assert len(positions) == 1
    assert not any(ids is not None and by_rows(ids) for ids in positions)


def test_inference_that_could_not_honour_the_key_does_not_start(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "llamafactory.chat.hf_engine"
    monkeypatch.setattr(hook.STATE, "extended", hook.STATE.extended - {module})
    monkeypatch.setitem(hook.STATE.failures, module, "AttributeError: renamed")
    with pytest.raises(RuntimeError, match=r"medvl_image_positions.*hf_engine \(AttributeError: renamed\)"):
        ask(tiny_recipe, medvl_image_positions=True)
