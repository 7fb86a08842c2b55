"""Data that LLaMA-Factory cannot load, drops or cuts: the error names dataset, record and cure."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llamafactory")
from llamafactory.train.tuner import run_exp
from PIL import Image

from medvl.losses.structure import read_structure

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
Row = dict[str, Any]
LIST = '[{"bbox_2d":[104,187,417,688],"label":"lesion"},{"bbox_2d":[1,2,30,40],"label":"lesion"}]'


@pytest.fixture
def image(tmp_path: Path) -> str:
    """An image of 64 x 64 pixels, which is four tokens of either family."""
    Image.new("RGB", (64, 64), (9, 90, 200)).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


def record(image: str, name: str = "r/0", **changes: Any) -> Row:
    question, answer = changes.pop("question", "<image>\nWhich one?"), changes.pop("answer", "A")
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "conversations": turns, "images": [image]} | changes


@pytest.fixture
def train(tiny_recipe: Recipe, image: str, tmp_path: Path) -> Callable[..., None]:
    """`train({"train": rows, "val": rows}, entry={…}, **keys)`: one step on these files, under a medvl key."""

    def run(files: dict[str, Any], entry: Row | None = None, **keys: Any) -> None:
        tags = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
        columns = {"messages": "conversations", "images": "images"}
        shape = {"formatting": "sharegpt", "columns": columns, "tags": tags}
        entries = {}
        for name, rows in files.items():
            (tmp_path / f"{name}.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
            entries[name] = shape | {"file_name": f"{name}.json"} | (entry or {})
        (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
        keys = {"medvl_run_card": True, "dataset": "train", "dataset_dir": str(tmp_path), "default_system": ""} | keys
        if "val" in files:
            keys |= {"eval_dataset": "val", "do_eval": True}
        run_exp(tiny_recipe(keys.pop("family", "qwen3vl"), **{"max_steps": 1} | keys))

    return run


# What is changed in the second of two records or in the entry, and what the error says.
FAULTS: dict[str, tuple[Row, Row, str]] = {
    "image as text": ({"images": "{image}"}, {}, "`images` is a list in `train`, r/0 of .*, and a text in `train`, r"),
    "answer as number": ({"answer": 17}, {}, r"`conversations\[\]\.value` is a text in .*r/0.*, and a number in .*r/1"),
    "another key in two kinds": (
        {"source": {"answer": ["x"]}},
        {"_first": {"source": {"answer": "x"}}},
        "`source.answer` is a text in .*r/0.* and a list in .*r/1",
    ),
    "column that nobody has": (
        {},
        {"columns": {"messages": "conversations", "images": "image"}},
        "`train`: .* reads images from the column `image`, which no record of .*train.json has; they have con",
    ),
    "entry without formatting": ({}, {"formatting": "alpaca"}, "`train`: .* set `formatting: sharegpt`"),
    "other tags": (
        {"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "A"}]},
        {},
        "r/1 of .*: a turn has no `from` but role, content; set `tags`",
    ),
    "tags without images": ({"question": "<image><image> q"}, {}, "r/1 of .*: 2 <image> tags but 1 images; run the"),
    "image that is not there": ({"images": ["/no/such.png"]}, {}, "r/1 of .*: /no/such.png cannot be read"),
    "image that is none": ({"images": ["{text}"]}, {}, "r/1 of .*text.png cannot be read .*cannot identify"),
    "question without answer": (
        {"conversations": [{"from": "human", "value": "<image>q"}]},
        {},
        "LLaMA-Factory dropped 1 of 2 records:\n`train`, r/1 of .*: its turns are human and not human, gpt in turn",
    ),
    "two answers": (
        {"conversations": [{"from": "human", "value": "<image>q"}, *[{"from": "gpt", "value": "A"}] * 2]},
        {},
        "r/1 of .*: its turns are human, gpt, gpt and not",
    ),
    "file that is not there": ({}, {"file_name": "other.json"}, "`train`: .*other.json is not there; .* correct `fi"),
}


@pytest.mark.parametrize(("changes", "entry", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_dataset_record_and_cure(
    changes: Row, entry: Row, message: str, train: Callable[..., None], image: str, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no image")
    filled = json.loads(json.dumps(changes).replace("{image}", image).replace("{text}", str(tmp_path / "text.png")))
    entry = dict(entry)
    first = entry.pop("_first", {})
    with pytest.raises(ValueError, match=f"(?s){message}"):
        train({"train": [record(image, **first), record(image, "r/1", **filled)]}, entry)


def test_an_entry_that_is_not_there_is_told_with_the_nearest(train: Callable[..., None], image: str) -> None:
    with pytest.raises(ValueError, match=r"`trian`: .*dataset_info.json has no such entry; did you mean `train`"):
        train({"train": [record(image)]}, dataset="trian")


@pytest.mark.parametrize("empty", ["train", "val"])
def test_a_set_without_a_record_is_named(empty: str, train: Callable[..., None], image: str) -> None:
    files = {"train": [record(image)], "val": [record(image)]} | {empty: []}
    with pytest.raises(ValueError, match=rf"`{empty}`: .*{empty}.json holds no record; leave the entry out of"):
        train(files)


@pytest.mark.parametrize("text", ["[{", '{"id": 1}{', "no"])
def test_a_file_that_is_no_json_is_named(text: str, train: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match=r"train.json: no JSON \(.*\); run the preprocess script"):
        train({"train": text})


def test_without_a_medvl_key_errors_are_llamafactorys(train: Callable[..., None], image: str) -> None:
    with pytest.raises(KeyError, match="image"):
        train({"train": [record(image)]}, {"columns": {"messages": "conversations", "images": "image"}},
              medvl_run_card=False)  # fmt: skip


def test_an_error_that_nothing_explains_stays_and_names_the_data(
    train: Callable[..., None], image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("llamafactory.data.loader.align_dataset", fail)
    with pytest.raises(OSError, match="No space left on device") as caught:
        train({"train": [record(image)]})
    assert "medvl: while loading train of" in caught.value.__notes__[0]


ALPACA = {"formatting": "alpaca", "columns": {"prompt": "ask", "response": "reply", "images": "images"}}
UNANSWERED = {"null": ({"reply": None}, "null"), "missing": ({}, "null")}


@pytest.mark.parametrize(("answer", "kind"), UNANSWERED.values(), ids=UNANSWERED)
def test_an_alpaca_record_without_an_answer_is_not_dropped_in_silence(
    answer: Row, kind: str, train: Callable[..., None], image: str
) -> None:
    rows = [{"id": f"r/{index}", "ask": "<image>\nWhich one?", "images": [image]} for index in range(3)]
    rows = [rows[0] | {"reply": "A"}, rows[1] | answer, rows[2] | {"reply": "B"}]
    message = rf"(?s)dropped 1 of 3 records:\n`train`, r/1 of .*: its answer `reply` is a {kind} and no text"
    with pytest.raises(ValueError, match=message):
        train({"train": rows}, ALPACA)


# cutoff_len

LONG = "<image>\n" + "word " * 60
WHERE: dict[str, tuple[str, Row, dict[str, Any], str]] = {
    "images": ("train", {}, {"cutoff_len": 8}, "8 tokens do not hold images and question of 2 records of the training"),
    "images of InternVL": (
        "train",
        {},
        {"cutoff_len": 8, "family": "internvl3"},
        "8 tokens do not hold .* of 2 records",
    ),
    "question": ("train", {"question": LONG}, {"cutoff_len": 64}, "64 tokens do not hold .* of 1 record of the train"),
    "evaluated question": (
        "val",
        {"question": LONG},
        {"cutoff_len": 64},
        "64 tokens do not hold .* of 1 record of the eval data",
    ),
    "asked question": (
        "val",
        {"question": LONG},
        {"cutoff_len": 64, "predict_with_generate": True},
        "64 tokens do not hold .* of 1 record of the eval data",
    ),
}


SEVERAL = {
    "conversations": [
        {"from": speaker, "value": text}
        for speaker, text in (("human", "<image>\nWhich one?"), ("gpt", "A"), ("human", "word " * 60), ("gpt", "B"))
    ]
}
WHERE["later question"] = (
    "train",
    SEVERAL,
    {"cutoff_len": 64},
    "64 tokens do not hold .* of 1 record of the train",
)


@pytest.mark.parametrize(("split", "changes", "keys", "message"), WHERE.values(), ids=WHERE)
def test_images_and_questions_that_do_not_fit_are_refused_by_record(
    split: str, changes: Row, keys: Row, message: str, train: Callable[..., None], image: str
) -> None:
    """Training would end in a shape mismatch, or go on without the question."""
    files = {"train": [record(image), record(image, "r/1")], "val": [record(image), record(image, "r/1")]}
    files[split][1] = record(image, "r/1", **changes)
    pattern = rf"(?s)cutoff_len: {message}.*`{split}`, r/1 of .*{split}.json, record 1: \d+ tokens\nRaise cutoff_len"
    with pytest.raises(ValueError, match=pattern):
        train(files, **keys)


def test_the_tokens_that_are_named_are_enough(train: Callable[..., None], image: str) -> None:
    files = {"train": [record(image), record(image, "r/1", question=LONG)]}
    with pytest.raises(ValueError, match="cutoff_len") as caught:
        train(files, cutoff_len=64)
    needed = int(str(caught.value).split("record 1: ")[1].split()[0])
    train(files, cutoff_len=needed)
    with pytest.raises(ValueError, match=f"record 1: {needed} tokens"):
        train(files, cutoff_len=60, overwrite_output_dir=True)


def test_cut_answers_are_said_by_record(
    train: Callable[..., None], image: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"train": [record(image), record(image, "r/1", answer=LIST)]}
    with caplog.at_level(logging.WARNING):
        train(files, cutoff_len=60)
    assert "cutoff_len: 60 tokens cut off the end of the answer of 1 record of the training data" in caplog.text
    assert "`train`, r/1 of" in caplog.text


@pytest.mark.parametrize(("cutoff", "lists"), [(60, 1), (512, 0)])
def test_grounding_loss_counts_lists_that_were_cut(
    cutoff: int, lists: int, train: Callable[..., None], image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"train": [record(image), record(image, "r/1", answer=LIST)]}
    with caplog.at_level(logging.WARNING):
        train(files, cutoff_len=cutoff, use_grounding_loss=True)
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    assert log[0]["boxes_cut"] == lists
    assert ("grounding loss: 1 lists of boxes so far were cut off by `cutoff_len`" in caplog.text) is bool(lists)


STOP = "<|im_end|>"
CUT: dict[str, tuple[str, bool]] = {
    "whole": (f"{LIST}{STOP}\n", False),
    "in a coordinate": ('[{"bbox_2d":[104,18', True),
    "between objects": (LIST.split(",{")[0], True),
    "behind a comma": (LIST.split("{")[1], True),
    "whole without its end token": (LIST, True),
    "flat list": ("[[1,2,3,4],[5,6", True),
    "tags": ("<ref>cat</ref><box>[[1,2,3,4]]</box><ref>c", True),
    "open tag": ("<ref>cat</ref><box>", True),
    "damaged by the source": (f'[{{"bbox_2d":[104,18{STOP}\n', False),
    "free text": ("No lesion is se", False),
    "nothing there": (f"[]{STOP}", False),
}


@pytest.mark.parametrize(("text", "cut"), CUT.values(), ids=CUT)
def test_a_list_is_cut_where_its_end_token_is_missing(text: str, cut: bool) -> None:
    assert read_structure(text, STOP).cut is cut
