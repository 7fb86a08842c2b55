"""The model in this process: it is asked as it was trained, by the right adapter, and nothing ends a run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.data.collator import SFTDataCollatorWith4DAttentionMask
from llamafactory.extras.constants import IGNORE_INDEX
from llamafactory.hparams import get_train_args
from llamafactory.model import load_model, load_tokenizer
from llamafactory.train.tuner import run_exp
from PIL import Image

from evaluation.run import main as evaluate
from medvl.cli import main
from medvl.factory.run_card import Prompt, Vision, write_run_card
from medvl.predict.batching import Batches
from medvl.predict.in_process import InProcess
from medvl.predict.plan import Request, ask
from medvl.predict.questions import Question
from medvl.predict.setup import ModelOptions, Setup, read_setup
from medvl.predict.writer import Row
from medvl.profiles import GENERAL, Generation, Profiles, read_profiles
from medvl.router.route import Route
from medvl.tasks import Task
from tests.support.records import a_card
from tests.support.tiny_dataset import TEMPLATES

pytestmark = pytest.mark.training

Marked = Callable[[str], Path]
LETTERS = dict(zip((*map(str, Task), GENERAL), "ABCDEFGIH", strict=True))
ASKED = [task for task in Task if task is not Task.VQA]  # by the tree of questions
families = pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])


@pytest.fixture(autouse=True)
def pristine_templates() -> Any:
    """LLaMA-Factory writes `default_system` into its table of templates, for good."""
    from llamafactory.data.template import TEMPLATES as TABLE

    before = {name: TABLE[name].default_system for name in TEMPLATES.values()}
    yield
    for name, system in before.items():
        TABLE[name].default_system = system


def predict(out: Path, tree: Path, marked: Path, *options: str, adapters: bool = True) -> tuple[int, list[Row]]:
    """Exit code and the rows of the file."""
    command = ["predict", "--data", str(tree), "--model", str(marked / "base"), "--out", str(out), *options]
    code = main([*command, *(["--adapters", str(marked / "adapters")] if adapters else [])])
    return code, [msgspec.json.decode(line, type=Row) for line in out.read_bytes().splitlines()]


def short_profiles(folder: Path, **changes: dict[str, Any]) -> Path:
    """A profiles file whose answers have at most 6 tokens."""
    profiles = {name: {"max_new_tokens": 6} | changes.get(name, {}) for name in LETTERS}
    (folder / "profiles.yaml").write_text(json.dumps(profiles))
    return folder / "profiles.yaml"


# --- Who answers ------------------------------------------------------------------------------------------------------


@families
def test_every_task_is_answered_by_its_own_adapter_and_the_rest_by_general(
    family: str, marked_adapters: Marked, question_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    switched: list[str] = []
    switch = PeftModel.set_adapter
    monkeypatch.setattr(PeftModel, "set_adapter", lambda self, name: (switched.append(name), switch(self, name)))
    profiles = short_profiles(tmp_path, counting={"min_confidence": 0.99})
    out = tmp_path / "p.jsonl"
    code, rows = predict(out, question_tree, marked_adapters(family), "--profiles", str(profiles), "--batch-size", "2")
    expected = [*ASKED[:4], GENERAL, *ASKED[5:], GENERAL]  # counting is not sure enough, the last of no task
    assert code == 0
    assert [row.task for row in rows] == expected
    assert [row.prediction for row in rows] == [LETTERS[task] for task in expected]
    assert [row.adapter for row in rows] == expected
    assert [row.finish for row in rows] == ["stop"] * 8
    # The first adapter is switched on when it is loaded, all are when they are tried, and again before they are asked.
    assert len(switched) - 2 * len(set(switched)) <= 1, "once per group"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(["--no-router"], "HHHHHHHH", id="without a router"),
        pytest.param(["--oracle-task"], "ABCDEFGH", id="by their own task"),
        pytest.param(["--limit", "3"], "ABC", id="the first three"),
        pytest.param(["--shard", "2/3"], "BEH", id="a shard"),
    ],
)
def test_options_choose_adapters_and_questions(
    options: Sequence[str], expected: str, marked_adapters: Marked, question_tree: Path, tmp_path: Path
) -> None:
    profiles = str(short_profiles(tmp_path))
    _, rows = predict(
        tmp_path / "p.jsonl", question_tree, marked_adapters("internvl3"), "--profiles", profiles, *options
    )
    assert "".join(row.prediction for row in rows) == expected


def test_one_adapter_may_answer_everything_and_none_is_the_base_model(
    marked_adapters: Marked, question_tree: Path, tmp_path: Path
) -> None:
    marked, profiles = marked_adapters("internvl3"), ["--profiles", str(short_profiles(tmp_path))]
    adapter = ["--adapter", str(marked / "adapters" / "counting")]
    _, rows = predict(tmp_path / "one.jsonl", question_tree, marked, *profiles, *adapter, adapters=False)
    assert [(row.prediction, row.adapter) for row in rows] == [("E", "counting")] * 8
    assert len({row.task for row in rows}) == 8, "profiles are still chosen by task"
    _, rows = predict(tmp_path / "none.jsonl", question_tree, marked, *profiles, adapters=False)
    assert {row.adapter for row in rows} == {None}
    assert not {row.prediction for row in rows} & set("ABCDEFGH")
    by_base = ["--profiles", str(short_profiles(tmp_path, counting={"adapter": None}))]
    _, mixed = predict(tmp_path / "mixed.jsonl", question_tree, marked, *by_base)
    assert [row.adapter for row in mixed] == [*ASKED[:4], None, *ASKED[5:], GENERAL]
    assert mixed[4].prediction == rows[4].prediction, "adapters are off for the base model"
    assert [row.prediction for row in mixed[5:]] == ["F", "G", "H"]


# --- Asked as trained -------------------------------------------------------------------------------------------------


def loaded(base: Path, **changes: Any) -> tuple[Setup, InProcess]:
    setup = read_setup({}, ModelOptions(str(base)))
    setup = replace(setup, base=replace(setup.base, **changes))
    return setup, InProcess(setup)


def as_asked(setup: Setup, record: dict[str, Any], profiles: Profiles | None = None) -> Request:
    head, tag, text = record["conversations"][0]["value"].rpartition("<image>\n")
    images = tuple(map(Path, record["images"]))
    question = Question(record["id"], "tiny", text, head + tag, images, True, None, None, Path("q.json"), 0)
    route = Route("detection", 1.0, "rules")
    return ask(question, route, profiles or read_profiles(None), lambda _: setup.base, setup.identity)


@families
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("system", ["", "You are a careful radiologist."])
def test_prompts_and_pixels_are_those_of_training_byte_for_byte(
    family: str, crop: bool, system: str, tiny_recipe: Callable[..., dict[str, Any]], tiny_dataset: Path
) -> None:
    budget = {"image_max_pixels": 48 * 48, "image_min_pixels": 32 * 32}
    recipe = tiny_recipe(family, default_system=system, cutoff_len=4096, crop_to_patches=crop, **budget)
    model_args, data_args, training_args, finetuning_args, _ = get_train_args(recipe)
    tokenizer_module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(tokenizer_module["tokenizer"], data_args)
    dataset = get_dataset(template, model_args, data_args, training_args, stage="sft", **tokenizer_module)
    model = load_model(tokenizer_module["tokenizer"], model_args, finetuning_args, is_trainable=False)
    collate = SFTDataCollatorWith4DAttentionMask(
        template=template, model=model, pad_to_multiple_of=8, label_pad_token_id=IGNORE_INDEX, **tokenizer_module
    )
    setup, asking = loaded(Path(recipe["model_name_or_path"]), system=system, crop_to_patches=crop, **budget)
    backend_spec = Batches(asking)
    records = json.loads((tiny_dataset / "tiny_train.json").read_text())
    assert {len(record["images"]) for record in records} == {1, 2}
    for record, trained in zip(records, dataset["train_dataset"], strict=True):
        prompt = [token for token, label in zip(trained["input_ids"], trained["labels"], strict=True) if label < 0]
        prepared = backend_spec.prepare([as_asked(setup, record)])
        batch = collate([dict(trained)])
        assert prepared.ready[0][1].tokens == prompt
        assert prepared.collated["input_ids"].tolist() == [prompt]
        pixels = prepared.collated["pixel_values"]
        assert pixels.dtype == batch["pixel_values"].dtype
        assert pixels.numpy().tobytes() == batch["pixel_values"].numpy().tobytes()
        if family == "qwen3vl":
            assert torch.equal(prepared.collated["image_grid_thw"], batch["image_grid_thw"])


@families
def test_answers_are_those_of_llamafactorys_do_predict(
    family: str, trained_adapter: Callable[[str], tuple[Path, dict[str, Any]]], tiny_dataset: Path, tmp_path: Path
) -> None:
    """An adapter that was trained a little, asked through its run card alone, and by LLaMA-Factory with its recipe."""
    trained, recipe = trained_adapter(family)
    predicted = str(tmp_path / "predicted")
    generation = {"do_predict": True, "predict_with_generate": True, "do_sample": False, "max_new_tokens": 12}
    prediction = {"do_train": False, "dataset": None, "eval_dataset": "tiny_val", "adapter_name_or_path": str(trained)}
    more = {"output_dir": predicted, "per_device_eval_batch_size": 1, "medvl_run_card": False}
    run_exp(recipe | generation | prediction | more | {"medvl_image_positions": family == "qwen3vl"})
    lines = (Path(predicted) / "generated_predictions.jsonl").read_text().splitlines()
    setup = read_setup({"adapter": trained}, ModelOptions())
    adapter_spec = setup["adapter"]
    assert (adapter_spec.system, adapter_spec.image_max_pixels) == (
        recipe["default_system"],
        recipe["image_max_pixels"],
    )
    records = json.loads((tiny_dataset / "tiny_val.json").read_text())
    asked = [as_asked(replace(setup, base=adapter_spec), record) for record in records]
    short = replace(asked[0].profile, generation=Generation(12))
    (replies,) = Batches(InProcess(setup)).answers([[replace(item, profile=short) for item in asked]])
    texts = [reply.text for _, reply in replies]
    assert texts == [json.loads(line)["predict"] for line in lines]
    assert any(texts)


@pytest.mark.parametrize(
    ("family", "written", "text"),
    [
        pytest.param("qwen3vl", "A<|im_end|>", "A", id="the end"),
        pytest.param("qwen3vl", "A<|quad_end|>B<|im_end|>", "A", id="a special token ends as in do_predict"),
        pytest.param("internvl3", "A<IMG_CONTEXT>B", "A", id="InternVL's too"),
        pytest.param("internvl3", "A</quad>B", "A", id="a lone tag"),
        pytest.param("internvl3", "A<box>B", "A", id="a lone tag of a box"),
        pytest.param(
            "internvl3",
            "<ref>lesion</ref><box>[[1, 2, 3, 4]]</box><|im_end|>",
            "<ref>lesion</ref><box>[[1, 2, 3, 4]]</box>",
            id="tags in pairs stay, or the label would go",
        ),
        pytest.param(
            "qwen3vl",
            "<|object_ref_start|>cell<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|><|im_end|>",
            "<|object_ref_start|>cell<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
            id="Qwen's pairs",
        ),
        pytest.param("qwen3vl", "<think>x</think>A<|im_end|>", "<think>x</think>A", id="added, not special"),
    ],
)
def test_the_text_of_an_answer_is_that_of_do_predict(
    family: str, written: str, text: str, tiny_checkpoint: Marked
) -> None:
    _, asking = loaded(tiny_checkpoint(family))
    tokens = asking.tokenizer.encode(written, add_special_tokens=False)
    reply = asking.reply(tokens, asking.generation(Generation(99)))
    assert (reply.text, reply.finish) == (text, "stop")


@families
def test_a_control_token_in_a_question_is_refused_by_name(
    family: str, marked_adapters: Marked, question_tree: Path, tmp_path: Path
) -> None:
    """`StopIteration: ` it was, from an image token without an image."""
    (file,) = question_tree.rglob("*_val.json")
    questions = json.loads(file.read_text())
    for place, token in ((0, "<|image_pad|>"), (2, "<IMG_CONTEXT>"), (4, "<|im_end|>")):
        questions[place]["Question"] = f"What is {token} here?"
    file.write_text(json.dumps(questions))
    options = ["--profiles", str(short_profiles(tmp_path)), "--oracle-task"]
    code, rows = predict(tmp_path / "p.jsonl", question_tree, marked_adapters(family), *options)
    assert (code, "".join(row.prediction for row in rows)) == (4, "BDFGH")
    for place, token in ((0, "<|image_pad|>"), (2, "<IMG_CONTEXT>"), (4, "<|im_end|>")):
        assert f"the question holds {token}" in (rows[place].error or "")


def test_control_tokens_are_those_of_the_checkpoints_own_tokenizer(tiny_checkpoint: Marked, tmp_path: Path) -> None:
    """One that no published tokenizer has. Earlier answers and instructions may hold the tags of boxes."""
    import shutil

    from transformers import AutoTokenizer

    base = tmp_path / "base"
    shutil.copytree(tiny_checkpoint("qwen3vl"), base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<|lesion|>"], special_tokens=True)
    tokenizer.save_pretrained(base)
    setup, asking = loaded(base)
    record = {"id": "r", "conversations": [{"value": "Where is <|lesion|>?"}], "images": []}
    (refused,) = Batches(asking).prepare([as_asked(setup, record)]).refused
    assert "the question holds <|lesion|>" in (refused[1].error or "")
    assert asking.control_tokens("<image>?", "<ref>x</ref><box>[[1,2,3,4]]</box>") == []


def test_raw_images_are_mended_as_in_training(tiny_checkpoint: Marked, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient = Image.linear_gradient("L").resize((60, 90))
    gradient.save(tmp_path / "rotated.png", exif=exif)
    gradient.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    setup, asking = loaded(tiny_checkpoint("qwen3vl"))
    record = {"id": "r", "conversations": [{"value": "<image>\nWhere?"}]}
    pixels = []
    for name, normalised in (("rotated.png", False), ("upright.png", True)):
        asked = as_asked(setup, record | {"images": [str(tmp_path / name)]})
        asked = replace(asked, question=replace(asked.question, normalised=normalised))
        pixels.append(Batches(asking).prepare([asked]).collated["pixel_values"])
    assert torch.equal(*pixels)


def test_adapters_are_asked_with_their_own_budget_and_prompt(
    marked_adapters: Marked, question_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of 120 x 80 pixels, one token per 32 x 32: 8 tokens in full, 2 within 64 x 32."""
    marked, seen = marked_adapters("qwen3vl"), {}
    budgets = {"detection": (64 * 32, "Be brief."), "regression": (768 * 768, "")}
    for name, (pixels, system) in budgets.items():
        stated = a_card(
            model=msgspec.structs.replace(a_card().model, name_or_path=str(marked / "base")),
            vision=Vision(pixels, 16, False, 1024, 65536, None),
            prompt=Prompt("qwen3_vl_nothink", system, None, "{question}", 4096),
            training=msgspec.structs.replace(a_card().training, dtype="float32"),
        )
        folder = tmp_path / "adapters" / name
        folder.mkdir(parents=True)
        for file in (marked / "adapters" / name).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        write_run_card(stated, folder)
    encode = InProcess.encode_turns

    def spy(self: InProcess, turns: Any, images: Any, system: Any, budget: Any) -> Any:
        encoded = encode(self, turns, images, system, budget)
        text = self.tokenizer.decode(encoded.tokens)
        seen[turns[0]["content"]] = text.count("<|image_pad|>"), "Be brief." in text
        return encoded

    monkeypatch.setattr(InProcess, "encode_turns", spy)
    image = str(question_tree / "validation-public/Xray/mixed/imagesVal/p3-0.png")
    questions = [{"TaskType": task, "ImageName": image.rsplit("/", 1)[-1], "Question": task, "Answer": ""}
                 for task in budgets]  # fmt: skip
    (Path(image).parent / "q.json").write_text(json.dumps(questions))
    out = tmp_path / "p.jsonl"
    command = ["--data", str(Path(image).parent / "q.json"), "--adapters", str(tmp_path / "adapters")]
    assert main(["predict", *command, "--oracle-task", "--out", str(out)]) == 0
    del seen["<image>\n?"]  # with which adapters are tried
    assert seen == {"<image>\ndetection": (2, True), "<image>\nregression": (8, False)}


@families
def test_a_batch_gives_the_answers_of_single_questions(
    family: str, tiny_checkpoint: Marked, tiny_dataset: Path
) -> None:
    """Left padding, several images and image positions: a long greedy answer shows the smallest mistake."""
    setup, asking = loaded(tiny_checkpoint(family))
    records = json.loads((tiny_dataset / "tiny_train.json").read_text())
    asked = [as_asked(setup, record) for record in records]
    long = replace(asked[0].profile, generation=replace(asked[0].generation, max_new_tokens=24))
    asked = [replace(item, profile=long) for item in asked]
    backend_spec = Batches(asking)
    singles = [reply for one in backend_spec.answers([[item] for item in asked]) for _, reply in one]
    (together,) = backend_spec.answers([asked])
    assert [reply for _, reply in together] == singles
    assert len({reply.text for reply in singles}) > 1


@pytest.mark.parametrize("precision", [["--quantization", "4"], ["--dtype", "bfloat16"]], ids=" ".join)
def test_a_model_of_fewer_bits_answers(
    precision: list[str], question_tree: Path, tmp_path: Path, marked_adapters: Marked
) -> None:
    """Also with layers that have no whole blocks of bitsandbytes, as the vision tower of Qwen3-VL-8B."""
    marked = marked_adapters("internvl3")
    options = ["--profiles", str(short_profiles(tmp_path)), *precision, "--limit", "4"]
    _, rows = predict(tmp_path / "p.jsonl", question_tree, marked, *options)
    assert [(row.prediction, row.error) for row in rows] == [(letter, None) for letter in "ABCD"]


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_a_bad_sample_is_recorded_and_asked_again(
    marked_adapters: Marked, question_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = question_tree / "validation-public/Xray/mixed"
    questions = json.loads((folder / "mixed_questions_val.json").read_text())
    good = (folder / "imagesVal" / "p0-0.png").read_bytes()
    (folder / "imagesVal" / "p0-0.png").unlink()
    (folder / "imagesVal" / "p2-0.png").write_bytes(good[:60])
    questions[3]["Question"] += " <image>"
    (folder / "mixed_questions_val.json").write_text(json.dumps(questions))
    options = ["--profiles", str(short_profiles(tmp_path)), "--challenge", str(tmp_path / "predictions.json")]
    out = tmp_path / "p.jsonl"
    code, rows = predict(out, question_tree, marked_adapters("internvl3"), *options)
    assert code == 4
    assert [row.prediction for row in rows] == ["", "B", "", "", "E", "F", "G", "H"]
    assert [bool(row.error) for row in rows] == [True, False, True, True, False, False, False, False]
    assert "3 questions have no answer" in capsys.readouterr().err
    for row, name, why in ((rows[0], "p0-0.png", "No such file"), (rows[2], "p2-0.png", "cannot be decoded")):
        assert row.error is not None and name in row.error and why in row.error
    assert [item["Answer"] for item in json.loads((tmp_path / "predictions.json").read_text())][:2] == ["", "B"]
    before = out.read_bytes().splitlines()
    for name in ("p0-0.png", "p2-0.png"):
        (folder / "imagesVal" / name).write_bytes(good)
    questions[3]["Question"] = questions[3]["Question"].removesuffix(" <image>")
    (folder / "mixed_questions_val.json").write_text(json.dumps(questions))
    code, rows = predict(out, question_tree, marked_adapters("internvl3"), *options)
    assert code == 0
    assert "".join(row.prediction for row in rows) == "ABCDEFGH"
    assert out.read_bytes().splitlines()[4:] == before[4:], "what was answered is not asked again"


def test_a_batch_without_memory_is_halved(
    tiny_checkpoint: Marked, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, asking = loaded(tiny_checkpoint("internvl3"))
    asked = [as_asked(setup, record) for record in json.loads((tiny_dataset / "tiny_train.json").read_text())]
    sizes: list[int] = []

    def generate(batch: dict[str, torch.Tensor], *_: Any) -> list[list[int]]:
        sizes.append(len(batch["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [[65]] * sizes[-1]

    monkeypatch.setattr(asking, "generate", generate)
    replies = list(Batches(asking).answers([asked[:4], asked[4:]]))
    assert [[item.question.id for item, _ in batch] for batch in replies] == [
        [item.question.id for item in part] for part in (asked[:4], asked[4:])
    ]
    assert all(reply.error is None for batch in replies for _, reply in batch)
    assert sizes == [4, 2, 2, 2, 2], "the second batch is not tried whole"


def test_a_question_that_breaks_its_batch_fails_alone(
    tiny_checkpoint: Marked, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, asking = loaded(tiny_checkpoint("internvl3"))
    asked = [as_asked(setup, record) for record in json.loads((tiny_dataset / "tiny_train.json").read_text())[:3]]
    poison = Batches(asking).encode(asked[1]).tokens[-12:]

    def generate(batch: dict[str, torch.Tensor], *_: Any) -> list[list[int]]:
        if any(row.tolist()[-12:] == poison for row in batch["input_ids"]):
            raise torch.OutOfMemoryError("never fits") if len(batch["input_ids"]) == 1 else ValueError("bad batch")
        return [[65]] * len(batch["input_ids"])

    monkeypatch.setattr(asking, "generate", generate)
    (replies,) = Batches(asking).answers([asked])
    assert {item.question.id: reply.error for item, reply in replies} == {
        asked[0].question.id: None,
        asked[1].question.id: "OutOfMemoryError: never fits",
        asked[2].question.id: None,
    }


def test_many_bad_images_do_not_stop_a_run(marked_adapters: Marked, question_tree: Path, tmp_path: Path) -> None:
    folder = question_tree / "validation-public/Xray/mixed"
    rows = json.loads((folder / "mixed_questions_val.json").read_text())
    missing = [rows[0] | {"ImageName": "imagesVal/gone.png"}] * 40
    (folder / "mixed_questions_val.json").write_text(json.dumps([*missing, rows[1]]))
    profiles = ["--profiles", str(short_profiles(tmp_path))]
    code, written = predict(tmp_path / "p.jsonl", question_tree, marked_adapters("internvl3"), *profiles)
    assert code == 4
    assert [row.prediction for row in written] == [""] * 40 + ["B"]


def test_when_the_model_fails_every_question_the_run_stops(
    marked_adapters: Marked, question_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = question_tree / "validation-public/Xray/mixed"
    rows = json.loads((folder / "mixed_questions_val.json").read_text()) * 12
    (folder / "mixed_questions_val.json").write_text(json.dumps(rows))
    monkeypatch.setattr(Batches, "_generate", lambda *_: (_ for _ in ()).throw(RuntimeError("no kernel")))
    code, written = predict(tmp_path / "p.jsonl", question_tree, marked_adapters("internvl3"))
    assert code == 4
    assert 32 <= len(written) < len(rows)
    assert all("no kernel" in (row.error or "") for row in written)


# --- Going on ---------------------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_goes_on_with_the_same_batches(
    marked_adapters: Marked, question_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked, options = marked_adapters("internvl3"), ["--profiles", str(short_profiles(tmp_path)), "--no-router"]
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    batches: list[list[str]] = []
    answers = Batches.answers

    def spy(self: Batches, planned: Sequence[Sequence[Request]]) -> Any:
        batches.extend([item.question.id for item in batch] for batch in planned)
        return answers(self, planned)

    monkeypatch.setattr(Batches, "answers", spy)
    predict(whole, question_tree, marked, *options, "--batch-size", "3")
    planned = batches.copy()
    kept = [line for line in whole.read_bytes().splitlines(keepends=True) if json.loads(line)["id"] in planned[1][:2]]
    part.write_bytes(b"".join(kept) + whole.read_bytes()[:40])
    batches.clear()
    predict(part, question_tree, marked, *options, "--batch-size", "3")
    assert batches == planned, "the batch that was half done is asked whole, with its neighbours"
    assert part.read_bytes() == whole.read_bytes()
    batches.clear()
    assert predict(part, question_tree, marked, *options)[0] == 0
    assert batches == [], "nothing to ask, nothing loaded"


def test_a_model_that_cannot_be_loaded_is_said(
    question_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "internvl"}))
    out = tmp_path / "p.jsonl"
    assert main(["predict", "--data", str(question_tree), "--model", str(tmp_path / "base"), "--out", str(out)]) == 2
    assert "cannot be loaded" in capsys.readouterr().err


def test_predictions_of_another_prompt_are_not_mixed_in(
    marked_adapters: Marked, question_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marked, out = marked_adapters("internvl3"), tmp_path / "p.jsonl"
    profiles = ["--profiles", str(short_profiles(tmp_path))]
    predict(out, question_tree, marked, *profiles)
    before = out.read_bytes()
    short_profiles(tmp_path, counting={"instruction": "Answer with a number."})
    code, _ = predict(out, question_tree, marked, *profiles)
    assert code == 2
    assert out.read_bytes() == before
    assert "1 predictions were made with another prompt" in capsys.readouterr().err
    code, rows = predict(out, question_tree, marked, *profiles, "--redo")
    assert code == 0
    assert [line for line in out.read_bytes().splitlines() if line not in before.splitlines()] == [
        msgspec.json.encode(rows[4])
    ]


# --- The whole way ----------------------------------------------------------------------------------------------------


def test_from_a_tree_to_scores_under_both_rules(shared_data: Path, marked_adapters: Marked, tmp_path: Path) -> None:
    tree, options = shared_data / "bccd_flare", ["--splits", "val", "--limit", "60", "--batch-size", "20"]
    challenge = tmp_path / "predictions.json"
    options += ["--challenge", str(challenge), "--profiles", str(short_profiles(tmp_path))]
    code, rows = predict(tmp_path / "p.jsonl", tree, marked_adapters("internvl3"), *options)
    assert code == 0
    assert {row.task for row in rows} == {*map(str, Task)} - {"report_generation", "vqa"}
    assert all(row.prediction == LETTERS[row.task] for row in rows)
    for file in (tmp_path / "p.jsonl", challenge):
        scored = ["--references", str(tree), "--splits", "val", "--rules", "strict,official", "--bootstrap", "0"]
        out = tmp_path / file.stem
        code = evaluate([str(file), *scored, "--out", str(out), "--force"])
        assert code == 0
        metrics = json.loads((out / "metrics.json").read_text())
        assert metrics["counts"]["matched"] == 60
        assert metrics["provenance"]["frame"] == ("norm1000" if file.suffix == ".jsonl" else "pixel")
        assert "official" in metrics["other_rules"]
