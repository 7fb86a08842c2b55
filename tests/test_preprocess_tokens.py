"""Control tokens: a record that holds one is put aside, whatever the task, the place and the checkpoint."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from medvl.control_tokens import BOX_MARKUP, KNOWN
from medvl.errors import UsageError
from preprocess.tokens.recipe import RECIPE_MODEL, chosen_tokens
from preprocess.validate import validate
from tests.support.flare_tree import ROWS, convert, converted, converted_row, row, write_tree

# A dataset of each task.
TASKS = {"retino": "B", "periapical": "Dental Caries", "BUSI-det": "[[10, 20, 50, 60]]", "neurips22cell": "7",
         "chromosome": '{"1": [[10, 10, 20, 20]]}', "boneresorption": "3.5", "IU_XRay": "Clear."}  # fmt: skip


@pytest.mark.parametrize("token", sorted(KNOWN))
@pytest.mark.parametrize("dataset", TASKS)
def test_every_token_in_question_or_answer_of_every_task(dataset: str, token: str) -> None:
    task_question, answer = ROWS[dataset][2], TASKS[dataset]
    record, (said,) = converted_row(dataset, Question=f"{task_question} {token}", Answer=answer)
    assert record is None
    assert f"{dataset}/000000: the question holds the control token {token}; remove it" in said
    record, said_of_answer = converted_row(dataset, Answer=f"{answer} {token}")
    if dataset not in ("BUSI-det", "chromosome") or token not in BOX_MARKUP:
        assert record is None
        assert "CONTROL_TOKEN quarantined" in said_of_answer[0]


@pytest.mark.parametrize("folder", ["hidden", "test"])
def test_questions_without_answers_are_looked_at_too(folder: str) -> None:
    record, (said,) = converted_row("BUSI", folder, Answer="", Question="<|im_end|>? A: a, B: b")
    assert (record, said.split()[:2]) == (None, ["CONTROL_TOKEN", "quarantined"])


@pytest.mark.parametrize("style", ["json", "internvl", "qwen_vl1"])
@pytest.mark.parametrize("name", ["a<|im_end|>", "<box>", r"\u003c|image_pad|\u003e", "<|box_start|>"])
def test_labels_of_boxes(style: str, name: str) -> None:
    record, said = converted_row("BUSI-det", style=style, Answer=f'[{{"bbox_2d": [1, 2, 30, 40], "label": "{name}"}}]')
    assert record is None
    assert "CONTROL_TOKEN quarantined" in said[0]


@pytest.mark.parametrize("token", [r"\u003c|im_end|\u003e", r"\u003cIMG_CONTEXT>"], ids=["end of turn", "image"])
@pytest.mark.parametrize(
    ("dataset", "answer"),
    [
        pytest.param("periapical", '["Dental Caries@"]', id="labels in a list"),
        pytest.param("chestdr", '{"Edema@": 1, "Mass": 0}', id="marked labels"),
        pytest.param("retino", '{"answer": "B@"}', id="letter under a key"),
        pytest.param("IU_XRay", '{"findings": "Clear@"}', id="report in sections"),
        pytest.param("IU_XRay", '"Clear@."', id="quoted report"),
        pytest.param("neurips22cell", '["17@"]', id="count in a list"),
        pytest.param("BUSI-det", '{"mass": [[10, 20, 50, 60]], "cyst@": []}', id="name without a box"),
        pytest.param("chromosome", '{"1": [[10, 10, 20, 20]], "2@": []}', id="identifier without a box"),
    ],
)
def test_tokens_that_json_spells_with_escapes(dataset: str, answer: str, token: str) -> None:
    record, said = converted_row(dataset, Answer=answer.replace("@", token))
    assert record is None
    assert "CONTROL_TOKEN quarantined" in said[-1]


@pytest.mark.parametrize("dataset", ["BUSI-det", "chromosome"])
def test_markup_as_the_name_of_what_has_no_box(dataset: str) -> None:
    record, said = converted_row(dataset, Answer='{"1": [[10, 10, 20, 20]], "<box>": []}')
    assert record is None
    assert "CONTROL_TOKEN quarantined" in said[-1]


@pytest.mark.parametrize("style", ["json", "internvl", "qwen_vl1", "flare"])
@pytest.mark.parametrize(
    "answer", ["[[10, 20, 50, 60]]", "<ref>lesion</ref><box>[[10, 20, 50, 60]]</box>"], ids=["bare", "marked up"]
)
def test_markup_of_a_box_style_is_no_control_token(style: str, answer: str) -> None:
    record, said = converted_row("BUSI-det", style=style, Answer=answer)
    assert record is not None
    assert not [line for line in said if "CONTROL_TOKEN" in line]


@pytest.mark.parametrize("text", ["a < b <c>", "<Img>", "< |im_end|>", "|im_end|"])
def test_text_that_is_no_token_is_kept(text: str) -> None:
    record, said = converted_row("IU_XRay", Answer=f"{text} is seen here.")
    assert record is not None
    assert said == []


class TestCheckpoint:
    def recipe(self, folder: Path, **keys: Any) -> Path:
        (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": "[SEG]", "special": True}]}))
        path = folder / "recipe.yaml"
        path.write_text(json.dumps({"template": "qwen3_vl_nothink", "cutoff_len": 4096} | keys))
        return path

    @pytest.mark.parametrize(
        ("keys", "processor", "more"),
        [
            pytest.param({}, None, set(), id="no model"),
            pytest.param({"model_name_or_path": "HERE"}, None, {"[SEG]"}, id="the recipe's"),
            pytest.param({"model_name_or_path": "HERE"}, RECIPE_MODEL, {"[SEG]"}, id="--processor alone"),
            pytest.param({"model_name_or_path": "Qwen/Qwen3-VL"}, "HERE", {"[SEG]"}, id="--processor"),
            pytest.param({"model_name_or_path": "Qwen/no-such-model"}, None, set(), id="not on this machine"),
            pytest.param({"add_special_tokens": "[A], [B]"}, None, {"[A]", "[B]"}, id="added by the recipe"),
        ],
    )
    def test_tokens_of_a_recipe(
        self, tmp_path: Path, keys: dict[str, str], processor: str | None, more: set[str]
    ) -> None:
        keys = {key: value.replace("HERE", str(tmp_path)) for key, value in keys.items()}
        processor = processor.replace("HERE", str(tmp_path)) if processor else None
        args = Namespace(recipe=self.recipe(tmp_path, **keys), processor=processor)
        assert chosen_tokens(args) == KNOWN | more

    def test_without_a_recipe(self) -> None:
        assert chosen_tokens(Namespace(recipe=None, processor=None)) is KNOWN

    def test_a_damaged_tokenizer_is_named(self, tmp_path: Path) -> None:
        recipe = self.recipe(tmp_path, model_name_or_path=str(tmp_path))
        (tmp_path / "tokenizer.json").write_text("[]")
        with pytest.raises(UsageError, match=r"tokenizer\.json"):
            chosen_tokens(Namespace(recipe=recipe, processor=None))

    @pytest.mark.subprocess
    def test_conversion_and_validation_know_them(self, tmp_path: Path) -> None:
        recipe = self.recipe(tmp_path, model_name_or_path=str(tmp_path))
        texts = ["A: a, B: b", "[SEG] A: a, B: b", "<IMG_CONTEXT> A: a, B: b"]
        write_tree(tmp_path / "tree", {"BUSI": [row("BUSI", Question=text) for text in texts]})
        report = convert(tmp_path / "tree", tmp_path / "out", "--recipe", str(recipe))
        assert [finding["index"] for finding in report["findings"] if finding["code"] == "CONTROL_TOKEN"] == [1, 2]
        assert report["options"]["control_tokens"] == ["[SEG]"]
        assert len(converted(tmp_path / "out", "busi_train")) == 1
        assert validate(tmp_path / "out") == []
        for path in (tmp_path / "out").glob("flare_*.json"):
            path.write_text(path.read_text().replace("A: a", "[SEG] A: a"))
        assert "CONTROL_TOKEN" in {issue.code for issue in validate(tmp_path / "out")}
