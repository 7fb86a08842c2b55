"""Augmented training runs of both families, through LLaMA-Factory's own `run_exp`."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from llamafactory.data.collator import MultiModalDataCollatorForSeq2Seq
from llamafactory.train.tuner import run_exp
from PIL import Image, ImageDraw

from medvl.box_text import format_boxes, parse_boxes
from medvl.boxes import Frame, as_boxes, from_frame, to_frame
from medvl.factory.augmentation import AugmentedCollator, TellEpoch, find_frame
from medvl.factory.data.frames import require_frame
from medvl.registry import dataset_entry

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
FAMILIES = ["qwen3vl", "internvl3"]
BOX = (20, 12, 64, 48)  # of a bright rectangle in every image


@pytest.fixture
def boxes_dataset(tmp_path: Path) -> Callable[..., Path]:
    """`boxes_dataset(frame)`: a registry with boxes_train (6 records with boxes, 1 of text) and boxes_val (2)."""

    def build(frame: Frame = "norm1000", *, manifest: bool = True, size: tuple[int, int] = (160, 96)) -> Path:
        folder = tmp_path / "boxes"
        folder.mkdir()
        answer = format_boxes(to_frame(as_boxes(BOX), size, frame), ["lesion"], "json", frame)
        for split, count in (("train", 6), ("val", 2)):
            records = []
            for index in range(count):
                image = Image.new("RGB", size, (10, 10 + index, 10))
                ImageDraw.Draw(image).rectangle((*BOX[:2], BOX[2] - 1, BOX[3] - 1), fill=(250, 250, 250))
                image.save(folder / f"{split}_{index}.png")
                turns = [("human", "<image>\nWhere is the lesion in this ultrasound?"), ("gpt", answer)]
                records.append({"conversations": turns, "images": [str(folder / f"{split}_{index}.png")]})
            if split == "train":
                records.append({"conversations": [("human", "What is a cyst?"), ("gpt", "A cavity.")], "images": []})
            for record in records:
                record["conversations"] = [{"from": who, "value": text} for who, text in record["conversations"]]
            (folder / f"boxes_{split}.json").write_text(json.dumps(records))
        entries = {f"boxes_{split}": dataset_entry(f"boxes_{split}.json") for split in ("train", "val")}
        (folder / "dataset_info.json").write_text(json.dumps(entries))
        if manifest:
            content = {"options": {"frame": frame}, "files": {f"{name}.json": {} for name in entries}}
            (folder / "manifest.json").write_text(json.dumps(content))
        return folder

    return build


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every record as it reached LLaMA-Factory's own collator, with the tensors that the model got for its batch."""
    seen: list[dict[str, Any]] = []
    collate = MultiModalDataCollatorForSeq2Seq.__call__

    def spy(self: Any, batch: list[dict[str, Any]]) -> Any:
        copies = [
            {name: list(value) for name, value in feature.items() if isinstance(value, list)} for feature in batch
        ]
        tensors = collate(self, batch)
        seen.extend(copy | {"tokenizer": self.tokenizer, "batch": tensors} for copy in copies)
        return tensors

    monkeypatch.setattr(MultiModalDataCollatorForSeq2Seq, "__call__", spy)
    return seen


def answer(feature: dict[str, Any]) -> str:
    return str(feature["tokenizer"].decode([label for label in feature["labels"] if label != -100]))


def bright(image: Image.Image) -> np.ndarray:
    rows, columns = np.nonzero(np.array(image.convert("L")) > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def changed(feature: dict[str, Any]) -> bool:
    return bool(feature.get("images")) and not isinstance(feature["images"][0], str)


def losses(folder: Path) -> list[float]:
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def augmented(recipe: Recipe, family: str, folder: Path, **overrides: Any) -> dict[str, Any]:
    keys = {"augment": "advanced", "augment_probability": 1.0, "augment_mirror": "both", "dataset": "boxes_train"}
    return recipe(family, dataset_dir=str(folder), per_device_train_batch_size=1, **keys | overrides)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frame", ["norm1000", "pixel"])
def test_answer_encloses_the_object_in_the_image_that_the_model_sees(
    family: str, frame: Frame, tiny_recipe: Recipe, boxes_dataset: Callable[..., Path], features: list[dict[str, Any]],
    tmp_path: Path,
) -> None:  # fmt: skip
    run_exp(augmented(tiny_recipe, family, boxes_dataset(frame), max_steps=14))
    assert len(losses(tmp_path / "out")) == 14
    trained = [feature for feature in features if changed(feature)]
    assert len(trained) == 12, "two epochs of six images"
    boxes = []
    for feature in trained:
        (image,) = feature["images"]
        found = parse_boxes(answer(feature))
        assert found.labels == ("lesion",)
        # `pixel` counts in the image on disk, 160 x 96; the model sees a reduced one.
        pixels = from_frame(found.boxes, (160, 96), frame) * np.tile(np.array(image.size) / (160, 96), 2)
        assert np.abs(pixels[0] - bright(image)).max() <= 1.2
        assert len(feature["input_ids"]) == len(feature["labels"]) == len(feature["attention_mask"])
        assert [t for t, label in zip(feature["input_ids"], feature["labels"], strict=True) if label != -100] == [
            label for label in feature["labels"] if label != -100
        ]
        boxes.append(tuple(found.boxes[0]))
    assert len(set(boxes)) == 12, "another draw for every record and epoch"


@pytest.mark.parametrize("family", FAMILIES)
def test_images_keep_their_size_and_so_their_number_of_tokens(
    family: str, tiny_recipe: Recipe, boxes_dataset: Callable[..., Path], features: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = boxes_dataset(size=(333, 127))
    shapes = {}
    for name, keys in (
        ("stock", {"augment": "none", "augment_probability": 0.5, "augment_mirror": "none"}),
        ("ours", {}),
    ):
        features.clear()
        out = str(tmp_path / name)
        limits = {"image_max_pixels": 7000, "image_min_pixels": 6900}
        run_exp(augmented(tiny_recipe, family, folder, max_steps=1, output_dir=out, **limits, **keys))
        shapes[name] = [tuple(feature["batch"]["pixel_values"].shape) for feature in features]
    assert shapes["ours"] == shapes["stock"]


def test_evaluation_and_text_records_are_left_alone(
    tiny_recipe: Recipe, boxes_dataset: Callable[..., Path], features: list[dict[str, Any]]
) -> None:
    keys = {"eval_dataset": "boxes_val", "do_eval": True, "max_steps": 7, "per_device_eval_batch_size": 1}
    run_exp(augmented(tiny_recipe, "internvl3", boxes_dataset(), **keys))
    trained, evaluated = features[:7], features[7:]
    assert sum(changed(feature) for feature in trained) == 6
    assert sum("cavity" in answer(feature) for feature in trained) == 1
    assert len(evaluated) == 2
    assert not any(changed(feature) for feature in evaluated)


def test_runs_repeat_whatever_the_workers_and_go_on_the_same_after_a_resume(
    tiny_recipe: Recipe, boxes_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    folder = boxes_dataset()
    keys = {"max_steps": 10, "save_strategy": "steps", "save_steps": 8}  # 7 steps per epoch: in the midst of the second
    run_exp(augmented(tiny_recipe, "internvl3", folder, output_dir=str(tmp_path / "one"), **keys))
    whole = losses(tmp_path / "one")
    workers = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True, "save_strategy": "no"}
    run_exp(augmented(tiny_recipe, "internvl3", folder, output_dir=str(tmp_path / "two"), **keys | workers))
    assert losses(tmp_path / "two") == whole
    checkpoint = str(tmp_path / "one" / "checkpoint-8")
    out = str(tmp_path / "three")
    run_exp(augmented(tiny_recipe, "internvl3", folder, output_dir=out, resume_from_checkpoint=checkpoint, **keys))
    assert losses(tmp_path / "three") == whole
    run_exp(augmented(tiny_recipe, "internvl3", folder, output_dir=str(tmp_path / "four"), augment_seed=1, **keys))
    assert losses(tmp_path / "four") != whole


def test_composes_with_the_other_losses(
    tiny_recipe: Recipe, boxes_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    keys = {"use_grounding_loss": True, "grounding_frame": "norm1000", "loss_balance": "weighted"}
    weights = {"loss_balance_weights": {"A cavity": 2}}
    run_exp(augmented(tiny_recipe, "qwen3vl", boxes_dataset(), **keys, **weights))
    assert all(np.isfinite(losses(tmp_path / "out")))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"augment": "heavy"}, "augment: 'heavy' is none of basic, advanced"),
        ({"augment": "basic", "augment_mirror": "vertical"}, "'vertical' is none of none, horizontal, both"),
        ({"augment": "basic", "augment_probability": 2.0}, "2.0 is not a number from 0 to 1"),
        ({"augment": "basic", "augment_seed": -1}, "-1 is not a whole number of at least 0"),
        ({"augment_mirror": "both"}, "augment_mirror: does nothing without `augment"),
        ({"augment": "basic", "packing": True}, "cannot be combined with `packing`"),
        ({"augment": "basic", "augment_sed": 1}, "did you mean `augment_seed`"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_recipes_that_cannot_be_honoured_are_refused(keys: dict[str, Any], message: str, tiny_recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=message):
        run_exp(tiny_recipe("qwen3vl", **keys))


def test_boxes_in_an_unknown_frame_are_refused_before_training(
    tiny_recipe: Recipe, boxes_dataset: Callable[..., Path]
) -> None:
    folder = boxes_dataset(manifest=False)
    with pytest.raises(ValueError, match=r"row 0 .*nothing tells their frame.*Set `augment_frame`"):
        run_exp(augmented(tiny_recipe, "internvl3", folder))
    run_exp(augmented(tiny_recipe, "internvl3", folder, augment_frame="norm1000", max_steps=1))


def test_boxes_of_another_frame_are_refused_before_training(
    tiny_recipe: Recipe, boxes_dataset: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match="has a box that is not in the frame norm1"):
        run_exp(augmented(tiny_recipe, "internvl3", boxes_dataset("pixel"), augment_frame="norm1"))


def frame_arguments(folder: Path, *names: str, **keys: Any) -> Any:
    settings = {"dataset": list(names), "dataset_dir": str(folder)}
    recipe = SimpleNamespace(keys=tuple(keys))
    return SimpleNamespace(setting=settings.get, medvl_recipe=recipe, **keys)


def test_frame_is_read_from_the_manifest_or_the_key(boxes_dataset: Callable[..., Path], tmp_path: Path) -> None:
    folder = boxes_dataset("pixel")
    assert find_frame(frame_arguments(folder, "boxes_train")) == "pixel"
    with pytest.raises(
        ValueError, match=r"different frames: norm1000 \(grounding_frame\), pixel \(.*boxes_train.json\)"
    ):
        find_frame(frame_arguments(folder, "boxes_train", grounding_frame="norm1000"))
    (folder / "manifest.json").unlink()
    assert find_frame(frame_arguments(folder, "boxes_train")) is None
    assert find_frame(frame_arguments(folder, "boxes_train", grounding_frame="norm1")) == "norm1"


@pytest.mark.parametrize(("told", "epoch"), [(None, 0), (0, 0), (1.0, 1), (1.33, 1), (2 - 1e-9, 2)])
def test_epoch_that_the_trainer_tells(told: float | None, epoch: int) -> None:
    number = torch.zeros(1, dtype=torch.int64)
    TellEpoch(number).on_epoch_begin(None, SimpleNamespace(epoch=told), None)
    assert int(number[0]) == epoch


def test_unnumbered_records_are_handed_on() -> None:
    collator = AugmentedCollator(lambda features: {"seen": features}, None, None, None)  # type: ignore[arg-type]
    record = {"input_ids": [1], "images": ["a.png"]}
    assert collator([record])["seen"][0] is record


def test_grounding_loss_refuses_boxes_in_another_frame(boxes_dataset: Callable[..., Path]) -> None:
    folder = boxes_dataset("pixel")
    require_frame(frame_arguments(folder, "boxes_train", grounding_frame="pixel"))
    with pytest.raises(ValueError, match=r"grounding_frame is norm1000.*boxes_train.json are in the frame pixel"):
        require_frame(frame_arguments(folder, "boxes_train", grounding_frame="norm1000"))
