"""Control tokens are found by name, those of a checkpoint too."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medvl.control_tokens import BOX_MARKUP, KNOWN, control_tokens, known_control_tokens


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What is shown?", []),
        ("a < b and b > c", []),
        ("<|image_pad|>What is shown?", ["<|image_pad|>"]),
        ("one <IMG_CONTEXT> two <IMG_CONTEXT> <|im_end|>", ["<IMG_CONTEXT>", "<|im_end|>"]),
        ("<ref>lesion</ref>", ["<ref>", "</ref>"]),
        ("<Img> is text, <img> is not", ["<img>"]),
        ("<think>is a word for a template, no token of images or turns</think>", []),
    ],
    ids=["plain", "comparison", "qwen placeholder", "repeated", "markup", "case", "think"],
)
def test_tokens_are_found_once_and_in_order(text: str, found: list[str]) -> None:
    assert control_tokens(text) == found


def test_the_list_holds_all_special_tokens_of_the_published_tokenizer(shared_data: Path) -> None:
    content = json.loads(gzip.decompress((shared_data / "tokenizers" / "qwen3.json.gz").read_bytes()))
    assert {token["content"] for token in content["added_tokens"] if token["special"]} <= KNOWN


@pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])
def test_special_tokens_of_a_checkpoint_are_read(tiny_checkpoint: Callable[[str], Path], family: str) -> None:
    from transformers import AutoTokenizer

    folder = tiny_checkpoint(family)
    assert set(AutoTokenizer.from_pretrained(folder).all_special_tokens) <= known_control_tokens(folder)


def test_a_tokens_own_special_token_is_found(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": "[SEG]", "special": True}]}))
    known = known_control_tokens(tmp_path)
    assert control_tokens("where [SEG]?", known) == ["[SEG]"]
    assert control_tokens("where [SEG]?") == []


def test_a_damaged_tokenizer_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(ValueError, match=r"tokenizer\.json: special tokens cannot be read"):
        known_control_tokens(tmp_path)


def test_markup_of_boxes_is_part_of_the_list() -> None:
    assert {"<ref>", "</box>", "<|box_start|>", "<|object_ref_end|>"} <= BOX_MARKUP < KNOWN
