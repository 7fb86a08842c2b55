from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, InternVLConfig, Qwen3VLConfig

from medvl.predict.memory import MOST, bytes_per_token, fitting, questions_at_once

# Sizes of Qwen3-VL-8B and InternVL3-8B.
CONFIGS = {
    "qwen3vl": Qwen3VLConfig(
        text_config={"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "head_dim": 128,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936},
        vision_config={"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16},
    ),
    "internvl3": InternVLConfig(
        text_config={"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
                     "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 151674},
        vision_config={"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096},
    ),
}  # fmt: skip
GB = 1e9


@pytest.mark.parametrize("family", CONFIGS)
def test_keys_and_values_are_in_the_bytes_of_a_token(family: str) -> None:
    text = CONFIGS[family].get_text_config()
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * 128
    assert bytes_per_token(CONFIGS[family], 2) > 2 * cache
    assert bytes_per_token(CONFIGS[family], 4) == 2 * bytes_per_token(CONFIGS[family], 2)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(
    ("free", "tokens", "least", "most"),
    [
        pytest.param(-1.0, 500, 1, 1, id="no memory is left"),
        pytest.param(1 * GB, 100_000, 1, 1, id="one does not fit: it is tried"),
        pytest.param(8 * GB, 3_000, 4, 20, id="reports on 24 GB"),
        pytest.param(60 * GB, 3_000, 50, MOST, id="reports on 80 GB"),
        pytest.param(60 * GB, 400, MOST, MOST, id="letters on 80 GB"),
    ],
)
def test_questions_that_fit(family: str, free: float, tokens: int, least: int, most: int) -> None:
    assert least <= fitting(free, CONFIGS[family], torch.bfloat16, tokens) <= most


@pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])
def test_configs_of_checkpoints_have_it_all(family: str, tiny_checkpoint: Callable[[str], Path]) -> None:
    assert fitting(GB, AutoConfig.from_pretrained(tiny_checkpoint(family)), torch.float32, 300) == MOST


def test_without_a_gpu_there_is_nothing_to_say() -> None:
    assert questions_at_once(SimpleNamespace(device=torch.device("cpu")), 100) is None
