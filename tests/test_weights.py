"""Which tensors of a folder are no numbers."""

import math
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import save_file

from medvl import weights

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e5m2)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_element_that_is_no_number_names_its_tensor(dtype: "torch.dtype", value: float, tmp_path: Path) -> None:
    broken = torch.ones(3, 5)
    broken[2, 4] = value
    save_file({"b.weight": broken.to(dtype), "a.weight": torch.ones(2).to(dtype)}, tmp_path / "adapter.safetensors")
    assert weights.nonfinite_tensors(tmp_path) == ["adapter.safetensors: b.weight"]


def test_sound_weights_whole_numbers_and_empty_tensors_are_fine(tmp_path: Path) -> None:
    largest = torch.tensor([torch.finfo(torch.bfloat16).max]).bfloat16()
    sound = {"packed": torch.full((4,), 255, dtype=torch.uint8), "none": torch.empty(0), "largest": largest}
    save_file(sound, tmp_path / "model.safetensors")
    assert weights.nonfinite_tensors(tmp_path) == []


def test_every_shard_is_read_and_no_checkpoint_below(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    for name in ("model-2-of-2", "model-1-of-2", "checkpoint-1/model"):
        save_file({"w": torch.tensor([math.nan])}, tmp_path / f"{name}.safetensors")
    assert weights.nonfinite_tensors(tmp_path) == ["model-1-of-2.safetensors: w", "model-2-of-2.safetensors: w"]


def test_the_last_element_of_a_large_tensor_counts(tmp_path: Path) -> None:
    """A tensor is looked at in pieces; this one has more elements than a piece."""
    large = torch.zeros(2**26 + 1, dtype=torch.int8).view(torch.float8_e5m2)
    large.view(torch.int8)[-1] = 0x7F
    save_file({"w": large}, tmp_path / "model.safetensors")
    assert weights.nonfinite_tensors(tmp_path) == ["model.safetensors: w"]


def test_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    save_file({"w": torch.ones(100)}, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-50])
    with pytest.raises(ValueError, match=r"model\.safetensors: the weights cannot be read"):
        weights.nonfinite_tensors(tmp_path)


def test_folder_without_weights_has_none_broken(tmp_path: Path) -> None:
    assert weights.nonfinite_tensors(tmp_path) == []
