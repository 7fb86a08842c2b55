"""Tiny checkpoints are real checkpoints: they load by the Auto classes, tokenize as the real ones do and see images."""

import gzip
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402
from PIL import Image  # noqa: E402

from medvl.demo.checkpoints import Family, build_checkpoint  # noqa: E402
from medvl.demo.tokenizer import read_bpe, train_bpe  # noqa: E402

FAMILIES: list[Family] = ["qwen3vl", "internvl3"]


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(request.param, tmp_path_factory.mktemp("checkpoint") / request.param)


def test_it_is_small(checkpoint: Path) -> None:
    assert (checkpoint / "model.safetensors").stat().st_size < 2_000_000


def test_every_digit_is_one_token_and_box_json_comes_back_unchanged(checkpoint: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    text = '[{"bbox_2d":[137,20,999,1000],"label":"lesion"}]'
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    pieces = [tokenizer.decode([index]) for index in ids]
    assert all(not any(char.isdigit() for char in piece) or len(piece) == 1 for piece in pieces), pieces


def test_an_image_changes_the_logits(checkpoint: Path) -> None:
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    model = transformers.AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    logits = []
    for tint in ((250, 10, 10), (10, 10, 250)):
        batch = processor(images=[Image.new("RGB", (64, 48), tint)], text=[prompt], return_tensors="pt")
        with torch.no_grad():
            logits.append(model(**batch).logits[0, -1])
    assert torch.isfinite(logits[0]).all()
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_same_bytes_other_seed_other_weights(family: Family, tmp_path: Path) -> None:
    corpus = ["Find every lesion.", "How many cells? 12"]
    first = build_checkpoint(family, tmp_path / "first", corpus=corpus)
    second = build_checkpoint(family, tmp_path / "second", corpus=corpus)
    other = build_checkpoint(family, tmp_path / "other", corpus=corpus, seed=1)
    for file in sorted(path.name for path in first.iterdir()):
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    weights = "model.safetensors"
    assert (first / weights).read_bytes() != (other / weights).read_bytes()


def test_the_random_state_of_the_caller_is_left_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    build_checkpoint("internvl3", tmp_path / "checkpoint", corpus=["a b c"])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("joined", [False, True], ids=["pairs", "joined by a blank"])
def test_a_published_tokenizer_is_read(packed: bool, joined: bool, tmp_path: Path) -> None:
    vocab, merges = train_bpe(["Find every lesion, lesion, lesion."], 270)
    listed = [" ".join(pair) if joined else list(pair) for pair in merges]
    raw = json.dumps({"model": {"vocab": vocab, "merges": listed}}).encode()
    file = tmp_path / ("tokenizer.json.gz" if packed else "tokenizer.json")
    file.write_bytes(gzip.compress(raw) if packed else raw)
    assert merges and read_bpe(file) == (vocab, merges)
