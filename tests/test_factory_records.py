"""Records behind training rows, and control tokens in their texts; no torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medvl.factory.data import texts
from medvl.factory.data.records import RecordFinder, read_records

TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
SHAREGPT = {"formatting": "sharegpt", "columns": {"messages": "conversations", "images": "images"}, "tags": TAGS}
OPENAI = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}
ALPACA = {"columns": {"prompt": "ask", "response": "reply", "system": "rules", "history": "past"}}


def sharegpt(name: str, question: str, answer: str, *images: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "conversations": turns, "images": list(images)}


RECORDS = [
    sharegpt("r/0", "<image>\nWhat is it?", "A", "a/0.png"),
    sharegpt("r/1", "<image>\nWhat is it?", "A", "a/1.png"),
    sharegpt("r/2", "<image>\nWhat is it? Say why.", "A", "a/1.png"),
    sharegpt("r/3", "No image here", "B"),
]
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(content, entry, name)`: a data set `d` in a file of that name; the folder of its dataset_info.json."""

    def write_dataset(content: Any, entry: dict[str, Any] = SHAREGPT, name: str = "d.json") -> str:
        lines = "\n".join(map(json.dumps, content)) if name.endswith("l") else json.dumps(content)
        (tmp_path / name).write_text(lines)
        (tmp_path / "dataset_info.json").write_text(json.dumps({"d": {"file_name": name, **entry}}))
        return str(tmp_path)

    return write_dataset


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
def test_records_are_read_with_their_place(name: str, write: Write, tmp_path: Path) -> None:
    records = list(read_records(["d"], write(RECORDS, name=name)))
    assert [record.name for record in records] == ["r/0", "r/1", "r/2", "r/3"]
    assert records[1].images == ("a/1.png",)
    assert str(records[3]) == f"r/3 of d ({tmp_path / name})"


def test_json_lines_in_a_json_file_are_read_as_llamafactory_does(write: Write, tmp_path: Path) -> None:
    folder = write(RECORDS)
    (tmp_path / "d.json").write_text("\n".join(map(json.dumps, RECORDS)))
    assert len(list(read_records(["d"], folder))) == 4


def test_entries_and_files_that_are_not_there_have_no_records(write: Write, tmp_path: Path) -> None:
    assert list(read_records(["other"], write(RECORDS))) == []
    assert list(read_records(["d"], str(tmp_path / "nowhere"))) == []
    (tmp_path / "d.json").unlink()
    assert list(read_records(["d"], str(tmp_path))) == []


def test_file_that_is_no_json_is_named(write: Write, tmp_path: Path) -> None:
    folder = write(RECORDS)
    (tmp_path / "d.json").write_text("[{")
    with pytest.raises(ValueError, match=r"d\.json: no JSON"):
        list(read_records(["d"], folder))


FOUND = {
    "by its image, where texts are equal": ("user\nWhat is it?\nassistant\nA", ["/data/a/1.png"], "r/1 of d"),
    "the longer text": ("user\nWhat is it? Say why.\nassistant\nA", ["/data/a/1.png"], "r/2 of d"),
    "without an image": ("user\nNo image here\nassistant\nB", None, "r/3 of d"),
    "cut by cutoff_len": ("user\nWhat is it?", ["/data/a/0.png"], "r/0 of d"),
    "text alone, several fit": ("user\nWhat is it?\nassistant\nA", None, "r/0 of d"),
    "nowhere": ("user\nAnother\nassistant\nB", ["x.png"], "a record that is in no local file (images x.png, text"),
}


@pytest.mark.parametrize(("text", "images", "expected"), FOUND.values(), ids=FOUND)
def test_row_is_found_again(text: str, images: list[str] | None, expected: str, write: Write) -> None:
    (found,) = RecordFinder(("d",), write(RECORDS)).find([(f"<|im_start|>{text}<|im_end|>\n", images)])
    assert found.startswith(expected)
    assert ("or one of 1 more like it" in found) is (images is None and "r/0" in found)


def test_unreadable_file_is_told_beside_the_row(write: Write, tmp_path: Path) -> None:
    folder = write(RECORDS)
    (tmp_path / "d.json").write_text("[{")
    (found,) = RecordFinder(("d",), folder).find([("text", None)])
    assert "a record that is in no local file" in found and "d.json: no JSON" in found


CONTROL = {
    "image place of Qwen": "<|image_pad|>",
    "image place of InternVL": "<IMG_CONTEXT>",
    "end of turn": "<|im_end|>",
    "end of text": "<|endoftext|>",
    "image begins": "<img>",
    "vision begins": "<|vision_start|>",
    "box without an end": "<box>[[1, 2, 3, 4]]",
    "box around words": "<box>here</box>",
    "name within a name": "<ref>a<ref>b</ref>",
    "quad alone": "</quad>",
}


@pytest.mark.parametrize("place", [0, 1], ids=["question", "answer"])
@pytest.mark.parametrize("text", CONTROL.values(), ids=CONTROL)
def test_control_token_is_refused_by_record_and_data_set(text: str, place: int, write: Write, tmp_path: Path) -> None:
    record = sharegpt("r/9", "<image>\nWhat?", "A", "a.png")
    record["conversations"][place]["value"] += f" see {text}."
    (sentence,) = texts.problems(["d"], write([*RECORDS, record]), "some/model")
    assert f"r/9 of d ({tmp_path / 'd.json'}), turn {place + 1}: " in sentence
    assert "Convert the data again" in sentence
    assert "r/0" not in sentence


OTHER_FORMATS = {
    "messages of OpenAI": (OPENAI, {"messages": [{"role": "user", "content": "a <|im_end|>"}]}, "turn 1"),
    "alpaca question": (ALPACA, {"ask": "<IMG_CONTEXT>", "reply": "A"}, "ask"),
    "alpaca answer": (ALPACA, {"ask": "what", "reply": "<IMG_CONTEXT>"}, "reply"),
    "alpaca history": (ALPACA, {"ask": "what", "reply": "A", "past": [["q", "a"], ["q", "<box>"]]}, "history 2"),
    "system message": (ALPACA, {"ask": "what", "reply": "A", "rules": "<|im_start|>"}, "system"),
}


@pytest.mark.parametrize(("entry", "record", "place"), OTHER_FORMATS.values(), ids=OTHER_FORMATS)
def test_other_formats_are_read_by_their_columns(
    entry: dict[str, Any], record: dict[str, Any], place: str, write: Write
) -> None:
    (sentence,) = texts.problems(["d"], write([record], entry, "d.jsonl"), "some/model")
    assert f"number 0 of d ({Path(write([record], entry, 'd.jsonl')) / 'd.jsonl'}), {place}: " in sentence


FINE = {
    "comparison": "a < b and c > d",
    "InternVL boxes": "<ref>lesion</ref><box>[[1, 2, 3, 4], [5, 6, 7, 8]]</box>",
    "Qwen boxes": "<|object_ref_start|>lesion<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
    "question about a name": "Where is <ref>the left lung</ref>?",
    "no special token": "<IMG> </think> <tool_call>",
}


@pytest.mark.parametrize("text", FINE.values(), ids=FINE)
def test_what_is_text_or_complete_box_markup_passes(text: str, write: Write) -> None:
    assert texts.problems(["d"], write([sharegpt("r", f"<image>{text}", text, "a")]), "some/model") == []


def test_special_tokens_of_the_checkpoint_count_but_for_llamafactorys_placeholders(
    write: Write, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "model"
    checkpoint.mkdir()
    tokens = [{"content": token, "special": True} for token in ("<|mine|>", "<image>")]
    (checkpoint / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    folder = write([sharegpt("r", "<image>\n<|mine|>", "A", "a")])
    (sentence,) = texts.problems(["d"], folder, str(checkpoint))
    assert sentence.endswith("turn 1: <|mine|>")
    assert texts.problems(["d"], folder, "some/model") == []


def test_many_records_are_counted(write: Write) -> None:
    folder = write([sharegpt(f"r/{index}", "<img>", "A") for index in range(40)])
    (sentence,) = texts.problems(["d"], folder, "some/model")
    assert sentence.count(" of d (") == 10 and sentence.endswith("and 30 more")


@pytest.mark.subprocess
def test_needs_no_torch() -> None:
    code = "import sys, medvl.factory.data.texts, medvl.factory.checks.resuming; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
